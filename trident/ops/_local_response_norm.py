"""Local response normalization (Krizhevsky et al. 2012) of x [N, C, *spatial] over windows of neighbouring channels.

forward     d  = k + alpha / size * sum of x^2 over channels c - size // 2 .. c + (size - 1) // 2, those that exist
            y  = x * d^-beta

backward    dx = dy * d^-beta - 2 alpha beta / size * x * sum of dy * y / d over the windows that x is in
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.lines import along, line_tile
from trident.lang.tile import load, multiple
from trident.runtime import recompute, route, tuning, tuning_planes
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype

F = torch.nn.functional


@triton.jit
def _forward_kernel(
    y, d, x, P, S, C, SIZE, ALPHA: tl.constexpr, BETA: tl.constexpr, K: tl.constexpr,
    AXIS: tl.constexpr, SPAN: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    S = multiple(S, ALIGN)
    planes, start, exist = line_tile(tl.program_id(0), P, S, 1, AXIS, SPAN, BLOCK_M)
    s = along(tl.program_id(1), AXIS, BLOCK_N)
    at, inside = start + s, exist & (s < S)
    b_x = load(x + at, inside)
    squares = tl.zeros_like(b_x)
    for i in range(0, SIZE):
        channel = planes % C + (i - SIZE // 2)
        near = load(x + at + (i - SIZE // 2) * tl.full((), 1, tl.int64) * S, inside & (channel >= 0) & (channel < C))
        squares += near * near
    b_d = squares * ALPHA / SIZE + K
    tl.store(d + at, b_d, inside)
    tl.store(y + at, b_x * tl.exp(tl.log(b_d) * -BETA), inside)


@triton.jit
def _backward_kernel(
    dx, dy, x, y, d, P, S, C, SIZE, ALPHA: tl.constexpr, BETA: tl.constexpr,
    AXIS: tl.constexpr, SPAN: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    S = multiple(S, ALIGN)
    planes, start, exist = line_tile(tl.program_id(0), P, S, 1, AXIS, SPAN, BLOCK_M)
    s = along(tl.program_id(1), AXIS, BLOCK_N)
    at, inside = start + s, exist & (s < S)
    b_x = load(x + at, inside)
    total = tl.zeros_like(b_x)
    for i in range(0, SIZE):
        channel = planes % C + (i - (SIZE - 1) // 2)
        there = inside & (channel >= 0) & (channel < C)
        off = at + (i - (SIZE - 1) // 2) * tl.full((), 1, tl.int64) * S
        total += load(dy + off, there) * load(y + off, there) / load(d + off, there, 1.0)
    straight = load(dy + at, inside) * tl.exp(tl.log(load(d + at, inside, 1.0)) * -BETA)
    tl.store(dx + at, straight - b_x * total * (2 * ALPHA * BETA) / SIZE, inside)


def _sizes(x: Tensor, size: int) -> tuple[int, int, int, int]:
    N, C = x.shape[:2]
    return N * C, math.prod(x.shape[2:]), C, size


@op("local_response_norm")
def _forward(x: Tensor, size: int, alpha: float, beta: float, k: float) -> tuple[Tensor, Tensor]:
    """y, lying as x, and d, contiguous, in the dtype of sums."""
    y = torch.empty_like(x)
    found = y if y.is_contiguous() else torch.empty_like(y, memory_format=torch.contiguous_format)
    x = x.contiguous()
    d = torch.empty_like(x, dtype=compute_dtype(x))
    sizes = _sizes(x, size)
    plan = tuning_planes.plane_tiles(*sizes[:2], 1, x.device, tuning.registers(x.dtype, 3))
    launch(_forward_kernel, plan.grid, found, d, x, *sizes, ALPHA=alpha, BETA=beta, K=k, **plan.meta)
    return found if found is y else y.copy_(found), d


@op("local_response_norm_backward")
def _backward(dy: Tensor, x: Tensor, y: Tensor, d: Tensor, size: int, alpha: float, beta: float) -> Tensor:
    dy, x, y = dy.contiguous(), x.contiguous(), y.contiguous()
    dx = torch.empty_like(x)
    sizes = _sizes(x, size)
    plan = tuning_planes.plane_tiles(*sizes[:2], 1, x.device, tuning.registers(x.dtype, 4))
    launch(_backward_kernel, plan.grid, dx, dy, x, y, d, *sizes, ALPHA=alpha, BETA=beta, **plan.meta)
    return dx


class _LocalResponseNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
        y, d = _forward(x, size, alpha, beta, k)
        ctx.save_for_backward(x, y, d)
        ctx.how = size, alpha, beta, k
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, y, d = ctx.saved_tensors
        if recompute.wanted():
            (dx,) = recompute.gradients(lambda x: F.local_response_norm(x, *ctx.how), (x,), dy)
        else:
            dx = _backward(dy, x, y, d, *ctx.how[:3])
        return dx, None, None, None, None


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Same contract as :func:`torch.nn.functional.local_response_norm`.

    Shapes: input [N, C, *] of at least three dimensions; the result as input, lying in memory as it does.
    """
    reason = None if input.dim() >= 3 and isinstance(size, int) and size > 0 else route.INVALID
    if reason is None and torch._C._is_any_autocast_enabled():
        reason = "under autocast torch's operators decide the dtype"
    if route.to_torch("local_response_norm", input, unless=reason):
        return F.local_response_norm(input, size, alpha, beta, k)
    return apply(_LocalResponseNorm, input, size, float(alpha), float(beta), float(k))
