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

from trident.lang.lines import along, line_tile, per_line
from trident.lang.tile import load, multiple
from trident.ops._reduce_passes import beside, grouped, in_memory_order, innermost, memory_order, passes, tiles, turned
from trident.ops._reduce_table import REDUCTIONS, Dims
from trident.runtime import nodes, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.layout import as_lines, dense, lying_as
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype


@triton.jit
def _state(ptr, indices, at, mask, S, NEUTRAL: tl.constexpr, PARTS: tl.constexpr):
    """The states at `at` of [PARTS, S]; masked ones those of no elements. indices: of the second number, or None."""
    first = load(ptr + at, mask, NEUTRAL)
    if PARTS == 1:
        return (first,)
    elif indices is not None:
        return first, tl.load(indices + at, mask=mask, other=0)
    elif PARTS == 2:
        return first, load(ptr + S + at, mask)
    else:
        return first, load(ptr + S + at, mask), load(ptr + 2 * S + at, mask)


@triton.jit
def _nothing(
    like, NEUTRAL: tl.constexpr, PARTS: tl.constexpr, INDEX: tl.constexpr, AXIS: tl.constexpr,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    """The state of no elements, for each of BLOCK_M lines."""
    first, zero = per_line(NEUTRAL, like, AXIS, BLOCK_M), per_line(0.0, like, AXIS, BLOCK_M)
    if PARTS == 1:
        return (first,)
    elif INDEX:
        return first, zero.to(tl.int64)
    elif PARTS == 2:
        return first, zero
    else:
        return first, zero, zero


@triton.jit
def _forward_kernel(
    x, x2, indices, y, y2, found, found_index, M, N, inner, count, CHUNKS, OF_STATES: tl.constexpr,
    LIFT: tl.constexpr, GATHER: tl.constexpr, MERGE: tl.constexpr, FINISH: tl.constexpr, A: tl.constexpr,
    B: tl.constexpr, NEUTRAL: tl.constexpr, PARTS: tl.constexpr, INDEX: tl.constexpr,
    AXIS: tl.constexpr, SPAN: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """CHUNKS chunks of each line, of elements x or, if OF_STATES, of states that x and indices hold.

    y, y2: results of lines, of `count` elements each; found, found_index: their states. Each may be None.
    """
    M, inner = multiple(M, ALIGN), multiple(inner, ALIGN)
    lines, start, exist = line_tile(tl.program_id(0), M, N, inner, AXIS, SPAN, BLOCK_M)
    part = tl.program_id(1)
    S = M * tl.full((), N, tl.int64)
    s = _nothing(x, NEUTRAL, PARTS, INDEX, AXIS, BLOCK_M)
    for chunk in range(part * CHUNKS, tl.minimum((part + 1) * CHUNKS, tl.cdiv(N, BLOCK_N))):
        n = along(chunk, AXIS, BLOCK_N)
        at, inside = start + n * inner, exist & (n < N)
        if OF_STATES:
            s = MERGE(s, GATHER(_state(x, indices, at, inside, S, NEUTRAL, PARTS), AXIS))
        else:
            b_x2 = None if x2 is None else load(x2 + at, inside)
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
def _backward_kernel(
    states, indices, dx, dx2, dy, dy2, x, x2, M, N, inner, count,
    GRAD: tl.constexpr, A: tl.constexpr, B: tl.constexpr, NEUTRAL: tl.constexpr, PARTS: tl.constexpr,
    AXIS: tl.constexpr, SPAN: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    M, inner = multiple(M, ALIGN), multiple(inner, ALIGN)
    lines, start, exist = line_tile(tl.program_id(0), M, N, inner, AXIS, SPAN, BLOCK_M)
    n = along(tl.program_id(1), AXIS, BLOCK_N)
    at, inside = start + n * inner, exist & (n < N)
    if indices is not None:
        s = (tl.load(indices + lines, mask=exist, other=-1),)
    else:
        s = _state(states, None, lines, exist, M * tl.full((), 1, tl.int64), NEUTRAL, PARTS)
    b_dy = None if dy is None else load(dy + lines, exist)
    b_dy2 = None if dy2 is None else load(dy2 + lines, exist)
    b_x = None if x is None else load(x + at, inside)
    b_x2 = None if x2 is None else load(x2 + at, inside)
    d = GRAD(b_dy, b_dy2, b_x, b_x2, n, s, count, A, B)
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
    Empty where there is none."""
    row = REDUCTIONS[name]
    x = dense(x)
    x2 = None if x2 is None else lying_as(x2, x)
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
    source: tuple[Tensor | None, ...] = x, x2, None
    for i, (M, N, inner, plan) in enumerate(launches):
        results: tuple[Tensor | None, ...] = y, y2, kept, index
        if i < len(launches) - 1:
            S = M * plan.grid[1]
            states = x.new_empty((row.parts, S), dtype=compute)
            results = None, None, states, x.new_empty(S, dtype=torch.int64) if row.found else None
        launch(
            _forward_kernel, plan.grid, *source, *results, M, N, inner, x.numel() // lines, OF_STATES=i > 0,
            LIFT=row.lift, GATHER=row.gather, MERGE=row.merge, FINISH=row.finish, A=a, B=b, NEUTRAL=row.neutral,
            PARTS=row.parts, INDEX=row.found, **plan.meta,
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
    row = REDUCTIONS[name]
    x = dense(x)
    x2 = None if x2 is None else lying_as(x2, x)
    order = memory_order(x)
    groups = grouped(order, dims, x.shape)
    _, outer, N, inner = innermost(groups)
    dx = torch.empty_like(x) if by_x else None
    dx2 = torch.empty_like(x, dtype=x2.dtype) if by_x2 and x2 is not None else None
    gradients = [None if t is None else beside(in_memory_order(t, x.shape, order, dims), groups) for t in (dy, dy2)]
    plan = tiles(outer, N, inner, x.device, tuning.registers(x.dtype, 2))
    launch(
        _backward_kernel, plan.grid, beside(states, groups), None, dx, dx2, *gradients, x, x2, outer * inner, N,
        inner, x.numel() * row.parts // states.numel(), GRAD=row.grad, A=a, B=b, NEUTRAL=row.neutral, PARTS=row.parts,
        **plan.meta,
    )  # fmt: skip
    return x.new_empty(0) if dx is None else dx, x.new_empty(0) if dx2 is None else dx2


@op("reduce_scatter")
def _scatter(dy: Tensor, index: Tensor, name: str, shape: Sequence[int], dim: int) -> Tensor:
    """The gradient of "end": dy at the index of each line, else 0."""
    row = REDUCTIONS[name]
    dx = dy.new_empty(shape)
    dy, index = dy.contiguous(), index.contiguous()
    outer, N, inner = as_lines(dx, dim)
    plan = tiles(outer, N, inner, dx.device, tuning.registers(dx.dtype, 1))
    launch(
        _backward_kernel, plan.grid, dy, index, dx, None, dy, None, None, None, outer * inner, N, inner, N,
        GRAD=row.grad, A=1.0, B=0.0, NEUTRAL=row.neutral, PARTS=row.parts, **plan.meta,
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
                    lambda x, x2: row.torch(x, x2, dims, keepdim, a, b),
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
            dx = _of_sum(dy, ctx.shape, dims, keepdim, name == "mean", ctx.dtype)
        return dx, dx2, *(None,) * 6


def _of_end(ctx: Any, dy: Tensor, dim: int, keepdim: bool) -> Tensor:
    (index,) = ctx.saved_tensors
    if not recompute.wanted():
        return _scatter(dy.to(ctx.dtype), index, ctx.row, ctx.shape, dim)
    zeros = dy.new_zeros(ctx.shape, dtype=ctx.dtype)
    if not keepdim and zeros.dim():
        dy, index = dy.unsqueeze(dim), index.unsqueeze(dim)
    return zeros.scatter(dim, index, dy.to(ctx.dtype))


def _of_sum(dy: Tensor, shape: torch.Size, dims: Dims, keepdim: bool, mean: bool, dtype: torch.dtype) -> Tensor:
    """As torch a view, of which no element is written."""
    if mean:
        dy = dy / math.prod([shape[a] for a in dims if a < len(shape)])  # a scalar has dim 0, too
    if not keepdim:
        dy = dy.reshape([1 if a in dims else n for a, n in enumerate(shape)])
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
    """The row `name` of the table over the dimensions `dims` (not negative): its result, or two results.

    A row whose gradient needs more than its result has a twin, with a "_", for where a gradient will be asked for.
    """
    row = REDUCTIONS[name]
    differentiable = torch.is_grad_enabled() and (x.requires_grad or (x2 is not None and x2.requires_grad))
    if differentiable:
        if row.found and nodes.possible(x) and route.gradient_to_torch("max" if a > 0 else "min", x):
            y, _, _, index = _forward(x.detach(), None, name, dims, keepdim, a, b, dtype, False)
            return tuple(nodes.torchs(*ENDS[a > 0], (y, index), x, dims[0], keepdim))
        return apply(_Reduce, x, x2, f"{name}_" if f"{name}_" in REDUCTIONS else name, dims, keepdim, a, b, dtype)
    y, y2, _, index = _forward(x, x2, name, dims, keepdim, a, b, dtype, False)
    return (y, index) if row.found else (y, y2) if row.second else y
