"""Multi-label hinge loss of rows x of C scores: every target is to lead every other class by 1.

forward     l = Σ_t Σ_i max(0, 1 - x[t] + x[i]) / C         t: a row's targets, which end before its first -1
                                                             i: the classes that are no target
backward    dx[i] = dl / C * how many t lead i by less than 1
            dx[t] = -dl / C * how many i are led by less         dl: dloss, or dloss / M for the mean

NaN counts for nothing, as in torch. A row is one tile; the work is C times the number of targets.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.lines import line_sum
from trident.lang.tile import load, multiple, row_tile
from trident.ops._pointwise_loss import REDUCTIONS
from trident.runtime import autocast, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype

F = torch.nn.functional
INPUTS = route.HALF_TO_DOUBLE | {torch.int64}


@triton.jit
def _target(k, target, start, has, C):
    """Target k of each row that has so many, of those that had k - 1; and which have."""
    at = start + k
    has = has & (at < start + C)
    t = tl.load(target + at, mask=has, other=-1)
    return t, has & (t >= 0)


@triton.jit
def _kernel(
    x, target, loss, dx, dloss, M, C, share,
    PER_LINE: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """The loss of each row (PER_LINE), or their sum; or dx. share: by how many rows the loss was divided."""
    pid, C = tl.program_id(0), multiple(C, ALIGN)
    rows, n, exist, in_n = row_tile(pid, M, C, BLOCK_M, BLOCK_N)
    start, inside = rows * C, exist & in_n
    b_x = load(x + start + n, inside)

    others, k = inside, 0
    t, has = _target(k, target, start, exist, C)
    while tl.max(has.to(tl.int32)) > 0:
        others = others & ((n != t) | ~has)
        k += 1
        t, has = _target(k, target, start, has, C)
    total = line_sum(tl.zeros_like(b_x), 1)  # not b_x * 0: torch passes over NaN
    pushed, has = tl.zeros_like(b_x), exist
    for i in range(0, k):
        t, has = _target(i, target, start, has, C)
        z = b_x - load(x + start + t, has & (t < C)) + 1
        near = others & has & (z > 0)
        if dx is None:
            total += line_sum(tl.where(near, z, 0.0), 1)
        else:
            hits = near.to(b_x.dtype)
            pushed += hits - tl.where(n == t, line_sum(hits, 1), 0.0)

    if dx is not None:
        g = load(dloss + rows, exist) if PER_LINE else load(dloss + rows * 0, exist) / share
        tl.store(dx + start + n, g / C * pushed, inside)
    elif PER_LINE:
        tl.store(loss + rows, total / C, exist)
    else:
        tl.store(loss + pid, tl.sum(tl.where(exist, total / C, 0.0)))


@op("multilabel_margin_loss")
def _forward(x: Tensor, target: Tensor, reduction: str, dtype: torch.dtype) -> Tensor:
    x, target = x.contiguous(), target.contiguous()
    C, each = x.shape[-1], reduction == "none"
    M = x.numel() // C
    plan = tuning.rows(M, C, x.device, 1)
    loss = x.new_empty(x.shape[:-1], dtype=dtype) if each else x.new_empty(plan.grid[0], dtype=compute_dtype(x))
    launch(_kernel, plan.grid, x, target, loss, None, None, M, C, 1, PER_LINE=each, **plan.meta)
    if each:
        return loss
    total = loss.sum()
    return (total / M if reduction == "mean" else total).to(dtype)


@op("multilabel_margin_loss_backward")
def _backward(dloss: Tensor, x: Tensor, target: Tensor, reduction: str) -> Tensor:
    x, target, dloss = x.contiguous(), target.contiguous(), dloss.contiguous()
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    C = x.shape[-1]
    M = x.numel() // C
    plan, share = tuning.rows(M, C, x.device, 1), M if reduction == "mean" else 1
    launch(_kernel, plan.grid, x, target, None, dx, dloss, M, C, share, PER_LINE=reduction == "none", **plan.meta)
    return dx


class _MultilabelMarginLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, target: Tensor, reduction: str, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(x, target)
        ctx.reduction = reduction
        return _forward(x, target, reduction, dtype)

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        x, target = ctx.saved_tensors
        reduction = ctx.reduction
        if recompute.wanted():
            (dx,) = recompute.gradients(lambda x: F.multilabel_margin_loss(x, target, reduction=reduction), (x,), dloss)
        else:
            dx = _backward(dloss, x, target, reduction)
        return dx, None, None, None


def multilabel_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Same contract as :func:`torch.nn.functional.multilabel_margin_loss`; float16 and bfloat16 on CPUs too.

    Shapes: input and target [M, C] or [C]. On a GPU a target out of range counts as a score of 0 (torch's assert stops
    the process).
    """
    reason = _unfit(input, target, reduction)
    if size_average is not None or reduce is not None:
        reason = "size_average and reduce are deprecated"
    name = "multilabel_margin_loss"
    if route.to_torch(name, input, target, unless=reason, mixed=True, dtypes=INPUTS):
        return F.multilabel_margin_loss(input, target, size_average, reduce, reduction)
    y: Tensor = apply(_MultilabelMarginLoss, input, target, reduction, autocast.output_dtype(name, input))
    return y


def _unfit(input: Tensor, target: Tensor, reduction: str) -> str | None:
    if input.dim() not in (1, 2) or input.shape != target.shape or reduction not in REDUCTIONS:
        return route.INVALID
    if target.dtype != torch.int64 or not input.is_floating_point():
        return route.INVALID
    if input.shape[-1] > tuning.LONGEST_ROW:
        return "no kernel for rows this long"
    looked_at = target.device.type == "cpu" and type(target) is Tensor and not torch.compiler.is_compiling()
    if looked_at and bool(((target < -1) | (target >= input.shape[-1])).any()):
        return route.INVALID
    return None
