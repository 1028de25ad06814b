"""rms_norm: bias, p and residual; what eps is when none is given; the memory format, which layer_norm does not keep."""

import pytest
import torch
import torch.nn.functional as F

import trident
import trident.functional as T
from tests.test_laws import DEVICE, close, run


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16, torch.float64), ids=str)
@pytest.mark.parametrize("eps", (None, 0.0, 1e-6, 1e-2))
def test_eps_as_torch(dtype, eps):
    """Small data, where eps decides the result."""
    torch.manual_seed(0)
    x = (1e-3 * torch.randn(5, 33, device=DEVICE)).to(dtype).requires_grad_()
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    exact = x.detach().double().requires_grad_()
    actual = run(lambda x: T.rms_norm(x, (33,), None, eps), [x])
    dy = torch.randn_like(actual[0])
    actual = run(lambda x: T.rms_norm(x, (33,), None, eps), [x], [dy])
    reference = torch.finfo(compute).eps if eps is None else eps
    close(actual, run(lambda x: F.rms_norm(x, (33,), None, reference), [exact], [dy]), dtype, 33)
    torch.testing.assert_close(actual[0], F.rms_norm(x, (33,), None, eps))


def test_zero_rows_as_torch():
    x = torch.zeros(3, 5, device=DEVICE, requires_grad=True)
    close(run(lambda x: T.rms_norm(x, (5,)), [x]), run(lambda x: F.rms_norm(x, (5,)), [x]), torch.float32, 5)


@pytest.mark.parametrize("dims", (4, 5))
def test_channels_last_stays(dims):
    x = torch.randn(2, 3, 4, 5, 6)[(..., *[0] * (5 - dims))].to(DEVICE)
    x = x.contiguous(memory_format=torch.channels_last if dims == 4 else torch.channels_last_3d)
    y, expected = T.rms_norm(x, x.shape[-1:]), F.rms_norm(x, x.shape[-1:])
    assert y.stride() == expected.stride()
    torch.testing.assert_close(y, expected)


def test_layer_with_bias_part_and_residual():
    torch.manual_seed(0)
    layer = trident.nn.RMSNorm(8, 1e-3, p=0.5, bias=True).to(DEVICE)
    assert list(layer.state_dict()) == ["weight", "bias"] and "p=0.5, bias=True" in repr(layer)
    with torch.no_grad():
        layer.weight.normal_(), layer.bias.normal_()
    x, r = torch.randn(2, 3, 8, device=DEVICE)
    s = x + r
    rms = (s[:, :4].square().mean(-1, keepdim=True) + 1e-3).sqrt()
    for y in (
        layer(x, r),
        T.rms_norm(x, (8,), layer.weight, 1e-3, bias=layer.bias, p=0.5, residual=r.T.contiguous().T),
    ):
        torch.testing.assert_close(y, (s / rms * layer.weight + layer.bias, s))
    layer.reset_parameters()
    assert not layer.bias.any() and type(trident.restore(layer)) is trident.nn.RMSNorm
    assert type(trident.restore(trident.nn.RMSNorm(8))) is torch.nn.RMSNorm
    with pytest.raises(ValueError, match="p is 0"):
        trident.nn.RMSNorm(8, p=0)
    with pytest.raises(ValueError, match=r"p is 1\.5"):
        T.rms_norm(x, (8,), p=1.5)


@pytest.mark.parametrize("used", ((True, False), (False, True)))
def test_one_of_two_results_used(used):
    """The gradient of the sum, or of the norm, alone."""
    torch.manual_seed(0)
    x, r = torch.randn(2, 3, 8, device=DEVICE).unbind()
    x, r, w = x.requires_grad_(), r.requires_grad_(), torch.randn(8, device=DEVICE, requires_grad=True)
    dy = torch.randn(3, 8, device=DEVICE)
    ours, theirs = T.rms_norm(x, (8,), w, residual=r), (F.rms_norm(x + r, (8,), w), x + r)
    pick = used.index(True)
    actual, expected = (
        torch.autograd.grad(results[pick], (x, r, w), dy, allow_unused=True) for results in (ours, theirs)
    )
    torch.testing.assert_close(actual, expected)
