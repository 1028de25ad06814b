"""Grids of affine maps, in two and three dimensions.

    affine_grid     grid[n, q, i] = sum over j of theta[n, i, j] (q, 1)[j]      q in [-1, 1] on each axis

    dtheta[n, i, j] = sum over q of dgrid[n, q, i] (q, 1)[j]

Sums of a row of the grid are made first: only its first coordinate moves along it. Each program leaves its part.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import load
from trident.ops._grid_sample import few_batches, warn_of_default
from trident.ops._resample import WIDEST
from trident.runtime import autocast, recompute, route, tuning, tuning_conv
from trident.runtime.autograd import apply
from trident.runtime.crossover_tables import FEWEST_PLACES
from trident.runtime.exporting import surely
from trident.runtime.launch import launch
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype


@triton.jit
def _coordinate(i, SIZE, ALIGNED: tl.constexpr):
    """Element i of SIZE in [-1, 1]."""
    if ALIGNED:
        return tl.where(SIZE > 1, i * 2.0 / tl.maximum(SIZE - 1, 1) - 1, 0.0)
    else:
        return (i * 2.0 + 1) / SIZE - 1


@triton.jit
def _affine_kernel(
    y, theta, P, D, H, W, ALIGNED: tl.constexpr, DEEP: tl.constexpr, EXACT: tl.constexpr, BLOCK: tl.constexpr
):
    """y [N, P, RANK], P = D H W, theta [N, RANK, RANK + 1]. Grid: blocks of P; N. EXACT: in float64."""
    RANK: tl.constexpr = 3 if DEEP else 2
    n = tl.program_id(1).to(tl.int64)
    q = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    w, h, d = q % W, q // W % H, q // W // H
    if EXACT:
        w, h, d = w.to(tl.float64), h.to(tl.float64), d.to(tl.float64)
    else:
        w, h, d = w.to(tl.float32), h.to(tl.float32), d.to(tl.float32)
    theta += n * (RANK * (RANK + 1))
    for i in tl.static_range(RANK):
        row = theta + i * (RANK + 1)
        b_y = load(row, True) * _coordinate(w, W, ALIGNED) + load(row + 1, True) * _coordinate(h, H, ALIGNED)
        if DEEP:
            b_y += load(row + 2, True) * _coordinate(d, D, ALIGNED)
        tl.store(y + (n * P + q) * RANK + i, b_y + load(row + RANK, True), q < P)


@triton.jit
def _sums_kernel(
    parts, dy, R, D, H, W, STEPS,
    ALIGNED: tl.constexpr, DEEP: tl.constexpr, EXACT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """parts [N, programs, RANK, RANK + 1], dy [N, R, W, RANK], R = D H. Grid: RANK for each part of STEPS blocks of
    rows; N."""
    RANK: tl.constexpr = 3 if DEEP else 2
    DTYPE: tl.constexpr = tl.float64 if EXACT else tl.float32
    n, part, i = tl.program_id(1).to(tl.int64), tl.program_id(0) // RANK, tl.program_id(0) % RANK
    b_w, b_h = tl.full((), 0, DTYPE), tl.full((), 0, DTYPE)
    b_d, b_1 = b_h, b_h
    for step in range(part * STEPS, (part + 1) * STEPS):
        row = step * BLOCK_M + tl.arange(0, BLOCK_M)
        of_row, along_w = tl.zeros((BLOCK_M,), DTYPE), tl.zeros((BLOCK_M,), DTYPE)
        for first in range(0, W, BLOCK_N):
            w = first + tl.arange(0, BLOCK_N)[None, :]
            b_dy = load(dy + ((n * R + row[:, None]) * W + w) * RANK + i, (row < R)[:, None] & (w < W))
            of_row += tl.sum(b_dy, 1)
            along_w += tl.sum(b_dy * _coordinate(w.to(DTYPE), W, ALIGNED), 1)
        b_1 += tl.sum(of_row, 0)
        b_w += tl.sum(along_w, 0)
        b_h += tl.sum(of_row * _coordinate((row % H).to(DTYPE), H, ALIGNED), 0)
        b_d += tl.sum(of_row * _coordinate((row // H).to(DTYPE), D, ALIGNED), 0)
    parts += (n * (tl.num_programs(0) // RANK) + part) * (RANK * (RANK + 1)) + i * (RANK + 1)
    tl.store(parts, b_w)
    tl.store(parts + 1, b_h)
    if DEEP:
        tl.store(parts + 2, b_d)
    tl.store(parts + RANK, b_1)


@op("affine_grid")
def _affine(theta: Tensor, size: Sequence[int], aligned: bool) -> Tensor:
    """theta [N, rank, rank + 1] -> [N, *size, rank]."""
    y = theta.new_empty([theta.shape[0], *size, len(size)])
    P = math.prod(size)
    plan = tuning.flat(P, theta.device)
    D = size[0] if len(size) == 3 else 1
    exact = theta.dtype == torch.float64
    launch(
        _affine_kernel, (*plan.grid, theta.shape[0]), y, theta.contiguous(), P, D, *size[-2:],
        ALIGNED=aligned, DEEP=len(size) == 3, EXACT=exact, **plan.meta,
    )  # fmt: skip
    return y


@op("affine_grid_backward")
def _gradient(dy: Tensor, aligned: bool) -> Tensor:
    """dy [N, *size, rank] -> [N, rank, rank + 1]."""
    N, *size, rank = dy.shape
    D, H, W = [1] * (3 - rank) + size
    plan = tuning_conv.affine_sums(N, D * H, W, dy.device)
    programs = plan.grid[0]
    parts = dy.new_empty([N, programs, rank, rank + 1], dtype=compute_dtype(dy))
    launch(
        _sums_kernel, (programs * rank, N), parts, dy.contiguous(), D * H, D, H, W,
        ALIGNED=aligned, DEEP=rank == 3, EXACT=dy.dtype == torch.float64, **plan.meta,
    )  # fmt: skip
    return parts.sum(1).to(dy.dtype)


class _AffineGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, size: tuple[int, ...], aligned: bool) -> Tensor:
        ctx.how = list(size), aligned
        return _affine(theta, size[2:], aligned)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        size, aligned = ctx.how
        if recompute.wanted():  # linear in theta: any will do
            rank = dy.shape[-1]
            theta = dy.new_zeros(()).expand(size[0], rank, rank + 1).requires_grad_()
            found = recompute.gradients(lambda theta: torch.affine_grid_generator(theta, size, aligned), (theta,), dy)
            return *found, None, None
        return _gradient(dy, aligned), None, None


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """theta [N, rank, rank + 1], size [N, C, *L] -> [N, *L, rank]. Same contract as
    :func:`torch.nn.functional.affine_grid`."""
    rank = len(size) - 2
    fits = theta.dim() == 3 and rank in (2, 3) and tuple(theta.shape[1:]) == (rank, rank + 1) and min(size) > 0
    fits = fits and size[0] == theta.shape[0] and few_batches(theta) and math.prod(size[2:]) <= WIDEST
    fits = fits and not (align_corners and min(size[2:]) == 1)  # torch warns
    reason = "torch's product is cast under autocast" if fits and autocast.active(theta) else None
    places = size[0] * math.prod(size[2:]) if fits else 0
    if route.to_torch(
        "affine_grid (small)" if surely(places < FEWEST_PLACES) else "affine_grid",
        theta,
        unless=reason if fits else route.INVALID,
    ):
        return torch.nn.functional.affine_grid(theta, size, align_corners)  # type: ignore[arg-type]
    warn_of_default("affine_grid", align_corners)
    y: Tensor = apply(_AffineGrid, theta, tuple(size), bool(align_corners))
    return y
