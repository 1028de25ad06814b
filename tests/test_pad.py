"""What the laws do not ask of pad: borders as wide as torch allows, crops of everything, special fill values."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

import trident.functional as T
from tests.test_laws import DEVICE, gradients, same

pytestmark = pytest.mark.once


def agree(x: torch.Tensor, *arguments) -> None:
    """Value and gradient are torch's, to the last bit: gradients are small integers, whose sums are exact."""
    x = x.to(DEVICE).requires_grad_()
    ours, theirs = T.pad(x, *arguments), F.pad(x, *arguments)
    same(ours, theirs)
    assert ours.stride() == theirs.stride()
    dy = torch.arange(1.0, ours.numel() + 1, device=DEVICE).view(ours.shape)
    same(gradients(ours, [x], [dy]), gradients(theirs, [x], [dy]))


@pytest.mark.parametrize("mode, most", (("reflect", 3), ("circular", 4), ("replicate", 9)))
def test_every_border(mode, most):
    for left, right in itertools.product(range(most + 1), repeat=2):
        agree(torch.randn(2, 4), (left, right), mode)


@pytest.mark.parametrize("mode", ("reflect", "circular", "replicate"))
def test_one_border_too_wide(mode):
    wide = {"reflect": 4, "circular": 5, "replicate": 0}[mode]
    x = torch.randn(2, 4, device=DEVICE) if wide else torch.randn(2, 0, device=DEVICE)
    for function in (F.pad, T.pad):
        with pytest.raises(RuntimeError):
            function(x, (wide or 1, 0), mode)


@pytest.mark.parametrize("mode", ("reflect", "replicate", "circular"))
def test_negative_borders(mode):
    for pad in ((-1, 0, 0, 0), (0, -2, 1, 0), (-1, 2, 0, -1)):
        agree(torch.randn(2, 3, 5, 6), pad, mode)


@pytest.mark.parametrize("value", (0.0, -0.0, math.inf, -math.inf, math.nan, 3e38, 1e-45))
def test_fill(value):
    agree(torch.randn(2, 3, 4), (1, 2, 0, 1, 2, 0), "constant", value)


def test_crops_to_nothing_and_back():
    agree(torch.randn(3, 4), (-4, 0))
    agree(torch.randn(3, 4), (-2, -2, 1, 1))
    agree(torch.randn(3, 4), (-4, 3), "constant", 2.0)
    agree(torch.randn(3, 0), (2, 1), "constant", 2.0)


def test_single_elements():
    agree(torch.randn(1, 1, 1, 1), (3, 2, 1, 4), "replicate")
    agree(torch.randn(1, 1, 1, 1), (1, 1, 1, 1), "circular")
    agree(torch.randn(()).view(1), (3, 4), "constant", 1.0)


def test_special_numbers_pass_through():
    x = torch.tensor([[math.nan, math.inf, -math.inf, -0.0, 1e-45]])
    for mode in ("constant", "reflect", "replicate", "circular"):
        agree(x, (2, 3), mode)
