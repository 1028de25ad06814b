"""rms_norm: what eps is when none is given, and the memory format, which layer_norm does not keep."""

import pytest
import torch
import torch.nn.functional as F

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
