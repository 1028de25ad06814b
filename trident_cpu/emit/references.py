"""Loaded tiles that later nests read again where they lie, instead of from a buffer: a store and a tile of cache less.

A tile is the memory as it was when it was loaded. So every store from there to the last reader is compared with it as
the first nest starts; where one might touch it, the tile is copied to a buffer beforehand and read there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trident_cpu.emit.buffers import View
from trident_cpu.emit.extent import Extents
from trident_cpu.emit.memory import Access
from trident_cpu.emit.nest import emit_nest
from trident_cpu.emit.prefetch import fetch
from trident_cpu.emit.types import stored
from trident_cpu.emit.values import Context, Map, Val, evaluate, lanes_of, load_view, view_address
from trident_cpu.ir import Op, Value
from trident_cpu.plan import Nest

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter


@dataclass(frozen=True)
class Reference:
    """`load`'s tile: in `copy` where `meets` (an i1, or "false") holds, else in its own place."""

    load: Op
    meets: str
    copy: View | None


def refer(fe: FunctionEmitter, nest: Nest, value: Value, stores: Sequence[Op]) -> None:
    """Before the nest that loads `value`: refer to it, or have the nest keep it."""
    load = value.op
    assert load is not None
    meets = None if fe.state.sanitize or not fe.state.streams else _meets(fe, load, stores)
    if meets is None:
        nest.keep.append(value)
        return
    view = None
    if meets != "false":
        view = fe.arena.new(value.type.element, value.type.shape)
        copied = Value("copied", value.type)
        fe.views[copied] = view
        copy = Nest(value.type.shape, [load], [(copied, value)])
        fe.b.when(meets, lambda: emit_nest(fe, copy, brief=True))
        fe.arena.touch(view.buffer)
    fe.references[value] = Reference(load, meets, view)


def _meets(fe: FunctionEmitter, load: Op, stores: Sequence[Op]) -> str | None:
    """i1: might a store touch the tile? None: not known yet, or never."""
    extents, apart = Extents(fe), "true"
    for store in stores:
        place = store.operands[0]
        if any(not leaf.type.is_tile and leaf not in fe.scalars for leaf in fe.deps.leaves(place)):
            return None
        fe.ensure([place])
        disjoint = extents.disjoint(load.operands[0], place)
        if disjoint is None:
            return None
        apart = disjoint if apart == "true" else fe.b.value(f"and i1 {apart}, {disjoint}")
    return "false" if apart == "true" else fe.b.value(f"xor i1 {apart}, true")


def reload(fe: FunctionEmitter, value: Value, index_map: Map, ctx: Context) -> Val:
    """The lanes of a tile that is referred to, under an index map."""
    reference, access, b = fe.references[value], Access(fe, ctx), fe.b
    load = reference.load
    pointer, *rest = (evaluate(fe, v, index_map if v.type.is_tile else (), ctx) for v in load.operands)
    fetch(fe, value, pointer, ctx.lanes)
    if reference.copy is None:
        return access.load_from(load, pointer, rest)
    text, stride = view_address(fe, reference.copy, index_map, ctx)
    if pointer.form != "lanes" and pointer.stride == stride:
        chosen = b.value(f"select i1 {reference.meets}, ptr {text}, ptr {pointer.text}")
        return access.load_from(load, Val(pointer.form, pointer.element, chosen, stride), rest)
    return _either(fe, reference, reference.copy, index_map, ctx, pointer, rest)


def _either(
    fe: FunctionEmitter, reference: Reference, copy: View, index_map: Map, ctx: Context, pointer: Val, rest: list[Val]
) -> Val:
    """By a branch: along this dimension the tile and its copy have different strides."""
    b, element, lanes = fe.b, copy.element, ctx.lanes
    values = stored(element) if lanes == 1 else f"<{lanes} x {stored(element)}>"
    slot = b.alloca(values)

    def put(val: Val) -> None:
        text = lanes_of(fe, val, lanes)
        if element == "i1":
            text = b.value(f"zext {'i1' if lanes == 1 else f'<{lanes} x i1>'} {text} to {values}")
        b.emit(f"store {values} {text}, ptr {slot}")

    b.when(
        reference.meets,
        lambda: put(load_view(fe, copy, index_map, ctx)),
        lambda: put(Access(fe, ctx).load_from(reference.load, pointer, rest)),
    )
    text = b.value(f"load {values}, ptr {slot}")
    if element == "i1":
        text = b.value(f"trunc {values} {text} to {'i1' if lanes == 1 else f'<{lanes} x i1>'}")
    return Val("uniform" if lanes == 1 else "lanes", element, text)
