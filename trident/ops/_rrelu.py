"""RReLU (Xu et al. 2015, arXiv:1505.00853): below 0 a slope drawn for each element, in evaluation the mean slope.

    r           uniform in [LOWER, UPPER)
    forward     y  = x where x > 0, else r x
    backward    dx = dy where x > 0, else r dy

r is Philox at the element's place in memory, as in _dropout.py. So GPUs draw it again in the backward; CPUs, where that
takes several times as long as memory does, keep dy's factor, 1 or r, as torch does.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.random import random4, uniform
from trident.lang.tile import flat_tile, load
from trident.ops._activation import leaky_relu
from trident.ops._dropout import seed_for, torch_multiplies
from trident.runtime import nodes, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype


@triton.jit
def _kernel(out, kept, factor, x, seed, n, quarter, LOWER: tl.constexpr, UPPER: tl.constexpr, BLOCK: tl.constexpr):
    """out = factor * kept, kept = 1 where x > 0, else r: factor is x in the forward, dy in the backward."""
    at, in_quarter = flat_tile(quarter, BLOCK)
    random = random4(seed, at)  # the four words of a counter serve four elements, a quarter of the tensor apart
    for i in tl.static_range(4):
        inside = in_quarter & (at < n)
        b_factor, below = load(factor + at, inside), load(x + at, inside) <= 0
        slope = uniform(random[i]).to(b_factor.dtype) * (UPPER - LOWER) + LOWER
        tl.store(out + at, tl.where(below, b_factor * slope, b_factor), inside)
        if kept is not None:
            tl.store(kept + at, tl.where(below, slope, 1.0), inside)
        at += quarter


@triton.jit
def _kept_kernel(dx, dy, kept, n, BLOCK: tl.constexpr):
    at, inside = flat_tile(n, BLOCK)
    tl.store(dx + at, load(dy + at, inside) * load(kept + at, inside), inside)


@op("rrelu")
def _sloped(
    factor: Tensor, x: Tensor, seed: Tensor, lower: float, upper: float, keep: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """out, and what factor was multiplied by, in the dtype `keep` (empty, unless it is to be kept)."""
    factor, x = factor.contiguous(), x.contiguous()
    out = torch.empty_like(factor)
    n = x.numel()
    kept = torch.empty_like(out if keep else x.new_empty(0), dtype=keep)
    quarter = (n + 63) // 64 * 16  # a multiple of 16, so that all four places are aligned
    plan = tuning.flat(quarter, x.device)
    args = out, kept if keep else None, factor, x, seed, n, quarter
    launch(_kernel, plan.grid, *args, LOWER=lower, UPPER=upper, **plan.meta)
    return out, kept


@op("rrelu_backward")
def _kept(dy: Tensor, kept: Tensor) -> Tensor:
    dy = dy.contiguous()
    dx = torch.empty_like(dy)
    plan = tuning.flat(dy.numel(), dy.device)
    launch(_kept_kernel, plan.grid, dx, dy, kept, dy.numel(), **plan.meta)
    return dx


class _RReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: Tensor, lower: float, upper: float) -> Tensor:
        keep = compute_dtype(x) if ctx.needs_input_grad[0] and tuning.keeps_numbers(x.device) else None
        y, kept = _sloped(x, x, seed, lower, upper, keep)
        ctx.save_for_backward(*((None, None, kept) if keep else (x, seed, None)))
        ctx.bounds = lower, upper
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, seed, kept = ctx.saved_tensors
        lower, upper = ctx.bounds
        if recompute.wanted():  # linear in dy, and piecewise constant in x
            if kept is None:
                kept, _ = _sloped(torch.ones_like(dy), x.detach(), seed, lower, upper, None)
            dx = dy * kept.to(dy.dtype)
        elif kept is not None:
            dx = _kept(dy, kept)
        else:
            dx, _ = _sloped(dy, x, seed, lower, upper, None)
        return dx, None, None, None


def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """Same contract as :func:`torch.nn.functional.rrelu`: any shape; the result is contiguous."""
    reason = "in place" if inplace else None if lower <= upper else route.INVALID
    if route.to_torch("rrelu", input, unless=reason):
        return torch.nn.functional.rrelu(input, lower, upper, training, inplace)
    input = input.contiguous()
    if not training:
        return leaky_relu(input, (lower + upper) / 2)
    if torch_multiplies("rrelu", input):
        x = input.detach()
        y, kept = _sloped(x, x, seed_for(x), lower, upper, x.dtype)
        return nodes.product(y, input, kept)
    return apply(_RReLU, input, seed_for(input), lower, upper)
