"""softmax over the elements of a line where mask is True; y is 0 elsewhere, and all of a line of which nothing is True.

forward     z  = x where mask, else -inf
            y  = exp(z - max z) / sum exp(z - max z)
backward    dx = y (dy - sum(dy y))             softmax's own: y is 0 where the mask is False

The mask is broadcast to x. Rows of it that many rows of x share are read in place: row i of x has row
(i // repeat) % period of the mask.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.lines import along, finite, line_max, line_sum, line_tile, online_softmax, per_line, segments
from trident.lang.tile import load
from trident.ops._softmax import _backward
from trident.runtime import autocast, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.layout import as_lines
from trident.runtime.op import op


@triton.jit
def _masked(x, mask, lines, start, n, inside, N, inner, repeat, period, AXIS: tl.constexpr):
    """x, or -inf beyond its end and where the mask is False."""
    at = start + n * inner
    at_mask = (lines // repeat % period) * N + n if AXIS == 1 else at
    kept = tl.load(mask + at_mask, mask=inside, other=0).to(tl.int1)
    return tl.where(kept, load(x + at, inside), -float("inf"))


@triton.jit
def _forward_kernel(
    y, x, mask, M, N, inner, repeat, period, AXIS: tl.constexpr, SPAN: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N, inner = segments(N, inner, ALIGN, AXIS)
    lines, start, exist = line_tile(tl.program_id(0), M, N, inner, AXIS, SPAN, BLOCK_M)
    n = along(0, AXIS, BLOCK_N)
    inside = exist & (n < N)
    z = _masked(x, mask, lines, start, n, inside, N, inner, repeat, period, AXIS)
    b_y = tl.exp(z - finite(line_max(z, AXIS)))
    total = line_sum(b_y, AXIS)
    tl.store(y + start + n * inner, b_y / tl.where(total == 0, 1.0, total), inside)


@triton.jit
def _forward_long_kernel(
    y, x, mask, M, N, inner, repeat, period, AXIS: tl.constexpr, SPAN: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N, inner = segments(N, inner, ALIGN, AXIS)
    lines, start, exist = line_tile(tl.program_id(0), M, N, inner, AXIS, SPAN, BLOCK_M)
    top, total = per_line(-float("inf"), x, AXIS, BLOCK_M), per_line(0.0, x, AXIS, BLOCK_M)
    for chunk in range(0, tl.cdiv(N, BLOCK_N)):
        n = along(chunk, AXIS, BLOCK_N)
        z = _masked(x, mask, lines, start, n, exist & (n < N), N, inner, repeat, period, AXIS)
        top, total = online_softmax(top, total, z, AXIS)
    top, total = finite(top), tl.where(total == 0, 1.0, total)
    for chunk in range(0, tl.cdiv(N, BLOCK_N)):
        n = along(chunk, AXIS, BLOCK_N)
        inside = exist & (n < N)
        z = _masked(x, mask, lines, start, n, inside, N, inner, repeat, period, AXIS)
        tl.store(y + start + n * inner, tl.exp(z - top) / total, inside)


def _shared_rows(mask: Tensor, x: Tensor, inner: int) -> tuple[Tensor, int, int]:
    """The rows of the mask that are needed, contiguous, with repeat and period (see above)."""
    shape = (1,) * (x.dim() - mask.dim()) + tuple(mask.shape)
    outer = list(zip(shape, x.shape, strict=True))[:-1]
    real = [i for i, (n, m) in enumerate(outer) if n == m and m > 1]
    first, last = (real[0], real[-1]) if real else (0, -1)
    if inner > 1 or x.dim() == 0 or any(outer[i][0] != outer[i][1] for i in range(first, last + 1)):
        return mask.expand(x.shape).contiguous(), 1, max(1, math.prod(x.shape[:-1]))
    repeat = math.prod(m for _, m in outer[last + 1 :])
    rows = mask.expand(*mask.shape[:-1], x.shape[-1])
    return rows.contiguous(), repeat, math.prod(outer[i][1] for i in real)


@op("masked_softmax")
def _forward(x: Tensor, mask: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    outer, N, inner = as_lines(x, dim)
    rows, repeat, period = _shared_rows(mask, x, inner)
    plan = tuning.lines(outer, N, inner, x.device, tuning.registers(x.dtype, 1))
    kernel = _forward_long_kernel if plan.loops else _forward_kernel
    launch(kernel, plan.grid, y, x, rows, outer * inner, N, inner, repeat, period, **plan.meta)
    return y


class _MaskedSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, mask: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
        y = _forward(x, mask, dim, dtype)
        ctx.save_for_backward(y)
        ctx.dim, ctx.dtype = dim, x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        if recompute.wanted():  # as torch: the gradient is a function of y
            dx = torch.ops.aten._softmax_backward_data(dy, y, ctx.dim, y.dtype).to(ctx.dtype)
        else:
            dx = _backward(dy, y, ctx.dim, False, 1, ctx.dtype)
        return dx, None, None, None


def masked_softmax(input: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """softmax(input) over `dim` of the elements where `mask` is True; 0 where it is False, also for a whole line.

    mask: booleans that broadcast to input's shape, as for scaled_dot_product_attention. Where a whole line is masked
    torch.masked.softmax has NaN. Raises TypeError if mask is not boolean, ValueError if it does not broadcast to input.
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"masked_softmax: mask has dtype {mask.dtype}; expected torch.bool, True for what is kept")
    shape = (1,) * (input.dim() - mask.dim()) + tuple(mask.shape)
    if mask.dim() > input.dim() or any(n not in (1, m) for n, m in zip(shape, input.shape, strict=True)):
        raise ValueError(f"masked_softmax: mask {list(mask.shape)} does not broadcast to input {list(input.shape)}")
    valid = -max(1, input.dim()) <= dim < max(1, input.dim())
    dtype = autocast.output_dtype("softmax", input)
    reason = None if valid else route.INVALID
    if route.to_torch("masked_softmax", input, mask, unless=reason, mixed=True, dtypes=FLOATS_AND_BOOL):
        return _in_torch(input, mask, dim, dtype)
    return apply(_MaskedSoftmax, input, mask, dim, dtype, unrecorded=_forward)


FLOATS_AND_BOOL = route.HALF_TO_DOUBLE | {torch.bool}


def _in_torch(input: Tensor, mask: Tensor, dim: int, dtype: torch.dtype) -> Tensor:
    return torch._safe_softmax(input.masked_fill(~mask, -math.inf), dim, dtype=dtype)
