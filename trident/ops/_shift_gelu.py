"""GELU of a shifted input, the activation of BLOOM-like models: x [M, N], b [N].

    forward     y  = gelu(x + b)
    backward    dx = gelu'(x + b) dy
                db = sum of dx over M

A program walks down a band of columns. db: partial sums of each program, then one sum of those, in a fixed order.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.pointwise import gelu, gelu_grad
from trident.lang.tile import load, matrix_tile, multiple
from trident.runtime import recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype


@triton.jit
def _forward_kernel(y, x, b, M, N, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    N = multiple(N, ALIGN)
    _, cols, _ = matrix_tile(0, tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
    b_b = load(b + cols, cols < N)
    for step in range(tl.program_id(1), tl.cdiv(M, BLOCK_M), tl.num_programs(1)):
        rows, cols, inside = matrix_tile(step, tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
        at = rows * N + cols
        tl.store(y + at, gelu(load(x + at, inside) + b_b, 0.0, 0.0), inside)


@triton.jit
def _backward_kernel(dx, db, dy, x, b, M, N, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """db: [programs that share a band, N]."""
    N = multiple(N, ALIGN)
    _, cols, _ = matrix_tile(0, tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
    b_b = load(b + cols, cols < N)
    b_db = tl.zeros((BLOCK_M, BLOCK_N), db.dtype.element_ty)
    for step in range(tl.program_id(1), tl.cdiv(M, BLOCK_M), tl.num_programs(1)):
        rows, cols, inside = matrix_tile(step, tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
        at = rows * N + cols
        b_dx = gelu_grad(load(dy + at, inside), load(x + at, inside) + b_b, 0.0, 0.0)
        tl.store(dx + at, b_dx, inside)
        b_db += tl.where(inside, b_dx, 0.0)
    _, cols, _ = matrix_tile(0, tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
    tl.store(
        db + tl.program_id(1) * tl.full((), 1, tl.int64) * N + cols, tl.sum(b_db, axis=0, keep_dims=True), cols < N
    )


@op("shift_gelu")
def _forward(x: Tensor, b: Tensor) -> Tensor:
    x, b = x.contiguous(), b.contiguous()
    y = torch.empty_like(x)
    M, N = x.numel() // b.numel(), b.numel()
    plan = tuning.bands(M, N, False, x.device, tuning.registers(x.dtype, 1))
    launch(_forward_kernel, plan.grid, y, x, b, M, N, **plan.meta)
    return y


@op("shift_gelu_backward")
def _backward(dy: Tensor, x: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """dx; db in float32 (float64 for float64)."""
    dy, x, b = dy.contiguous(), x.contiguous(), b.contiguous()
    dx = torch.empty_like(x)
    M, N = x.numel() // b.numel(), b.numel()
    plan = tuning.bands(M, N, False, x.device, tuning.registers(x.dtype, 1))
    partial = x.new_empty(plan.grid[-1], N, dtype=compute_dtype(x))
    launch(_backward_kernel, plan.grid, dx, partial, dy, x, b, M, N, **plan.meta)
    return dx, partial.sum(0)


class _ShiftGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(x, b)
        return _forward(x, b)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, b = ctx.saved_tensors
        if recompute.wanted():
            return recompute.gradients(_in_torch, (x, b), dy)
        dx, db = _backward(dy, x, b)
        return dx, db.to(b.dtype)


def _in_torch(x: Tensor, b: Tensor) -> Tensor:
    return torch.nn.functional.gelu(x + b)


def shift_gelu(input: Tensor, bias: Tensor) -> Tensor:
    """gelu(input + bias), with the exact gelu. torch has no such function; the first Trident had.

    Shapes: input [*, N], bias [N]; the result as input, contiguous. RuntimeError: bias of another shape.
    """
    if input.dim() == 0 or bias.shape != input.shape[-1:]:
        raise RuntimeError(f"shift_gelu: bias is {list(bias.shape)}, input {list(input.shape)}; expected its last size")
    if route.to_torch("shift_gelu", input, bias, unless=None if input.is_contiguous() else "input is not contiguous"):
        return _in_torch(input, bias)
    return apply(_ShiftGELU, input, bias, unrecorded=_forward)
