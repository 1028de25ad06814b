"""layer_norm and rms_norm: numbers that test the way the moments are taken."""

import pytest
import torch
import torch.nn.functional as F

import trident.functional as T
from tests.test_laws import DEVICE, close, double, run


@pytest.mark.parametrize("N", (33, 40000))
def test_mean_far_from_zero(N):
    """A mean of thousands of deviations: E[x^2] - E[x]^2 would have no right digit."""
    torch.manual_seed(0)
    x = (3000 + torch.randn(3, N, device=DEVICE)).requires_grad_()
    dy = torch.randn_like(x)
    actual = run(lambda x: T.layer_norm(x, (N,)), [x], [dy])
    # float32 holds x to 1e-4 only, but the kernel is given the same x as the reference: only the mean's rounding counts
    mean_error = torch.finfo(torch.float32).eps * 3000 * 2
    for a, e in zip(actual, run(lambda x: F.layer_norm(x, (N,)), double([x]), [dy]), strict=True):
        assert (a.double() - e).abs().max() < mean_error * e.abs().max()


@pytest.mark.parametrize("first", (0, 1))
def test_row_that_changes_on_the_way(first):
    """A long row whose chunks have means far apart, and constant chunks."""
    torch.manual_seed(0)
    x = torch.randn(2, 65537, device=DEVICE)
    x[:, first * 30000 : first * 30000 + 30000] = 1000.0
    x.requires_grad_()
    dy = torch.randn_like(x)
    close(
        run(lambda x: T.layer_norm(x, (65537,)), [x], [dy]),
        run(lambda x: F.layer_norm(x, (65537,)), double([x]), [dy]),
        torch.float32,
        65537,
    )


@pytest.mark.parametrize("N", (33, 40000))
def test_not_finite_as_torch(N):
    """A NaN or an infinity makes its own row NaN, and no other."""
    x = torch.randn(4, N, device=DEVICE)
    x[1, 3], x[2, N - 1] = torch.nan, torch.inf
    torch.testing.assert_close(T.layer_norm(x, (N,)), F.layer_norm(x, (N,)), equal_nan=True)
    assert T.layer_norm(x, (N,)).isnan().all(1).tolist() == [False, True, True, False]
    torch.testing.assert_close(T.rms_norm(x, (N,)), F.rms_norm(x, (N,)), equal_nan=True)


@pytest.mark.parametrize("wanted", ("w", "b", "x"))
@pytest.mark.parametrize("N", (33, 40000))
def test_one_gradient_only(wanted, N):
    """Frozen parameters: each gradient alone is the one that all together give."""
    torch.manual_seed(0)
    tensors = {"x": torch.randn(5, N), "w": torch.randn(N), "b": torch.randn(N)}
    tensors = {name: t.to(DEVICE).requires_grad_(name == wanted) for name, t in tensors.items()}
    y = T.layer_norm(tensors["x"], (N,), tensors["w"], tensors["b"])
    (alone,) = torch.autograd.grad(y, tensors[wanted], torch.ones_like(y))
    exact = {name: t.detach().double().requires_grad_() for name, t in tensors.items()}
    z = F.layer_norm(exact["x"], (N,), exact["w"], exact["b"])
    close([alone], torch.autograd.grad(z, exact[wanted], torch.ones_like(z)), torch.float32, N)
