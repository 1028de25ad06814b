"""affine_grid's gradient: rows longer and shorter than a tile, many and few of them, expanded gradients, threads."""

import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE, close, same

F = torch.nn.functional
SIZES = ((3, 5), (1, 7), (40, 33), (5, 1500), (3, 4, 5), (33, 20, 9))


def gradient(fn, theta, size, aligned, dy):
    return torch.autograd.grad(fn(theta, (theta.shape[0], 1, *size), aligned), theta, dy)


@pytest.mark.parametrize("aligned", (True, False))
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_gradient(size, aligned):
    if aligned and min(size) == 1:
        size = (2, *size[1:])  # torch warns of one element: that call is its own
    torch.manual_seed(0)
    theta = torch.randn(3, len(size), len(size) + 1, device=DEVICE, requires_grad=True)
    dy = torch.randn(3, *size, len(size), device=DEVICE)
    for given in (dy, dy[:1, ..., :1].expand_as(dy)):
        expected = gradient(F.affine_grid, theta.detach().double().requires_grad_(), size, aligned, given.double())
        close(gradient(T.affine_grid, theta, size, aligned, given), expected, torch.float32, dy.numel())


@pytest.mark.skipif(DEVICE != "cpu", reason="of CPUs' threads")
def test_gradient_does_not_depend_on_threads():
    theta, dy = torch.randn(1, 2, 3, requires_grad=True), torch.randn(1, 200, 300, 2)
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(gradient(T.affine_grid, theta, (200, 300), False, dy))
    torch.set_num_threads(before)
    same(found[1:], found[:-1])
