"""Reductions of x (and of pairs x, x2) over any dimensions: a table of state algebras over one pair of kernels.

forward     state  = merge of lift(x) over a line's elements;   y = finish(state)
backward    dx     = grad(dy, x, state): pointwise, the state of its line beside each element

A row of the table (_reduce_table.py) names functions of lang/reduction.py and lang/reduction_grad.py. Launches follow
each other as _reduce_passes.py says: the first reads x, the others the states that the one before has left, [numbers of
a state, parts, lines] in float32 (float64 for float64).
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.broadcast import values
from trident.lang.lines import along, line_tile, segments
from trident.lang.reduction import no_elements, state
from trident.lang.tile import accumulator, load, multiple
from trident.ops._reduce_passes import beside, grouped, in_memory_order, innermost, memory_order, passes, turned
from trident.ops._reduce_table import REDUCTIONS, Dims, differentiable
from trident.runtime import broadcast, nodes, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.layout import as_lines, dense, lying
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype


@triton.jit
def _sizes(M, N, inner, ALIGN: tl.constexpr, AXIS: tl.constexpr):
    """As `segments`; M, too: lines that lie apart are whole rows of `inner`."""
    N, inner = segments(N, inner, ALIGN, AXIS)
    return (M, N, inner) if AXIS == 1 else (multiple(M, ALIGN), N, inner)


@triton.jit
def _second(x2, at, lines, n, inside, exist, N, period, BY: tl.constexpr):
    """Of the second tensor, which may broadcast (lang/broadcast.py), a value for each element of a tile."""
    if BY == "each":
        return load(x2 + at, inside)
    else:
        return tl.where(inside, values(x2, (at, lines, n), (inside, exist, n < N, N > 0), period, BY), 0.0)


@triton.jit
def _forward_kernel(
    x, x2, indices, y, y2, found, found_index, M, N, inner, count, period, CHUNKS, OF_STATES: tl.constexpr,
    X2: tl.constexpr, LIFT: tl.constexpr, GATHER: tl.constexpr, MERGE: tl.constexpr, FINISH: tl.constexpr,
    A: tl.constexpr, B: tl.constexpr, NEUTRAL: tl.constexpr, PARTS: tl.constexpr, INDEX: tl.constexpr,
    AXIS: tl.constexpr, SPAN: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """CHUNKS chunks of each line, of elements x or, if OF_STATES, of states that x and indices hold.

    y, y2: results of lines, of `count` elements each; found, found_index: their states. Each may be None.
    """
    M, N, inner = _sizes(M, N, inner, ALIGN, AXIS)
    lines, start, exist = line_tile(tl.program_id(0), M, N, inner, AXIS, SPAN, BLOCK_M)
    part = tl.program_id(1)
    S = M * tl.full((), N, tl.int64)
    s = no_elements(x, NEUTRAL, PARTS, INDEX, AXIS, BLOCK_M)
    for chunk in range(part * CHUNKS, tl.minimum((part + 1) * CHUNKS, tl.cdiv(N, BLOCK_N))):
        n = along(chunk, AXIS, BLOCK_N)
        at, inside = start + n * inner, exist & (n < N)
        if OF_STATES:
            s = MERGE(s, GATHER(state(x, indices, at, inside, S, NEUTRAL, PARTS), AXIS))
        else:
            b_x2 = None if x2 is None else _second(x2, at, lines, n, inside, exist, N, period, X2)
            lifted = LIFT(load(x + at, inside), b_x2, inside, A, B)
            if INDEX:
                near = GATHER((lifted[0], (n - chunk * BLOCK_N).to(tl.int32)), AXIS)
                s = MERGE(s, (near[0], near[1] + chunk * tl.full((), BLOCK_N, tl.int64)))
            else:
                s = MERGE(s, GATHER(lifted, AXIS))
    if y is not None:
        results = FINISH(s, count, A, B)
        tl.store(y + lines, results[0], exist)
        if y2 is not None:
            tl.store(y2 + lines, results[1], exist)
    at = part * tl.full((), M, tl.int64) + lines
    if found is not None:
        for i in tl.static_range(1 if INDEX else PARTS):
            tl.store(found + i * tl.num_programs(1) * tl.full((), M, tl.int64) + at, s[i], exist)
    if found_index is not None:
        tl.store(found_index + at, s[1], exist)


@triton.jit
def _gradient(
    tile, states, indices, dy, dy2, x, x2, M, N, inner, count, repeat, period, X2: tl.constexpr, GRAD: tl.constexpr,
    A: tl.constexpr, B: tl.constexpr, NEUTRAL: tl.constexpr, PARTS: tl.constexpr, AXIS: tl.constexpr,
    SPAN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """What `GRAD` says of a tile of lines, where its elements are, and their mask."""
    lines, start, exist = line_tile(tile, M, N, inner, AXIS, SPAN, BLOCK_M)
    n = along(tl.program_id(1), AXIS, BLOCK_N)
    at, inside = start + n * inner, exist & (n < N)
    of = lines if repeat is None else lines % repeat  # results of lines
    if indices is not None:
        s = (tl.load(indices + of, mask=exist, other=-1),)
    else:
        S = M if repeat is None else repeat
        s = state(states, None, of, exist, S * tl.full((), 1, tl.int64), NEUTRAL, PARTS)
    b_dy = None if dy is None else load(dy + of, exist)
    b_dy2 = None if dy2 is None else load(dy2 + of, exist)
    b_x = None if x is None else load(x + at, inside)
    b_x2 = None if x2 is None else _second(x2, at, lines, n, inside, exist, N, period, X2)
    return GRAD(b_dy, b_dy2, b_x, b_x2, n, s, count, A, B), at, inside


@triton.jit
def _backward_kernel(
    states, indices, dx, dx2, dy, dy2, x, x2, M, N, inner, count, repeat, period, X2: tl.constexpr,
    SUMMED: tl.constexpr, GRAD: tl.constexpr, A: tl.constexpr, B: tl.constexpr, NEUTRAL: tl.constexpr,
    PARTS: tl.constexpr, AXIS: tl.constexpr, SPAN: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """SUMMED: dx2 is one sum over its tiles of lines per program (axis 0)."""
    M, N, inner = _sizes(M, N, inner, ALIGN, AXIS)
    if SUMMED:
        total = accumulator(x, BLOCK_M, BLOCK_N)
        for tile in range(tl.program_id(0), tl.cdiv(M, BLOCK_M), tl.num_programs(0)):
            d, at, inside = _gradient(
                tile, states, indices, dy, dy2, x, x2, M, N, inner, count, repeat, period, X2, GRAD, A, B, NEUTRAL,
                PARTS, AXIS, SPAN, BLOCK_M, BLOCK_N,
            )  # fmt: skip
            if dx is not None:
                tl.store(dx + at, d[0], inside)
            total += tl.where(inside, d[1], 0.0)
        n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
        tl.store(dx2 + tl.program_id(0) * N + n, tl.sum(total, axis=0), n < N)
    else:
        d, at, inside = _gradient(
            tl.program_id(0), states, indices, dy, dy2, x, x2, M, N, inner, count, repeat, period, X2, GRAD, A, B,
            NEUTRAL, PARTS, AXIS, SPAN, BLOCK_M, BLOCK_N,
        )  # fmt: skip
        if dx is not None:
            tl.store(dx + at, d[0], inside)
        if dx2 is not None:
            tl.store(dx2 + at, d[1], inside)


def result_shape(shape: Sequence[int], dims: Dims, keepdim: bool) -> list[int]:
    return [1 if a in dims else n for a, n in enumerate(shape) if keepdim or a not in dims]


@op("reduce")
def _forward(
    x: Tensor, x2: Tensor | None, name: str, dims: Dims, keepdim: bool, a: float, b: float, dtype: torch.dtype,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The result; the second one; the states of the lines in memory's order, [parts, lines], if `keep`; the indices.
    Empty where there is none. x2 broadcasts to x."""
    row = REDUCTIONS[name]
    x = dense(x)
    order = memory_order(x)
    shape, turn = result_shape(x.shape, dims, keepdim), turned(order, dims)
    room = shape if turn is None else [x.shape[a] for a in order if a not in dims]  # type: ignore[union-attr]
    lines, compute = math.prod(shape), compute_dtype(x)
    y = x.new_empty(room, dtype=dtype)
    y2 = x.new_empty(room, dtype=dtype) if row.second else None
    kept = x.new_empty((row.parts, lines), dtype=compute) if keep else None
    index = x.new_empty(room, dtype=torch.int64) if row.found else None

    live = tuning.registers(x.dtype, row.parts), tuning.registers(compute, row.parts)
    launches = passes(*live, tuple(dims), order, row.found, x.device, *x.shape).meta.get("launches", ())
    x2, by, period = _beside(x, x2, launches[0][1:3] if launches else (0, 0))
    source: tuple[Tensor | None, ...] = x, x2, None
    for i, (M, N, inner, plan) in enumerate(launches):
        results: tuple[Tensor | None, ...] = y, y2, kept, index
        if i < len(launches) - 1:
            S = M * plan.grid[1]
            states = x.new_empty((row.parts, S), dtype=compute)
            results = None, None, states, x.new_empty(S, dtype=torch.int64) if row.found else None
        launch(
            _forward_kernel, plan.grid, *source, *results, M, N, inner, x.numel() // lines, period,
            OF_STATES=i > 0, X2=by, LIFT=row.lift, GATHER=row.gather, MERGE=row.merge, FINISH=row.finish, A=a, B=b,
            NEUTRAL=row.neutral, PARTS=row.parts, INDEX=row.found, **plan.meta,
        )  # fmt: skip
        source = results[2], None, results[3]

    def given(t: Tensor | None) -> Tensor:
        return x.new_empty(0) if t is None else t if turn is None else t.permute(turn).contiguous().view(shape)

    return given(y), given(y2), x.new_empty(0) if kept is None else kept, given(index)


@op("reduce_backward")
def _backward(
    dy: Tensor | None, dy2: Tensor | None, x: Tensor, x2: Tensor | None, states: Tensor, name: str, dims: Dims,
    a: float, b: float, by_x: bool, by_x2: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """dx if by_x, and dx2 if by_x2; else empty."""
    row, second = REDUCTIONS[name], x2
    x = dense(x)
    order = memory_order(x)
    groups = grouped(order, dims, x.shape)
    _, outer, N, inner = innermost(groups)
    x2, by, period = _beside(x, x2, (N, inner))
    live = tuning.registers(x.dtype, 2)
    # an x2 that each line reads: its gradient is summed on the way
    summed = by_x2 and by == "column" and second is not None and second.numel() == N
    plan = (
        tuning.line_groups(outer, N, x.device, live) if summed else tuning.line_tiles(outer, N, inner, x.device, live)
    )
    dx = torch.empty_like(x) if by_x else None
    dx2 = x.new_empty(plan.grid[0], N, dtype=compute_dtype(x)) if summed else torch.empty_like(x) if by_x2 else None
    gradients = [None if t is None else in_memory_order(t, x.shape, order, dims) for t in (dy, dy2)]
    repeat, (of_lines, *gradients) = beside(groups, states, *gradients)
    launch(
        _backward_kernel, plan.grid, of_lines, None, dx, dx2, *gradients, x, x2, outer * inner, N, inner,
        x.numel() * row.parts // states.numel(), repeat, period, X2=by, SUMMED=summed, GRAD=row.grad, A=a, B=b,
        NEUTRAL=row.neutral, PARTS=row.parts, **plan.meta,
    )  # fmt: skip
    if dx2 is not None and second is not None and (summed or second.shape != x.shape or second.dtype != x.dtype):
        dx2 = (dx2.sum(0).view(second.shape) if summed else dx2.sum_to_size(second.shape)).to(second.dtype)
    return x.new_empty(0) if dx is None else dx, x.new_empty(0) if dx2 is None else dx2


def _beside(x: Tensor, x2: Tensor | None, line: tuple[int, int]) -> tuple[Tensor | None, str, int | None]:
    """x2 as it is read beside x, in lines of N elements that lie `inner` apart: for elements, lines or places in lines
    (runtime/broadcast.py), and the number of lines after which it repeats itself."""
    N, inner = line
    if x2 is None or (x2.dim() == x.dim() and x2.shape == x.shape and x2.stride() == x.stride()):
        return x2, "each", None
    if inner != 1:
        return lying(x2.expand(x.shape), x.stride()), "each", None
    seen = broadcast.elements(x.shape, x.stride(), (x, x2), N)
    return seen.operands[1], seen.by[1], seen.period


@op("reduce_scatter")
def _scatter(dy: Tensor, index: Tensor, name: str, shape: Sequence[int], dim: int) -> Tensor:
    """The gradient of "end": dy at the index of each line, else 0."""
    row = REDUCTIONS[name]
    dx = dy.new_empty(shape)
    dy, index = dy.contiguous(), index.contiguous()
    outer, N, inner = as_lines(dx, dim)
    plan = tuning.line_tiles(outer, N, inner, dx.device, tuning.registers(dx.dtype, 1))
    launch(
        _backward_kernel, plan.grid, dy, index, dx, None, dy, None, None, None, outer * inner, N, inner, N,
        None, None, X2="each", SUMMED=False, GRAD=row.grad, A=1.0, B=0.0, NEUTRAL=row.neutral, PARTS=row.parts,
        **plan.meta,
    )  # fmt: skip
    return dx


class _Reduce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, x2: Tensor | None, name: str, dims: Dims, keepdim: bool, a: float, b: float,
        dtype: torch.dtype,
    ) -> Any:  # fmt: skip
        row = REDUCTIONS[name]
        y, y2, states, index = _forward(x, x2, name, dims, keepdim, a, b, dtype, row.grad is not None and not row.found)
        ctx.set_materialize_grads(False)
        ctx.row, ctx.options, ctx.shape, ctx.dtype = name, (dims, keepdim, a, b), x.shape, x.dtype
        if row.found:
            ctx.save_for_backward(index)
            ctx.mark_non_differentiable(index)
            return y, index
        if row.grad is not None:
            ctx.save_for_backward(x, x2, states)
        return (y, y2) if row.second else y

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dy2: Tensor | None = None) -> tuple[Tensor | None, ...]:
        name, (dims, keepdim, a, b) = ctx.row, ctx.options
        row = REDUCTIONS[name]
        if name == "norm" and a == 0:  # a count: as in torch there is no gradient, not even zeros
            return (None,) * 8
        dx = dx2 = None
        if row.second and (dy is not None or dy2 is not None) and recompute.wanted():
            one = dy if dy2 is None else dy2
            dy = torch.stack([torch.zeros_like(one) if t is None else t for t in (dy, dy2)])  # type: ignore[arg-type]
        if row.grad is not None and not row.found and (dy is not None or dy2 is not None):
            x, x2, states = ctx.saved_tensors
            if recompute.wanted():
                dx, dx2 = recompute.gradients(
                    lambda x, x2: row.torch(x, None if x2 is None else x2.expand(x.shape), dims, keepdim, a, b),
                    (x, x2),
                    dy,
                )
            else:
                wanted = ctx.needs_input_grad[:2]
                found = _backward(dy, dy2, x, x2, states, name, dims, a, b, *wanted)
                dx, dx2 = (t if wants else None for t, wants in zip(found, wanted, strict=True))
        elif dy is not None and row.found:
            dx = _of_end(ctx, dy, dims[0], keepdim)
        elif dy is not None and row.grad is None:
            dx = of_sum(dy, ctx.shape, dims, keepdim, name == "mean", ctx.dtype)
        return dx, dx2, *(None,) * 6


def _of_end(ctx: Any, dy: Tensor, dim: int, keepdim: bool) -> Tensor:
    (index,) = ctx.saved_tensors
    if not recompute.wanted():
        return _scatter(dy.to(ctx.dtype), index, ctx.row, ctx.shape, dim)
    zeros = dy.new_zeros(ctx.shape, dtype=ctx.dtype)
    if not keepdim and zeros.dim():
        dy, index = dy.unsqueeze(dim), index.unsqueeze(dim)
    return zeros.scatter(dim, index, dy.to(ctx.dtype))


def of_sum(dy: Tensor, shape: torch.Size, dims: Dims, keepdim: bool, mean: bool, dtype: torch.dtype) -> Tensor:
    """As torch a view, of which no element is written."""
    axes = [a for a in sorted(dims) if a < len(shape)]  # a scalar has dim 0, too
    if mean:
        dy = dy / math.prod([shape[a] for a in axes])
    if not keepdim:
        for a in axes:  # not one reshape: a strict export takes no list of open sizes here
            dy = dy.unsqueeze(a)
    return dy.expand(shape).to(dtype)


ENDS = (torch.min, torch.ops.aten.min.dim), (torch.max, torch.ops.aten.max.dim)


def reduce(
    name: str,
    x: Tensor,
    x2: Tensor | None,
    dims: Dims,
    keepdim: bool,
    dtype: torch.dtype,
    a: float = 1.0,
    b: float = 0.0,
) -> Any:  # fmt: skip
    """The row `name` of the table over the dimensions `dims` (not negative): its result, or two. x2 broadcasts to x."""
    row = REDUCTIONS[name]
    if torch.is_grad_enabled() and (x.requires_grad or (x2 is not None and x2.requires_grad)):
        if row.found and nodes.possible(x) and route.gradient_to_torch("max" if a > 0 else "min", x):
            y, _, _, index = _forward(x.detach(), None, name, dims, keepdim, a, b, dtype, False)
            return tuple(nodes.torchs(*ENDS[a > 0], (y, index), x, dims[0], keepdim))
        return apply(_Reduce, x, x2, differentiable(name), dims, keepdim, a, b, dtype)
    y, y2, _, index = _forward(x, x2, name, dims, keepdim, a, b, dtype, False)
    return (y, index) if row.found else (y, y2) if row.second else y
