"""The second stage of sums that several programs share: y [n] = sum of slices [S, n] over S, in a fixed order."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import load
from trident.runtime import tuning
from trident.runtime.launch import launch
from trident.runtime.precision import compute_dtype


@triton.jit
def _add_kernel(y, slices, n, S, BLOCK_S: tl.constexpr, BLOCK: tl.constexpr):
    cols = (tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK))[None, :]
    rows = tl.arange(0, BLOCK_S)[:, None]
    b_y = load(slices + rows * tl.full((), n, tl.int64) + cols, (rows < S) & (cols < n))
    tl.store(y + cols, tl.sum(b_y, axis=0, keep_dims=True), cols < n)


def new_slices(S: int, y: Tensor, x: Tensor) -> Tensor:
    """Room for S slices of y, in the dtype that elements of x are summed in."""
    return torch.empty((S, y.numel()), dtype=compute_dtype(x), device=y.device)


def add_slices(y: Tensor, slices: Tensor) -> None:
    """Write into dense y of n elements the sums of slices [S, n] (S at most 256), in the dtype of y."""
    S, n = slices.shape
    plan = tuning.add_slices(S, n, y.device)
    launch(_add_kernel, plan.grid, y, slices, n, S, **plan.meta)
