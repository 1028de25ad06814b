"""Loaded tiles that later loops read again in their own place: always what was loaded, whatever was stored since."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import inspect, launch

M, N = 3, 1000


@triton.jit
def center(x, mark, out, N, BLOCK: tl.constexpr):
    """mark = the sum, out = x - mean, in this order"""
    cols = tl.arange(0, BLOCK)
    inside = cols < N
    b_x = tl.load(x + cols, inside, other=0.0)
    total = tl.sum(b_x, 0)
    tl.store(mark + cols, total + tl.zeros([BLOCK], tl.float32), inside)
    tl.store(out + cols, b_x - total / N, inside)


@triton.jit
def scale_rows(x, w, means, out, M, N, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """means = the rows' means, out = (x - mean) * w"""
    rows, cols = tl.arange(0, ROWS)[:, None], tl.arange(0, BLOCK)[None, :]
    inside = (rows < M) & (cols < N)
    b_w = tl.load(w + cols, cols < N, other=0.0)
    b_x = tl.load(x + rows * N + cols, inside, other=0.0)
    mean = tl.sum(b_x, 1, keep_dims=True) / N
    tl.store(means + rows, mean, rows < M)
    centered = tl.where(inside, b_x - mean, 0.0)
    tl.store(out + rows * N + cols, centered * b_w, inside)


@triton.jit
def deviations(x, out, N, BLOCK: tl.constexpr):
    """out = the sum of squared deviations from the mean"""
    cols = tl.arange(0, BLOCK)
    b_x = tl.load(x + cols, cols < N, other=0.0)
    centered = tl.where(cols < N, b_x - tl.sum(b_x, 0) / N, 0.0)
    tl.store(out, tl.sum(centered * centered, 0))


@triton.jit
def turn(x, out, BLOCK: tl.constexpr):
    """out = transposed x - the sum of x's column"""
    i, j = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    b_x = tl.load(x + i * BLOCK + j)
    total = tl.sum(b_x, 0, keep_dims=True)
    tl.store(out + j * BLOCK + i, b_x - total)


@pytest.mark.parametrize("mark_at", [4096, 512, 519, 300, 1511])
@pytest.mark.parametrize("out_at", [8192, 512, 515, 490])
def test_stores_over_what_was_loaded(mark_at: int, out_at: int) -> None:
    torch.manual_seed(0)
    base = torch.randn(10000)
    x, mark, out = (base[at : at + N] for at in (512, mark_at, out_at))
    want = base.clone()
    values = x.clone()
    want[mark_at : mark_at + N] = values.sum()
    want[out_at : out_at + N] = values - values.sum() / N
    launch(center, (1,), x, mark, out, N, BLOCK=1024)
    torch.testing.assert_close(base, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("means_at", [9000, 500, 3400])
@pytest.mark.parametrize("out_at", [5000, 400, 3500])
def test_rows_and_weights(means_at: int, out_at: int) -> None:
    """x lies at 400, w at 3500: means and results are written over either."""
    torch.manual_seed(0)
    base = torch.randn(10000)
    x, w = base[400 : 400 + M * N].view(M, N), base[3500 : 3500 + N]
    want, values = base.clone(), (x - x.mean(1, keepdim=True)) * w
    want[means_at : means_at + M] = x.mean(1)
    want[out_at : out_at + M * N] = values.flatten()
    launch(scale_rows, (1,), x, w, base[means_at:], base[out_at:], M, N, ROWS=4, BLOCK=1024)
    torch.testing.assert_close(base, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("out_at", [4096, 0, 3])
def test_read_again_along_another_dimension(out_at: int) -> None:
    torch.manual_seed(0)
    base = torch.randn(10000)
    x = base[:4096].view(64, 64)
    want = base.clone()
    want[out_at : out_at + 4096] = (x - x.sum(0, keepdim=True)).T.flatten()
    launch(turn, (1,), x, base[out_at:], BLOCK=64)
    torch.testing.assert_close(base, want, rtol=1e-4, atol=1e-4)


def test_no_memory_where_nothing_is_stored_before_the_last_reader() -> None:
    x, out = torch.randn(1000), torch.empty(1)
    launch(deviations, (1,), x, out, 1000, BLOCK=1024)
    torch.testing.assert_close(out[0], (x - x.mean()).square().sum())
    assert "%own = alloca" not in inspect(deviations, x, out, 1000, BLOCK=1024).llvm_ir  # scratch on the stack
