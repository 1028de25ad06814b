"""Division of the lines of a tensor along one dimension by their p-norm: x seen as lines of N elements (lang/lines.py).

forward     n  = (sum over N of |x|^p)^(1/p)
            d  = max(n, eps)
            y  = x / d

backward    dx = dy / d - [n >= eps] * (sum over N of dy * x) / d^2 * sign(x) (|x| / n)^(p-1)
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.lines import along, line_sum, line_tile, per_line, segments
from trident.lang.tile import load
from trident.runtime import autocast, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.layout import as_lines, memory_format
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype

F = torch.nn.functional


@triton.jit
def _power(x, P: tl.constexpr):
    """|x|^P for P >= 1, and 0 at 0"""
    if P == 1:
        y = tl.abs(x)
    elif P == 2:
        y = x * x
    else:
        y = tl.exp(tl.log(tl.abs(x)) * P)
    return y


@triton.jit
def _root(x, P: tl.constexpr):
    if P == 1:
        y = x
    elif P == 2:
        y = tl.sqrt(x)
    else:
        y = tl.exp(tl.log(x) * (1 / P))
    return y


@triton.jit
def _slope(x, P: tl.constexpr):
    """sign(x) |x|^(P-1)"""
    sign = tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x))  # NaN stays
    if P == 1:
        y = sign
    elif P == 2:
        y = x
    else:
        y = sign * tl.exp(tl.log(tl.where(x == 0, 1.0, tl.abs(x))) * (P - 1))
    return y


@triton.jit
def _forward_kernel(
    y, norm, x, M, N, inner, P: tl.constexpr, EPS: tl.constexpr,
    AXIS: tl.constexpr, SPAN: tl.constexpr, LOOPS: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N, inner = segments(N, inner, ALIGN, AXIS)
    lines, start, exist = line_tile(tl.program_id(0), M, N, inner, AXIS, SPAN, BLOCK_M)
    if LOOPS:
        total = per_line(0.0, x, AXIS, BLOCK_M)
        for chunk in range(0, tl.cdiv(N, BLOCK_N)):
            n = along(chunk, AXIS, BLOCK_N)
            total += line_sum(_power(load(x + start + n * inner, exist & (n < N)), P), AXIS)
        b_norm = _root(total, P)
        d = tl.where(b_norm < EPS, EPS, b_norm)
        for chunk in range(0, tl.cdiv(N, BLOCK_N)):
            n = along(chunk, AXIS, BLOCK_N)
            at, inside = start + n * inner, exist & (n < N)
            tl.store(y + at, load(x + at, inside) / d, inside)
    else:
        n = along(0, AXIS, BLOCK_N)
        at, inside = start + n * inner, exist & (n < N)
        b_x = load(x + at, inside)
        b_norm = _root(line_sum(_power(b_x, P), AXIS), P)
        tl.store(y + at, b_x / tl.where(b_norm < EPS, EPS, b_norm), inside)
    tl.store(norm + lines, b_norm, exist)


@triton.jit
def _store_dx(dx, b_dy, b_x, total, b_norm, at, inside, P: tl.constexpr, EPS: tl.constexpr):
    d = tl.where(b_norm < EPS, EPS, b_norm)
    by_norm = tl.where(b_norm < EPS, 0.0, total / d / d) * _slope(b_x / tl.where(b_norm == 0, 1.0, b_norm), P)
    tl.store(dx + at, b_dy / d - by_norm, inside)


@triton.jit
def _backward_kernel(
    dx, dy, x, norm, M, N, inner, P: tl.constexpr, EPS: tl.constexpr,
    AXIS: tl.constexpr, SPAN: tl.constexpr, LOOPS: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N, inner = segments(N, inner, ALIGN, AXIS)
    lines, start, exist = line_tile(tl.program_id(0), M, N, inner, AXIS, SPAN, BLOCK_M)
    b_norm = load(norm + lines, exist, 1.0)
    if LOOPS:
        total = per_line(0.0, x, AXIS, BLOCK_M)
        for chunk in range(0, tl.cdiv(N, BLOCK_N)):
            n = along(chunk, AXIS, BLOCK_N)
            at, inside = start + n * inner, exist & (n < N)
            total += line_sum(load(dy + at, inside) * load(x + at, inside), AXIS)
        for chunk in range(0, tl.cdiv(N, BLOCK_N)):
            n = along(chunk, AXIS, BLOCK_N)
            at, inside = start + n * inner, exist & (n < N)
            _store_dx(dx, load(dy + at, inside), load(x + at, inside), total, b_norm, at, inside, P, EPS)
    else:
        n = along(0, AXIS, BLOCK_N)
        at, inside = start + n * inner, exist & (n < N)
        b_dy, b_x = load(dy + at, inside), load(x + at, inside)
        _store_dx(dx, b_dy, b_x, line_sum(b_dy * b_x, AXIS), b_norm, at, inside, P, EPS)


@op("normalize")
def _forward(x: Tensor, dim: int, p: float, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """y, lying as x, and the norm of each line."""
    y = torch.empty_like(x, dtype=dtype)
    found = y if y.is_contiguous() else torch.empty_like(y, memory_format=torch.contiguous_format)
    x = x.contiguous()
    outer, N, inner = as_lines(x, dim)
    norm = x.new_empty(outer * inner, dtype=compute_dtype(x))
    plan = tuning.lines(outer, N, inner, x.device, tuning.registers(x.dtype, 1))
    sizes, meta = (outer * inner, N, inner), {"LOOPS": plan.loops, **plan.meta}
    launch(_forward_kernel, plan.grid, found, norm, x, *sizes, P=p, EPS=eps, **meta)
    return found if found is y else y.copy_(found), norm


@op("normalize_backward")
def _backward(dy: Tensor, x: Tensor, norm: Tensor, dim: int, p: float, eps: float) -> Tensor:
    dy, x = dy.contiguous(), x.contiguous()
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    outer, N, inner = as_lines(x, dim)
    plan = tuning.lines(outer, N, inner, x.device, tuning.registers(x.dtype, 3))
    sizes, meta = (outer * inner, N, inner), {"LOOPS": plan.loops, **plan.meta}
    launch(_backward_kernel, plan.grid, dx, dy, x, norm, *sizes, P=p, EPS=eps, **meta)
    return dx


class _Normalize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, p: float, eps: float, dtype: torch.dtype) -> Tensor:
        y, norm = _forward(x, dim, p, eps, dtype)
        ctx.save_for_backward(x, norm)
        ctx.how = dim, p, eps
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, norm = ctx.saved_tensors
        dim, p, eps = ctx.how
        if recompute.wanted():
            (dx,) = recompute.gradients(lambda x: F.normalize(x, p, dim, eps), (x,), dy)
        else:
            dx = _backward(dy, x, norm, dim, p, eps)
        return dx, None, None, None, None


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12, out: Tensor | None = None) -> Tensor:
    """Same contract as :func:`torch.nn.functional.normalize`. The kernel takes 1 <= p < inf and one dimension.

    Shapes: any input; the result as input, lying in memory as it does.
    """
    reason = None
    if out is not None:
        reason = "out="
    elif not isinstance(dim, int) or not 1 <= p < float("inf"):
        reason = "no kernel for this norm"
    elif not -input.dim() <= dim < input.dim():
        reason = route.INVALID
    trained = torch.is_grad_enabled() and input.requires_grad
    name = "normalize (power)" if p != 2 else "normalize" if trained else "normalize (forward alone)"
    if route.to_torch(name, input, unless=reason):
        return F.normalize(input, p, dim, eps, out)
    dtype = autocast.output_dtype("normalize", input)
    if memory_format(input) == torch.contiguous_format:
        return apply(_Normalize, input, dim, float(p), eps, dtype)
    # channels_last is contiguous with its channels as the last dimension
    last = input.dim() - 1
    to = 0 if dim % input.dim() == 0 else last if dim % input.dim() == 1 else dim % input.dim() - 1
    return apply(_Normalize, input.movedim(1, last), to, float(p), eps, dtype).movedim(last, 1)
