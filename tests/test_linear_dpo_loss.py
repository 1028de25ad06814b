"""What the laws of tests/test_laws.py do not say of linear_dpo_loss."""

import pytest
import torch
import torch.nn.functional as F

import trident.functional as T
from trident.ops import _linear_dpo_loss
from trident.ops._linear_dpo_loss import VARIANTS, Numbers
from trident.runtime import route

NUMBERS = Numbers(0.7, 0.1, 0.4)


def made(B=2, L=5, K=8, V=40, dtype=torch.float32):
    torch.manual_seed(0)
    target = torch.randint(V, (2 * B, L))
    target[:, 0] = -100
    x, w = torch.randn(2 * B, L, K, dtype=dtype), torch.randn(V, K, dtype=dtype) / K**0.5
    return x.requires_grad_(), w.requires_grad_(), target


@pytest.mark.parametrize("kind", VARIANTS)
def test_slopes_are_those_of_the_formula(kind):
    """Far from 0 too, where exp and log lose everything that is not written as here."""
    c = -torch.tensor([1e-6, 0.01, 0.6931, 0.7, 3.0, 40.0, 300.0], dtype=torch.float64).requires_grad_()
    r = c.detach().flip(0).requires_grad_()
    y = VARIANTS[kind].f(c, r, NUMBERS)
    assert y.isfinite().all()
    for slope, exact in zip(VARIANTS[kind].slopes(c, r, NUMBERS), torch.autograd.grad(y.sum(), (c, r)), strict=True):
        torch.testing.assert_close(slope, exact)


@pytest.mark.parametrize("kind", VARIANTS)
def test_long_pairs_and_many_pairs_are_the_same(kind, monkeypatch):
    """Logits of several pairs at a time, of one, or of a part of one, which are then computed twice."""
    results = []
    for each in (1, 3, 64):
        plan = _linear_dpo_loss.tuning_tables.TRACED._replace(meta={"EACH": each})
        monkeypatch.setattr(_linear_dpo_loss.tuning_tables, "token_chunks", lambda *_, plan=plan: plan)
        x, w, target = made(B=3, dtype=torch.float64)
        loss = T.linear_dpo_loss(x, w, target, loss_type=kind)
        results.append([loss.detach(), *torch.autograd.grad(loss, (x, w))])
    for other in results[1:]:
        torch.testing.assert_close(other, results[0])


def test_log_probabilities_are_the_references():
    x, w, target = made()
    loss, logps = T.linear_dpo_loss(x, w, target, return_logps=True)
    tokens = -F.cross_entropy((x @ w.T).flatten(0, 1), target.flatten(), reduction="none").view(4, 5)
    torch.testing.assert_close(logps, tokens.sum(1))
    assert not logps.requires_grad and loss.requires_grad
    same = T.linear_dpo_loss(x, w, target, logps)  # a policy that is its reference
    torch.testing.assert_close(same, torch.tensor(2.0).log())
    each, again = T.linear_dpo_loss(x, w, target, logps, reduction="none", return_logps=True)
    assert each.shape == (2,)
    torch.testing.assert_close(again, logps)


def test_no_logits_of_all_pairs(monkeypatch):
    """None of V columns by the tokens of all pairs."""
    largest = 0
    multiply = _linear_dpo_loss.multiply

    def watched(y, a, b, bias=None, add=False):
        nonlocal largest
        largest = max(largest, a.shape[0] if b.shape[1] == 5000 else 0)
        multiply(y, a, b, bias, add)

    monkeypatch.setattr(_linear_dpo_loss, "multiply", watched)
    x, w, target = made(B=8, L=128, V=5000)
    T.linear_dpo_loss(x, w, target).backward()
    assert 0 < largest <= 1024 < 8 * 2 * 128


def test_in_bfloat16_sums_are_of_float32():
    x, w, target = made(B=1, L=400, dtype=torch.bfloat16)
    exact, logps = T.linear_dpo_loss(x.double(), w.double(), target, loss_type="ipo", return_logps=True)
    with route.forced("kernels"):
        loss, found = T.linear_dpo_loss(x, w, target, loss_type="ipo", return_logps=True)
    assert loss.dtype == torch.bfloat16 and found.dtype == torch.float32
    torch.testing.assert_close(found.double(), logps, rtol=2e-3, atol=0)
    torch.testing.assert_close(loss.double(), exact, rtol=2**-7, atol=0)


@pytest.mark.parametrize(
    "bad",
    [
        {"loss_type": "dpo"},
        {"reduction": "batchmean"},
        {"beta": 0.0},
        {"label_smoothing": 0.5},
        {"label_smoothing": 0.1, "loss_type": "ipo"},
        {"reference_logps": torch.zeros(3)},
        {"reference_logps": torch.zeros(4), "loss_type": "simpo"},
    ],
    ids=str,
)
def test_errors_name_what_is_wrong(bad):
    x, w, target = made()
    with pytest.raises(ValueError, match=f"linear_dpo_loss: {next(iter(bad))}|has no reference|expected 0 <="):
        T.linear_dpo_loss(x, w, target, **bad)
    with pytest.raises(ValueError, match="chosen sequences first"):
        T.linear_dpo_loss(x[:3], w, target[:3])
    with pytest.raises(IndexError):
        T.linear_dpo_loss(x, w, target + 40)
