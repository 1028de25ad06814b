"""Layer normalization (Ba et al. 2016, arXiv:1607.06450) on x seen as [M, N]. E and Var run over N.

forward     rstd   = 1 / sqrt(Var[x] + eps)
            x_hat  = (x - E[x]) * rstd
            y      = x_hat * w + b

backward    dx_hat = dy * w
            dx     = rstd * (dx_hat - E[dx_hat] - x_hat * E[dx_hat * x_hat])
            dw     = sum over M of dy * x_hat
            db     = sum over M of dy
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import col_sum, load, row_mean, row_tile
from trident.runtime import autocast, recompute, route, tuning
from trident.runtime.launch import launch
from trident.runtime.op import op


@triton.jit
def _forward_kernel(y, mean, rstd, x, w, b, M, N, EPS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    rows, cols, in_m, in_n = row_tile(tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
    at, inside = rows * N + cols, in_m & in_n

    b_x = load(x + at, inside)
    b_mean = row_mean(b_x, N)
    centered = tl.where(inside, b_x - b_mean, 0.0)
    b_rstd = 1 / tl.sqrt(row_mean(centered * centered, N) + EPS)
    b_y = centered * b_rstd
    if w is not None:
        b_y *= load(w + cols, in_n)
    if b is not None:
        b_y += load(b + cols, in_n)

    tl.store(y + at, b_y, inside)
    tl.store(mean + rows, b_mean, in_m)
    tl.store(rstd + rows, b_rstd, in_m)


@triton.jit
def _backward_kernel(dx, dw, db, dy, x, w, mean, rstd, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    pid = tl.program_id(0)
    b_dw = tl.zeros((1, BLOCK_N), mean.dtype.element_ty)
    b_db = tl.zeros((1, BLOCK_N), mean.dtype.element_ty)
    for tile in range(pid, tl.cdiv(M, BLOCK_M), tl.num_programs(0)):
        rows, cols, in_m, in_n = row_tile(tile, M, N, BLOCK_M, BLOCK_N)
        at, inside = rows * N + cols, in_m & in_n

        b_dy = load(dy + at, inside)
        b_rstd = load(rstd + rows, in_m)
        x_hat = tl.where(inside, load(x + at, inside) - load(mean + rows, in_m), 0.0) * b_rstd
        dx_hat = b_dy
        if w is not None:
            dx_hat *= load(w + cols, in_n)
        b_dx = b_rstd * (dx_hat - row_mean(dx_hat, N) - x_hat * row_mean(dx_hat * x_hat, N))

        tl.store(dx + at, b_dx, inside)
        b_dw += col_sum(b_dy * x_hat)
        b_db += col_sum(b_dy)

    if dw is not None:
        cols = tl.arange(0, BLOCK_N)[None, :]
        tl.store(dw + pid * tl.full((), N, tl.int64) + cols, b_dw, cols < N)
        tl.store(db + pid * tl.full((), N, tl.int64) + cols, b_db, cols < N)


@op("layer_norm")
def _forward(
    x: Tensor, N: int, w: Tensor | None, b: Tensor | None, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    x = x.contiguous()
    M = x.numel() // N
    y = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    mean, rstd = (x.new_empty(M, dtype=statistics(x)) for _ in range(2))
    plan = tuning.rows(M, N, x.device)
    w, b = (None if t is None else t.contiguous() for t in (w, b))
    launch(_forward_kernel, plan.grid, y, mean, rstd, x, w, b, M, N, EPS=eps, **plan.meta)
    return y, mean, rstd


@op("layer_norm_backward")
def _backward(
    dy: Tensor, x: Tensor, N: int, w: Tensor | None, mean: Tensor, rstd: Tensor, affine: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """dx; and, where affine, dw and db in the statistics' dtype, of shape [N] (else empty)."""
    dy, x = dy.contiguous(), x.contiguous()
    M = x.numel() // N
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    plan = tuning.row_groups(M, N, x.device)
    dw, db = (mean.new_empty(plan.grid[0], N) if affine else None for _ in range(2))
    w = None if w is None else w.contiguous()
    launch(_backward_kernel, plan.grid, dx, dw, db, dy, x, w, mean, rstd, M, N, **plan.meta)
    if dw is None or db is None:
        return dx, mean.new_empty(0), mean.new_empty(0)
    return dx, dw.sum(0), db.sum(0)


def statistics(x: Tensor) -> torch.dtype:
    """Means and deviations are float32 (float64 for float64), whatever x is stored as."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shape: tuple[int, ...], w: Tensor | None, b: Tensor | None, eps: float, dtype: torch.dtype
    ) -> Tensor:
        N = math.prod(shape)
        y, mean, rstd = _forward(x, N, w, b, eps, dtype)
        ctx.save_for_backward(x, w, b, mean, rstd)
        ctx.shape, ctx.eps, ctx.N = shape, eps, N
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, b, mean, rstd = ctx.saved_tensors
        if recompute.wanted():
            dx, dw, db = recompute.gradients(
                lambda x, w, b: torch.nn.functional.layer_norm(x, ctx.shape, w, b, ctx.eps), (x, w, b), dy
            )
            return dx, None, dw, db, None, None
        _, _, needs_dw, needs_db, _, _ = ctx.needs_input_grad
        dx, dw, db = _backward(dy, x, ctx.N, w, mean, rstd, needs_dw or needs_db)
        dw = dw.to(w.dtype).view_as(w) if needs_dw else None
        db = db.to(b.dtype).view_as(b) if needs_db else None
        return dx, None, dw, db, None, None


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Same contract as :func:`torch.nn.functional.layer_norm`.

    Shapes: input [*, *normalized_shape]; weight and bias, if given, normalized_shape; the result as input, contiguous.
    Dtypes: float16, bfloat16, float32, float64; float32 inside (float64 for float64).
    """
    shape = tuple(normalized_shape)
    fits = 0 < len(shape) <= input.dim() and tuple(input.shape[input.dim() - len(shape) :]) == shape
    fits = fits and all(t is None or tuple(t.shape) == shape for t in (weight, bias))
    if route.to_torch("layer_norm", input, weight, bias, unless=None if fits else route.INVALID):
        return torch.nn.functional.layer_norm(input, shape, weight, bias, eps)
    return _LayerNorm.apply(input, shape, weight, bias, eps, autocast.output_dtype("layer_norm", input))
