"""A differentiable draw of a class (Jang et al. 2016, arXiv:1611.01144; Maddison et al. 2016, arXiv:1611.00712).

forward     z  = (x - log e) / tau          e: exponential numbers, as torch draws them
            y  = softmax(z)                 hard: 1 at the largest of each line, else 0, by way of (h - y) + y as torch
backward    dx = y (dy - sum(dy y)) / tau   hard too: straight through
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.lines import along, line_max, line_tile, per_line, segments
from trident.lang.tile import flat_tile, from_bits, load
from trident.ops._softmax import _backward as softmax_backward
from trident.ops._softmax import _forward as softmax_forward
from trident.ops._softmax import torch_differentiates
from trident.runtime import autocast, nodes, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.exact import bits
from trident.runtime.launch import launch
from trident.runtime.layout import as_lines
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype

aten = torch.ops.aten


@triton.jit
def _noisy_kernel(z, x, e, tau, n, BLOCK: tl.constexpr):
    at, inside = flat_tile(n, BLOCK)
    b_z = load(x + at, inside) - tl.log(load(e + at, inside, 1.0))
    tl.store(z + at, b_z / from_bits(tau).to(b_z.dtype), inside)


@triton.jit
def _hard_kernel(
    h, y, M, N, inner, AXIS: tl.constexpr, SPAN: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """(1 at the first of the largest of each line, else 0) - y + y."""
    N, inner = segments(N, inner, ALIGN, AXIS)
    _, start, exist = line_tile(tl.program_id(0), M, N, inner, AXIS, SPAN, BLOCK_M)
    top = per_line(-1.0, y, AXIS, BLOCK_M)
    place = tl.zeros_like(top).to(tl.int64)
    for chunk in range(0, tl.cdiv(N, BLOCK_N)):
        n = along(chunk, AXIS, BLOCK_N)
        inside = exist & (n < N)
        b_y = load(y + start + n * inner, inside, -1.0)
        highest = line_max(b_y, AXIS)
        first = tl.min(tl.where(b_y == highest, n, N), axis=AXIS, keep_dims=True)
        place = tl.where(highest > top, first, place)
        top = tl.maximum(top, highest)
    for chunk in range(0, tl.cdiv(N, BLOCK_N)):
        n = along(chunk, AXIS, BLOCK_N)
        inside = exist & (n < N)
        at = start + n * inner
        b_y = load(y + at, inside)
        tl.store(h + at, tl.where(n == place, 1.0, 0.0) - b_y + b_y, inside)


@op("gumbel_noise")
def _noisy(x: Tensor, e: Tensor, tau: float) -> Tensor:
    """z, in the dtype that softmax computes in."""
    x, e = x.contiguous(), e.contiguous()
    z = torch.empty_like(x, dtype=compute_dtype(x))
    plan = tuning.flat(x.numel(), x.device)
    launch(_noisy_kernel, plan.grid, z, x, e, bits(tau), x.numel(), **plan.meta)
    return z


@op("gumbel_hard")
def _hard(y: Tensor, dim: int) -> Tensor:
    h = torch.empty_like(y)
    outer, N, inner = as_lines(y, dim)
    plan = tuning.lines(outer, N, inner, y.device, tuning.registers(y.dtype, 2))
    launch(_hard_kernel, plan.grid, h, y, outer * inner, N, inner, **plan.meta)
    return h


class _GumbelSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, e: Tensor, tau: float, dim: int, hard: bool, dtype: torch.dtype) -> Tensor:
        y = softmax_forward(_noisy(x, e, tau), dim, False, 1, dtype)
        ctx.save_for_backward(y)
        ctx.how = tau, dim, x.dtype
        return _hard(y, dim) if hard else y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        tau, dim, dtype = ctx.how
        if recompute.wanted() or (
            dy.dtype == y.dtype and torch_differentiates(y, dim)
        ):  # the gradient is a function of y
            dx = torch._softmax_backward_data(dy, y, dim, y.dtype)
        else:
            dx = softmax_backward(dy, y, dim, False, 1, y.dtype)
        return (dx / tau).to(dtype), None, None, None, None, None


def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:  # fmt: skip
    """Same contract as :func:`torch.nn.functional.gumbel_softmax`, and the same draws for the same seed."""
    x = logits
    fits = x.is_floating_point() and isinstance(dim, int) and -max(1, x.dim()) <= dim < max(1, x.dim())
    reason = None if fits and eps == 1e-10 and float(tau) != 0 else route.INVALID
    if route.to_torch("gumbel_softmax", x, unless=reason):
        return torch.nn.functional.gumbel_softmax(logits, tau, hard, eps, dim)
    e = torch.empty_like(x, memory_format=torch.legacy_contiguous_format, requires_grad=False).exponential_()
    dtype = autocast.output_dtype("softmax", x)
    if dtype == x.dtype and nodes.possible(x) and torch_differentiates(x, dim):
        y = softmax_forward(_noisy(x.detach(), e, float(tau)), dim, False, 1, dtype)
        return _recorded(_hard(y, dim) if hard else None, y, x, float(tau), dim)
    result: Tensor = apply(_GumbelSoftmax, x, e, float(tau), dim, hard, dtype)
    return result


def _recorded(h: Tensor | None, y: Tensor, x: Tensor, tau: float, dim: int) -> Tensor:
    """torch's nodes of y = softmax(x / tau), and of h = (h - y) + y."""
    z = x if tau == 1 else nodes.torchs(torch.div, aten.div.Tensor, torch.empty_like(y), x, tau)
    y = nodes.torchs(torch.softmax, aten._softmax.default, y, z, dim)
    return y if h is None else nodes.torchs(torch.add, aten.add.Tensor, h, y, y.detach())
