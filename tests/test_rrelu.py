"""What is peculiar to rrelu: the distribution of the slopes, and that the backward draws the same ones."""

import math

import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE, same


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64), ids=str)
def test_slopes_are_uniform(dtype):
    n, bins = 65537, 16
    torch.manual_seed(0)
    slopes = T.rrelu(-torch.ones(n, dtype=dtype, device=DEVICE), 0.25, 0.75, True).neg()
    assert slopes.min() >= 0.25 and slopes.max() < 0.75
    counts = torch.histc(slopes.cpu().float(), bins, 0.25, 0.75).double()
    assert ((counts - n / bins) ** 2 / (n / bins)).sum() < 60  # 16 cells; chance of more: 2e-7


def test_positive_inputs_pass():
    x = torch.tensor([0.0, -0.0, 1.5, math.inf, math.nan], device=DEVICE, requires_grad=True)
    y = T.rrelu(x, 0.5, 0.75, True)
    (dx,) = torch.autograd.grad(y.sum(), x)
    same(y.detach(), x.detach())
    assert (dx[:2] < 0.75).all()
    assert dx[2:].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("layout", ("contiguous", "channels_last", "expanded gradient"))
def test_backward_draws_the_slopes_of_the_forward(layout):
    x = torch.randn(4, 6, 5, 7, device=DEVICE)
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    x.requires_grad_()
    y = T.rrelu(x, 0.1, 0.9, True)
    dy = torch.ones((), device=DEVICE).expand(y.shape) if layout == "expanded gradient" else torch.rand(y.shape)
    (dx,) = torch.autograd.grad(y, x, dy.to(DEVICE), retain_graph=True)
    torch.testing.assert_close(dx, dy * (y / x).detach())
    dy = dy.clone().requires_grad_()
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    torch.testing.assert_close(torch.autograd.grad(dx.sum(), dy)[0], (y / x).detach())


def test_reproducible():
    x = torch.randn(1000, device=DEVICE)
    torch.manual_seed(0)
    first, second = T.rrelu(x, training=True), T.rrelu(x, training=True)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    same(T.rrelu(x, training=True), first)
