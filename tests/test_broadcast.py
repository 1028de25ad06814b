"""Operands that broadcast are read where they lie (runtime/broadcast.py): values, gradients, nothing written out."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import trident.functional as T
from tests.test_laws import DEVICE, close, double, run
from trident.runtime import broadcast

F = torch.nn.functional


class Copies(TorchDispatchMode):
    """Counts what torch copies."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name() in ("aten::copy_", "aten::clone"):
            self.elements += args[0].numel()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    "shape, of, by, N, period",
    (
        ((8, 20, 640), (640,), "column", 640, None),
        ((8, 20, 32), (20, 32), "column", 640, None),
        ((8, 20, 32), (8, 1, 1), "row", 640, 8),
        ((8, 20, 64), (8, 20, 1), "row", 64, 160),
        ((8, 20, 64), (20, 1), "row", 64, 20),
        ((8, 20, 32), (20, 1), "each", None, None),  # rows of too few
        ((8, 20, 32), (), "one", None, None),
        ((8, 20, 32), (1, 1, 1), "one", None, None),
        ((8, 20, 32), (8, 20, 32), "each", None, None),
        ((8, 20, 32), (8, 1, 32), "each", None, None),  # in no way that a row and a column tell
        ((7, 3), (3,), "each", None, None),
    ),
    ids=str,
)
def test_ways(shape, of, by, N, period):
    x, o = torch.randn(shape), torch.randn(of)
    seen = broadcast.elements(x.shape, x.stride(), (x, o))
    assert seen.by == ("each", by) and (seen.N, seen.period) == (N, period)
    assert seen.operands[0] is not None and seen.operands[0].data_ptr() == x.data_ptr()
    assert seen.operands[1].numel() == (o.numel() if by != "each" else x.numel())


def test_short_rows_that_read_the_same_are_seen_as_long_ones():
    x, o = torch.randn(25000, 12), torch.randn(12)
    seen = broadcast.elements(x.shape, x.stride(), (x, o, o[None], torch.randn(25000, 1)))
    assert seen.by == ("each", "column", "column", "each") and seen.N == 1500
    assert seen.operands[1] is not None and torch.equal(seen.operands[1], o.repeat(125))
    y, t = x.sigmoid().to(DEVICE), torch.rand(25000, 12, device=DEVICE)
    torch.testing.assert_close(T.binary_cross_entropy(y, t, o.to(DEVICE)), F.binary_cross_entropy(y, t, o.to(DEVICE)))


def test_ways_in_the_order_of_memory():
    """A weight for each channel is one of columns where channels lie together."""
    x = torch.randn(2, 512, 5, 7).contiguous(memory_format=torch.channels_last)
    seen = broadcast.elements(x.shape, x.stride(), (x, torch.randn(512, 1, 1), torch.randn(2, 1, 1, 1)))
    assert seen.by == ("each", "column", "each") and seen.N == 512  # beside it, rows of 512 * 35 do not fit


def test_the_first_is_written_out_where_all_broadcast():
    x = torch.randn(64).expand(20, 64)
    seen = broadcast.elements(x.shape, (64, 1), (x, x))
    assert seen.by == ("each", "column") and seen.operands[0].stride() == (64, 1)


WAYS = ((72,), (40, 1), (1, 1), (40, 72), (3, 1, 1), (3, 40, 1), (1, 72), (3, 1, 72))


@pytest.mark.once
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16), ids=str)
@pytest.mark.parametrize("reduction", ("none", "mean"))
@pytest.mark.parametrize("way", WAYS, ids=str)
@pytest.mark.filterwarnings("ignore")  # kl_div: of "mean"
def test_expanded_operands_and_their_gradients(way, reduction, dtype):
    """An input, target or variance that was expanded has the gradient of the sum."""
    torch.manual_seed(0)
    a, b = torch.randn(3, 40, 72), torch.rand(way)
    inputs = [t.to(DEVICE, dtype).requires_grad_() for t in (a, b)]
    calls = (
        lambda L, x, o: L.mse_loss(x, o.expand(x.shape), reduction=reduction),
        lambda L, x, o: L.kl_div(x, (o + 0.5).expand(x.shape), reduction=reduction),
        lambda L, x, o: L.binary_cross_entropy_with_logits(x, o.expand(x.shape), reduction=reduction),
        lambda L, x, o: L.binary_cross_entropy_with_logits(o.expand(x.shape), x, reduction=reduction),
        lambda L, x, o: L.gaussian_nll_loss(x, x * 2, (o + 0.5).expand(x.shape), reduction=reduction),
    )
    for call in calls:
        actual = run(
            lambda x, o, call=call: call(T, x, o), inputs, dy := torch.ones(a.shape if reduction == "none" else ())
        )
        exact = run(lambda x, o, call=call: call(F, x, o), double(inputs), dy.double())
        close(actual, exact, dtype, 8 * a.numel() ** 2)


def test_a_gradient_that_broadcasts():
    """Of a sum: one number, expanded."""
    x, t = torch.randn(64, 48, device=DEVICE, requires_grad=True), torch.randn(64, 48, device=DEVICE)
    y = T.mse_loss(x, t, reduction="none")
    with Copies() as copies:
        (dx,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(dx, 2 * (x - t).detach())
    assert copies.elements == 0


def test_nothing_is_written_out():
    x, t = (torch.rand(64, 600, device=DEVICE) for _ in range(2))
    w, row = torch.rand(600, device=DEVICE), torch.rand(64, 1, device=DEVICE)
    with Copies() as copies, torch.no_grad():
        T.binary_cross_entropy(x, t, w)
        T.binary_cross_entropy_with_logits(x, t, row, pos_weight=w)
        T.gaussian_nll_loss(x, t, row)
        T.poisson_nll_loss(x, w.expand(64, 600), full=True)
        T.pairwise_distance(x, w)
    assert copies.elements == 0


@pytest.mark.parametrize("name", ("mse_loss", "kl_div", "huber_loss"))
def test_the_target_alone_may_be_differentiated(name):
    x, t = torch.randn(5, 7, device=DEVICE), torch.rand(5, 7, device=DEVICE, requires_grad=True)
    ours, theirs = (run(lambda t, L=L: getattr(L, name)(x, t, reduction="sum"), [t]) for L in (T, F))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("reduction", ("none", "mean"))
def test_negative_variances_raise_whatever_is_asked_for(reduction):
    x = torch.randn(40, 48, device=DEVICE)
    var = torch.ones(40, 1, device=DEVICE)
    var[-1] = -1e-3
    with pytest.raises(ValueError, match="negative"):
        T.gaussian_nll_loss(x, x, var, reduction=reduction)
    x[0] = torch.nan  # that is no error
    ours, theirs = (L.gaussian_nll_loss(x, x, var.abs(), reduction=reduction) for L in (T, F))
    torch.testing.assert_close(ours, theirs, equal_nan=True)


@pytest.mark.parametrize("shape", ((300, 40), (300, 5000), (1000, 7), (2, 40000)), ids=str)
def test_gradient_of_a_vector_that_every_row_is_compared_with(shape):
    x1, x2 = torch.randn(shape, device=DEVICE, requires_grad=True), torch.randn(shape[1], device=DEVICE)
    for inputs in ([x1, x2.requires_grad_()], [x2, x1]):
        for f in ("pairwise_distance", "cosine_similarity"):
            more = {} if f[0] == "p" else {"dim": -1}
            actual = run(lambda a, b, f=f, more=more: getattr(T, f)(a, b, **more), inputs)
            dy = torch.ones_like(actual[0]).double()
            actual = run(lambda a, b, f=f, more=more: getattr(T, f)(a, b, **more), inputs, dy)
            exact = run(lambda a, b, f=f, more=more: getattr(F, f)(a, b, **more), double(inputs), dy)
            close(actual, exact, torch.float32, shape[0] * shape[1])
