"""PReLU (He et al. 2015, arXiv:1502.01852): a learnt slope below 0, one for all elements or one per channel (axis 1).

    forward     y  = x where x > 0, else w x
    backward    dx = dy where x > 0, else w dy
                dw = sum over the elements of its channel, where x <= 0, of x dy

Whatever way x lies densely in memory, its storage is [outer, C, inner] with inner the stride of the channel axis. With
inner > 1 that is a matrix whose row r has channel r % C; with inner = 1 (channels_last, [B, C]) one whose column is
the channel. A program owns a band of BLOCK rows, or of columns, and walks along it, so that it holds one slope per
row, or column, and sums its dw in registers. Several programs share a long band; their sums are partial.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import band_tile, load, multiple
from trident.runtime import autocast, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.layout import lying_as
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype


@triton.jit
def _slopes(w, M, N, C, BY_ROW: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """The slopes of this program's band: [BLOCK_M, 1] or [1, BLOCK_N]."""
    rows, cols, _ = band_tile(tl.program_id(0), 0, M, N, BY_ROW, BLOCK_M, BLOCK_N)
    return load(w + rows % C, rows < M) if BY_ROW else load(w + cols, cols < N)


@triton.jit
def _forward_kernel(
    y, x, w, M, N, C, BY_ROW: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    N = multiple(N, ALIGN)
    b_w = _slopes(w, M, N, C, BY_ROW, BLOCK_M, BLOCK_N)
    steps = tl.cdiv(N, BLOCK_N) if BY_ROW else tl.cdiv(M, BLOCK_M)
    for step in range(tl.program_id(1), steps, tl.num_programs(1)):
        rows, cols, inside = band_tile(tl.program_id(0), step, M, N, BY_ROW, BLOCK_M, BLOCK_N)
        at = rows * N + cols
        b_x = load(x + at, inside)
        tl.store(y + at, b_x * tl.where(b_x > 0, 1.0, b_w), inside)  # two products to choose from spill registers


@triton.jit
def _backward_kernel(
    dx, dw, dy, x, w, M, N, C, BY_ROW: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    N = multiple(N, ALIGN)
    b_w = _slopes(w, M, N, C, BY_ROW, BLOCK_M, BLOCK_N)
    b_dw = tl.zeros((BLOCK_M, BLOCK_N), dw.dtype.element_ty)
    steps = tl.cdiv(N, BLOCK_N) if BY_ROW else tl.cdiv(M, BLOCK_M)
    for step in range(tl.program_id(1), steps, tl.num_programs(1)):
        rows, cols, inside = band_tile(tl.program_id(0), step, M, N, BY_ROW, BLOCK_M, BLOCK_N)
        at = rows * N + cols
        b_x, b_dy = load(x + at, inside), load(dy + at, inside)
        tl.store(dx + at, tl.where(b_x > 0, b_dy, b_dy * b_w), inside)
        b_dw += tl.where(b_x > 0, 0.0, b_x * b_dy)

    rows, cols, _ = band_tile(tl.program_id(0), 0, M, N, BY_ROW, BLOCK_M, BLOCK_N)
    group = tl.program_id(1).to(tl.int64)
    if BY_ROW:
        tl.store(dw + group * M + rows, tl.sum(b_dw, axis=1, keep_dims=True), rows < M)
    else:
        tl.store(dw + group * N + cols, tl.sum(b_dw, axis=0, keep_dims=True), cols < N)


def _matrix(y: Tensor, C: int) -> tuple[int, int, bool]:
    """How y, dense in memory, is a matrix [M, N] of channels: M, N, and whether a row (else a column) is a channel."""
    inner = y.stride(1) if C > 1 else y.numel()
    if inner == 1 and C > 1:
        return y.numel() // C, C, False
    return y.numel() // inner, inner, True


@op("prelu")
def _forward(x: Tensor, w: Tensor) -> Tensor:
    y = torch.empty_like(x)
    M, N, by_row = _matrix(y, w.numel())
    plan = tuning.bands(M, N, by_row, x.device)
    x, w = lying_as(x, y), w.contiguous()
    launch(_forward_kernel, plan.grid, y, x, w, M, N, w.numel(), BY_ROW=by_row, **plan.meta)
    return y


@op("prelu_backward")
def _backward(dy: Tensor, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """dx; dw of shape [C] in float32 (float64 for float64)."""
    dx, C = torch.empty_like(x), w.numel()
    M, N, by_row = _matrix(dx, C)
    plan = tuning.bands(M, N, by_row, x.device)
    partial = x.new_empty(plan.grid[-1], M if by_row else N, dtype=compute_dtype(x))
    dy, x, w = lying_as(dy, dx), lying_as(x, dx), w.contiguous()
    launch(_backward_kernel, plan.grid, dx, partial, dy, x, w, M, N, C, BY_ROW=by_row, **plan.meta)
    return dx, partial.view(-1, C).sum(0)


class _PReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor) -> Tensor:
        ctx.save_for_backward(x, w)
        return _forward(x, w)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w = ctx.saved_tensors
        if recompute.wanted():
            return recompute.gradients(torch.prelu, (x, w), dy)
        dx, dw = _backward(dy, x, w)
        return dx, dw.to(w.dtype).view_as(w)


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """Same contract as :func:`torch.nn.functional.prelu`.

    Shapes: input [B, C, *] or any; weight [C], [1] or []; the result as input, lying in memory as input does.
    """
    x, w = autocast.lowered("prelu", input, weight)
    assert x is not None and w is not None
    channels = x.shape[1] if x.dim() > 1 else 1
    fits = w.dim() < 2 and w.numel() in (1, channels) and x.dtype == w.dtype
    learns = torch.is_grad_enabled() and (x.requires_grad or w.requires_grad)
    if route.to_torch("prelu" if learns else "prelu (forward alone)", x, w, unless=None if fits else route.INVALID):
        return torch.prelu(input, weight)
    return apply(_PReLU, x, w, unrecorded=_forward)
