"""Losses of triplets of vectors a, p, n: is an anchor a nearer to a positive p than to a negative n, by a margin?

    near   = |a - p + eps|                  norms of any order but 0, over the last dimension
    far    = |a - n + eps|                  if swap: the lesser of that and of |p - n + eps|
    loss   = max(0, margin + near - far)    of each triplet, or their mean or sum

The three vectors are read once for all distances; their gradients are those of the norms (lang/reduction_grad.py).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.lines import along, line_tile
from trident.lang.loss import ranking, ranking_grad
from trident.lang.reduction import no_elements, state
from trident.lang.tile import load, multiple
from trident.ops._reduce_table import REDUCTIONS, differentiable
from trident.ops._reduction import norm_row
from trident.runtime import recompute, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype

F = torch.nn.functional
DISTANCES = 3  # states are kept of so many


@triton.jit
def _lesser(far, other):
    return tl.minimum(far, other, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _share(far, other):
    """The derivative of the lesser by `far`: half where they are equal, as torch; 1 for NaN."""
    return tl.where(far == other, 0.5, 1.0 - (far > other).to(far.dtype))


@triton.jit
def _forward_kernel(
    loss, states, a, p, n, M, N, MARGIN: tl.constexpr, SWAP: tl.constexpr, EACH: tl.constexpr, LIFT: tl.constexpr,
    GATHER: tl.constexpr, MERGE: tl.constexpr, FINISH: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
    NEUTRAL: tl.constexpr, PARTS: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """EACH: a loss for each triplet; else their sum, one per program. states may be None."""
    N = multiple(N, ALIGN)
    lines, start, exist = line_tile(tl.program_id(0), M, N, 1, 1, False, BLOCK_M)
    near = no_elements(a, NEUTRAL, PARTS, False, 1, BLOCK_M)
    far, other = near, near
    for chunk in range(0, tl.cdiv(N, BLOCK_N)):
        cols = along(chunk, 1, BLOCK_N)
        at, inside = start + cols, exist & (cols < N)
        b_a, b_p, b_n = load(a + at, inside), load(p + at, inside), load(n + at, inside)
        near = MERGE(near, GATHER(LIFT(b_a, b_p, inside, A, B), 1))
        far = MERGE(far, GATHER(LIFT(b_a, b_n, inside, A, B), 1))
        if SWAP:
            other = MERGE(other, GATHER(LIFT(b_p, b_n, inside, A, B), 1))
    apart = FINISH(far, N, A, B)[0]
    if SWAP:
        apart = _lesser(apart, FINISH(other, N, A, B)[0])
    b_loss = ranking(FINISH(near, N, A, B)[0], apart, -1, MARGIN)
    if EACH:
        tl.store(loss + lines, b_loss, exist)
    else:
        tl.store(loss + tl.program_id(0), tl.sum(tl.where(exist, b_loss, 0.0)))
    if states is not None:
        S = M * tl.full((), PARTS, tl.int64)
        for i in tl.static_range(PARTS):
            tl.store(states + i * M + lines, near[i], exist)
            tl.store(states + S + i * M + lines, far[i], exist)
            if SWAP:
                tl.store(states + 2 * S + i * M + lines, other[i], exist)


@triton.jit
def _backward_kernel(
    da, dp, dn, states, dloss, a, p, n, M, N, MARGIN: tl.constexpr, SWAP: tl.constexpr, EACH: tl.constexpr,
    MEAN: tl.constexpr, FINISH: tl.constexpr, GRAD: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
    NEUTRAL: tl.constexpr, PARTS: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = multiple(N, ALIGN)
    lines, start, exist = line_tile(tl.program_id(0), M, N, 1, 1, False, BLOCK_M)
    cols = along(tl.program_id(1), 1, BLOCK_N)
    at, inside = start + cols, exist & (cols < N)
    S = M * tl.full((), PARTS, tl.int64)
    rows = M * tl.full((), 1, tl.int64)
    s_near = state(states, None, lines, exist, rows, NEUTRAL, PARTS)
    s_far = state(states + S, None, lines, exist, rows, NEUTRAL, PARTS)
    near, far = FINISH(s_near, N, A, B)[0], FINISH(s_far, N, A, B)[0]

    g = load(dloss + lines, exist) if EACH else load(dloss, True)
    if MEAN:
        g = g / M
    b_a, b_p, b_n = load(a + at, inside), load(p + at, inside), load(n + at, inside)
    if SWAP:
        s_other = state(states + 2 * S, None, lines, exist, rows, NEUTRAL, PARTS)
        other = FINISH(s_other, N, A, B)[0]
        g = g * ranking_grad(near, _lesser(far, other), -1, MARGIN)
        g_far = -g * _share(far, other)
        of_other = GRAD(-g * _share(other, far), None, b_p, b_n, cols, s_other, N, A, B)
    else:
        g = g * ranking_grad(near, far, -1, MARGIN)
        g_far = -g
    of_near = GRAD(g, None, b_a, b_p, cols, s_near, N, A, B)
    of_far = GRAD(g_far, None, b_a, b_n, cols, s_far, N, A, B)
    if da is not None:
        tl.store(da + at, of_near[0] + of_far[0], inside)
    if dp is not None:
        tl.store(dp + at, of_near[1] + of_other[0] if SWAP else of_near[1], inside)
    if dn is not None:
        tl.store(dn + at, of_far[1] + of_other[1] if SWAP else of_far[1], inside)


def _row(order: float) -> tuple[Any, float]:
    """The row of the table of reductions, and its parameter."""
    name, A = norm_row(order)
    return REDUCTIONS[differentiable(name)], A


@op("triplet_loss")
def _forward(
    a: Tensor, p: Tensor, n: Tensor, order: float, eps: float, margin: float, swap: bool, reduction: str,
    dtype: torch.dtype, keep: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The loss; if `keep` the states of the distances, [3, parts, triplets], of which the last is there if `swap`."""
    a, p, n = a.contiguous(), p.contiguous(), n.contiguous()
    row, A = _row(order)
    N, each, compute = a.shape[-1], reduction == "none", compute_dtype(a)
    M = a.numel() // N
    plan = tuning.whole_lines(M, N, a.device, tuning.registers(a.dtype, 3))
    y = a.new_empty(a.shape[:-1], dtype=dtype) if each else a.new_empty(plan.grid[0], dtype=compute)
    states = a.new_empty((DISTANCES, row.parts, M), dtype=compute) if keep else None
    launch(
        _forward_kernel, plan.grid, y, states, a, p, n, M, N, MARGIN=margin, SWAP=swap, EACH=each, LIFT=row.lift,
        GATHER=row.gather, MERGE=row.merge, FINISH=row.finish, A=A, B=eps, NEUTRAL=row.neutral, PARTS=row.parts,
        **plan.meta,
    )  # fmt: skip
    if not each:
        y = y.sum()
        y = (y / M if reduction == "mean" else y).to(dtype)
    return y, a.new_empty(0) if states is None else states


@op("triplet_loss_backward")
def _backward(
    dloss: Tensor, states: Tensor, a: Tensor, p: Tensor, n: Tensor, order: float, eps: float, margin: float,
    swap: bool, reduction: str, by_a: bool, by_p: bool, by_n: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The gradient by each vector, empty if not wanted."""
    a, p, n, dloss = a.contiguous(), p.contiguous(), n.contiguous(), dloss.contiguous()
    row, A = _row(order)
    N = a.shape[-1]
    M = a.numel() // N
    found = [torch.empty_like(t) if by else None for t, by in ((a, by_a), (p, by_p), (n, by_n))]
    plan = tuning.line_tiles(M, N, 1, a.device, tuning.registers(a.dtype, 3))
    blocks = {key: value for key, value in plan.meta.items() if key not in ("AXIS", "SPAN")}
    launch(
        _backward_kernel, plan.grid, *found, states, dloss, a, p, n, M, N, MARGIN=margin, SWAP=swap,
        EACH=reduction == "none", MEAN=reduction == "mean", FINISH=row.finish, GRAD=row.grad, A=A, B=eps,
        NEUTRAL=row.neutral, PARTS=row.parts, **blocks,
    )  # fmt: skip
    da, dp, dn = (a.new_empty(0) if d is None else d for d in found)
    return da, dp, dn


class _Triplet(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, a: Tensor, p: Tensor, n: Tensor, order: float, eps: float, margin: float, swap: bool, reduction: str,
        dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        keep = any(ctx.needs_input_grad)
        y, states = _forward(a, p, n, order, eps, margin, swap, reduction, dtype, keep)
        ctx.save_for_backward(a, p, n, states)
        ctx.options = order, eps, margin, swap, reduction
        return y

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        a, p, n, states = ctx.saved_tensors
        by = ctx.needs_input_grad[:3]
        found: tuple[Tensor | None, ...]
        if recompute.wanted():
            order, eps, margin, swap, reduction = ctx.options
            found = recompute.gradients(
                lambda a, p, n: F.triplet_margin_loss(a, p, n, margin, order, eps, swap, reduction=reduction),
                (a, p, n),
                dloss,
            )
        else:
            found = _backward(dloss, states, a, p, n, *ctx.options, *by)
        return *(d if wanted else None for d, wanted in zip(found, by, strict=True)), *(None,) * 6


def triplet_loss(
    a: Tensor, p: Tensor, n: Tensor, order: float, eps: float, margin: float, swap: bool, reduction: str,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """Of vectors of one shape, by the kernel."""
    y: Tensor = apply(_Triplet, a, p, n, float(order), float(eps), float(margin), swap, reduction, dtype)
    return y
