"""`torch.compile(backend="trident")`: which patterns are found, that results and gradients stay, what must be left."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.backends.common import aot_autograd

import trident
from trident.backend import backend, replace

pytestmark = pytest.mark.once

eager = functools.partial(backend, inner=aot_autograd(fw_compiler=lambda graph, inputs: graph.forward))


@pytest.fixture(autouse=True)
def clean():
    torch._dynamo.reset()
    trident.compile_report()
    yield
    torch._dynamo.reset()


def same_as_eager(function, *inputs, compiler=eager, tolerance=1e-5):
    """The compiled function's results and gradients are those of the function; returns the report."""
    found = []
    for f in (function, torch.compile(function, backend=compiler, fullgraph=True)):
        torch.manual_seed(0)
        leaves = [t.clone().requires_grad_(t.is_floating_point() and torch.is_grad_enabled()) for t in inputs]
        y = f(*leaves)
        gradients = []
        if torch.is_grad_enabled():
            parameters = list(function.parameters()) if isinstance(function, nn.Module) else []
            wanted = [t for t in (*leaves, *parameters) if t.requires_grad]
            gradients = torch.autograd.grad(y.square().sum(), wanted)
        found.append([y, *gradients])
    for ours, theirs in zip(*found[::-1], strict=True):
        assert (ours - theirs).abs().amax() <= tolerance * (1 + theirs.abs().amax())
    return trident.compile_report()


X, R = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(1)), torch.linspace(-2, 2, 160).view(2, 5, 16)
W, B = torch.linspace(0.5, 1.5, 16), torch.linspace(-1, 1, 16)
Q, K, V = (torch.randn(2, 2, n, 8, generator=torch.Generator().manual_seed(n)) for n in (5, 7, 7))


def llama_norm(x, w):
    h = x.to(torch.float32)
    h = h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6)
    return w * h.to(x.dtype)


def by_hand(q, k, v):
    scores = q @ k.transpose(-2, -1) / math.sqrt(8)
    return scores.softmax(-1) @ v


def masked(q, k, v, mask):
    scores = torch.matmul(q, k.transpose(2, 3)) * 0.3
    weights = F.dropout(F.softmax(scores + mask, dim=-1), p=0.1, training=False)
    return torch.matmul(weights, v)


def residual(x, r, w, b):
    s = x + r
    return F.layer_norm(s, (16,), w, b) * 2 + s


COS, SIN = (f(torch.linspace(0, 3, 2 * 5 * 8).view(2, 5, 8)) for f in (torch.cos, torch.sin))
CLASSES = torch.tensor([3, 0, 15, -100, 7])


def turned(x, cos, sin):
    first, second = x[..., :4], x[..., 4:]
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def turned_in_chunks(x, cos, sin):
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], -1) * sin + cos * x


def loss_of(h, w, b):
    logits = F.linear(h.view(-1, 16), w, b)
    return F.cross_entropy(logits.float().view(-1, 16), CLASSES, ignore_index=-100)


FOUND = {
    "rotary embedding": (lambda q: turned(q, COS.unsqueeze(1), SIN.unsqueeze(1)), Q),
    "rotary embedding (chunks, heads last)": (
        lambda q: turned_in_chunks(q, COS[:1].unsqueeze(2), SIN[:1].unsqueeze(2)),
        Q.transpose(1, 2),
    ),
    "rotary embedding (a table for all)": (lambda q: turned(q, COS[0], SIN[0]), Q),
    "softmax + cross entropy": (lambda x: F.nll_loss(F.log_softmax(x, -1), CLASSES, ignore_index=-100), X[0]),
    "softmax + cross entropy (logarithm)": (
        lambda x: F.nll_loss(torch.log(x.softmax(1)), CLASSES, weight=W, reduction="sum"),
        X[0],
    ),
    "softmax + cross entropy (planes)": (
        lambda x: F.nll_loss(x.log_softmax(dim=1), CLASSES.clamp(0, 4).expand(2, 5)[:, :4]),
        X[..., :4],
    ),
    "linear + cross entropy": (loss_of, X[:1], torch.randn(16, 16, generator=torch.Generator().manual_seed(2)), B),
    "residual + norm": (residual, X, R, W, B),
    "rms norm by hand": (llama_norm, X, W),
    "linear + activation": (lambda x, w, b: F.gelu(F.linear(x, w, b), approximate="tanh"), X, R[0, :4], B[:4]),
    "norm + activation": (lambda x, w, b: F.silu(F.group_norm(x, 2, w, b)), X.view(2, 16, 5), W, B),
    "gated unit": (lambda x, gate: x * F.silu(gate), X, R),
    "attention": (by_hand, Q, K, V),
    "attention (masked)": (masked, Q, K, V, torch.randn(2, 1, 5, 7)),
}


@pytest.mark.parametrize("pattern", FOUND)
def test_a_pattern_is_found_and_results_stay(pattern):
    assert same_as_eager(*FOUND[pattern]) == f"graph 0: 1 x {pattern.split(' (')[0]}"


def written_between(x, gate):
    g = F.relu(gate)
    gate = gate.mul_(0.5)  # a gated unit would read the new gate
    return x * g + gate


def autocast_in_between(x, w, b):
    with torch.autocast("cpu", torch.bfloat16):
        y = F.linear(x, w, b)
    return F.gelu(y).float()


LEFT = {
    "a write in between": (lambda x, gate: written_between(x, gate * 1), X, R),
    "read by others": (lambda x, w, b: F.gelu(h := F.linear(x, w, b)) + h, X, R[0, :4], B[:4]),
    "other shapes": (lambda x, gate: x * F.silu(gate), X, R[:, :1]),
    "rows of another axis": (lambda q, k, v: (q @ k.transpose(-2, -1)).softmax(-2) @ v, Q, K, V),
    "a scaled sum": (lambda x, r: F.layer_norm(torch.add(x, r, alpha=2), (16,)), X, R),
    "halves in another order": (lambda q: q * COS[0] + torch.cat((q[..., 4:], -q[..., :4]), -1) * SIN[0], Q),
    "a third turned": (lambda q: q * COS[0] + torch.cat((-q[..., 6:], q[..., :6]), -1) * SIN[0], Q),
    "tables of each head": (lambda q: turned(q, COS[:, None].expand(2, 2, 5, 8), SIN[:, None].expand(2, 2, 5, 8)), Q),
    "softmax over rows": (lambda x: F.nll_loss(F.log_softmax(x, 0), CLASSES), X[0]),
    "logits that others read": (
        lambda h, w: F.cross_entropy(z := F.linear(h, w), CLASSES) + z,
        X[0],
        R[0, :1].expand(16, 16),
    ),
    "autocast in between": (autocast_in_between, X, R[0, :4], B[:4]),
    "another mean": (lambda x, w: w * (x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)), X, W),
}


@pytest.mark.parametrize("reason", LEFT)
def test_what_is_no_pattern_is_left(reason):
    assert same_as_eager(*LEFT[reason]) == "graph 0: no pattern"


class Convolutions(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.last = nn.Conv2d(8, 4, 1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm(self.last(self.layers(x)))


def test_convolutions_and_batch_norms_are_folded_for_inference_alone():
    torch.manual_seed(0)
    model = Convolutions()
    x = torch.randn(4, 3, 8, 8)
    model(x)  # moves the running statistics
    training = same_as_eager(model.eval(), x, tolerance=1e-4)
    assert training == "graph 0: 1 x norm + activation"
    torch._dynamo.reset()
    with torch.no_grad():
        assert same_as_eager(model, x, tolerance=1e-4) == "graph 0: 2 x convolution + batch norm"


def test_a_step_of_training_through_inductor():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 32), nn.Linear(32, 16)

        def forward(self, x, r):
            s = x + r
            return s + self.down(F.gelu(self.up(self.norm(s))))

    torch.manual_seed(0)
    report = same_as_eager(Block(), X, R, compiler=backend)
    assert report == "graph 0: 1 x linear + activation, 1 x residual + norm"


def test_found_by_its_name():
    torch._dynamo.register_backend(backend, name="trident") if "trident" not in torch._dynamo.list_backends() else None
    y = torch.compile(lambda x, gate: x * F.silu(gate), backend="trident", dynamic=False)(X, R)
    torch.testing.assert_close(y, X * F.silu(R))
    assert trident.compile_report() == "graph 0: 1 x gated unit"
    assert trident.compile_report() == "no graph was compiled by backend='trident'"


def test_writes_are_kept():
    def f(x, r):
        x.add_(1)  # nobody reads what it returns
        return x * F.silu(r)

    graphs = []
    torch.compile(f, backend=lambda graph, inputs: graphs.append(graph) or graph.forward, fullgraph=True)(X.clone(), R)
    assert replace(graphs[0]) == {"gated unit": 1}
    x = X.clone()
    (y,) = graphs[0](x, R)
    torch.testing.assert_close([x, y], [X + 1, (X + 1) * F.silu(R)])
