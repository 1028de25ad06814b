"""tt.gather: elements of a tile by their places along one axis, read from the buffer where the tile lies.

the places follow one another   a vector as it lies (a tile shifted by some elements)
all within 32, 64, 128          picked from two, four, eight registers (AVX-512, float32)
anything else                   the gather instruction, or element by element

A gather that is read once, by arithmetic, is done there and stored nowhere (`may_wait`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trident_cpu.emit.buffers import View
from trident_cpu.emit.layout import dense
from trident_cpu.emit.memory import Access
from trident_cpu.emit.nest import for_each_vector
from trident_cpu.emit.types import size, stored, vector
from trident_cpu.emit.values import Context, Map, Val, evaluate, lanes_of, store_view
from trident_cpu.ir import Op
from trident_cpu.ops import kind

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

FLOATS, INTS, GROUP = "<16 x float>", "<16 x i32>", 16
REGISTERS = (2, 4, 8)  # that are picked from


def emit_gather(fe: FunctionEmitter, op: Op) -> None:
    """result[i, j] = source[index[i, j], j] for axis 0. An index outside the tile is taken modulo nothing: clamped."""
    result, view = op.results[0], dense(fe, op.operands[0])
    if may_wait(fe, op):
        fe.waiting[result] = lambda index_map, ctx: gathered(fe, op, view, index_map, ctx)
        return
    place = fe.new_view(result, result.type.element)

    def body(ctx: Context) -> None:
        store_view(fe, place, ctx.identity, ctx, gathered(fe, op, view, ctx.identity, ctx))

    for_each_vector(fe, result.type.shape, "i64", body)
    fe.views[result] = place


def may_wait(fe: FunctionEmitter, op: Op) -> bool:
    """A line of floats that arithmetic reads once, by indices that will be the same there."""
    result = op.results[0]
    users = fe.deps.users.get(result, [])
    if len(users) != 1 or kind(users[0].name) != "pointwise" or users[0].results[0].type.shape != result.type.shape:
        return False
    if len(result.type.shape) != 1 or result.type.element not in ("f16", "bf16", "f32", "f64"):
        return False
    leaves = [leaf for leaf in fe.deps.leaves(op.operands[1]) if leaf.type.is_tile]
    return all(leaf in fe.views and leaf not in fe.mutable for leaf in leaves)


def gathered(fe: FunctionEmitter, op: Op, view: View, index_map: Map, ctx: Context) -> Val:
    """One vector of a gather's result; `view`: where its source lies."""
    found = evaluate(fe, op.operands[1], index_map, ctx)
    fe.arena.touch(view.buffer)
    one = index_map and all(d is None for d in index_map)
    lanes = 1 if one or ctx.lanes == 1 else ctx.lanes
    element, type = view.element, op.operands[1].type.element
    line = view.strides == (1,)
    if line and found.form == "affine" and found.stride == 1 and lanes > 1:
        text = _shifted(fe, op, view, found, index_map, ctx)
    elif line and element == "f32" and lanes % GROUP == 0 and fe.features.vector_bits == 512 and size(type) == 4:
        text = _picked(fe, view, lanes_of(fe, found, lanes), ctx)
    else:
        text = _anywhere(fe, op, view, found, index_map, lanes, ctx)
    if element == "i1":
        text = fe.b.value(f"trunc {vector('i8', lanes)} {text} to {vector('i1', lanes)}")
    return Val("uniform" if one else "lanes", element, text)


def _anywhere(fe: FunctionEmitter, op: Op, view: View, found: Val, index_map: Map, lanes: int, ctx: Context) -> str:
    """By the instruction, or the single element of one lane."""
    source, axis, b = op.operands[0], op.attrs["axis"], fe.b
    wide = fe.pointwise(lanes)
    index = wide.casts.int_to_int("zext", lanes_of(fe, found, lanes), op.operands[1].type.element, "i64")
    most = wide.constant("i64", source.type.shape[axis] - 1)
    index = wide.intrinsic("umin", "i64", (index, most))
    offset = wide.binary("mul", "i64", (index, wide.constant("i64", view.strides[axis])))
    for d, stride in enumerate(view.strides):
        if d != axis:
            k = index_map[d]
            step = stride if k == ctx.vector_dim and lanes > 1 else 0
            base = "0" if k is None else b.multiply(ctx.index[k], stride)
            part = lanes_of(fe, Val("affine", "i64", base, step) if step else Val("uniform", "i64", base), lanes)
            offset = wide.binary("add", "i64", (offset, part))
    element, name = view.element, view.buffer.name
    if lanes == 1:
        address = b.value(f"getelementptr {stored(element)}, ptr {name}, i64 {offset}")
        return b.value(f"load {stored(element)}, ptr {address}, align {size(element)}")
    pointers = b.value(f"getelementptr {stored(element)}, ptr {name}, {vector('i64', lanes)} {offset}")
    return Access(fe, ctx).gather(pointers, element, None, "poison")


def _shifted(fe: FunctionEmitter, op: Op, view: View, found: Val, index_map: Map, ctx: Context) -> str:
    """Elements that follow one another, where all of them are in the tile."""
    b, lanes, element = fe.b, ctx.lanes, view.element
    many = f"<{lanes} x {stored(element)}>"
    slot = b.alloca(many)
    first = fe.pointwise(1).casts.int_to_int("sext", found.text, op.operands[1].type.element, "i64")

    def together() -> None:
        at = b.value(f"getelementptr {stored(element)}, ptr {view.buffer.name}, i64 {first}")
        b.emit(f"store {many} {Access(fe, ctx).load_contiguous(at, element, None, '')}, ptr {slot}")

    def apart() -> None:
        b.emit(f"store {many} {_anywhere(fe, op, view, found, index_map, lanes, ctx)}, ptr {slot}")

    inside = b.value(f"icmp ule i64 {first}, {view.shape[0] - lanes}")
    b.when(inside, together, apart)
    return b.value(f"load {many}, ptr {slot}")


def _picked(fe: FunctionEmitter, view: View, index: str, ctx: Context) -> str:
    """A line's elements, 16 at a time: from registers where they are near one another."""
    b, lanes = fe.b, ctx.lanes
    wide = fe.pointwise(lanes)
    index = wide.intrinsic("umin", "i32", (index, wide.constant("i32", view.shape[0] - 1)))
    if lanes == GROUP:
        return _group(fe, view, index, ctx)
    parts = []
    for start in range(0, lanes, GROUP):
        picks = ", ".join(f"i32 {start + i}" for i in range(GROUP))
        part = b.value(f"shufflevector <{lanes} x i32> {index}, <{lanes} x i32> poison, {INTS} <{picks}>")
        parts.append(_group(fe, view, part, ctx))
    while len(parts) > 1:
        width = GROUP * (lanes // GROUP // len(parts))
        picks = ", ".join(f"i32 {i}" for i in range(2 * width))
        parts = [
            b.value(f"shufflevector <{width} x float> {x}, <{width} x float> {y}, <{2 * width} x i32> <{picks}>")
            for x, y in zip(parts[::2], parts[1::2], strict=True)
        ]
    return parts[0]


def _group(fe: FunctionEmitter, view: View, index: str, ctx: Context) -> str:
    b, name = fe.b, view.buffer.name
    slot, first = b.alloca(FLOATS), b.value(f"extractelement {INTS} {index}, i64 0")

    def instruction() -> None:
        offset = b.value(f"zext {INTS} {index} to <16 x i64>")
        pointers = b.value(f"getelementptr float, ptr {name}, <16 x i64> {offset}")
        access = Access(fe, Context(ctx.shape, ctx.index, ctx.vector_dim, GROUP))
        b.emit(f"store {FLOATS} {access.gather(pointers, 'f32', None, 'poison')}, ptr {slot}")

    def nearby(registers: tuple[int, ...]) -> None:
        """Picks where so many registers hold them all; else tries more of them."""
        if not registers or view.shape[0] < GROUP * registers[0]:
            instruction()
            return
        span = GROUP * registers[0]
        begin = b.call("umin", "i32", ("i32", first), ("i32", str(view.shape[0] - span)))
        places = b.value(f"sub {INTS} {index}, {b.splat('i32', begin, GROUP)}")
        inside = b.value(f"icmp ult {INTS} {places}, {b.splat('i32', str(span), GROUP)}")
        inside = b.value(f"icmp eq i16 {b.value(f'bitcast <16 x i1> {inside} to i16')}, -1")

        def pick() -> None:
            b.emit(f"store {FLOATS} {_pick(fe, name, begin, places, registers[0])}, ptr {slot}")

        b.when(inside, pick, lambda: nearby(registers[1:]))

    nearby(REGISTERS)
    return b.value(f"load {FLOATS}, ptr {slot}")


def _pick(fe: FunctionEmitter, name: str, begin: str, places: str, registers: int) -> str:
    """The elements at `places` after `begin`: an instruction picks from two registers, by a place's low bits."""
    b, halves, wide = fe.b, [], fe.b.value(f"zext i32 {begin} to i64")
    for half in range(0, registers, 2):
        pair = []
        for register in (half, half + 1):
            address = b.value(f"getelementptr float, ptr {name}, i64 {b.add(wide, str(GROUP * register))}")
            pair.append(b.value(f"load {FLOATS}, ptr {address}, align 4"))
        pick = "x86.avx512.vpermi2var.ps.512"
        halves.append(b.call(pick, FLOATS, (FLOATS, pair[0]), (INTS, places), (FLOATS, pair[1]), suffix=""))
    found = halves.pop()
    while halves:
        low = b.value(f"icmp ult {INTS} {places}, {b.splat('i32', str(2 * GROUP * len(halves)), GROUP)}")
        found = b.value(f"select <16 x i1> {low}, {FLOATS} {halves.pop()}, {FLOATS} {found}")
    return found
