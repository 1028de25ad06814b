"""Atomic exchange, compare-and-swap, maximum and minimum: every element type, NaN, signs."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import launch

N = 50


@triton.jit
def exchange_kernel(x, new, old, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(old + at, tl.atomic_xchg(x + at, tl.load(new + at, at < n), at < n), at < n)


# What Triton's own front end lets pass: 16 bits for compare-and-swap only.
EXCHANGED = [torch.float32, torch.float64, torch.int32, torch.int64]
SWAPPED = [*EXCHANGED, torch.float16, torch.bfloat16, torch.int16]


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.view(getattr(torch, f"int{8 * x.itemsize}"))


@pytest.mark.parametrize("dtype", EXCHANGED, ids=str)
def test_exchange(dtype: torch.dtype) -> None:
    x, new, old = (torch.randint(-100, 100, (N,)).to(dtype) for _ in range(3))
    if dtype.is_floating_point:
        new[:3] = torch.tensor([float("nan"), float("inf"), -0.0], dtype=dtype)
    before = x.clone()
    launch(exchange_kernel, (1,), x, new, old, N, BLOCK=64)
    assert torch.equal(bits(x), bits(new))
    assert torch.equal(old, before)


@triton.jit
def swap_kernel(x, expected, new, old, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(old + at, tl.atomic_cas(x + at, tl.load(expected + at), tl.load(new + at)))


@pytest.mark.parametrize("dtype", SWAPPED, ids=str)
def test_compare_and_swap(dtype: torch.dtype) -> None:
    """Compares bits, so NaN swaps for the same NaN and -0 is not 0."""
    x, new, old = (torch.randint(-100, 100, (64,)).to(dtype) for _ in range(3))
    expected = torch.where(torch.arange(64) % 3 == 0, x + 1, x)
    if dtype.is_floating_point:
        x[:4] = torch.tensor([float("nan"), 0.0, -0.0, float("inf")], dtype=dtype)
        expected[:4] = torch.tensor([float("nan"), -0.0, -0.0, float("inf")], dtype=dtype)
    before = x.clone()
    launch(swap_kernel, (1,), x, expected, new, old, BLOCK=64)
    assert torch.equal(bits(old), bits(before))
    want = torch.where(bits(before) == bits(expected), bits(new), bits(before))
    assert torch.equal(bits(x), want)


@triton.jit
def extreme_kernel(x, y, old, n, MAX: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b_x = tl.load(x + at, at < n)
    b_old = tl.atomic_max(y + at % 7, b_x, at < n) if MAX else tl.atomic_min(y + at % 7, b_x, at < n)
    tl.store(old + at, b_old, at < n)


@pytest.mark.parametrize("dtype", [torch.uint32, torch.uint64, torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("largest", [True, False])
def test_extremes_of_integers(largest: bool, dtype: torch.dtype) -> None:
    """Unsigned ones compare unsigned: values from both halves of the range."""
    info = torch.iinfo(dtype)
    values = [(i * 0x9E3779B97F4A7C15) % (info.max - info.min) + info.min for i in range(1, 4 * N)]
    x = torch.tensor(values, dtype=dtype)
    y = torch.full((7,), info.max // 2, dtype=dtype)
    launch(extreme_kernel, (4,), x, y, torch.empty_like(x), len(values), MAX=largest, BLOCK=64)
    pick = max if largest else min
    assert y.tolist() == [pick([info.max // 2, *values[i::7]]) for i in range(7)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("special", [[], [float("inf")], [-float("inf")], [0.0, -0.0], [float("nan")]], ids=str)
def test_extremes_of_floats(special: list[float], largest: bool, dtype: torch.dtype) -> None:
    """Triton compares the bits as sign and magnitude: a NaN is the largest of all, a negative NaN the smallest."""
    x = torch.cat([torch.randn(4 * N, dtype=dtype), torch.tensor(special, dtype=dtype)])
    start = torch.linspace(-3, 3, 7, dtype=dtype)
    y, old = start.clone(), torch.empty_like(x)
    launch(extreme_kernel, (4,), x, y, old, len(x), MAX=largest, BLOCK=64)

    def rank(value: torch.Tensor) -> torch.Tensor:
        b = bits(value)
        return torch.where(b < 0, -(b & torch.iinfo(b.dtype).max) - 1, b)

    for i in range(7):
        group = torch.cat([start[i : i + 1], x[i::7]])
        at = rank(group).argmax() if largest else rank(group).argmin()
        assert bits(y)[i] == bits(group)[at]


def test_old_values_of_an_extreme() -> None:
    x, y, old = torch.tensor([3.0, -1.0, 5.0]), torch.zeros(7), torch.empty(3)
    launch(extreme_kernel, (1,), x, y, old, 3, MAX=True, BLOCK=64)
    assert y.tolist() == [3.0, 0.0, 5.0, 0.0, 0.0, 0.0, 0.0]
    assert old[[0, 2]].tolist() == [0.0, 0.0]
