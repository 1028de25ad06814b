"""Multi-class hinge loss of rows x of C scores: the target class t is to lead all others by a margin.

forward     l = w[t] Σ_{i ≠ t} h(margin - x[t] + x[i]) / C          h(z) = max(0, z)ᵖ, p being 1 or 2

backward    dx[i] = dl w[t] h'(margin - x[t] + x[i]) / C            dl: dloss, or dloss / M for the mean
            dx[t] = -Σ_{i ≠ t} dx[i]

NaN counts for nothing, as in torch. Rows are walked in chunks; the mean and the sum are one partial a program.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.classes import class_of
from trident.lang.lines import along, line_sum, line_tile, per_line
from trident.lang.tile import load, multiple
from trident.ops._pointwise_loss import REDUCTIONS
from trident.runtime import autocast, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import asserting, launch
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype

F = torch.nn.functional
NO_CLASS = tl.constexpr(-(2**62))  # no class is ignored


@triton.jit
def _slope(z, counts, P: tl.constexpr):
    """h'(z)"""
    return tl.where(counts & (z > 0), 1.0 if P == 1 else 2 * z, 0.0)


@triton.jit
def _forward_kernel(
    loss, x, target, w, M, C, MARGIN: tl.constexpr, P: tl.constexpr, PER_LINE: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    pid = tl.program_id(0)
    C = multiple(C, ALIGN)
    lines, start, exist = line_tile(pid, M, C, 1, 1, False, BLOCK_M)
    t, counts, b_w = class_of(target, w, lines, exist, C, NO_CLASS)
    at_t = load(x + start + t, counts & (t >= 0) & (t < C))
    total = per_line(0.0, x, 1, BLOCK_M)
    for chunk in range(0, tl.cdiv(C, BLOCK_N)):
        n = along(chunk, 1, BLOCK_N)
        inside = exist & (n < C)
        z = load(x + start + n, inside) - at_t + MARGIN
        total += line_sum(tl.where(inside & (n != t) & (z > 0), z if P == 1 else z * z, 0.0), 1)
    b_loss = tl.where(exist, b_w * total / C, 0.0)
    if PER_LINE:
        tl.store(loss + lines, b_loss, exist)
    else:
        tl.store(loss + pid, tl.sum(b_loss))


@triton.jit
def _backward_kernel(
    dx, dloss, x, target, w, M, C, share, MARGIN: tl.constexpr, P: tl.constexpr, PER_LINE: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """share: by how many rows the loss was divided."""
    C = multiple(C, ALIGN)
    lines, start, exist = line_tile(tl.program_id(0), M, C, 1, 1, False, BLOCK_M)
    t, counts, b_w = class_of(target, w, lines, exist, C, NO_CLASS)
    at_t = load(x + start + t, counts & (t >= 0) & (t < C))
    g = (load(dloss + lines, exist) if PER_LINE else load(dloss + lines * 0, exist) / share) * b_w / C
    total = per_line(0.0, x, 1, BLOCK_M)
    for chunk in range(0, tl.cdiv(C, BLOCK_N)):
        n = along(chunk, 1, BLOCK_N)
        inside = exist & (n < C)
        slope = _slope(load(x + start + n, inside) - at_t + MARGIN, inside & (n != t), P)
        total += line_sum(slope, 1)
        tl.store(dx + start + n, g * slope, inside)
    tl.debug_barrier()  # dx[t] was written by another thread; masked there, all stores would be of one element
    tl.store(dx + start + t, -g * total, exist & counts & (t >= 0) & (t < C))


@op("multi_margin_loss")
def _forward(
    x: Tensor, target: Tensor, w: Tensor | None, p: int, margin: float, reduction: str, dtype: torch.dtype
) -> Tensor:
    x, target, w = x.contiguous(), target.contiguous(), None if w is None else w.contiguous()
    C, each = x.shape[-1], reduction == "none"
    M = x.numel() // C
    plan = tuning.rows(M, C, x.device, tuning.registers(x.dtype, 2))
    loss = x.new_empty(target.shape, dtype=dtype) if each else x.new_empty(plan.grid[0], dtype=compute_dtype(x))
    launch(
        _forward_kernel, plan.grid, loss, x, target, w, M, C, MARGIN=margin, P=p, PER_LINE=each,
        **{"BLOCK_M": 1, **plan.meta}, **asserting(x.device.type),
    )  # fmt: skip
    if each:
        return loss
    total = loss.sum()
    return (total / M if reduction == "mean" else total).to(dtype)


@op("multi_margin_loss_backward")
def _backward(
    dloss: Tensor, x: Tensor, target: Tensor, w: Tensor | None, p: int, margin: float, reduction: str
) -> Tensor:
    x, target, w = x.contiguous(), target.contiguous(), None if w is None else w.contiguous()
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    C = x.shape[-1]
    M = x.numel() // C
    plan = tuning.rows(M, C, x.device, tuning.registers(x.dtype, 2))
    launch(
        _backward_kernel, plan.grid, dx, dloss.contiguous(), x, target, w, M, C, M if reduction == "mean" else 1,
        MARGIN=margin, P=p, PER_LINE=reduction == "none",
        **{"BLOCK_M": 1, **plan.meta},
    )  # fmt: skip
    return dx


class _MultiMarginLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, target: Tensor, w: Tensor | None, p: int, margin: float, reduction: str, dtype: torch.dtype
    ) -> Tensor:
        ctx.save_for_backward(x, target, w)
        ctx.options = p, margin, reduction
        return _forward(x, target, w, p, margin, reduction, dtype)

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        x, target, w = ctx.saved_tensors
        p, margin, reduction = ctx.options
        if recompute.wanted():
            (dx,) = recompute.gradients(
                lambda x: F.multi_margin_loss(x, target, p, margin, w, reduction=reduction), (x,), dloss
            )
        else:
            dx = _backward(dloss, x, target, w, p, margin, reduction)
        return dx, *(None,) * 6


def multi_margin_loss(
    input: Tensor,
    target: Tensor,
    p: int = 1,
    margin: float = 1.0,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Same contract as :func:`torch.nn.functional.multi_margin_loss`; float16 and bfloat16 on CPUs too.

    Shapes: input [M, C] or [C]; target [M], or a scalar or [1]; weight [C].
    Errors: RuntimeError for a class out of range on a CPU; on a GPU a device-side assert.
    """
    name, dtypes = "multi_margin_loss", route.HALF_TO_DOUBLE | {torch.int64}
    reason = _unfit(input, target, weight, p, reduction)
    if size_average is not None or reduce is not None:
        reason = "size_average and reduce are deprecated"
    if route.to_torch(name, input, target, weight, unless=reason, mixed=True, dtypes=dtypes):
        return F.multi_margin_loss(input, target, p, margin, weight, size_average, reduce, reduction)
    dtype = autocast.output_dtype(name, input)
    y: Tensor = apply(_MultiMarginLoss, input, target, weight, int(p), float(margin), reduction, dtype)
    return y


def _unfit(input: Tensor, target: Tensor, weight: Tensor | None, p: int, reduction: str) -> str | None:
    if weight is not None and (weight.requires_grad or weight.dtype != input.dtype):
        return "no kernel for this weight"
    if p not in (1, 2) or reduction not in REDUCTIONS or input.dim() not in (1, 2) or not input.is_floating_point():
        return route.INVALID
    if target.dtype != torch.int64 or (weight is not None and weight.shape != input.shape[-1:]):
        return route.INVALID
    fits = target.shape == input.shape[:1] if input.dim() == 2 else target.shape in ((), (1,))
    if not fits:
        return route.INVALID
    looked_at = target.device.type == "cpu" and type(target) is Tensor and not torch.compiler.is_compiling()
    if looked_at and bool(((target < 0) | (target >= input.shape[-1])).any()):
        return route.INVALID
    return None
