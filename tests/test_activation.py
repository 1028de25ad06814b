"""What is peculiar to activations: accuracy relative to the result itself, over the whole range of the input."""

import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE

# no cancellation in these, so each result is good to a few units in its last place, however small it is
RELATIVE = {
    "celu": (0.3,),
    "elu": (0.7,),
    "hardtanh": (),
    "leaky_relu": (),
    "logsigmoid": (),
    "mish": (),
    "selu": (),
    "sigmoid": (),
    "silu": (),
    "softplus": (),
    "softsign": (),
    "tanh": (),
}


@pytest.mark.parametrize("name", RELATIVE)
@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_relative_accuracy(name, dtype):
    magnitudes = torch.logspace(-30, 4, 4001, dtype=torch.float64)
    least = -80 if name in ("logsigmoid", "mish", "sigmoid", "silu", "softplus") else -1e4  # no denormal results
    points = torch.cat([-magnitudes[magnitudes < -least], magnitudes]).to(dtype).to(DEVICE)
    exact = getattr(torch.nn.functional, name)(points.double(), *RELATIVE[name])
    got = getattr(T, name)(points, *RELATIVE[name]).double()
    eps = torch.finfo(dtype).eps
    # rounding x before exp(x) costs |x| eps; 1e-36: what is denormal in float32
    bound = (8 + 2 * points.abs().clamp(max=80).double()) * eps * exact.abs() + 1e-36
    assert ((got - exact).abs() <= bound).all(), ((got - exact).abs() / bound).max()


def test_softplus_is_stable_above_its_threshold():
    """torch overflows to inf where threshold lets exp(x) overflow; the value is x."""
    x = torch.tensor([90.0, 300.0, -300.0], device=DEVICE, requires_grad=True)
    y = T.softplus(x, 1.0, 1000.0)
    (dx,) = torch.autograd.grad(y.sum(), x)
    assert y.tolist() == [90.0, 300.0, 0.0]
    assert dx.tolist() == [1.0, 1.0, 0.0]
