"""Sampling at the places of a grid, and grids of affine maps, in two and three dimensions.

    grid_sample     y[n, c, q] = sum over taps k of w_k(q) x[n, c, i_k(q)]      i_k, w_k from grid[n, q]
    affine_grid     grid[n, q, i] = sum over j of theta[n, i, j] (q, 1)[j]      q in [-1, 1] on each axis

One tap for "nearest", 2 an axis for "bilinear" (trilinear), 4 for "bicubic" (lang/sampling.py). A place is worked out
once for all channels.

grid_sample's gradients are torch's own operators: that of x adds at places which only the grid knows. For 16-bit types
they are asked in float32. affine_grid's is the sum over q, axis by axis, of torch's sums.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.sampling import axis_source, axis_tap
from trident.lang.tile import accumulator, load
from trident.ops._resample import WIDEST
from trident.runtime import autocast, recompute, route, tuning, tuning_conv
from trident.runtime.autograd import apply
from trident.runtime.crossover_tables import FEWEST_PLACES
from trident.runtime.launch import launch
from trident.runtime.op import op

MODES = ("bilinear", "nearest", "bicubic")  # in the order of torch's numbers for them
PADDINGS = ("zeros", "border", "reflection")
MOST_BATCHES = 65535  # programs along the second axis of a GPU's grid
TAPS = {"nearest": 1, "bilinear": 2, "bicubic": 4}


@triton.jit
def _sample_kernel(
    y, x, grid, P, C, D, H, W,
    MODE: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGNED: tl.constexpr, DEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """y [N, C, P], x [N, C, D, H, W], grid [N, P, 3 if DEEP else 2] as (w, h, d). Grid: blocks of P; N."""
    RANK: tl.constexpr = 3 if DEEP else 2
    n = tl.program_id(1).to(tl.int64)
    q = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    in_q = q < P
    grid += (n * P + q) * RANK
    i_w, t_w = axis_source(load(grid, in_q), W, MODE, PADDING, ALIGNED)
    i_h, t_h = axis_source(load(grid + 1, in_q), H, MODE, PADDING, ALIGNED)
    i_d, t_d = i_w, t_w
    if DEEP:
        i_d, t_d = axis_source(load(grid + 2, in_q), D, MODE, PADDING, ALIGNED)
    zero = tl.full((), 0, tl.int32)
    for c in range(C):
        plane = n * C + c
        there = x + plane * D * H * W
        b_y = tl.reshape(accumulator(x, 1, BLOCK), (BLOCK,))
        for k in tl.static_range(TAPS * TAPS * (TAPS if DEEP else 1)):
            w, weight, found = axis_tap(i_w, t_w, zero + k % TAPS, W, MODE, PADDING, ALIGNED)
            h, more, in_h = axis_tap(i_h, t_h, zero + k // TAPS % TAPS, H, MODE, PADDING, ALIGNED)
            at, weight, found = h * W + w, weight * more, found & in_h
            if DEEP:
                d, more, in_d = axis_tap(i_d, t_d, zero + k // (TAPS * TAPS), D, MODE, PADDING, ALIGNED)
                at, weight, found = d * H * W + at, weight * more, found & in_d
            b_y += load(there + at, in_q & found) * weight
        tl.store(y + plane * P + q, b_y, in_q)


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


@op("grid_sample")
def _sample(x: Tensor, grid: Tensor, mode: str, padding: str, aligned: bool) -> Tensor:
    """x [N, C, *L], grid [N, *Q, rank] -> [N, C, *Q]."""
    N, C, *sizes = x.shape
    y = torch.empty([N, C, *grid.shape[1:-1]], dtype=x.dtype, device=x.device)
    P = math.prod(grid.shape[1:-1])
    plan = tuning_conv.sampled(P, TAPS[mode], x.device)
    D = sizes[0] if len(sizes) == 3 else 1
    launch(
        _sample_kernel, (*plan.grid, N), y, x.contiguous(), grid.contiguous(), P, C, D, *sizes[-2:],
        MODE=mode, TAPS=TAPS[mode], PADDING=padding, ALIGNED=aligned, DEEP=len(sizes) == 3, **plan.meta,
    )  # fmt: skip
    return y


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


def _float32(t: Tensor) -> Tensor:
    return t if t.dtype == torch.float64 else t.float()


class _GridSample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor, mode: str, padding: str, aligned: bool) -> Tensor:
        ctx.save_for_backward(x, grid)
        ctx.how = mode, padding, aligned
        return _sample(x, grid, mode, padding, aligned)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, grid = ctx.saved_tensors
        mode, padding, aligned = ctx.how
        numbers = MODES.index(mode), PADDINGS.index(padding), aligned
        if recompute.wanted():
            again = recompute.gradients(lambda x, grid: torch.grid_sampler(x, grid, *numbers), (x, grid), dy)
            return *again, None, None, None
        way = getattr(torch.ops.aten, f"grid_sampler_{x.dim() - 2}d_backward")
        found = way(_float32(dy), _float32(x), _float32(grid), *numbers, list(ctx.needs_input_grad[:2]))
        dx, dgrid = (g.to(t.dtype) if g is not None else None for g, t in zip(found, (x, grid), strict=True))
        return dx, dgrid, None, None, None


class _AffineGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, theta: Tensor, size: tuple[int, ...], aligned: bool) -> Tensor:
        ctx.aligned = aligned
        return _affine(theta, size[2:], aligned)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        g = _float32(dy)
        axes = list(range(1, dy.dim() - 1))
        found = []
        for axis in reversed(axes):  # theta's columns go with w, h, d
            n = g.shape[axis]
            at = torch.arange(n, dtype=g.dtype, device=g.device) * 2
            at = at / max(n - 1, 1) - 1 if ctx.aligned else (at + 1) / n - 1
            found.append(torch.einsum("nlr,l->nr", g.sum([a for a in axes if a != axis]), at))
        return torch.stack([*found, g.sum(axes)], -1).to(dy.dtype), None, None


def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Tensor:
    """x [N, C, *L], grid [N, *Q, rank] -> [N, C, *Q]. Same contract as :func:`torch.nn.functional.grid_sample`; the
    gradients are computed by torch's own operators. Places that are NaN: as torch on GPUs."""
    rank = input.dim() - 2
    fits = rank in (2, 3) and grid.dim() == input.dim() and grid.shape[-1] == rank and grid.shape[0] == input.shape[0]
    fits = fits and mode in MODES and padding_mode in PADDINGS and not (mode == "bicubic" and rank == 3)
    fits = (
        fits
        and grid.numel() > 0
        and grid.shape[0] <= MOST_BATCHES
        and max(math.prod(input.shape[2:]), math.prod(grid.shape[1:-1])) <= WIDEST
    )
    reason = None if fits and input.dtype == grid.dtype else route.INVALID
    if fits and autocast.active(input):
        reason = "torch casts both to float32 under autocast"
    if route.to_torch("grid_sample" if rank == 2 else "grid_sample (3d)", input, grid, unless=reason):
        return torch.nn.functional.grid_sample(input, grid, mode, padding_mode, align_corners)
    _warn_of_default("grid_sample", align_corners)
    y: Tensor = apply(_GridSample, input, grid, mode, padding_mode, bool(align_corners))
    return y


def affine_grid(theta: Tensor, size: Sequence[int], align_corners: bool | None = None) -> Tensor:
    """theta [N, rank, rank + 1], size [N, C, *L] -> [N, *L, rank]. Same contract as
    :func:`torch.nn.functional.affine_grid`; the gradient is a few of torch's sums."""
    rank = len(size) - 2
    fits = theta.dim() == 3 and rank in (2, 3) and tuple(theta.shape[1:]) == (rank, rank + 1) and min(size) > 0
    fits = fits and size[0] == theta.shape[0] <= MOST_BATCHES and math.prod(size[2:]) <= WIDEST
    fits = fits and not (align_corners and min(size[2:]) == 1)  # torch warns
    reason = "torch's product is cast under autocast" if fits and autocast.active(theta) else None
    places = size[0] * math.prod(size[2:]) if fits else 0
    if route.to_torch(
        "affine_grid (small)" if places < FEWEST_PLACES else "affine_grid",
        theta,
        unless=reason if fits else route.INVALID,
    ):
        return torch.nn.functional.affine_grid(theta, size, align_corners)  # type: ignore[arg-type]
    _warn_of_default("affine_grid", align_corners)
    y: Tensor = apply(_AffineGrid, theta, tuple(size), bool(align_corners))
    return y


def _warn_of_default(name: str, align_corners: bool | None) -> None:
    if align_corners is None:
        warnings.warn(
            f"{name}: align_corners is None, which has meant False since torch 1.3; pass it to be sure", stacklevel=4
        )
