"""Ops that rearrange tiles in memory. Reshape and split are views; join and cat write into parts of a new buffer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trident_cpu.emit.buffers import View, dense_strides
from trident_cpu.emit.fill import fill_view
from trident_cpu.emit.memory import Access
from trident_cpu.emit.nest import for_each_vector, store_everywhere
from trident_cpu.emit.types import size, stored, vector
from trident_cpu.emit.values import (
    Context,
    Val,
    evaluate,
    lanes_of,
    load_view,
    scalar_context,
    view_address,
)
from trident_cpu.ir import Op, Value

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter


def dense(fe: FunctionEmitter, value: Value) -> View:
    """A row-major view that nothing will overwrite."""
    while value in fe.aliases:
        value = fe.aliases[value]
    found = fe.views.get(value)
    if found is not None and found.is_dense and found.element == value.type.element and value not in fe.mutable:
        return found
    view = fe.arena.new(value.type.element, value.type.shape)
    store_everywhere(fe, value, view)
    if found is None:
        fe.views[value] = view
    return view


def emit_reshape(fe: FunctionEmitter, op: Op) -> None:
    view = dense(fe, op.operands[0])
    shape = op.results[0].type.shape
    fe.views[op.results[0]] = replace(view, shape=shape, strides=dense_strides(shape))


def emit_split(fe: FunctionEmitter, op: Op) -> None:
    view = dense(fe, op.operands[0])
    for k, result in enumerate(op.results):
        fe.views[result] = replace(view, shape=view.shape[:-1], strides=view.strides[:-1], offset=k)


def emit_join(fe: FunctionEmitter, op: Op) -> None:
    result = op.results[0]
    whole = fe.new_view(result, result.type.element)
    part = replace(whole, shape=whole.shape[:-1], strides=whole.strides[:-1])
    # rows of whole vectors: a nest then runs along them
    if part.shape and part.shape[-1] >= fe.lanes > 1 and whole.element == result.type.element != "i1":
        interleave(fe, op.operands, part)
    else:
        for k, value in enumerate(op.operands):
            store_everywhere(fe, value, replace(part, offset=k))
    fe.views[result] = whole


def interleave(fe: FunctionEmitter, pair: Sequence[Value], part: View) -> None:
    """Two vectors at once, shuffled into two that lie one behind the other."""
    b, element = fe.b, part.element

    def body(ctx: Context) -> None:
        lanes = ctx.lanes
        kind = f"<{lanes} x {stored(element)}>"
        first, second = (lanes_of(fe, evaluate(fe, value, ctx.identity, ctx), lanes) for value in pair)
        address, _ = view_address(fe, part, ctx.identity, ctx)
        for half in range(2):
            places = [i for k in range(lanes // 2) for i in (half * lanes // 2 + k, half * lanes // 2 + k + lanes)]
            picks = ", ".join(f"i32 {i}" for i in places)
            text = b.value(f"shufflevector {kind} {first}, {kind} {second}, <{lanes} x i32> <{picks}>")
            at = address if half == 0 else b.value(f"getelementptr {stored(element)}, ptr {address}, i64 {lanes}")
            b.emit(f"store {kind} {text}, ptr {at}, align {size(element)}")

    for_each_vector(fe, part.shape, element, body)


def emit_cat(fe: FunctionEmitter, op: Op) -> None:
    result = op.results[0]
    whole = fe.new_view(result, result.type.element)
    offset = 0
    for value in op.operands:
        shape = value.type.shape
        store_everywhere(fe, value, replace(whole, shape=shape, strides=dense_strides(shape), offset=offset))
        offset += value.type.size
    fe.views[result] = whole


def emit_unsplat(fe: FunctionEmitter, op: Op) -> None:
    value = op.operands[0]
    nothing = (None,) * len(value.type.shape)
    fe.scalars[op.results[0]] = load_view(fe, fe.materialise(value, op), nothing, scalar_context()).text


def emit_histogram(fe: FunctionEmitter, op: Op) -> None:
    """Counts of the values 0 .. bins - 1; other values and masked-off elements count nowhere."""
    source, *mask = op.operands
    result, b = op.results[0], fe.b
    bins, count = result.type.shape[0], result.type.element
    place = fe.new_view(result, count)
    fill_view(fe, place, "0")

    def body(ctx: Context) -> None:
        lanes, access = ctx.lanes, Access(fe, ctx)
        index = lanes_of(fe, evaluate(fe, source, ctx.identity, ctx), lanes)
        inside = fe.pointwise(lanes).binary(
            "icmp ult", source.type.element, (index, fe.pointwise(lanes).constant(source.type.element, bins))
        )
        if mask:
            wanted = lanes_of(fe, evaluate(fe, mask[0], ctx.identity, ctx), lanes)
            inside = b.value(f"and {vector('i1', lanes)} {inside}, {wanted}")
        slots = [access.spill(Val("lanes", source.type.element, index)), access.spill(Val("lanes", "i1", inside))]

        def lane(i: str) -> None:
            value, wanted = (
                b.value(f"load {t}, ptr {b.value(f'getelementptr {t}, ptr {s}, i64 {i}')}") for s, t in slots
            )

            def add() -> None:
                wide = (
                    b.value(f"zext {stored(source.type.element)} {value} to i64")
                    if size(source.type.element) < 8
                    else value
                )
                address = b.value(f"getelementptr {stored(count)}, ptr {place.buffer.name}, i64 {wide}")
                more = b.value(f"add {stored(count)} {b.value(f'load {stored(count)}, ptr {address}')}, 1")
                b.emit(f"store {stored(count)} {more}, ptr {address}")

            b.when(b.value(f"trunc i8 {wanted} to i1"), add)

        b.loop("0", str(lanes), 1, lane)

    for_each_vector(fe, source.type.shape, source.type.element, body)
    fe.arena.touch(place.buffer)
    fe.views[result] = place
