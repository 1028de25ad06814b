"""softmax, log_softmax, softmin: infinities, the dtype argument, the missing dimension."""

import math

import pytest
import torch
import torch.nn.functional as F

import trident.functional as T
from tests.test_laws import DEVICE, close, run
from trident.runtime import tuning

NAMES = ("softmax", "log_softmax", "softmin")
each_name = pytest.mark.parametrize("name", NAMES)


@each_name
@pytest.mark.parametrize("shape, dim", (((6, 9), 1), ((6, 70000), 1), ((9, 6), 0), ((40000, 6), 0)), ids=str)
def test_infinities_as_torch(name, shape, dim):
    """Lines with -inf (masked attention), of nothing but -inf, whole chunks of it, with +inf and with NaN."""
    torch.manual_seed(0)
    x = torch.randn(shape, device=DEVICE).movedim(dim, -1)
    sign = -1 if name == "softmin" else 1
    x[0, ::2] = -math.inf * sign
    x[1] = -math.inf
    x[2, : x.shape[1] // 2] = -math.inf * sign
    x[3, 1] = math.inf
    x[4, 2] = math.nan
    x[5, :] = math.inf
    x = x.movedim(-1, dim).contiguous()
    actual, expected = getattr(T, name)(x, dim), getattr(F, name)(x, dim)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6, equal_nan=True)


@each_name
@pytest.mark.parametrize("given", (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64), ids=str)
@pytest.mark.parametrize("wanted", (torch.bfloat16, torch.float32, torch.float64), ids=str)
def test_dtype(name, given, wanted):
    """The input is converted first; the gradient comes back in the input's dtype."""
    torch.manual_seed(0)
    x = torch.randn(5, 33, 7, device=DEVICE).to(given)
    x = x.requires_grad_() if given.is_floating_point else x
    actual = getattr(T, name)(x, 1, dtype=wanted)
    exact = x.detach().to(wanted).double().requires_grad_()
    expected = getattr(F, name)(exact, 1)
    assert actual.dtype == wanted
    close([actual], [expected], wanted, 33)
    if given.is_floating_point:
        dy = torch.randn_like(actual)
        (dx,) = torch.autograd.grad(actual, x, dy)
        assert dx.dtype == given
        coarser = max(given, wanted, key=lambda dtype: torch.finfo(dtype).eps)
        close([dx], torch.autograd.grad(expected, exact, dy.double()), coarser, 33)


@each_name
def test_no_dimension_warns_as_torch(name):
    x = torch.randn(2, 3, device=DEVICE)
    with pytest.warns(UserWarning, match="Implicit dimension"):
        y = getattr(T, name)(x)
    torch.testing.assert_close(y, getattr(F, name)(x, 1))


@each_name
def test_scalar(name):
    x = torch.tensor(3.0, device=DEVICE, requires_grad=True)
    close(run(lambda x: getattr(T, name)(x, 0), [x]), run(lambda x: getattr(F, name)(x, 0), [x]), torch.float32)


@pytest.mark.parametrize("device", ("cpu", "cuda"))
def test_every_size_is_planned(device):
    """Programs cover all lines; tiles stay within their bounds."""
    sizes = ((1, 1, 1), (3, 7, 2), (1, 2**17, 2**17), (2**20, 3, 2), (5, 262144, 1), (7, 1000, 63), (1, 9, 64))
    for outer, N, inner in sizes:
        plan = tuning.lines(outer, N, inner, torch.device(device), 1)
        meta = plan.meta
        if meta["AXIS"] == 0 and not meta["SPAN"]:
            assert plan.grid[0] == outer * tuning.cdiv(inner, meta["BLOCK_M"])
        else:
            assert plan.grid[0] == tuning.cdiv(outer * inner, meta["BLOCK_M"])
        assert plan.loops == (meta["BLOCK_N"] < N) and meta["BLOCK_M"] * meta["BLOCK_N"] <= tuning.LONGEST_ROW
