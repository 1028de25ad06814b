"""Negative log likelihood of log-probabilities x, seen as [outer, V, inner]: a line of V classes for each target t.

forward     loss   = -w[t] * x[t]               0 where the target is ignore_index
            total  = sum of w[t]                mean: sum of losses / total

backward    dx     = -g * w[t] at t, else 0     g = dloss, / total for mean
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.classes import class_of
from trident.lang.lines import along, line_tile, segments
from trident.lang.tile import flat_tile, load
from trident.ops._class_loss import INPUTS, check_classes, reduced, unfit
from trident.runtime import autocast, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import asserting, launch
from trident.runtime.layout import as_lines
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype


@triton.jit
def _forward_kernel(loss, total, x, target, w, M, V, inner, ignored, PER_LINE: tl.constexpr, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    lines, exist = flat_tile(M, BLOCK)
    t, counts, b_w = class_of(target, w, lines, exist, V, ignored)
    start = lines // inner * inner * V + lines % inner
    b_x = load(x + start + t * inner, counts & (t >= 0) & (t < V))
    b_loss = tl.where(counts, -b_w * b_x, 0.0)
    if PER_LINE:
        tl.store(loss + lines, b_loss, exist)
    else:
        tl.store(loss + pid, tl.sum(b_loss))
    if total is not None:
        tl.store(total + pid, tl.sum(b_w))


@triton.jit
def _backward_kernel(
    dx, dloss, total, target, w, M, V, inner, ignored, PER_LINE: tl.constexpr,
    AXIS: tl.constexpr, SPAN: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    V, inner = segments(V, inner, ALIGN, AXIS)
    lines, start, exist = line_tile(tl.program_id(0), M, V, inner, AXIS, SPAN, BLOCK_M)
    n = along(tl.program_id(1), AXIS, BLOCK_N)
    t, counts, b_w = class_of(target, w, lines, exist, V, ignored)
    g = load(dloss + lines, exist) if PER_LINE else load(dloss + lines * 0, exist)
    if total is not None:
        g = g / tl.load(total)
    tl.store(dx + start + n * inner, tl.where(counts & (n == t), -g * b_w, 0.0), exist & (n < V))


@op("nll_loss")
def _forward(
    x: Tensor, target: Tensor, w: Tensor | None, ignored: int, reduction: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The loss; of mean, the total that it was divided by (else empty)."""
    x, target = x.contiguous(), target.contiguous()
    dim = min(1, x.dim() - 1)
    outer, V, inner = as_lines(x, dim)
    check_classes(target, V, ignored)
    M, each = outer * inner, reduction == "none"
    plan = tuning.flat(M, x.device)
    compute = compute_dtype(x)
    losses = x.new_empty(target.shape, dtype=dtype) if each else x.new_empty(plan.grid[0], dtype=compute)
    totals = x.new_empty(plan.grid[0], dtype=compute) if reduction == "mean" else None
    launch(
        _forward_kernel, plan.grid, losses, totals, x, target, w, M, V, inner, ignored, PER_LINE=each,
        **plan.meta, **asserting(x.device.type),
    )  # fmt: skip
    return (losses, x.new_empty(0, dtype=compute)) if each else reduced(losses, totals, dtype)


@op("nll_loss_backward")
def _backward(
    dloss: Tensor, total: Tensor, x: Tensor, target: Tensor, w: Tensor | None, ignored: int, reduction: str
) -> Tensor:
    target, dloss = target.contiguous(), dloss.contiguous()
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    outer, V, inner = as_lines(x, min(1, x.dim() - 1))
    plan = tuning.line_tiles(outer, V, inner, x.device, tuning.registers(x.dtype, 2))
    launch(
        _backward_kernel, plan.grid, dx, dloss, total if reduction == "mean" else None, target, w, outer * inner, V,
        inner, ignored, PER_LINE=reduction == "none", **plan.meta,
    )  # fmt: skip
    return dx


class _NLLLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, target: Tensor, w: Tensor | None, ignored: int, reduction: str, dtype: torch.dtype
    ) -> Tensor:
        w = None if w is None else w.contiguous()
        loss, total = _forward(x, target, w, ignored, reduction, dtype)
        ctx.save_for_backward(x, target, w, total)
        ctx.ignored, ctx.reduction = ignored, reduction
        return loss

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        x, target, w, total = ctx.saved_tensors
        if recompute.wanted():
            (dx,) = recompute.gradients(
                lambda x: torch.nn.functional.nll_loss(x, target, w, ignore_index=ctx.ignored, reduction=ctx.reduction),
                (x,),
                dloss,
            )
        else:
            dx = _backward(dloss, total, x, target, w, ctx.ignored, ctx.reduction)
        return dx, None, None, None, None, None


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Same contract as :func:`torch.nn.functional.nll_loss`.

    Shapes: input [V], [N, V] or [N, V, *]; target without V (classes, int64 or uint8); weight [V]; the result a scalar,
    or as target for reduction "none".
    Errors: IndexError for a class out of bounds on a CPU; on a GPU a device-side assert.
    """
    reason = unfit(input, target, weight, reduction)
    if size_average is not None or reduce is not None:
        reason = "size_average and reduce are deprecated"
    elif target.is_floating_point():
        reason = route.INVALID
    if route.to_torch("nll_loss", input, target, weight, unless=reason, mixed=True, dtypes=INPUTS):
        return torch.nn.functional.nll_loss(input, target, weight, size_average, ignore_index, reduce, reduction)
    dtype = autocast.output_dtype("nll_loss", input)
    return apply(_NLLLoss, input, target, weight, ignore_index, reduction, dtype)
