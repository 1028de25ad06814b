"""Grids of affine maps, in two and three dimensions.

    affine_grid     grid[n, q, i] = sum over j of theta[n, i, j] (q, 1)[j]      q in [-1, 1] on each axis

The gradient is the sum over q, axis by axis, of torch's sums.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import load
from trident.ops._grid_sample import MOST_BATCHES, warn_of_default
from trident.ops._resample import WIDEST
from trident.runtime import autocast, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.crossover_tables import FEWEST_PLACES
from trident.runtime.launch import launch
from trident.runtime.op import op


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
    warn_of_default("affine_grid", align_corners)
    y: Tensor = apply(_AffineGrid, theta, tuple(size), bool(align_corners))
    return y
