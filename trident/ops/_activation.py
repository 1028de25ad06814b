"""Pointwise activations: a table of scalar functions over one pair of kernels.

    forward     y  = f(x; A, B)
    backward    dx = f_grad(dy, s; A, B)      s: x, or y where f' is a function of y (torch saves the same tensor)

A row of the table is a pair of device functions of lang/pointwise.py. A and B are what the model fixes (a slope, a
bound), hence constexpr.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang import pointwise
from trident.lang.tile import flat_tile, load
from trident.runtime import autocast, nodes, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch_planned
from trident.runtime.layout import lying_as
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype


class Activation(NamedTuple):
    """torch: torch's function, called as (x, *parameters). differentiable_grad: (dy, y, *parameters) -> dx in torch's
    operators, given where the gradient is a function of y, which then is what the backward keeps. node: what torch's
    function asks below autograd (not of celu, whose gradient has 1 / alpha in float32)."""

    f: Any
    grad: Any
    torch: Callable[..., Tensor]
    differentiable_grad: Callable[..., Tensor] | None = None
    node: Any = None


aten, F, P = torch.ops.aten, torch.nn.functional, pointwise
ACTIVATIONS = {
    "celu": Activation(P.celu, P.celu_grad, F.celu),
    "elu": Activation(P.elu, P.elu_grad, F.elu, node=aten.elu.default),
    "gelu": Activation(P.gelu, P.gelu_grad, F.gelu),
    "gelu_tanh": Activation(P.gelu_tanh, P.gelu_tanh_grad, functools.partial(F.gelu, approximate="tanh")),
    "hardshrink": Activation(P.hardshrink, P.shrink_grad, F.hardshrink),
    "hardsigmoid": Activation(P.hardsigmoid, P.hardsigmoid_grad, F.hardsigmoid),
    "hardswish": Activation(P.hardswish, P.hardswish_grad, F.hardswish),
    "hardtanh": Activation(P.hardtanh, P.hardtanh_grad, F.hardtanh),
    "leaky_relu": Activation(P.leaky_relu, P.leaky_relu_grad, F.leaky_relu),
    "logsigmoid": Activation(P.logsigmoid, P.logsigmoid_grad, F.logsigmoid, node=aten.log_sigmoid_forward.default),
    "mish": Activation(P.mish, P.mish_grad, F.mish),
    "quick_gelu": Activation(P.quick_gelu, P.quick_gelu_grad, lambda x: x * torch.sigmoid(1.702 * x)),
    "relu": Activation(P.relu, P.relu_grad, F.relu, lambda dy, y: aten.threshold_backward(dy, y, 0)),
    "selu": Activation(P.selu, P.selu_grad, F.selu, node=aten.elu.default),
    "sigmoid": Activation(P.sigmoid, P.sigmoid_grad, torch.sigmoid, aten.sigmoid_backward, aten.sigmoid.default),
    "silu": Activation(P.silu, P.silu_grad, F.silu, node=aten.silu.default),
    "softplus": Activation(P.softplus, P.softplus_grad, F.softplus, node=aten.softplus.default),
    "softshrink": Activation(P.softshrink, P.shrink_grad, F.softshrink),
    "softsign": Activation(P.softsign, P.softsign_grad, F.softsign),
    "tanh": Activation(P.tanh, P.tanh_grad, torch.tanh, aten.tanh_backward, aten.tanh.default),
    "tanhshrink": Activation(P.tanhshrink, P.tanhshrink_grad, F.tanhshrink),
    "threshold": Activation(P.threshold, P.threshold_grad, F.threshold),
}


class Kept(NamedTuple):
    """value: a function of x that the forward stores for the backward on a CPU, where a number is read sooner than it
    is computed again. grad: the gradient as a function of it; None: torch's own is."""

    value: Any
    grad: Any = None


KEPT = {"logsigmoid": Kept(P.logsigmoid_kept), "tanhshrink": Kept(P.tanh, P.tanhshrink_kept_grad)}

# the rows that take no parameter: what other operators do in the same kernel, as `activation=`
FUSED = ACTIVATIONS.keys() & {
    *("gelu", "gelu_tanh", "hardsigmoid", "hardswish", "logsigmoid", "mish", "relu", "selu", "sigmoid", "silu"),
    *("quick_gelu", "softsign", "tanh", "tanhshrink"),
}


@triton.jit
def _forward_kernel(y, x, n, F: tl.constexpr, A: tl.constexpr, B: tl.constexpr, BLOCK: tl.constexpr):
    at, inside = flat_tile(n, BLOCK)
    tl.store(y + at, F(load(x + at, inside), A, B), inside)


@triton.jit
def _keeping_kernel(
    y, kept, x, n, F: tl.constexpr, KEPT: tl.constexpr, A: tl.constexpr, B: tl.constexpr, BLOCK: tl.constexpr
):
    at, inside = flat_tile(n, BLOCK)
    b_x = load(x + at, inside)
    tl.store(y + at, F(b_x, A, B), inside)
    tl.store(kept + at, KEPT(b_x, A, B), inside)


@triton.jit
def _backward_kernel(dx, dy, s, n, GRAD: tl.constexpr, A: tl.constexpr, B: tl.constexpr, BLOCK: tl.constexpr):
    at, inside = flat_tile(n, BLOCK)
    tl.store(dx + at, GRAD(load(dy + at, inside), load(s + at, inside), A, B), inside)


@tuning.heuristic
def _plan(n: int, device: torch.device, way: str, name: str, a: float, b: float, signs: float) -> tuning.Plan:
    """way: the parameters that take the row's functions. signs: 0.0 and -0.0 are one key, but not one constant."""
    row, kept, tiles = ACTIVATIONS[name], KEPT.get(name), tuning.flat(n, device)
    ways = {"F": {"F": row.f}, "GRAD": {"GRAD": row.grad}}
    if kept is not None:
        ways |= {"KEPT": {"F": row.f, "KEPT": kept.value}, "GRAD of KEPT": {"GRAD": kept.grad}}
    return tuning.Plan(tiles.grid, {"n": n, **ways[way], "A": a, "B": b, **tiles.meta})


@op("activation")
def _forward(x: Tensor, name: str, a: float, b: float, dtype: torch.dtype) -> Tensor:
    y = torch.empty_like(x, dtype=dtype)
    x = lying_as(x, y)
    launch_planned(_forward_kernel, _plan(x.numel(), x.device, "F", name, a, b, _signs(a, b)), y, x)
    return y


@op("activation_keeping")
def _keeping(x: Tensor, name: str, dtype: torch.dtype, kept_dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """y, and what KEPT says."""
    y, kept = torch.empty_like(x, dtype=dtype), torch.empty_like(x, dtype=kept_dtype)
    launch_planned(_keeping_kernel, _plan(x.numel(), x.device, "KEPT", name, 0.0, 0.0, 3.0), y, kept, lying_as(x, y))
    return y, kept


@op("activation_backward")
def _backward(
    dy: Tensor, s: Tensor, name: str, a: float, b: float, dtype: torch.dtype, of_kept: bool = False
) -> Tensor:
    """of_kept: s is what KEPT says."""
    dx, way = torch.empty_like(s, dtype=dtype), "GRAD of KEPT" if of_kept else "GRAD"
    dy, s = lying_as(dy, dx), lying_as(s, dx)
    launch_planned(_backward_kernel, _plan(s.numel(), s.device, way, name, a, b, _signs(a, b)), dx, dy, s)
    return dx


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, parameters: tuple[float, ...], dtype: torch.dtype) -> Tensor:
        kept = None
        if name == "tanhshrink" and ctx.needs_input_grad[0] and tuning.keeps_numbers(x.device):
            y, kept = _keeping(x, name, dtype, compute_dtype(x))
        else:
            y = _forward(x, name, *_a_b(parameters), dtype)
        ctx.save_for_backward(x if ACTIVATIONS[name].differentiable_grad is None else y, kept)
        ctx.name, ctx.parameters, ctx.dtype = name, parameters, x.dtype
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        s, kept = ctx.saved_tensors
        row = ACTIVATIONS[ctx.name]
        if row.differentiable_grad is not None and (recompute.wanted() or _torch_differentiates(ctx.name, dy, s)):
            return row.differentiable_grad(dy, s, *ctx.parameters), None, None, None
        if not recompute.wanted():
            of = s if kept is None else kept
            return _backward(dy, of, ctx.name, *_a_b(ctx.parameters), ctx.dtype, kept is not None), None, None, None
        return *recompute.gradients(lambda x: row.torch(x, *ctx.parameters), (s,), dy), None, None, None


def _torch_differentiates(name: str, dy: Tensor, s: Tensor) -> bool:
    """Is torch's gradient the faster one, and of what lies alike?"""
    return dy.dtype == s.dtype and dy.stride() == s.stride() and route.gradient_to_torch(name, s)


def _signs(a: float, b: float) -> float:
    return 2 * math.copysign(1, a) + math.copysign(1, b)


def _a_b(parameters: tuple[float, ...]) -> tuple[float, float]:
    a, b = (*map(float, parameters), 0.0, 0.0)[:2]
    return a, b


def _activate(name: str, x: Tensor, *parameters: float, inplace: bool = False, valid: bool = True) -> Tensor:
    """Row `name` of the table on a tensor of any shape and strides; the result lies in memory as x does."""
    torch_only = {"inplace": True} if inplace else {}
    reason = "in place" if inplace else None if valid else route.INVALID
    if route.to_torch(name, x, unless=reason):
        return ACTIVATIONS[name].torch(x, *parameters, **torch_only)
    row = ACTIVATIONS[name]
    if row.node is not None and nodes.possible(x) and route.gradient_to_torch(name, x):
        source, dtype = x.detach(), x.dtype
        kept = name in KEPT
        found = _keeping(source, name, dtype, dtype) if kept else _forward(source, name, *_a_b(parameters), dtype)
        return nodes.torchs(row.torch, row.node, found, x, *parameters)
    return apply(_Activation, x, name, parameters, autocast.output_dtype(name, x))


def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x, below 0 α (exp(x / α) - 1). Same contract as :func:`torch.nn.functional.celu`."""
    return _activate("celu", input, alpha, inplace=inplace, valid=alpha != 0)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x, below 0 α (exp(x) - 1). Same contract as :func:`torch.nn.functional.elu`."""
    return _activate("elu", input, alpha, inplace=inplace)


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x Φ(x), Φ the normal distribution (arXiv:1606.08415). Same contract as :func:`torch.nn.functional.gelu`."""
    if approximate not in ("none", "tanh"):
        return F.gelu(input, approximate=approximate)  # raises
    return _activate("gelu" if approximate == "none" else "gelu_tanh", input)


def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x, in [-λ, λ] 0. Same contract as :func:`torch.nn.functional.hardshrink`."""
    return _activate("hardshrink", input, lambd)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """x / 6 + 1/2 clamped to [0, 1]. Same contract as :func:`torch.nn.functional.hardsigmoid`."""
    return _activate("hardsigmoid", input, inplace=inplace)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x hardsigmoid(x) (arXiv:1905.02244). Same contract as :func:`torch.nn.functional.hardswish`."""
    return _activate("hardswish", input, inplace=inplace)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x clamped to [min_val, max_val]. Same contract as :func:`torch.nn.functional.hardtanh`."""
    return _activate("hardtanh", input, min_val, max_val, inplace=inplace, valid=min_val <= max_val)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x, below 0 slope x. Same contract as :func:`torch.nn.functional.leaky_relu`."""
    return _activate("leaky_relu", input, negative_slope, inplace=inplace)


def logsigmoid(input: Tensor) -> Tensor:
    """log σ(x). Same contract as :func:`torch.nn.functional.logsigmoid`."""
    if input.device.type == "cpu":  # torch's result is contiguous there; on GPUs it lies as the input
        input = input.contiguous()
    return _activate("logsigmoid", input)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x tanh(softplus(x)) (arXiv:1908.08681). Same contract as :func:`torch.nn.functional.mish`."""
    return _activate("mish", input, inplace=inplace)


def quick_gelu(input: Tensor) -> Tensor:
    """x σ(1.702 x), the sigmoid approximation of gelu (arXiv:1606.08415) that CLIP and Whisper's kin have.

    Any shape and strides. Dtypes: float16, bfloat16, float32, float64.
    """
    return _activate("quick_gelu", input)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0). Same contract as :func:`torch.nn.functional.relu`."""
    return _activate("relu", input, inplace=inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """x clamped to [0, 6]. Same contract as :func:`torch.nn.functional.relu6`."""
    return _activate("hardtanh", input, 0.0, 6.0, inplace=inplace)


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """s elu(x, α), s and α of arXiv:1706.02515. Same contract as :func:`torch.nn.functional.selu`."""
    return _activate("selu", input, inplace=inplace)


def sigmoid(input: Tensor) -> Tensor:
    """σ(x) = 1 / (1 + exp(-x)). Same contract as :func:`torch.nn.functional.sigmoid`."""
    return _activate("sigmoid", input)


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x σ(x). Same contract as :func:`torch.nn.functional.silu`."""
    return _activate("silu", input, inplace=inplace)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(β x)) / β, above β x = threshold x. Same contract as :func:`torch.nn.functional.softplus`."""
    return _activate("softplus", input, beta, threshold, valid=beta != 0)


def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x drawn towards 0 by λ, in [-λ, λ] 0. Same contract as :func:`torch.nn.functional.softshrink`."""
    return _activate("softshrink", input, lambd, valid=lambd >= 0)


def softsign(input: Tensor) -> Tensor:
    """x / (1 + |x|). Same contract as :func:`torch.nn.functional.softsign`."""
    return _activate("softsign", input)


def tanh(input: Tensor) -> Tensor:
    """The hyperbolic tangent. Same contract as :func:`torch.nn.functional.tanh`."""
    return _activate("tanh", input)


def tanhshrink(input: Tensor) -> Tensor:
    """x - tanh(x). Same contract as :func:`torch.nn.functional.tanhshrink`."""
    return _activate("tanhshrink", input)


def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where x > threshold, else value. Same contract as :func:`torch.nn.functional.threshold`."""
    return _activate("threshold", input, threshold, value, inplace=inplace)
