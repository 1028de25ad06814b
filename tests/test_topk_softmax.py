"""What is peculiar to topk_softmax: ties, infinities and NaN, many numbers, its errors."""

import math

import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE, Recorder, same

pytestmark = pytest.mark.once


def test_places_differ_and_the_first_of_equal_numbers_comes_first():
    inf = math.inf
    x = torch.tensor([[1.0, 2.0, 2.0, 1.0, 0.0], [-inf, 0.0, -inf, -inf, -inf]], device=DEVICE)
    w, places = T.topk_softmax(x, 4)
    same(places, torch.tensor([[1, 2, 0, 3], [1, 0, 2, 3]], device=DEVICE))
    same(w[1], torch.tensor([1.0, 0, 0, 0], device=DEVICE))
    torch.testing.assert_close(w[0], x[0].softmax(-1)[places[0]])


def test_nan_and_nothing_allowed():
    """Places are always those of numbers, whatever the numbers are; the weights are NaN, as softmax's."""
    x = torch.full((2, 6), -math.inf, device=DEVICE)
    x[0, 3] = math.nan
    w, places = T.topk_softmax(x, 3, renormalize=True)
    assert w.isnan().all() and places[0, 0] == 3
    assert all(len(set(row)) == 3 and max(row) < 6 for row in places.tolist())


def test_long_rows():
    """A row fills a tile; a longer one goes to torch."""
    for n, kernels in ((4096, True), (4097, False)):
        x = torch.randperm(n, device=DEVICE).float().expand(2, n) / 64
        with Recorder() as recorder:
            w, places = T.topk_softmax(x, 3)
        assert bool(recorder.calls) is kernels
        same(places, x.topk(3).indices)
        torch.testing.assert_close(w, x.softmax(-1).topk(3).values)


@pytest.mark.parametrize("k", (0, 6))
def test_errors_name_k(k):
    with pytest.raises(RuntimeError, match=f"topk_softmax: k is {k}"):
        T.topk_softmax(torch.randn(2, 5, device=DEVICE), k)
