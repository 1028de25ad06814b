"""`optimize(model, lazy_logits=...)`: cross entropy takes the factors, everybody else gets the product."""

import copy
import pickle
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trident
from trident.optimize.logits import Logits

pytestmark = pytest.mark.once

V, K = 37, 16
LAZY = sys.modules[Logits.__module__]


def never(logits):
    raise AssertionError("somebody read the logits")


class Model(nn.Module):
    def __init__(self, bias=True):
        super().__init__()
        self.tokens, self.body, self.head = nn.Embedding(V, K), nn.Linear(K, K), nn.Linear(K, V, bias=bias)

    def forward(self, tokens):
        return self.head(self.body(self.tokens(tokens)).tanh())


# as programs write it: logits [B, L, V], targets [B, L] -> the loss
LOSSES = {
    "view": lambda z, t: F.cross_entropy(z.view(-1, z.size(-1)), t.view(-1)),
    "float": lambda z, t: F.cross_entropy(z.float().reshape(-1, V), t.flatten(), ignore_index=3),
    "shifted": lambda z, t: F.cross_entropy(z[..., :-1, :].contiguous().view(-1, V), t[..., 1:].reshape(-1)),
    "sliced": lambda z, t: F.cross_entropy(z[:, 1:].flatten(0, 1).to(torch.float32), t[:, 1:].flatten()),
    "module": lambda z, t: nn.CrossEntropyLoss(label_smoothing=0.1, reduction="sum")(z.flatten(0, 1), t.flatten()),
    "none": lambda z, t: F.cross_entropy(z.view(-1, V), t.view(-1), reduction="none").square().mean(),
}


def both(dtype=torch.float32, **options):
    torch.manual_seed(0)
    model = Model(**options).to(dtype)
    tokens = torch.randint(V, (3, 9))
    return model, trident.optimize(copy.deepcopy(model), lazy_logits="head"), tokens


def run(model, tokens, loss, dtype=None):
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        z = model(tokens)
        y = loss(z, tokens)
    y.backward()
    return y.detach(), z, [p.grad for p in model.parameters()]


def far(ours, exact):
    ours, exact = (torch.cat([t.double().flatten() for t in ts]) for ts in (ours, exact))
    return ((ours - exact).norm() / exact.norm()).item()


@pytest.mark.parametrize("how", ["float32", "bfloat16", "autocast"])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_never_sees_the_product(name, how, monkeypatch):
    dtype = torch.bfloat16 if how == "bfloat16" else torch.float32
    cast = torch.bfloat16 if how == "autocast" else None
    plain, lazy, tokens = both(dtype, bias=name != "shifted")
    with monkeypatch.context() as patch:
        patch.setattr(LAZY, "computed", never)
        patch.setattr(LAZY, "_values", never)
        loss, logits, gradients = run(lazy, tokens, LOSSES[name], cast)
    assert type(logits) is Logits
    theirs, _, others = run(plain, tokens, LOSSES[name], cast)
    exact, _, references = run(copy.deepcopy(plain).double(), tokens, LOSSES[name])
    assert loss.dtype == theirs.dtype
    bound = 2 * torch.finfo(cast or dtype).eps
    assert abs(loss - exact) <= 2 * abs(theirs - exact) + bound * exact
    assert far(gradients, references) <= 2 * far(others, references) + bound


def log_probability(z):
    return torch.log_softmax(z, -1).exp().square().sum()


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z):
        return z * 2

    @staticmethod
    def backward(ctx, dz):
        return dz * 2


READERS = {
    "operator": lambda z: (z * z).sum(),
    "function": log_probability,
    "soft cap": lambda z: F.cross_entropy((torch.tanh(z / 3) * 3)[:, -1], torch.zeros(3, dtype=torch.int64)),
    "probabilities": lambda z: F.cross_entropy(z.view(-1, V), torch.full((27, V), 1 / V)),
    "a token": lambda z: z[:, -1].square().sum(),
    "a class": lambda z: z[..., :, 3].square().sum() + z[:, :, 2:4].sum(),
    "cat": lambda z: torch.cat([z, z]).square().sum(),
    "autograd's function": lambda z: Doubled.apply(z).square().sum(),
    "half and back": lambda z: z.to(torch.float64).square().sum(),
}


@pytest.mark.parametrize("name", READERS)
def test_who_reads_it_gets_the_product_and_its_gradient(name):
    plain, lazy, tokens = both()
    expected, _, gradients = run(plain, tokens, lambda z, _: READERS[name](z))
    loss, _, others = run(lazy, tokens, lambda z, _: READERS[name](z))
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(others, gradients)


def test_it_is_a_tensor_like_the_product():
    plain, lazy, tokens = both()
    z, y = plain(tokens), lazy(tokens)
    assert isinstance(y, torch.Tensor) and (y.shape, y.dtype, y.device) == (z.shape, z.dtype, z.device)
    assert y.requires_grad and y.dim() == y.ndim == 3 and len(y) == 3 and y.size(-1) == V and y.numel() == z.numel()
    assert y.product is None
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(y.cpu().numpy()), z)
    assert y.argmax(-1).tolist() == y.product.argmax(-1).tolist() and torch.equal(y.max(), y.product.max())
    assert repr(y) == repr(y.product) and y.product.requires_grad, "computed once, with its gradient"
    with pytest.raises(RuntimeError, match="deepcopy"):
        copy.deepcopy(y)  # as of any tensor that is no leaf
    assert torch.equal(pickle.loads(pickle.dumps(y.detach())), y.product)


def test_too_late_is_an_error_and_no_wrong_number():
    _, lazy, tokens = both()
    optimizer = torch.optim.AdamW(lazy.parameters(), lr=0.1)
    loss, early = LOSSES["view"], lazy(tokens)
    loss(early, tokens).backward()
    read = early.argmax(-1)
    late = lazy(tokens)
    optimizer.step()
    assert torch.equal(early.argmax(-1), read), "what was read before stays"
    with pytest.raises(RuntimeError, match="lazy_logits"):
        late.argmax(-1)


def test_only_where_gradients_are_asked_for_and_nothing_is_traced():
    plain, lazy, tokens = both()
    with torch.no_grad():
        assert type(lazy(tokens)) is torch.Tensor
    compiled = torch.compile(lazy, backend="eager", fullgraph=True)(tokens)
    assert type(compiled) is torch.Tensor
    torch.testing.assert_close(compiled, plain(tokens))


def test_kept_by_copies_and_undone_by_restore():
    _, lazy, tokens = both()
    for twin in (copy.deepcopy(lazy), pickle.loads(pickle.dumps(lazy)), trident.optimize(lazy, lazy_logits="head")):
        assert type(twin(tokens)) is Logits
    trident.restore(lazy)
    assert type(lazy.head) is nn.Linear and type(lazy(tokens)) is torch.Tensor


def test_what_cannot_be_a_head():
    with pytest.raises(ValueError, match="lazy_logits='its name'"):
        trident.optimize(Model(), lazy_logits=True)
    with pytest.raises(TypeError, match="Embedding"):
        trident.optimize(Model(), lazy_logits="tokens")
