"""What is peculiar to masked_softmax: how masks are shared by rows, and what is wrong with them."""

import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE, close
from trident.ops import _masked_softmax

SHAPE = (2, 3, 4, 5)
MASKS = {
    (): (24, 1),  # mask's shape -> repeat, period
    (1,): (24, 1),
    (5,): (24, 1),
    (1, 1, 1, 1): (24, 1),
    (4, 5): (1, 4),
    (3, 1, 5): (4, 3),
    (3, 4, 1): (1, 12),
    (2, 1, 1, 5): (12, 2),
    (2, 3, 1, 5): (4, 6),
    (2, 1, 4, 5): (1, 24),  # a gap: written out
    SHAPE: (1, 24),
}


@pytest.mark.parametrize("shape", MASKS, ids=str)
@pytest.mark.parametrize("dim", (-1, 1))
def test_masks_that_rows_share(shape, dim):
    torch.manual_seed(0)
    x, mask = torch.randn(SHAPE, dtype=torch.float64, device=DEVICE), torch.rand(shape, device=DEVICE) < 0.6
    close(
        [T.masked_softmax(x, mask, dim)],
        [torch._safe_softmax(x.masked_fill(~mask, -torch.inf), dim)],
        torch.float64,
    )
    if dim == -1:
        assert _masked_softmax._shared_rows(mask, x, 1)[1:] == MASKS[shape]


@pytest.mark.parametrize("kept", (False, True))
def test_all_or_nothing(kept):
    x = torch.randn(3, 7, device=DEVICE, requires_grad=True)
    y = T.masked_softmax(x, torch.full((1,), kept, device=DEVICE))
    (dx,) = torch.autograd.grad(y.square().sum(), x)
    torch.testing.assert_close(y, x.softmax(-1) if kept else torch.zeros_like(x))
    assert kept or not dx.any()


def test_errors():
    x = torch.randn(3, 4)
    with pytest.raises(TypeError, match=r"float32.*torch\.bool"):
        T.masked_softmax(x, x)
    for shape in ((3,), (2, 3, 4), (2, 4)):
        with pytest.raises(ValueError, match=r"broadcast to input \[3, 4\]"):
            T.masked_softmax(x, torch.ones(shape, dtype=torch.bool))
    with pytest.raises(IndexError):
        T.masked_softmax(x, x > 0, 2)
