"""Pointwise activations: a table of scalar functions over one pair of kernels.

    forward     y  = f(x; A, B)
    backward    dx = f_grad(dy, s; A, B)      s: x, or y where f' is a function of y (torch saves the same tensor)

A row of the table is a pair of device functions in float32. At its kinks f' is the sub-gradient that torch takes, and
NaN goes through where torch lets it through. A and B are what the model fixes (a slope, a bound), hence constexpr.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import flat_tile, load
from trident.runtime import autocast, recompute, route, tuning
from trident.runtime.launch import launch
from trident.runtime.layout import lying_as
from trident.runtime.op import op

SQRT_HALF = tl.constexpr(0.7071067811865476)
RSQRT_2PI = tl.constexpr(0.3989422804014327)
CUBIC = tl.constexpr(0.044715)
TWO_SQRT_2_PI = tl.constexpr(1.5957691216057308)  # 2 sqrt(2 / pi)


@triton.jit
def _relu(x, A, B):
    return tl.where(x < 0, 0.0, x)  # not maximum: NaN stays NaN


@triton.jit
def _relu_grad(dy, y, A, B):
    return tl.where(y <= 0, 0.0, dy)


@triton.jit
def _gelu(x, A, B):
    return 0.5 * x * (1 + tl.erf(x * SQRT_HALF))


@triton.jit
def _gelu_grad(dy, x, A, B):
    return dy * (0.5 * (1 + tl.erf(x * SQRT_HALF)) + x * RSQRT_2PI * tl.exp(-0.5 * x * x))


@triton.jit
def _gelu_tanh(x, A, B):
    return x * _sigmoid((x + x * x * x * CUBIC) * TWO_SQRT_2_PI, A, B)  # 0.5 (1 + tanh(u)) = σ(2u)


@triton.jit
def _gelu_tanh_grad(dy, x, A, B):
    s = _sigmoid((x + x * x * x * CUBIC) * TWO_SQRT_2_PI, A, B)
    return dy * (s + x * s * (1 - s) * (1 + x * x * CUBIC * 3) * TWO_SQRT_2_PI)


@triton.jit
def _sigmoid(x, A, B):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def _silu(x, A, B):
    return x / (1 + tl.exp(-x))


@triton.jit
def _silu_grad(dy, x, A, B):
    s = _sigmoid(x, A, B)
    return dy * s * (1 + x * (1 - s))


class Activation(NamedTuple):
    """torch: torch's function, called as (x, *parameters). differentiable_grad: (dy, y, *parameters) -> dx in torch's
    operators, given where the gradient is a function of y, which then is what the backward keeps."""

    f: Any
    grad: Any
    torch: Callable[..., Tensor]
    differentiable_grad: Callable[..., Tensor] | None = None


aten, F = torch.ops.aten, torch.nn.functional
ACTIVATIONS = {
    "relu": Activation(_relu, _relu_grad, F.relu, lambda dy, y: aten.threshold_backward(dy, y, 0)),
    "gelu": Activation(_gelu, _gelu_grad, F.gelu),
    "gelu_tanh": Activation(_gelu_tanh, _gelu_tanh_grad, functools.partial(F.gelu, approximate="tanh")),
    "silu": Activation(_silu, _silu_grad, F.silu),
}


@triton.jit
def _forward_kernel(y, x, n, F: tl.constexpr, A: tl.constexpr, B: tl.constexpr, BLOCK: tl.constexpr):
    at, inside = flat_tile(n, BLOCK)
    tl.store(y + at, F(load(x + at, inside), A, B), inside)


@triton.jit
def _backward_kernel(dx, dy, s, n, GRAD: tl.constexpr, A: tl.constexpr, B: tl.constexpr, BLOCK: tl.constexpr):
    at, inside = flat_tile(n, BLOCK)
    tl.store(dx + at, GRAD(load(dy + at, inside), load(s + at, inside), A, B), inside)


@op("activation")
def _forward(x: Tensor, name: str, a: float, b: float, dtype: torch.dtype) -> Tensor:
    y = torch.empty_like(x, dtype=dtype)
    x = lying_as(x, y)
    plan = tuning.flat(x.numel(), x.device)
    launch(_forward_kernel, plan.grid, y, x, x.numel(), F=ACTIVATIONS[name].f, A=a, B=b, **plan.meta)
    return y


@op("activation_backward")
def _backward(dy: Tensor, s: Tensor, name: str, a: float, b: float, dtype: torch.dtype) -> Tensor:
    dx = torch.empty_like(s, dtype=dtype)
    dy, s = lying_as(dy, dx), lying_as(s, dx)
    plan = tuning.flat(s.numel(), s.device)
    launch(_backward_kernel, plan.grid, dx, dy, s, s.numel(), GRAD=ACTIVATIONS[name].grad, A=a, B=b, **plan.meta)
    return dx


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, parameters: tuple[float, ...], dtype: torch.dtype) -> Tensor:
        y = _forward(x, name, *_a_b(parameters), dtype)
        ctx.save_for_backward(x if ACTIVATIONS[name].differentiable_grad is None else y)
        ctx.name, ctx.parameters, ctx.dtype = name, parameters, x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (s,) = ctx.saved_tensors
        if not recompute.wanted():
            return _backward(dy, s, ctx.name, *_a_b(ctx.parameters), ctx.dtype), None, None, None
        row = ACTIVATIONS[ctx.name]
        if row.differentiable_grad is not None:
            return row.differentiable_grad(dy, s, *ctx.parameters), None, None, None
        return *recompute.gradients(lambda x: row.torch(x, *ctx.parameters), (s,), dy), None, None, None


def _a_b(parameters: tuple[float, ...]) -> tuple[float, float]:
    a, b = (*map(float, parameters), 0.0, 0.0)[:2]
    return a, b


def _activate(name: str, x: Tensor, *parameters: float, inplace: bool = False) -> Tensor:
    """Row `name` of the table on a tensor of any shape and strides; the result lies in memory as x does."""
    torch_only = {"inplace": True} if inplace else {}
    if route.to_torch(name, x, unless="in place" if inplace else None):
        return ACTIVATIONS[name].torch(x, *parameters, **torch_only)
    return _Activation.apply(x, name, parameters, autocast.output_dtype(name, x))


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0). Same contract as :func:`torch.nn.functional.relu`."""
    return _activate("relu", input, inplace=inplace)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x Φ(x), Φ the normal distribution (arXiv:1606.08415). Same contract as :func:`torch.nn.functional.gelu`."""
    if approximate not in ("none", "tanh"):
        return F.gelu(input, approximate=approximate)  # raises
    return _activate("gelu" if approximate == "none" else "gelu_tanh", input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x σ(x). Same contract as :func:`torch.nn.functional.silu`."""
    return _activate("silu", input, inplace=inplace)
