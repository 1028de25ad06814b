"""Cross entropy of logits x, seen as [outer, V, inner]: a line of V classes for each of M = outer * inner targets.

forward     log p  = x - max x - log sum exp(x - max x)
            q      = 1 at the target class, else 0;  or the probabilities that target holds
            a      = w * ((1 - smoothing) * q + smoothing / V)
            loss   = -sum(a * log p)                0 where the target is ignore_index
            total  = sum of w over the targets;     M for probabilities
            mean: sum of losses / total             sum: sum of losses

backward    g      = dloss, / total for mean
            dx     = g * (sum(a) * p - a)
            dq     = -g * (1 - smoothing) * w * log p

Probabilities are not kept: a line keeps max x, log sum exp(x - max x) and sum(a), and p is computed again.
"""

import struct
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.classes import class_of
from trident.lang.lines import along, finite, line_sum, line_tile, online_softmax, per_line, segments
from trident.lang.tile import load
from trident.ops._class_loss import INPUTS, check_classes, reduced, unfit
from trident.runtime import autocast, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import asserting, launch
from trident.runtime.layout import as_lines
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype


@triton.jit
def _spread(target, w, at, n, inside, smoothing, V, INDEX: tl.constexpr, SMOOTH: tl.constexpr):
    """a of a tile, without the target class's (1 - smoothing) w where targets are indices; 0 outside."""
    if INDEX:
        a = tl.where(inside, smoothing / V, 0.0)
    else:
        a = load(target + at, inside)
        if SMOOTH:
            a = a * (1 - smoothing) + smoothing / V
    if w is not None:
        a *= load(w + n, n < V)
    return tl.where(inside, a, 0.0)


@triton.jit
def _read(counts, exist, AXIS: tl.constexpr):
    """The lines to read: an ignored one is spared where it has programs or warps of its own, else it would only split
    16-byte loads of neighbouring lines."""
    return counts if AXIS == 1 else exist


@triton.jit
def line_loss(
    x, target, w, start, counts, exist, t, b_w, V, inner, smoothing, INDEX: tl.constexpr, SMOOTH: tl.constexpr,
    AXIS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Of each line: its loss, max x, log sum exp(x - max x), sum(a). t: its class, b_w: that class's weight."""
    top, sum_exp = per_line(-float("inf"), x, AXIS, BLOCK_M), per_line(0.0, x, AXIS, BLOCK_M)
    sum_a, sum_ax = per_line(0.0, x, AXIS, BLOCK_M), per_line(0.0, x, AXIS, BLOCK_M)  # ax: a (x - max x)
    for chunk in range(0, tl.cdiv(V, BLOCK_N)):
        n = along(chunk, AXIS, BLOCK_N)
        at, inside = start + n * inner, counts & (n < V)
        b_x = tl.where(inside, load(x + at, _read(counts, exist, AXIS) & (n < V)), -float("inf"))
        before = finite(top)
        top, sum_exp = online_softmax(top, sum_exp, b_x, AXIS)
        if SMOOTH or not INDEX:
            a = _spread(target, w, at, n, inside, smoothing, V, INDEX, SMOOTH)
            ax = line_sum(tl.where(inside, a * (b_x - finite(top)), 0.0), AXIS)
            sum_ax += (before - finite(top)) * sum_a + ax
            sum_a += line_sum(a, AXIS)
    if INDEX:
        valid = counts & (t >= 0) & (t < V)
        a_t = b_w * (1 - smoothing)
        sum_ax += tl.where(valid, a_t * (load(x + start + t * inner, valid) - finite(top)), 0.0)
        sum_a += a_t
    log_sum = tl.log(sum_exp)
    return tl.where(counts, sum_a * log_sum - sum_ax, 0.0), finite(top), log_sum, sum_a


@triton.jit
def _forward_kernel(
    loss, total, stats, x, target, w, M, V, inner, ignored, smoothing_high, smoothing_low,
    INDEX: tl.constexpr, SMOOTH: tl.constexpr, PER_LINE: tl.constexpr,
    AXIS: tl.constexpr, SPAN: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    V, inner = segments(V, inner, ALIGN, AXIS)
    pid = tl.program_id(0)
    lines, start, exist = line_tile(pid, M, V, inner, AXIS, SPAN, BLOCK_M)
    smoothing = per_line(0.0, x, AXIS, 1) + smoothing_high + smoothing_low
    if INDEX:
        t, counts, b_w = class_of(target, w, lines, exist, V, ignored)
    else:
        t, counts, b_w = None, exist, tl.where(exist, 1.0, 0.0)
    b_loss, b_top, log_sum, sum_a = line_loss(
        x, target, w, start, counts, exist, t, b_w, V, inner, smoothing, INDEX, SMOOTH, AXIS, BLOCK_M, BLOCK_N
    )
    S = M * tl.full((), 1, tl.int64)
    tl.store(stats + lines, b_top, exist)
    tl.store(stats + S + lines, log_sum, exist)
    tl.store(stats + 2 * S + lines, sum_a, exist)
    if PER_LINE:
        tl.store(loss + lines, b_loss, exist)
    else:
        tl.store(loss + pid, tl.sum(b_loss))
    if total is not None:
        tl.store(total + pid, tl.sum(b_w))


@triton.jit
def _backward_kernel(
    stats, dx, dq, dloss, total, x, target, w, M, V, inner, ignored, smoothing_high, smoothing_low,
    INDEX: tl.constexpr, SMOOTH: tl.constexpr, PER_LINE: tl.constexpr,
    AXIS: tl.constexpr, SPAN: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    V, inner = segments(V, inner, ALIGN, AXIS)
    lines, start, exist = line_tile(tl.program_id(0), M, V, inner, AXIS, SPAN, BLOCK_M)
    n = along(tl.program_id(1), AXIS, BLOCK_N)
    at, inside = start + n * inner, exist & (n < V)
    smoothing = per_line(0.0, x, AXIS, 1) + smoothing_high + smoothing_low
    S = M * tl.full((), 1, tl.int64)
    b_top, log_sum = load(stats + lines, exist), load(stats + S + lines, exist)
    sum_a = load(stats + 2 * S + lines, exist)
    g = load(dloss + lines, exist) if PER_LINE else load(dloss + lines * 0, exist)
    if total is not None:
        g = g / tl.load(total)

    if INDEX:
        t, counts, b_w = class_of(target, w, lines, exist, V, ignored)
        a = tl.where(n == t, b_w * (1 - smoothing), 0.0)
        if SMOOTH:
            a += _spread(target, w, at, n, inside & counts, smoothing, V, INDEX, SMOOTH)
    else:
        counts = exist
        a = _spread(target, w, at, n, inside, smoothing, V, INDEX, SMOOTH)
    log_p = load(x + at, _read(counts, exist, AXIS) & (n < V)) - b_top - log_sum
    if dx is not None:
        tl.store(dx + at, tl.where(counts, g * (sum_a * tl.exp(log_p) - a), 0.0), inside)
    if dq is not None:
        b_dq = g * (smoothing - 1) * log_p
        if w is not None:
            b_dq *= load(w + n, n < V)
        tl.store(dq + at, b_dq, inside)


@op("cross_entropy")
def _forward(
    x: Tensor, target: Tensor, w: Tensor | None, ignored: int, smoothing: float, reduction: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """The loss; of mean, the total that it was divided by (else empty); the statistics of each line, [3, M]."""
    x, target = x.contiguous(), target.contiguous()
    dim = min(1, x.dim() - 1)
    outer, V, inner = as_lines(x, dim)
    index, each = not target.is_floating_point(), reduction == "none"
    if index:
        check_classes(target, V, ignored)
    compute = compute_dtype(x)
    stats = x.new_empty(3, outer * inner, dtype=compute)
    plan = tuning.lines(outer, V, inner, x.device, tuning.registers(x.dtype, 4))
    if each:
        losses = x.new_empty([*x.shape[:dim], *x.shape[dim + 1 :]], dtype=dtype)
    else:
        losses = x.new_empty(plan.grid[0], dtype=compute)
    totals = x.new_empty(plan.grid[0], dtype=compute) if reduction == "mean" else None
    launch(
        _forward_kernel, plan.grid, losses, totals, stats, x, target, w, outer * inner, V, inner, ignored,
        *_in_two(smoothing), INDEX=index, SMOOTH=smoothing > 0, PER_LINE=each, **plan.meta, **asserting(x.device.type),
    )  # fmt: skip
    loss, total = (losses, stats.new_empty(0)) if each else reduced(losses, totals, dtype)
    return loss, total, stats


@op("cross_entropy_backward")
def _backward(
    dloss: Tensor, total: Tensor, stats: Tensor, x: Tensor, target: Tensor, w: Tensor | None,
    ignored: int, smoothing: float, reduction: str, wants_dx: bool, wants_dq: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """dx and the gradient of target probabilities, each empty if not wanted."""
    x, target, dloss = x.contiguous(), target.contiguous(), dloss.contiguous()
    dx = torch.empty_like(x, memory_format=torch.contiguous_format) if wants_dx else None
    dq = torch.empty_like(target, memory_format=torch.contiguous_format) if wants_dq else None
    outer, V, inner = as_lines(x, min(1, x.dim() - 1))
    plan = tuning.line_tiles(outer, V, inner, x.device, tuning.registers(x.dtype, 4))
    launch(
        _backward_kernel, plan.grid, stats, dx, dq, dloss, total if reduction == "mean" else None, x, target, w,
        outer * inner, V, inner, ignored, *_in_two(smoothing), INDEX=not target.is_floating_point(),
        SMOOTH=smoothing > 0, PER_LINE=reduction == "none", **plan.meta,
    )  # fmt: skip
    return x.new_empty(0) if dx is None else dx, x.new_empty(0) if dq is None else dq


def _in_two(number: float) -> tuple[float, float]:
    """Two numbers whose sum is `number`, the first in float32: kernels take scalars in float32."""
    (high,) = struct.unpack("f", struct.pack("f", number))
    return high, number - high


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, target: Tensor, w: Tensor | None, ignored: int, smoothing: float, reduction: str,
        dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        w = None if w is None else w.contiguous()
        loss, total, stats = _forward(x, target, w, ignored, smoothing, reduction, dtype)
        ctx.save_for_backward(x, target, w, total, stats)
        ctx.options = ignored, smoothing, reduction
        return loss

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        x, target, w, total, stats = ctx.saved_tensors
        ignored, smoothing, reduction = ctx.options
        if recompute.wanted():
            dx, dq = recompute.gradients(
                lambda x, target: torch.nn.functional.cross_entropy(
                    x, target, w, ignore_index=ignored, reduction=reduction, label_smoothing=smoothing
                ),
                (x, target),
                dloss,
            )
        else:
            wants_dx, wants_dq = ctx.needs_input_grad[:2]
            found = _backward(dloss, total, stats, x, target, w, ignored, smoothing, reduction, wants_dx, wants_dq)
            dx, dq = (t if wanted else None for t, wanted in zip(found, (wants_dx, wants_dq), strict=True))
        return dx, dq, None, None, None, None, None


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    ignore_index: int = -100,
    reduce: bool | None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Same contract as :func:`torch.nn.functional.cross_entropy`.

    Shapes: input [V], [N, V] or [N, V, *]; target without V (classes, int64 or uint8) or as input (probabilities);
    weight [V]; the result a scalar, or without V for reduction "none".
    Errors: IndexError for a class out of bounds on a CPU; on a GPU a device-side assert.
    """
    reason = unfit(input, target, weight, reduction)
    if size_average is not None or reduce is not None:
        reason = "size_average and reduce are deprecated"
    elif not 0 <= label_smoothing <= 1 or (target.is_floating_point() and ignore_index >= 0):
        reason = route.INVALID
    if route.to_torch("cross_entropy", input, target, weight, unless=reason, mixed=True, dtypes=INPUTS):
        return torch.nn.functional.cross_entropy(
            input, target, weight, size_average, ignore_index, reduce, reduction, label_smoothing
        )
    dtype = autocast.output_dtype("cross_entropy", input)
    return apply(_CrossEntropy, input, target, weight, ignore_index, label_smoothing, reduction, dtype)
