"""What is peculiar to adaptive average pooling: every ratio, and the plans of a GPU run on this machine."""

import math

import pytest
import torch

from tests.test_laws import DEVICE, close, double, gradients_of, run
from trident import functional as T
from trident.ops import _adaptive_avg_pool as pool
from trident.runtime import tuning, tuning_windows

GPU = torch.device("cuda")


@pytest.fixture
def gpu_plans(monkeypatch):
    plan = tuning_windows.windows.__wrapped__
    monkeypatch.setattr(tuning, "multiprocessors", lambda device: 132)
    monkeypatch.setattr(tuning_windows, "windows", lambda *args: plan(*args[:-1], GPU))
    monkeypatch.setattr(pool, "_geometry", pool._geometry.__wrapped__)  # nothing of this in its cache
    monkeypatch.setattr(pool._adaptive_rows, "plan", lambda *args: pool._adaptive_rows.ELSEWHERE)


def check(x, size):
    name = f"adaptive_avg_pool{len(size)}d"
    x = x.to(DEVICE).requires_grad_()
    actual = run(lambda x: getattr(T, name)(x, size), [x])
    exact = run(lambda x: getattr(torch.nn.functional, name)(x, size), double([x]), gradients_of(actual[0]))
    close(actual, exact, x.dtype, math.prod(x.shape[-len(size) :]))


@pytest.mark.parametrize("L", (1, 2, 5, 12, 35))
def test_every_ratio(L):
    torch.manual_seed(0)
    for out in range(1, 15):
        check(torch.randn(3, L), (out,))


def test_longest_and_uniform_windows():
    """The closed forms in `_geometry` against the windows themselves."""
    for L in range(1, 40):
        for out in range(1, 40):
            lengths = {-(-(i + 1) * L // out) - i * L // out for i in range(out)}
            meta = pool._geometry(L, 1, 1, 1, 1, 1, L, out, False, torch.device("cpu")).meta
            assert meta["KW"] == max(lengths)
            assert meta["UNIFORM"] == (len(lengths) == 1)


@pytest.mark.once
@pytest.mark.parametrize("last", (False, True), ids=("contiguous", "channels_last"))
@pytest.mark.parametrize(
    "shape, size",
    (
        ((2, 20, 9, 9), (3, 3)),
        ((1, 3, 40, 50), (7, 4)),
        ((1, 1, 512, 512), (1, 1)),
        ((1, 1, 256, 300), (2, 2)),
        ((1, 2, 128, 65), (3, 1)),
        ((1, 300, 3, 7), (1, 5)),
        ((1, 3, 120, 120), (1, 1)),
        ((1, 2, 3, 2), (60, 70)),
    ),
    ids=str,
)
def test_gpu_plans(gpu_plans, shape, size, last):
    """The blocks and slices of a GPU, whatever runs them."""
    torch.manual_seed(0)
    x = torch.randn(shape)
    check(x.contiguous(memory_format=torch.channels_last) if last else x, size)


def test_one_plane_fills_a_gpu(gpu_plans):
    for out in (1, 2, 3, 7, 16, 100, 256):
        plan = pool._geometry(512 * 512, 1, 1, 1, 512, out, 512, out, True, GPU)
        assert math.prod(plan.grid) >= 66, f"{out} x {out}: {plan.grid} programs"


def test_wide_planes_are_addressed_in_64_bits():
    plan = pool._geometry(2**33, 1, 1, 1, 2**16, 3, 2**17, 7, True, torch.device("cpu"))
    assert plan.meta["WIDE"]
    assert not pool._geometry(2**30, 1, 1, 1, 2**15, 3, 2**15, 7, True, torch.device("cpu")).meta["WIDE"]


def test_wide_kernel(monkeypatch):
    monkeypatch.setattr(pool, "WIDEST", 0)
    monkeypatch.setattr(pool, "_geometry", pool._geometry.__wrapped__)
    monkeypatch.setattr(pool._adaptive_rows, "plan", lambda *args: pool._adaptive_rows.ELSEWHERE)
    torch.manual_seed(0)
    for size in ((4, 3), (12, 1), (5, 11)):
        check(torch.randn(2, 3, 10, 11), size)


def test_rows_of_every_ratio():
    """Even windows, windows that share elements, and more outputs than there are elements, down and across."""
    torch.manual_seed(0)
    for size in ((1, 35), (2, 34), (3, 18), (4, 12), (5, 7), (8, 5), (9, 4), (9, 1), (12, 40)):
        check(torch.randn(3, 9, 35), size)
    for size in ((1, 1), (2, 8), (4, 32)):
        check(torch.randn(3, 8, 32), size)


def test_programs_that_end_within_a_plane():
    """Rows of dx that two rows of windows share are written once, by the program of the first."""
    torch.manual_seed(0)
    x = torch.randn(1, 5, 130, 130)
    for size in ((7, 9), (100, 129), (13, 65)):
        plan = pool._adaptive_rows.plan(False, x.numel(), 1, 1, 130, size[0], 130, size[1], x.device)
        assert plan.grid[0] > 1 and plan.meta["ROWS"] % size[0]
        check(x, size)
