"""Kernels with one fault each, for tests/test_inspect.py to see that `trident inspect` finds it."""

from typing import Any

import torch
import triton
import triton.language as tl

from trident.cases import Case
from trident.runtime.launch import launch


@triton.jit
def _copy_kernel(y, x, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, at < N), at < N)


@triton.jit
def _narrow_kernel(y, x, N, START, BLOCK: tl.constexpr):
    """START is 8 elements, 16 bytes of bfloat16; but the compiler is not told."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + START + at, at < N), at < N)


@triton.jit
def _odd_kernel(y, x, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Rows of odd length: together they are whole segments, but each begins anywhere in one."""
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    cols = tl.arange(0, BLOCK_N)[None, :]
    tl.store(y + rows * N + cols, tl.load(x + rows * N + cols, (rows < M) & (cols < N)), (rows < M) & (cols < N))


@triton.jit
def _twice_kernel(y, x, N, BLOCK: tl.constexpr):
    """The sum, then the copy: x is read in both passes."""
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, N, BLOCK):
        total += tl.load(x + tl.program_id(0) * N + start + tl.arange(0, BLOCK)).to(tl.float32)
    for start in range(0, N, BLOCK):
        at = tl.program_id(0) * N + start + tl.arange(0, BLOCK)
        tl.store(y + at, tl.load(x + at).to(tl.float32) / tl.sum(total))


@triton.jit
def _spill_kernel(y, x, N, BLOCK: tl.constexpr):
    """512 float32 values for each thread of one warp, all needed until the end."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b_x = tl.load(x + at, at < N).to(tl.float32)
    tl.store(y + at, b_x / tl.sum(b_x), at < N)


class _Planted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, run: Any) -> torch.Tensor:
        y = x.new_empty(x.shape)
        run(y, x)
        return y

    @staticmethod
    def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return dy.clone(), None


def _flat(kernel: Any, *more: int, block: int = 1024, warps: int = 4) -> Any:
    def run(y: torch.Tensor, x: torch.Tensor) -> None:
        N = y.numel() - sum(more)
        launch(kernel, (triton.cdiv(N, block),), y, x, N, *more, BLOCK=block, num_warps=warps)

    return run


def _rows(kernel: Any) -> Any:
    return lambda y, x: launch(kernel, (x.shape[0],), y, x, x.shape[1], BLOCK=1024, num_warps=4)


def _tiles(y: torch.Tensor, x: torch.Tensor) -> None:
    M, N = x.shape
    launch(_odd_kernel, (triton.cdiv(M, 16),), y, x, M, N, BLOCK_M=16, BLOCK_N=triton.next_power_of_2(N), num_warps=4)


def _case(run: Any, shape: tuple[int, int] = (64, 4096)) -> Case:
    return Case(ours=lambda x: _Planted.apply(x, run), reference=lambda x: x, shapes=(shape,), bench=(shape,))


GOOD = _case(_flat(_copy_kernel))
NARROW = _case(_flat(_narrow_kernel, 8))
ODD = _case(_tiles, (256, 129))
TWICE = _case(_rows(_twice_kernel))
SPILL = _case(_flat(_spill_kernel, block=16384, warps=1))
