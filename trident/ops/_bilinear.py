"""A bilinear form for each output: y[n, o] = x1[n] W[o] x2[n] + b[o], x1 [*, I], x2 [*, J], w [O, I, J].

forward     h        = x1 [.., I] W [I, (O, J)]             a product, torch's
            y[n, o]  = sum of h[n, o] * x2[n] + b[o]

backward    dh[n, o] = dy[n, o] x2[n]
            dx2[n]   = sum over o of dy[n, o] h[n, o]
            dx1      = dh Wᵀ,  dW = x1ᵀ dh                  products, torch's

h is computed again in the backward rather than kept: it is O times as large as x2.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import col_sum, load, multiple, row_sum, row_tile
from trident.runtime import autocast, recompute, route, tuning_tables
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op


@triton.jit
def _dots_kernel(
    y, h, x2, bias, M, J, O, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,  # noqa: E741
):  # fmt: skip
    """Of M = N O rows of h: their products with the rows of x2."""
    J = multiple(J, ALIGN)
    rows, _, in_m, _ = row_tile(tl.program_id(0), M, J, BLOCK_M, BLOCK_N)
    total = tl.zeros((BLOCK_M, 1), tl.float64 if h.dtype.element_ty == tl.float64 else tl.float32)
    for block in range(0, tl.cdiv(J, BLOCK_N)):
        j = block * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
        inside = in_m & (j < J)
        total += row_sum(load(h + rows * J + j, inside) * load(x2 + rows // O * J + j, inside))
    if bias is not None:
        total += load(bias + rows % O, in_m)
    tl.store(y + rows, total, in_m)


@triton.jit
def _backward_kernel(
    dh, dx2, dy, h, x2, J, O, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,  # noqa: E741
):  # fmt: skip
    """Of one n, a block of columns: all O rows of h, BLOCK_M at a time."""
    J = multiple(J, ALIGN)
    n = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    total = tl.zeros((1, BLOCK_N), tl.float64 if dy.dtype.element_ty == tl.float64 else tl.float32)
    b_x2 = load(x2 + n * J + j, j < J)
    for block in range(0, tl.cdiv(O, BLOCK_M)):
        o = block * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
        inside = (o < O) & (j < J)
        b_dy = load(dy + n * O + o, o < O)
        at = (n * O + o) * J + j
        total += col_sum(b_dy * load(h + at, inside))
        tl.store(dh + at, b_dy * b_x2, inside)
    tl.store(dx2 + n * J + j, total, j < J)


def _packed(w: Tensor) -> Tensor:
    """[I, (O, J)] of w [O, I, J]."""
    return w.transpose(0, 1).reshape(w.shape[1], -1)


@op("bilinear")
def _forward(x1: Tensor, x2: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
    """x1 [N, I], x2 [N, J] -> y [N, O]."""
    N, (O, _, J) = x1.shape[0], w.shape  # noqa: E741
    y = x1.new_empty(N, O)
    h, x2 = torch.mm(x1, _packed(w)), x2.contiguous()
    plan = tuning_tables.row_dots(N * O, J, x1.device)
    launch(_dots_kernel, plan.grid, y, h, x2, None if b is None else b.contiguous(), N * O, J, O, **plan.meta)
    return y


@op("bilinear_backward")
def _backward(dy: Tensor, x1: Tensor, x2: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """dx1, dx2, dw."""
    dy, x2, packed = dy.contiguous(), x2.contiguous(), _packed(w)
    O, I, J = w.shape  # noqa: E741
    h = torch.mm(x1, packed)
    dh, dx2 = torch.empty_like(h), torch.empty_like(x2)
    plan = tuning_tables.outer_rows(x1.shape[0], O, J, x1.device)
    launch(_backward_kernel, plan.grid, dh, dx2, dy, h, x2, J, O, **plan.meta)
    dw = torch.mm(x1.T, dh).view(I, O, J).transpose(0, 1).contiguous()
    return torch.mm(dh, packed.T), dx2, dw


class _Bilinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x1: Tensor, x2: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        ctx.save_for_backward(x1, x2, w, b)
        return _forward(x1, x2, w, b)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x1, x2, w, b = ctx.saved_tensors
        if recompute.wanted():
            return recompute.gradients(torch.nn.functional.bilinear, (x1, x2, w, b), dy)
        found = _backward(dy, x1, x2, w) if any(ctx.needs_input_grad[:3]) else (None, None, None)
        return *found, dy.sum(0) if ctx.needs_input_grad[3] else None


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Same contract as :func:`torch.nn.functional.bilinear`.

    Shapes: input1 [*, I], input2 [*, J], weight [O, I, J], bias [O]; the result [*, O].
    """
    fits = weight.dim() == 3 and input1.dim() > 0 and input1.shape[:-1] == input2.shape[:-1] and weight.numel() > 0
    fits = fits and (input1.shape[-1], input2.shape[-1]) == tuple(weight.shape[1:])
    fits = fits and (bias is None or bias.shape == weight.shape[:1])
    reason = None if fits else route.INVALID
    if fits and autocast.active(input1):
        reason = "autocast: torch casts what is inside"
    work = weight.shape[0] * input2.numel() if fits else 0
    if route.to_torch("bilinear", input1, input2, weight, bias, unless=reason, work=work):
        return torch.nn.functional.bilinear(input1, input2, weight, bias)
    x1, x2 = input1.reshape(-1, input1.shape[-1]), input2.reshape(-1, input2.shape[-1])
    y: Tensor = apply(_Bilinear, x1, x2, weight, bias)
    return y.view(*input1.shape[:-1], weight.shape[0])
