"""Gated linear units (Dauphin et al. 2017, arXiv:1612.08083; GEGLU, SwiGLU, ReGLU: Shazeer 2020, arXiv:2002.05202).

    forward     y  = a g(b)
    backward    da = dy g(b)
                db = dy a g'(b)

a and b are two tensors, or the halves of an axis of one. g is σ for torch's glu; any row of the table of activations
can be a gate. Whatever way x lies densely in memory, its storage is [outer, 2 n, inner] with inner the stride of the
halved axis: a matrix [M, 2 N] with M = outer, N = n inner, whose left half is a and whose right half is b. So the
halves are read where they lie. Two tensors are matrices [1, N].
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import load, matrix_tile, multiple
from trident.ops._activation import ACTIVATIONS
from trident.runtime import recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.layout import dense, lying_as
from trident.runtime.op import op


@triton.jit
def _forward_kernel(
    y, a, b, M, N, GATE: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """b is None: it is the right half of a."""
    N = multiple(N, ALIGN)
    for step in range(tl.program_id(1), tl.cdiv(N, BLOCK_N), tl.num_programs(1)):
        rows, cols, inside = matrix_tile(tl.program_id(0), step, M, N, BLOCK_M, BLOCK_N)
        at = rows * 2 * N + cols if b is None else rows * N + cols
        b_b = load(a + N + at, inside) if b is None else load(b + at, inside)
        tl.store(y + rows * N + cols, load(a + at, inside) * GATE(b_b, 0.0, 0.0), inside)


@triton.jit
def _backward_kernel(
    da,
    db,
    dy,
    a,
    b,
    M,
    N,
    GATE: tl.constexpr,
    GRAD: tl.constexpr,
    OF_RESULT: tl.constexpr,  # GRAD is a function of GATE's result, not of its argument
    ALIGN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    N = multiple(N, ALIGN)
    for step in range(tl.program_id(1), tl.cdiv(N, BLOCK_N), tl.num_programs(1)):
        rows, cols, inside = matrix_tile(tl.program_id(0), step, M, N, BLOCK_M, BLOCK_N)
        at = rows * 2 * N + cols if b is None else rows * N + cols
        b_a, b_dy = load(a + at, inside), load(dy + rows * N + cols, inside)
        b_b = load(a + N + at, inside) if b is None else load(b + at, inside)
        gate = GATE(b_b, 0.0, 0.0)
        tl.store(da + at, b_dy * gate, inside)
        tl.store(da + N + at if b is None else db + at, GRAD(b_dy * b_a, gate if OF_RESULT else b_b, 0.0, 0.0), inside)


@op("glu")
def _forward(a: Tensor, b: Tensor | None, dim: int, gate: str) -> Tensor:
    a = dense(a)
    y = torch.empty_like(a if b is not None else a.narrow(dim, 0, a.shape[dim] // 2))
    M, N = _matrix(y, a, b, dim)
    b = b if b is None else lying_as(b, a)
    plan = tuning.bands(M, N, True, a.device, tuning.registers(a.dtype, 1))
    launch(_forward_kernel, plan.grid, y, a, b, M, N, GATE=ACTIVATIONS[gate].f, **plan.meta)
    return y


@op("glu_backward")
def _backward(dy: Tensor, a: Tensor, b: Tensor | None, dim: int, gate: str) -> tuple[Tensor, Tensor]:
    """da and db; where b is None the gradient of both halves, and nothing."""
    da = torch.empty_like(a)
    db = a.new_empty(0) if b is None else torch.empty_like(da)
    half = da if b is not None else torch.empty_like(da.narrow(dim, 0, a.shape[dim] // 2), device="meta")
    dy, a, b = lying_as(dy, half), lying_as(a, da), b if b is None else lying_as(b, da)
    M, N = _matrix(dy, da, b, dim)
    plan = tuning.bands(M, N, True, a.device, tuning.registers(a.dtype, 1))
    row = ACTIVATIONS[gate]
    gates = {"GATE": row.f, "GRAD": row.grad, "OF_RESULT": row.differentiable_grad is not None}
    launch(_backward_kernel, plan.grid, da, db, dy, a, b, M, N, **gates, **plan.meta)
    return da, db


def _matrix(y: Tensor, a: Tensor, b: Tensor | None, dim: int) -> tuple[int, int]:
    """M, N of y as the kernels see it."""
    N = y.numel() if b is not None else y.shape[dim] * a.stride(dim)
    return y.numel() // N, N


class _GLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor | None, dim: int, gate: str) -> Tensor:
        ctx.save_for_backward(a, b)
        ctx.dim, ctx.gate = dim, gate
        return _forward(a, b, dim, gate)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        a, b = ctx.saved_tensors
        if recompute.wanted():
            return *recompute.gradients(lambda a, b: _in_torch(a, b, ctx.dim, ctx.gate), (a, b), dy), None, None
        da, db = _backward(dy, a, b, ctx.dim, ctx.gate)
        return da, None if b is None else db, None, None


def _in_torch(a: Tensor, b: Tensor | None, dim: int, gate: str) -> Tensor:
    if b is None:
        a, b = a.chunk(2, dim)
    return a * ACTIVATIONS[gate].torch(b)


def _halves(input: Tensor, dim: int) -> bool:
    return -input.dim() <= dim < input.dim() and input.shape[dim] % 2 == 0


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """Same contract as :func:`torch.nn.functional.glu`.

    Shapes: input [*, 2 n, *] with 2 n at `dim`; the result [*, n, *].
    """
    if route.to_torch("glu", input, unless=None if _halves(input, dim) else route.INVALID):
        return torch.nn.functional.glu(input, dim)
    return apply(_GLU, input, None, dim % input.dim(), "sigmoid", unrecorded=_forward)


def _gated(name: str, input: Tensor, gate: Tensor | None, dim: int, activation: str) -> Tensor:
    if gate is None and not _halves(input, dim):
        raise RuntimeError(f"{name}: input is {list(input.shape)}; expected an even size at dim {dim}")
    if gate is not None and gate.shape != input.shape:
        raise RuntimeError(f"{name}: gate is {list(gate.shape)}; expected input's shape {list(input.shape)}")
    if route.to_torch(name, input, gate):
        return _in_torch(input, gate, dim, activation)
    return apply(_GLU, input, gate, dim % input.dim(), activation, unrecorded=_forward)


def swiglu(input: Tensor, gate: Tensor | None = None, dim: int = -1) -> Tensor:
    """input * silu(gate) (arXiv:2002.05202). Without `gate` the halves of input at `dim`, as glu's: the second gates.

    Shapes: input [*, 2 n, *] -> [*, n, *]; or input and gate of one shape, which is the result's.
    RuntimeError: an odd size at `dim`; input and gate of different shapes.
    """
    return _gated("swiglu", input, gate, dim, "silu")


def geglu(input: Tensor, gate: Tensor | None = None, dim: int = -1, approximate: str = "none") -> Tensor:
    """input * gelu(gate, approximate); otherwise as :func:`swiglu`. ValueError: approximate is not "none" or "tanh"."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"geglu: approximate is {approximate!r}; expected 'none' or 'tanh'")
    return _gated("geglu", input, gate, dim, "gelu" if approximate == "none" else "gelu_tanh")


def reglu(input: Tensor, gate: Tensor | None = None, dim: int = -1) -> Tensor:
    """input * relu(gate); otherwise as :func:`swiglu`."""
    return _gated("reglu", input, gate, dim, "relu")
