"""Tiles that several passes read are asked for ahead of time, and only those."""

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import inspect, launch


@triton.jit
def softmax_kernel(x, y, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    rows = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    cols = tl.arange(0, BLOCK_N)[None, :]
    b_x = tl.load(x + rows * N + cols, cols < N, other=-float("inf"))
    e = tl.exp(b_x - tl.max(b_x, 1, keep_dims=True))
    tl.store(y + rows * N + cols, e / tl.sum(e, 1, keep_dims=True), cols < N)


@triton.jit
def sum_kernel(x, y, N, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    tl.store(y + tl.program_id(0), tl.sum(tl.load(x + tl.program_id(0) * N + cols, cols < N, other=0.0)))


@triton.jit
def double_kernel(x, y, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, 2 * tl.load(x + at, at < N), at < N)


def asked(text: str) -> bool:
    return "call void @llvm.prefetch" in text


def test_what_is_read_once_is_not_asked_for():
    x = torch.zeros(8, 1024)
    assert asked(inspect(softmax_kernel, x, x, 1024, BLOCK_M=2, BLOCK_N=1024).llvm_ir)
    assert not asked(inspect(softmax_kernel, x, x, 64, BLOCK_M=2, BLOCK_N=64).llvm_ir)  # soon done
    assert not asked(inspect(sum_kernel, x, x, 1024, BLOCK=1024).llvm_ir)
    assert not asked(inspect(double_kernel, x, x, 1024, BLOCK=1024).llvm_ir)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float64), ids=str)
@pytest.mark.parametrize("N", (777, 1024, 4096))
def test_results(dtype, N):
    """The last program asks for what lies behind the tensor: that may be no memory."""
    x = torch.randn(6, N, dtype=torch.float64).to(dtype)
    y = torch.empty_like(x)
    launch(softmax_kernel, (3,), x, y, N, BLOCK_M=2, BLOCK_N=triton.next_power_of_2(N))
    torch.testing.assert_close(y, torch.softmax(x.double(), 1).to(dtype))
