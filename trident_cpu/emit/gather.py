"""tt.gather: elements of a tile by their places along one axis, read from the buffer where the tile lies.

the places follow one another   a vector as it lies (a tile shifted by some elements)
all within 64 of the first      picked from four registers (AVX-512, float32)
anything else                   the gather instruction, or element by element
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trident_cpu.emit.layout import dense
from trident_cpu.emit.memory import Access
from trident_cpu.emit.nest import for_each_vector
from trident_cpu.emit.types import size, stored, vector
from trident_cpu.emit.values import Context, Val, evaluate, lanes_of, store_view
from trident_cpu.ir import Op

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

FLOATS, INTS = "<16 x float>", "<16 x i32>"


def emit_gather(fe: FunctionEmitter, op: Op) -> None:
    """result[i, j] = source[index[i, j], j] for axis 0. An index outside the tile is taken modulo nothing: clamped."""
    source, indices = op.operands
    axis, view, result = op.attrs["axis"], dense(fe, source), op.results[0]
    place = fe.new_view(result, result.type.element)
    element, b, kind = view.element, fe.b, indices.type.element
    line = view.strides == (1,)

    def anywhere(ctx: Context, found: Val) -> str:
        lanes = ctx.lanes
        wide = fe.pointwise(lanes)
        index = wide.casts.int_to_int("zext", lanes_of(fe, found, lanes), kind, "i64")
        most = wide.constant("i64", source.type.shape[axis] - 1)
        index = wide.intrinsic("umin", "i64", (index, most))
        offset = wide.binary("mul", "i64", (index, wide.constant("i64", view.strides[axis])))
        for d, stride in enumerate(view.strides):
            if d != axis:
                step = stride if d == ctx.vector_dim and lanes > 1 else 0
                base = b.multiply(ctx.index[d], stride)
                part = lanes_of(fe, Val("affine", "i64", base, step) if step else Val("uniform", "i64", base), lanes)
                offset = wide.binary("add", "i64", (offset, part))
        name = view.buffer.name
        if lanes == 1:
            address = b.value(f"getelementptr {stored(element)}, ptr {name}, i64 {offset}")
            return b.value(f"load {stored(element)}, ptr {address}, align {size(element)}")
        pointers = b.value(f"getelementptr {stored(element)}, ptr {name}, {vector('i64', lanes)} {offset}")

        def gathered() -> str:
            return Access(fe, ctx).gather(pointers, element, None, "poison")

        near = line and element == "f32" and lanes == 16 and view.shape[0] >= 64 and fe.features.vector_bits == 512
        if not near:
            return gathered()
        slot = b.alloca(FLOATS)
        base, places, inside = _window(fe, offset, view.shape[0])

        def picked() -> None:
            b.emit(f"store {FLOATS} {_pick(fe, name, base, places)}, ptr {slot}")

        b.when(inside, picked, lambda: b.emit(f"store {FLOATS} {gathered()}, ptr {slot}"))
        return b.value(f"load {FLOATS}, ptr {slot}")

    def shifted(ctx: Context, found: Val) -> str:
        lanes, many = ctx.lanes, f"<{ctx.lanes} x {stored(element)}>"
        slot = b.alloca(many)
        first = fe.pointwise(1).casts.int_to_int("sext", found.text, kind, "i64")

        def together() -> None:
            at = b.value(f"getelementptr {stored(element)}, ptr {view.buffer.name}, i64 {first}")
            b.emit(f"store {many} {Access(fe, ctx).load_contiguous(at, element, None, '')}, ptr {slot}")

        inside = b.value(f"icmp ule i64 {first}, {view.shape[0] - lanes}")
        b.when(inside, together, lambda: b.emit(f"store {many} {anywhere(ctx, found)}, ptr {slot}"))
        return b.value(f"load {many}, ptr {slot}")

    def body(ctx: Context) -> None:
        index = evaluate(fe, indices, ctx.identity, ctx)
        fe.arena.touch(view.buffer)
        follow = line and index.form == "affine" and index.stride == 1 and ctx.lanes > 1
        text = (shifted if follow else anywhere)(ctx, index)
        if element == "i1":
            text = b.value(f"trunc {vector('i8', ctx.lanes)} {text} to {vector('i1', ctx.lanes)}")
        store_view(fe, place, ctx.identity, ctx, Val("lanes", element, text))

    for_each_vector(fe, result.type.shape, "i64", body)
    fe.views[result] = place


def _window(fe: FunctionEmitter, offset: str, length: int) -> tuple[str, str, str]:
    """64 elements of a tile of `length` that begin at the first lane's: where (i64), each lane's place in them, and
    whether all lanes have one."""
    b = fe.b
    lane = b.value(f"extractelement <16 x i64> {offset}, i64 0")
    base = b.call("umin", "i64", ("i64", lane), ("i64", str(length - 64)))
    apart = b.value(f"sub <16 x i64> {offset}, {b.splat('i64', base, 16)}")
    places = b.value(f"trunc <16 x i64> {apart} to {INTS}")
    inside = b.value(f"icmp ult {INTS} {places}, {b.splat('i32', '64', 16)}")
    return base, places, b.value(f"icmp eq i16 {b.value(f'bitcast <16 x i1> {inside} to i16')}, -1")


def _pick(fe: FunctionEmitter, name: str, base: str, places: str) -> str:
    """The elements at `places`, 0 to 63, after base: an instruction picks from two registers, by a place's low bits."""
    b = fe.b
    halves = []
    for half in (0, 32):
        pair = []
        for start in (half, half + 16):
            address = b.value(f"getelementptr float, ptr {name}, i64 {b.add(base, str(start))}")
            pair.append(b.value(f"load {FLOATS}, ptr {address}, align 4"))
        pick = "x86.avx512.vpermi2var.ps.512"
        halves.append(b.call(pick, FLOATS, (FLOATS, pair[0]), (INTS, places), (FLOATS, pair[1]), suffix=""))
    low = b.value(f"icmp ult {INTS} {places}, {b.splat('i32', '32', 16)}")
    return b.value(f"select <16 x i1> {low}, {FLOATS} {halves[0]}, {FLOATS} {halves[1]}")
