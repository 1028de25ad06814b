"""What is peculiar to distances and to the losses of margins and variances: broadcasting, edges, what goes to torch."""

import math

import pytest
import torch

import trident.functional as T
import trident.nn
from tests.test_laws import DEVICE, Recorder, run

F = torch.nn.functional


def alike(name, *tensors, kernel=True, **options) -> None:
    """Value and gradients are torch's, in float64, and a kernel computes them if `kernel`."""
    inputs = [t.to(DEVICE).double().requires_grad_() if t.is_floating_point() else t.to(DEVICE) for t in tensors]
    with Recorder() as recorder:
        actual = run(lambda *x: getattr(T, name)(*x, **options), inputs)
    assert bool(recorder.calls) == kernel
    expected = run(lambda *x: getattr(F, name)(*x, **options), inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-14, equal_nan=True)


@pytest.mark.parametrize("shapes", (((5, 7), (7,)), ((1, 7), (5, 1)), ((7,), (7,)), ((2, 1, 7), (3, 7))), ids=str)
def test_pairs_broadcast(shapes):
    x1, x2 = (torch.randn(shape) for shape in shapes)
    for p in (0.5, 1.0, 2.0, 3.0, math.inf):
        alike("pairwise_distance", x1, x2, p=p)
    alike("pairwise_distance", x1, x2, keepdim=True)
    alike("cosine_similarity", x1, x2, dim=-1)
    alike("cosine_similarity", x1, x2, dim=0)


def test_vectors_of_length_0_have_no_direction():
    x = torch.randn(4, 3)
    x[1], x[2, 0] = 0, math.nan
    alike("cosine_similarity", x, torch.randn(4, 3))
    alike("cosine_similarity", x, x.flip(0), eps=2.0)
    alike("pairwise_distance", x, x.clone(), eps=0.0)


@pytest.mark.parametrize("shape", ((4, 3), (4, 1), (4,), (1, 3)), ids=str)
def test_variances_of_other_shapes(shape):
    for full in (False, True):
        alike("gaussian_nll_loss", torch.randn(4, 3), torch.randn(4, 3), torch.rand(shape), full=full)


def test_variances_below_eps():
    alike("gaussian_nll_loss", torch.randn(4, 3), torch.randn(4, 3), torch.rand(4, 3) / 10, eps=0.07)


def test_variances_that_torch_judges():
    x = torch.randn(4, 3, device=DEVICE)
    assert torch.equal(T.gaussian_nll_loss(x, -x, 0.5), F.gaussian_nll_loss(x, -x, 0.5))
    with pytest.raises(ValueError, match="negative"):
        T.gaussian_nll_loss(x, x, -torch.ones_like(x))
    with pytest.raises(ValueError, match="incorrect size"):
        T.gaussian_nll_loss(x, x, torch.ones(2, device=DEVICE))


@pytest.mark.parametrize("reduction", ("none", "mean", "sum"))
@pytest.mark.parametrize("margin", (1.0, 1.5))
def test_kinks_and_nan(margin, reduction):
    """Scores exactly at the margin, targets that are neither 1 nor -1, NaN."""
    x = torch.tensor([1.0, 0.5, -1.0, math.nan, 2.0, 1.5])
    t = torch.tensor([-1.0, 1.0, -1.0, 1.0, 0.0, -1.0], device=DEVICE, dtype=torch.float64)
    x1 = x.to(DEVICE).double().requires_grad_()
    ours, theirs = (
        run(lambda x, f=f: f(x, t, margin=margin, reduction=reduction), [x1])
        for f in (T.hinge_embedding_loss, F.hinge_embedding_loss)
    )
    torch.testing.assert_close(ours, theirs, equal_nan=True)
    for signs in ((1, 1, -1, 1, -1, 1), (-1, -1, 1, 1, 0.5, 1)):
        alike("margin_ranking_loss", x, x - 1, torch.tensor(signs).float(), margin=margin, reduction=reduction)


@pytest.mark.parametrize("sign", (1, -1, 0))
def test_cosine_embedding_of_one_pair(sign):
    x1, x2 = (torch.randn(5, device=DEVICE, requires_grad=True) for _ in range(2))
    target = torch.tensor(sign, device=DEVICE)
    ours, theirs = (run(lambda a, b, f=m.cosine_embedding_loss: f(a, b, target), [x1, x2]) for m in (T, F))
    torch.testing.assert_close(ours, theirs)


def apart(x, y):
    return 1 - T.cosine_similarity(x, y)


def test_triplets():
    a, p, n = (torch.randn(6, 5) for _ in range(3))
    for swap in (False, True):
        alike("triplet_margin_loss", a, p, n, swap=swap, p=3.0)
        alike("triplet_margin_with_distance_loss", a, p, n, swap=swap, margin=0.1)
        alike(
            "triplet_margin_with_distance_loss",
            a,
            p,
            n,
            swap=swap,
            distance_function=lambda x, y: 1 - T.cosine_similarity(x, y),
        )
    alike("triplet_margin_with_distance_loss", a, p[:1], n)
    alike("triplet_margin_loss", a, p[:1], n, kernel=False)


@pytest.mark.once
@pytest.mark.parametrize("p", (0.5, 1.0, 2.0, 3.0, math.inf, -math.inf))
@pytest.mark.parametrize("reduction", ("none", "mean", "sum"))
def test_triplets_of_every_order(reduction, p):
    """Triplets that count and that do not, equal distances (half a gradient each), a distance of 0, NaN."""
    a, b, c = (torch.randn(9, 5) for _ in range(3))
    c[1], b[2], a[3, 0] = b[1], a[2], math.nan
    a[4], c[4] = b[4] - 1, b[4] + 1
    for swap in (False, True):
        alike("triplet_margin_loss", a, b, c, swap=swap, p=p, reduction=reduction, eps=0.0 if swap else 1e-6)
    inputs = [t.to(DEVICE).double().requires_grad_() for t in (a[5:], b[5:], c[5:])]
    assert torch.autograd.gradgradcheck(lambda *x: T.triplet_margin_loss(*x, swap=True, margin=9.0), inputs)


def test_differences_that_are_counted_go_to_torch():
    a, b, c = (torch.randn(4, 3, device=DEVICE) for _ in range(3))
    with Recorder() as recorder:
        assert torch.equal(T.triplet_margin_loss(a, b, c, p=0.0), F.triplet_margin_loss(a, b, c, p=0.0))
    assert not recorder.calls


def test_modules_take_their_tensors_by_name():
    x, t = torch.randn(3, 4, device=DEVICE), torch.rand(3, 4, device=DEVICE)
    for cls in ("MSELoss", "BCEWithLogitsLoss", "MultiLabelSoftMarginLoss"):
        ours, theirs = (getattr(nn, cls)()(input=x, target=t) for nn in (trident.nn, torch.nn))
        torch.testing.assert_close(ours, theirs)
    log = trident.nn.PoissonNLLLoss()(log_input=x, target=t)
    torch.testing.assert_close(log, torch.nn.PoissonNLLLoss()(x, t))
