"""Columns and rows of a tile past its masks (emit/padding.py): worked out once where every vector is as the one before,
all of them where it does not. Everything is compared with torch on the whole, padded tile."""

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import inspect, launch

BLOCK = 1024
SIZES = (1, 31, 32, 33, 600, 992, 993, 1023, 1024)


def padded(x: torch.Tensor, other: float) -> torch.Tensor:
    return torch.nn.functional.pad(x, (0, BLOCK - x.shape[1]), value=other)


@triton.jit
def sums(x, out, N, OTHER: tl.constexpr, BLOCK: tl.constexpr):
    row, cols = tl.program_id(0), tl.arange(0, BLOCK)
    tl.store(out + row, tl.sum(tl.load(x + row * N + cols, cols < N, other=OTHER), 0))


@pytest.mark.parametrize("other", [0.0, 1.0, -0.0, float("inf"), float("nan"), 2.0**-100])
@pytest.mark.parametrize("N", SIZES)
def test_sum_counts_every_padded_element(N: int, other: float) -> None:
    x, out = torch.randn(3, N), torch.empty(3)
    launch(sums, (3,), x, out, N, OTHER=other, BLOCK=BLOCK)
    torch.testing.assert_close(out, padded(x, other).sum(1), equal_nan=True)


@triton.jit
def largest_then_sum(x, out, N, OTHER: tl.constexpr, BLOCK: tl.constexpr):
    """exp(x - max) is kept by the nest that looks for its largest, and read whole by the next."""
    row, cols = tl.program_id(0), tl.arange(0, BLOCK)
    b_x = tl.load(x + row * N + cols, cols < N, other=OTHER)
    e = tl.exp(b_x - tl.max(b_x, 0))
    most = tl.max(e * e, 0)
    tl.store(out + 2 * row, most)
    tl.store(out + 2 * row + 1, tl.sum(e * most * cols, 0))


@pytest.mark.parametrize("other", [0.5, -float("inf")])
@pytest.mark.parametrize("N", SIZES)
def test_what_is_kept_is_whole(N: int, other: float) -> None:
    x, out = torch.rand(3, N), torch.empty(3, 2)
    launch(largest_then_sum, (3,), x, out, N, OTHER=other, BLOCK=BLOCK)
    full = padded(x, other).double()
    e = (full - full.amax(1, keepdim=True)).exp()
    want = torch.stack([(e * e).amax(1), (e * torch.arange(BLOCK)).sum(1)], 1)
    torch.testing.assert_close(out, want.float(), rtol=1e-5, atol=1e-5)


@triton.jit
def by_column(x, out, N, BLOCK: tl.constexpr):
    """Sums whose padding differs from column to column, by a mask of its own, by an index, by nothing."""
    cols = tl.arange(0, BLOCK)
    b_x = tl.load(x + cols, cols < N, other=0.0)
    tl.store(out, tl.sum(b_x + cols, 0))
    tl.store(out + 1, tl.sum(tl.where(cols < N // 2, b_x, 1.0), 0))
    tl.store(out + 2, tl.sum(tl.load(x + cols, cols < N, other=cols.to(tl.float32)), 0))


@pytest.mark.parametrize("N", SIZES)
def test_padding_that_differs(N: int) -> None:
    x, out, cols = torch.randn(1, N), torch.empty(3), torch.arange(BLOCK)
    launch(by_column, (1,), x, out, N, BLOCK=BLOCK)
    full = padded(x, 0.0)[0].double()
    other = torch.where(cols < N, full, cols)
    want = torch.stack([(full + cols).sum(), torch.where(cols < N // 2, full, 1.0).sum(), other.sum()])
    torch.testing.assert_close(out, want.float(), rtol=1e-5, atol=1e-4)


@triton.jit
def normalise(x, out, M, N, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    rows, cols = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None], tl.arange(0, BLOCK)[None, :]
    inside = (rows < M) & (cols < N)
    b_x = tl.load(x + rows * N + cols, inside, other=0.0)
    centred = tl.where(inside, b_x - tl.sum(b_x, 1, keep_dims=True) / N, 0.0)
    variance = tl.sum(centred * centred, 1, keep_dims=True) / N
    tl.store(out + rows * N + cols, centred * tl.rsqrt(variance + 1e-5), inside)


@pytest.mark.parametrize("M", [1, 5, 8])
@pytest.mark.parametrize("N", SIZES)
def test_rows_past_the_last(M: int, N: int) -> None:
    x = torch.randn(M, N)
    out = torch.full((M + 1, N), 7.0)
    launch(normalise, (triton.cdiv(M, 4),), x, out, M, N, ROWS=4, BLOCK=BLOCK)
    torch.testing.assert_close(out[:M], torch.nn.functional.layer_norm(x, (N,)), rtol=1e-4, atol=1e-4)
    assert (out[M] == 7).all()


@triton.jit
def nan_max(a, b):
    return tl.where((a > b) | (a != a), a, b)


@triton.jit
def last_value(a, b):
    return b


@triton.jit
def combined(x, integers, out, N, BLOCK: tl.constexpr):
    """Regions without a neutral element, one whose order matters, several operands, integers, bools."""
    cols = tl.arange(0, BLOCK)
    b_x, b_i = tl.load(x + cols, cols < N, other=-5.0), tl.load(integers + cols, cols < N, other=3)
    tl.store(out, tl.reduce(b_x, 0, nan_max))
    tl.store(out + 1, tl.reduce(b_x, 0, last_value))
    tl.store(out + 2, tl.argmax(b_x, 0).to(tl.float32))
    tl.store(out + 3, tl.sum(b_i, 0).to(tl.float32))
    tl.store(out + 4, tl.xor_sum(b_i, 0).to(tl.float32))
    tl.store(out + 5, tl.reduce_or(b_i > 50, 0).to(tl.float32))


@pytest.mark.parametrize("N", SIZES)
def test_any_combination(N: int) -> None:
    x, integers, out = torch.randn(1, N), torch.randint(-50, 50, (1, N)), torch.empty(6)
    launch(combined, (1,), x, integers, out, N, BLOCK=BLOCK)
    full, whole = padded(x, -5.0)[0], padded(integers, 3)[0]
    xor = 0
    for value in whole.tolist():
        xor ^= value
    want = [full.max(), full[-1], full.argmax(), whole.sum(), xor, (whole > 50).any()]
    assert out.tolist() == [float(value) for value in want]


def test_where_vectors_repeat_the_loop_ends() -> None:
    """The label of the loop's end is in the code of the one, not of the others."""
    x, out = torch.zeros(8), torch.zeros(8)
    assert "\npadded" in inspect(sums, x, out, 8, OTHER=0.0, BLOCK=BLOCK).llvm_ir
    assert "\npadded" not in inspect(by_column, x, out, 8, BLOCK=BLOCK).llvm_ir
