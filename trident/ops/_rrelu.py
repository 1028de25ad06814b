"""RReLU (Xu et al. 2015, arXiv:1505.00853): below 0 a slope drawn for each element, in evaluation the mean slope.

    r           uniform in [LOWER, UPPER)
    forward     y  = x where x > 0, else r x
    backward    dx = dy where x > 0, else r dy

r is not stored: it is Philox at the element's place in memory, as in _dropout.py.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.random import random4, uniform
from trident.lang.tile import flat_tile, load
from trident.ops._activation import leaky_relu
from trident.ops._dropout import seed_for
from trident.runtime import recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op


@triton.jit
def _kernel(out, factor, x, seed, n, quarter, LOWER: tl.constexpr, UPPER: tl.constexpr, BLOCK: tl.constexpr):
    """out = factor * (1 where x > 0, else r): factor is x in the forward, dy in the backward."""
    at, in_quarter = flat_tile(quarter, BLOCK)
    random = random4(seed, at)  # the four words of a counter serve four elements, a quarter of the tensor apart
    for i in tl.static_range(4):
        inside = in_quarter & (at < n)
        b_factor = load(factor + at, inside)
        slope = uniform(random[i]).to(b_factor.dtype) * (UPPER - LOWER) + LOWER
        tl.store(out + at, tl.where(load(x + at, inside) <= 0, b_factor * slope, b_factor), inside)
        at += quarter


@op("rrelu")
def _sloped(factor: Tensor, x: Tensor, seed: Tensor, lower: float, upper: float) -> Tensor:
    factor, x = factor.contiguous(), x.contiguous()
    out = torch.empty_like(factor)
    n = x.numel()
    quarter = (n + 63) // 64 * 16  # a multiple of 16, so that all four places are aligned
    plan = tuning.flat(quarter, x.device)
    launch(_kernel, plan.grid, out, factor, x, seed, n, quarter, LOWER=lower, UPPER=upper, **plan.meta)
    return out


class _RReLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: Tensor, lower: float, upper: float) -> Tensor:
        ctx.save_for_backward(x, seed)
        ctx.bounds = lower, upper
        return _sloped(x, x, seed, lower, upper)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, seed = ctx.saved_tensors
        if recompute.wanted():  # linear in dy, and piecewise constant in x
            return dy * _sloped(torch.ones_like(dy), x.detach(), seed, *ctx.bounds), None, None, None
        return _sloped(dy, x, seed, *ctx.bounds), None, None, None


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
    return apply(_RReLU, input, seed_for(input), lower, upper)
