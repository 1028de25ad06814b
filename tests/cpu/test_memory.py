"""Addresses and masks of every kind; atomics."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import launch

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int64, torch.bool]


def some(n: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randint(0, 2 if dtype == torch.bool else 100, (n,)).to(dtype)


@triton.jit(do_not_specialize=["n", "low", "high", "other"])  # one of them is 1 at times, by chance
def copy_kernel(x, y, n, s_x, s_y, low, high, other, BLOCK: tl.constexpr, S: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b_x = tl.load(x + at * s_x * S, (at >= low) & (at < high), other=other)
    tl.store(y + at * s_y, b_x, at < n)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("strides", [(1, 1), (2, 1), (1, 2), (3, 5), (7, 1)], ids=str)
@pytest.mark.parametrize("n", [1, 16, 33, 300])
def test_copy(n: int, strides: tuple[int, int], dtype: torch.dtype) -> None:
    """Both run-time strides and compile-time ones; columns below, inside and above the mask."""
    s_x, s_y = strides
    for constant, low, high in [(1, 0, n), (1, n // 3, n - n // 4), (2, 0, n), (3, n // 2, n)]:
        x = some(n * s_x * constant, dtype)
        y, other = torch.zeros(n * s_y, dtype=dtype), 1
        launch(copy_kernel, (triton.cdiv(n, 128),), x, y, n, s_x, s_y, low, high, other, BLOCK=128, S=constant)
        want = torch.zeros(n * s_y, dtype=dtype)
        source = x[:: s_x * constant].clone()
        source[:low], source[high:] = other, other
        want[::s_y] = source
        assert torch.equal(y, want)


@triton.jit
def flip_kernel(x, y, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y + n - 1 - at, tl.load(x + n - 1 - at, at < n) + tl.load(x + at, at < n, other=0), at < n)


@pytest.mark.parametrize("n", [1, 15, 16, 100])
def test_backwards(n: int) -> None:
    x, y = torch.randn(n), torch.empty(n)
    launch(flip_kernel, (1,), x, y, n, BLOCK=128)
    assert torch.equal(y, x + x.flip(0))


@triton.jit
def gather_kernel(x, index, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b_i = tl.load(index + at, at < n)
    tl.store(y + b_i, tl.load(x + b_i, at < n) + 1, at < n)


@pytest.mark.parametrize("dtype", DTYPES[:-1], ids=str)
def test_gather_and_scatter(dtype: torch.dtype) -> None:
    n = 300
    x, index = some(n, dtype), torch.randperm(n)
    y = torch.empty_like(x)
    launch(gather_kernel, (triton.cdiv(n, 64),), x, index, y, n, BLOCK=64)
    assert torch.equal(y, x + 1)


@pytest.mark.parametrize("dtype", DTYPES[:-1], ids=str)
@pytest.mark.parametrize("n", [1, 33, 300])
def test_every_other_by_index(dtype: torch.dtype, n: int) -> None:
    """Indices that only the run knows to be 2 i + 1: loads of pairs, nothing past the last wanted element."""
    x, index = some(2 * n, dtype), 2 * torch.arange(n) + 1
    index[n // 2 :] = index[n // 2 :].flip(0)  # and then vectors that are something else
    y = torch.zeros_like(x)
    launch(gather_kernel, (triton.cdiv(n, 64),), x, index, y, n, BLOCK=64)
    want = torch.zeros_like(x)
    want[1::2] = x[1::2] + 1
    assert torch.equal(y, want)


@triton.jit
def plane_kernel(x, y, M, N, s_m, s_n, t_m, t_n, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = (rows[:, None] < M) & (cols[None, :] < N)
    b_x = tl.load(x + rows[:, None] * s_m + cols[None, :] * s_n, inside, other=0.0)
    tl.store(y + rows[:, None] * t_m + cols[None, :] * t_n, b_x * 2, inside)


@pytest.mark.parametrize("block", [(1, 64), (64, 1), (16, 16), (8, 128)], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (17, 33), (64, 3)], ids=str)
@pytest.mark.parametrize("turned", [False, True])
def test_planes(shape: tuple[int, int], block: tuple[int, int], turned: bool) -> None:
    (M, N), (bm, bn) = shape, block
    x = torch.randn(N, M).t() if turned else torch.randn(M, N)
    y = torch.zeros(M, N)
    grid = (triton.cdiv(M, bm), triton.cdiv(N, bn))
    launch(plane_kernel, grid, x, y, M, N, *x.stride(), *y.stride(), BLOCK_M=bm, BLOCK_N=bn)
    assert torch.equal(y, x * 2)


@triton.jit
def square_kernel(x, y, n, N: tl.constexpr):
    """One mask serves rows and columns."""
    at = tl.arange(0, N)
    inside = at < n
    both = inside[:, None] & inside[None, :]
    tl.store(y + at[:, None] * n + at[None, :], tl.load(x + at[:, None] * n + at[None, :], both), both)


@pytest.mark.parametrize("n", [1, 5, 31, 32])
def test_one_mask_for_rows_and_columns(n: int) -> None:
    x, y = torch.randn(n, n), torch.zeros(n, n)
    launch(square_kernel, (1,), x, y, n, N=32)
    assert torch.equal(x, y)


@triton.jit
def window_kernel(x, y, H, W, OH, OW, pad, BLOCK: tl.constexpr, K: tl.constexpr):
    """Pooling by index arithmetic: 3-D tile, div and rem, masks from both sides."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    oh, ow = at // OW, at % OW
    k = tl.arange(0, K)
    h = oh[:, None, None] * 2 - pad + k[None, :, None]
    w = ow[:, None, None] * 2 - pad + k[None, None, :]
    inside = (h >= 0) & (h < H) & (w >= 0) & (w < W) & (k[None, :, None] < 3) & (k[None, None, :] < 3)
    inside = inside & (at < OH * OW)[:, None, None]
    b_x = tl.load(x + h * W + w, inside, other=-float("inf"))
    tl.store(y + at, tl.max(tl.max(b_x, 2), 1), at < OH * OW)


@pytest.mark.parametrize("size", [(7, 9), (16, 16), (33, 20)], ids=str)
def test_pooling_window(size: tuple[int, int]) -> None:
    x = torch.randn(size)
    want = torch.nn.functional.max_pool2d(x[None], 3, 2, 1)[0]
    y = torch.empty_like(want)
    launch(window_kernel, (triton.cdiv(y.numel(), 32),), x, y, *size, *want.shape, 1, BLOCK=32, K=4)
    assert torch.equal(y, want)


@triton.jit
def atomic_kernel(x, index, y, n, OP: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b_x, target = tl.load(x + at, at < n), y + tl.load(index + at, at < n)
    if OP == "add":
        tl.atomic_add(target, b_x, at < n)
    elif OP == "max":
        tl.atomic_max(target, b_x, at < n)
    elif OP == "min":
        tl.atomic_min(target, b_x, at < n)
    elif OP == "and":
        tl.atomic_and(target, b_x, at < n)
    elif OP == "or":
        tl.atomic_or(target, b_x, at < n)
    elif OP == "xor":
        tl.atomic_xor(target, b_x, at < n)


ATOMICS = [(op, d) for op in ("add", "max", "min") for d in (torch.float32, torch.float64, torch.int32, torch.int64)]
ATOMICS += [(op, d) for op in ("and", "or", "xor") for d in (torch.int32, torch.int64)]
ATOMICS += [("add", torch.float16), ("add", torch.bfloat16)]


@pytest.mark.parametrize(("op", "dtype"), ATOMICS, ids=str)
def test_atomics(op: str, dtype: torch.dtype) -> None:
    n, bins = 1000, 7
    x = torch.randint(-3, 4, (n,)).to(dtype)
    index = torch.randint(0, bins, (n,))
    start = torch.zeros(bins, dtype=dtype)
    y = start.clone()
    launch(atomic_kernel, (triton.cdiv(n, 64),), x, index, y, n, OP=op, BLOCK=64)
    fold = {"add": torch.add, "max": torch.maximum, "min": torch.minimum, "and": torch.bitwise_and,
            "or": torch.bitwise_or, "xor": torch.bitwise_xor}[op]  # fmt: skip
    want = start.clone()
    for i in range(bins):
        for v in x[index == i]:
            want[i] = fold(want[i], v)
    assert torch.equal(y, want)


@triton.jit
def exchange_kernel(x, old, y):
    at = tl.program_id(0)
    tl.store(old + at, tl.atomic_xchg(x + at, at + 100))
    tl.store(y + at, tl.atomic_cas(x + at, at.to(tl.int64) * 0 + 101, at.to(tl.int64) * 0 + 5))


def test_exchange_and_compare_and_swap() -> None:
    x, old, y = torch.arange(4), torch.empty(4, dtype=torch.int64), torch.empty(4, dtype=torch.int64)
    launch(exchange_kernel, (4,), x, old, y)
    assert old.tolist() == [0, 1, 2, 3]
    assert y.tolist() == [100, 101, 102, 103]
    assert x.tolist() == [100, 5, 102, 103]


@triton.jit
def old_values_kernel(counter, y, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(y + at, tl.atomic_add(counter + at * 0, 1, at < n), at < n)


def test_atomic_gives_the_old_values() -> None:
    counter, y = torch.zeros(1, dtype=torch.int32), torch.empty(40, dtype=torch.int32)
    launch(old_values_kernel, (1,), counter, y, 40, BLOCK=64)
    assert y.tolist() == list(range(40)) and counter.item() == 40
