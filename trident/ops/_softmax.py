"""softmax, log_softmax and softmin over one dimension; x is seen as [outer, N, inner], sums run over N.

forward     z  = x  (softmin: -x)
            y  = exp(z - max z) / sum exp(z - max z)        log: y = z - max z - log sum exp(z - max z)

backward    dx = y (dy - sum(dy y))                         log: dx = dy - exp(y) sum(dy)
            softmin: -dx
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.lines import along, line_max, line_sum, line_tile, online_softmax, per_line, segments
from trident.lang.tile import load
from trident.runtime import autocast, nodes, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.layout import as_lines
from trident.runtime.op import op


@triton.jit
def _normalized(shifted, total, LOG: tl.constexpr):
    """shifted = z - max z; total = sum exp(shifted)"""
    return shifted - tl.log(total) if LOG else tl.exp(shifted) * (1 / total)  # one division a line, not one an element


@triton.jit
def _weighted(dy, y, LOG: tl.constexpr):
    """The summands of the backward's sum."""
    return dy if LOG else dy * y


@triton.jit
def _gradient(dy, y, total, LOG: tl.constexpr):
    return dy - tl.exp(y) * total if LOG else y * (dy - total)


@triton.jit
def _forward_kernel(
    y, x, M, N, inner, LOG: tl.constexpr, SIGN: tl.constexpr, AXIS: tl.constexpr, SPAN: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N, inner = segments(N, inner, ALIGN, AXIS)
    _, start, exist = line_tile(tl.program_id(0), M, N, inner, AXIS, SPAN, BLOCK_M)
    n = along(0, AXIS, BLOCK_N)
    at, inside = start + n * inner, exist & (n < N)

    z = tl.where(inside, load(x + at, inside) * SIGN, -float("inf"))
    shifted = z - line_max(z, AXIS)
    tl.store(y + at, _normalized(shifted, line_sum(tl.exp(shifted), AXIS), LOG), inside)


@triton.jit
def _forward_long_kernel(
    y, x, M, N, inner, LOG: tl.constexpr, SIGN: tl.constexpr, AXIS: tl.constexpr, SPAN: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N, inner = segments(N, inner, ALIGN, AXIS)
    _, start, exist = line_tile(tl.program_id(0), M, N, inner, AXIS, SPAN, BLOCK_M)
    top, total = per_line(-float("inf"), x, AXIS, BLOCK_M), per_line(0.0, x, AXIS, BLOCK_M)
    for chunk in range(0, tl.cdiv(N, BLOCK_N)):
        n = along(chunk, AXIS, BLOCK_N)
        inside = exist & (n < N)
        z = tl.where(inside, load(x + start + n * inner, inside) * SIGN, -float("inf"))
        top, total = online_softmax(top, total, z, AXIS)
    for chunk in range(0, tl.cdiv(N, BLOCK_N)):
        n = along(chunk, AXIS, BLOCK_N)
        at, inside = start + n * inner, exist & (n < N)
        tl.store(y + at, _normalized(load(x + at, inside) * SIGN - top, total, LOG), inside)


@triton.jit
def _backward_kernel(
    dx, dy, y, M, N, inner, LOG: tl.constexpr, SIGN: tl.constexpr, AXIS: tl.constexpr, SPAN: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N, inner = segments(N, inner, ALIGN, AXIS)
    _, start, exist = line_tile(tl.program_id(0), M, N, inner, AXIS, SPAN, BLOCK_M)
    n = along(0, AXIS, BLOCK_N)
    at, inside = start + n * inner, exist & (n < N)

    b_dy, b_y = load(dy + at, inside), load(y + at, inside)
    total = line_sum(_weighted(b_dy, b_y, LOG), AXIS)
    tl.store(dx + at, _gradient(b_dy, b_y, total, LOG) * SIGN, inside)


@triton.jit
def _backward_long_kernel(
    dx, dy, y, M, N, inner, LOG: tl.constexpr, SIGN: tl.constexpr, AXIS: tl.constexpr, SPAN: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N, inner = segments(N, inner, ALIGN, AXIS)
    _, start, exist = line_tile(tl.program_id(0), M, N, inner, AXIS, SPAN, BLOCK_M)
    total = per_line(0.0, y, AXIS, BLOCK_M)
    for chunk in range(0, tl.cdiv(N, BLOCK_N)):
        n = along(chunk, AXIS, BLOCK_N)
        at, inside = start + n * inner, exist & (n < N)
        total += line_sum(_weighted(load(dy + at, inside), load(y + at, inside), LOG), AXIS)
    for chunk in range(0, tl.cdiv(N, BLOCK_N)):
        n = along(chunk, AXIS, BLOCK_N)
        at, inside = start + n * inner, exist & (n < N)
        tl.store(dx + at, _gradient(load(dy + at, inside), load(y + at, inside), total, LOG) * SIGN, inside)


@op("softmax")
def _forward(x: Tensor, dim: int, log: bool, sign: int, dtype: torch.dtype) -> Tensor:
    x = x.contiguous()
    y = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    outer, N, inner = as_lines(x, dim)
    plan = tuning.lines(outer, N, inner, x.device, tuning.registers(x.dtype, 1))
    kernel = _forward_long_kernel if plan.loops else _forward_kernel
    launch(kernel, plan.grid, y, x, outer * inner, N, inner, LOG=log, SIGN=sign, **plan.meta)
    return y


@op("softmax_backward")
def _backward(dy: Tensor, y: Tensor, dim: int, log: bool, sign: int, dtype: torch.dtype) -> Tensor:
    dy, y = dy.contiguous(), y.contiguous()
    dx = torch.empty_like(y, dtype=dtype, memory_format=torch.contiguous_format)
    outer, N, inner = as_lines(y, dim)
    plan = tuning.lines(outer, N, inner, y.device, tuning.registers(y.dtype, 2))
    kernel = _backward_long_kernel if plan.loops else _backward_kernel
    launch(kernel, plan.grid, dx, dy, y, outer * inner, N, inner, LOG=log, SIGN=sign, **plan.meta)
    return dx


class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, log: bool, sign: int, dtype: torch.dtype) -> Tensor:
        y = _forward(x, dim, log, sign, dtype)
        ctx.save_for_backward(y)
        ctx.dim, ctx.log, ctx.sign, ctx.dtype = dim, log, sign, x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        # as torch: the gradient is a function of y
        plain = ctx.sign > 0 and ctx.dtype == y.dtype == dy.dtype
        if recompute.wanted() or (plain and torch_differentiates(y, ctx.dim, ctx.log)):
            # not torch.ops.aten's, whose Python costs 2 us more
            of_torch = torch._log_softmax_backward_data if ctx.log else torch._softmax_backward_data
            dx = of_torch(dy, y, ctx.dim, y.dtype)
            dx = (dx if ctx.sign > 0 else -dx).to(ctx.dtype)
        else:
            dx = _backward(dy, y, ctx.dim, ctx.log, ctx.sign, ctx.dtype)
        return dx, None, None, None, None


def torch_differentiates(y: Tensor, dim: int, log: bool = False) -> bool:
    name = "log_softmax" if log else "softmax"
    return route.gradient_to_torch(name if dim in (-1, y.dim() - 1) else f"{name} (inner)", y)


def _softmax(
    name: str, input: Tensor, dim: int | None, stacklevel: int, dtype: torch.dtype | None, log: bool, sign: int
) -> Tensor:
    reason = None
    x = input
    if dim is None:
        reason = "torch chooses the dimension, and warns"
    elif not isinstance(dim, int) or not -max(1, x.dim()) <= dim < max(1, x.dim()):
        reason = route.INVALID
    elif sign < 0 and not x.is_floating_point():
        reason = "torch negates integers before it converts them"
    elif dtype is not None and dtype in route.HALF_TO_DOUBLE and not (dtype == torch.float32 and x.dtype in HALVES):
        x = x.to(dtype)  # the kernel reads halves and writes float32 by itself
    if route.to_torch(name, x, unless=reason) or dim is None:
        return getattr(torch.nn.functional, name)(input, dim, _stacklevel=stacklevel + 3, dtype=dtype)
    dtype = dtype or autocast.output_dtype("softmax", x)
    if sign > 0 and dtype == x.dtype and nodes.possible(x) and torch_differentiates(x, dim, log):
        y = _forward(x.detach(), dim, log, sign, dtype)
        return nodes.torchs(*(LOG_SOFTMAX if log else SOFTMAX), y, x, dim)
    return apply(_Softmax, x, dim, log, sign, dtype, unrecorded=_forward)


HALVES = (torch.float16, torch.bfloat16)
# torch's function, and what it asks below autograd
SOFTMAX = torch.softmax, torch.ops.aten._softmax.default
LOG_SOFTMAX = torch.log_softmax, torch.ops.aten._log_softmax.default


def softmax(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """exp(x) / sum exp(x) over `dim`. Same contract as :func:`torch.nn.functional.softmax`."""
    return _softmax("softmax", input, dim, _stacklevel, dtype, log=False, sign=1)


def log_softmax(
    input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None
) -> Tensor:
    """x - log sum exp(x) over `dim`. Same contract as :func:`torch.nn.functional.log_softmax`."""
    return _softmax("log_softmax", input, dim, _stacklevel, dtype, log=True, sign=1)


def softmin(input: Tensor, dim: int | None = None, _stacklevel: int = 3, dtype: torch.dtype | None = None) -> Tensor:
    """softmax(-x) over `dim`. Same contract as :func:`torch.nn.functional.softmin`."""
    return _softmax("softmin", input, dim, _stacklevel, dtype, log=False, sign=-1)
