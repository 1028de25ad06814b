"""What is peculiar to jsd_loss: certain and impossible events, near and far distributions, its errors."""

import math

import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE

pytestmark = pytest.mark.once


def test_probabilities_of_zero_and_one():
    """0 log 0 is 0: one side certain costs -log of its share; nothing is NaN, in the gradients neither."""
    x = torch.tensor([[0.0, -math.inf], [-math.inf, -math.inf]], device=DEVICE, requires_grad=True)
    t = torch.tensor([[-math.inf, -math.inf], [0.0, -math.inf]], device=DEVICE, requires_grad=True)
    y = T.jsd_loss(x, t, 0.25, "none")
    expected = torch.tensor([[-0.75 * math.log(0.75), 0.0], [-0.25 * math.log(0.25), 0.0]], device=DEVICE)
    torch.testing.assert_close(y, expected)
    for found in torch.autograd.grad(y.sum(), (x, t)):
        assert found.isfinite().all()


def test_near_distributions_are_told_apart():
    """By the second order of their difference, where log m itself is rounded."""
    t = torch.full((1,), -3.0, device=DEVICE)
    x = t + 2.0**-10
    wide_x, wide_t = x.double(), t.double()
    m = torch.logaddexp(wide_x, wide_t) - math.log(2)
    exact = (wide_t.exp() * (wide_t - m) + wide_x.exp() * (wide_x - m)) / 2
    torch.testing.assert_close(T.jsd_loss(x, t, 0.5, "sum").double(), exact.sum(), rtol=1e-3, atol=0)


def test_far_distributions_do_not_overflow():
    x, t = torch.tensor([-300.0, -0.1], device=DEVICE), torch.tensor([-0.1, -2000.0], device=DEVICE)
    y = T.jsd_loss(x, t, 0.5, "none")
    torch.testing.assert_close(y, 0.5 * math.log(2) * torch.tensor([-0.1, -0.1], device=DEVICE).exp())


def test_errors_name_what_is_wrong():
    x = torch.randn(2, 3, device=DEVICE)
    with pytest.raises(ValueError, match=r"beta is 1\.5"):
        T.jsd_loss(x, x, 1.5)
    with pytest.raises(ValueError, match="reduction is 'no'"):
        T.jsd_loss(x, x, reduction="no")
    with pytest.raises(ValueError, match=r"target \[2\]"):
        T.jsd_loss(x, x[:, 0])
