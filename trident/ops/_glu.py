"""Gated linear units (Dauphin et al. 2017, arXiv:1612.08083): one half of an axis gates the other.

    forward     a, b = the halves of x;  y = a g(b)
    backward    da = dy g(b)
                db = dy a g'(b)

g is σ for torch's glu; any row of the table of activations can be a gate. Whatever way x lies densely in memory, its
storage is [outer, 2 n, inner] with inner the stride of the halved axis: a matrix [M, 2 N] with M = outer, N = n inner,
whose left half is a and whose right half is b. So the halves are read where they lie.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import load, matrix_tile
from trident.ops._activation import ACTIVATIONS
from trident.runtime import recompute, route, tuning
from trident.runtime.launch import launch
from trident.runtime.layout import dense, lying_as
from trident.runtime.op import op


@triton.jit
def _forward_kernel(y, x, M, N, GATE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    for step in range(tl.program_id(1), tl.cdiv(N, BLOCK_N), tl.num_programs(1)):
        rows, cols, inside = matrix_tile(tl.program_id(0), step, M, N, BLOCK_M, BLOCK_N)
        a = x + rows * 2 * N + cols
        tl.store(y + rows * N + cols, load(a, inside) * GATE(load(a + N, inside), 0.0, 0.0), inside)


@triton.jit
def _backward_kernel(
    dx,
    dy,
    x,
    M,
    N,
    GATE: tl.constexpr,
    GRAD: tl.constexpr,
    OF_RESULT: tl.constexpr,  # GRAD is a function of GATE's result, not of its argument
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    for step in range(tl.program_id(1), tl.cdiv(N, BLOCK_N), tl.num_programs(1)):
        rows, cols, inside = matrix_tile(tl.program_id(0), step, M, N, BLOCK_M, BLOCK_N)
        at = rows * 2 * N + cols
        b_a, b_b, b_dy = load(x + at, inside), load(x + at + N, inside), load(dy + rows * N + cols, inside)
        gate = GATE(b_b, 0.0, 0.0)
        tl.store(dx + at, b_dy * gate, inside)
        tl.store(dx + at + N, GRAD(b_dy * b_a, gate if OF_RESULT else b_b, 0.0, 0.0), inside)


@op("glu")
def _forward(x: Tensor, dim: int, gate: str) -> Tensor:
    x = dense(x)
    half = x.narrow(dim, 0, x.shape[dim] // 2)
    y = torch.empty_like(half)
    N = half.shape[dim] * x.stride(dim)
    M = y.numel() // N
    plan = tuning.bands(M, N, True, x.device)
    launch(_forward_kernel, plan.grid, y, x, M, N, GATE=ACTIVATIONS[gate].f, **plan.meta)
    return y


@op("glu_backward")
def _backward(dy: Tensor, x: Tensor, dim: int, gate: str) -> Tensor:
    dx = torch.empty_like(x)
    half = dx.narrow(dim, 0, x.shape[dim] // 2)
    dy, x = lying_as(dy, torch.empty_like(half)), lying_as(x, dx)
    N = half.shape[dim] * dx.stride(dim)
    M = dy.numel() // N
    plan = tuning.bands(M, N, True, x.device)
    row = ACTIVATIONS[gate]
    of_result = row.differentiable_grad is not None
    gates = {"GATE": row.f, "GRAD": row.grad, "OF_RESULT": of_result}
    launch(_backward_kernel, plan.grid, dx, dy, x, M, N, **gates, **plan.meta)
    return dx


class _GLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, gate: str) -> Tensor:
        ctx.save_for_backward(x)
        ctx.dim, ctx.gate = dim, gate
        return _forward(x, dim, gate)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        if recompute.wanted():
            return *recompute.gradients(lambda x: _reference(x, ctx.dim, ctx.gate), (x,), dy), None, None
        return _backward(dy, x, ctx.dim, ctx.gate), None, None


def _reference(x: Tensor, dim: int, gate: str) -> Tensor:
    a, b = x.chunk(2, dim)
    return a * ACTIVATIONS[gate].torch(b)


def glu(input: Tensor, dim: int = -1) -> Tensor:
    """Same contract as :func:`torch.nn.functional.glu`.

    Shapes: input [*, 2 n, *] with 2 n at `dim`; the result [*, n, *].
    """
    fits = -input.dim() <= dim < input.dim() and input.shape[dim] % 2 == 0
    if route.to_torch("glu", input, unless=None if fits else route.INVALID):
        return torch.nn.functional.glu(input, dim)
    return _GLU.apply(input, dim % input.dim(), "sigmoid")
