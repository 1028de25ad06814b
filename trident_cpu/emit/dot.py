"""tt.dot: operands packed in the accumulator's type, a register-blocked kernel over them.

A is [M, K] in rows, or in columns where it is the transpose of a tile in memory. B is cut in panels of NR columns, each
[K, NR]. The kernel keeps MR x NR accumulators in registers, and per k loads one row of a B panel and broadcasts MR
elements of A. Half types are multiplied as f32 (their products are exact there), int8 as i32.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING

from trident_cpu.emit.buffers import View
from trident_cpu.emit.nest import store_everywhere
from trident_cpu.emit.transpose import fits as fits_turned
from trident_cpu.emit.transpose import store_everywhere_turned
from trident_cpu.emit.types import FLOATS, literal, llvm, size
from trident_cpu.errors import UnsupportedOp
from trident_cpu.ir import Op, Type, Value

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter


def compute_element(fe: FunctionEmitter, op: Op) -> str:
    """The type the products are summed in."""
    elements = {v.type.element for v in op.operands[:2]}
    out = op.results[0].type.element
    if elements <= {"i8", "i16", "i32"} and out == "i32":
        return "i32"
    if "f64" in elements and out == "f64":
        return "f64"
    if out in ("f32", "f16", "bf16") and all(e in FLOATS or e.startswith("f8") for e in elements):
        return "f32"
    raise UnsupportedOp(op.name, f"{' and '.join(sorted(elements))} into {out}", fe.where(op))


def panel_width(fe: FunctionEmitter, op: Op) -> int:
    """NR: one vector, that is two registers."""
    columns = op.results[0].type.shape[-1]
    return min(columns, fe.lanes * 4 // size(compute_element(fe, op)))


def operand_view(fe: FunctionEmitter, op: Op, value: Value) -> View:
    panel = panel_width(fe, op) if value is op.operands[1] else None
    return fe.arena.new(compute_element(fe, op), value.type.shape, panel)


def original(fe: FunctionEmitter, value: Value) -> Value:
    while value in fe.aliases:
        value = fe.aliases[value]
    return value


def turned_source(value: Value) -> Value | None:
    """What `value` is, with its last two dimensions exchanged."""
    op = value.op
    if op is None or op.name != "tt.trans":
        return None
    *outer, down, right = op.attrs["order"]
    return op.operands[0] if [*outer, right, down] == list(range(len(op.attrs["order"]))) else None


def packed_left(fe: FunctionEmitter, op: Op, value: Value) -> View:
    """The view of A, in any order: its elements are broadcast one by one."""
    value = original(fe, value)
    source = turned_source(value)
    if source is None:
        return packed(fe, op, value, None)
    view = packed(fe, op, original(fe, source), None)
    *outer, down, right = view.strides
    return replace(view, shape=value.type.shape, strides=(*outer, right, down))


def packed_right(fe: FunctionEmitter, op: Op, value: Value) -> View:
    return packed(fe, op, original(fe, value), panel_width(fe, op))


def packed(fe: FunctionEmitter, op: Op, value: Value, panel: int | None) -> View:
    """The view of an operand in rows, or in panels, of the type that is summed in."""
    wanted = compute_element(fe, op)
    found = fe.views.get(value)
    if found is not None and (found.element, found.offset, found.panel) == (wanted, 0, panel) and found.is_row_major:
        return found
    view = fe.arena.new(wanted, value.type.shape, panel)
    if turned_source(value) is not None and found is None and fits_turned(fe, view):
        store_everywhere_turned(fe, value, view)
    else:
        store_everywhere(fe, value, view)
    if found is None:
        keep(fe, op, value, view)
    return view


def keep(fe: FunctionEmitter, op: Op, value: Value, view: View) -> None:
    """What else reads the value reads the view: if it holds what the value is, and is made before all of them."""
    alone = fe.deps.users.get(value) == [op]
    whole = view.element == value.type.element and view.panel is None
    if alone or (whole and fe.deps.together(value, op)):
        fe.views[value] = view


def emit_dot(fe: FunctionEmitter, op: Op) -> None:
    a, b, c = op.operands
    result = op.results[0]
    element = compute_element(fe, op)
    left, right = packed_left(fe, op, a), packed_right(fe, op, b)
    target = fe.dot_targets.get(op)
    place = fe.views[target] if target is not None else fe.new_view(result, result.type.element)
    zero = c is not target and is_zero(c)
    if result.type.element == element:
        if c is not target and not zero:
            store_everywhere(fe, c, place)
        multiply(fe, op, left, right, place, zero)
    else:
        total = Value("total", Type(result.type.shape, element))
        view = fe.arena.new(element, result.type.shape)
        if not zero:
            store_everywhere(fe, c, view)
        multiply(fe, op, left, right, view, zero)
        fe.views[total] = view
        store_everywhere(fe, total, place)
    fe.views[result] = place


def is_zero(value: Value) -> bool:
    """Is it a constant tile of zeros (not of -0)?"""
    op, element = value.op, value.type.element
    if op is None or op.name != "arith.constant":
        return False
    return literal(op.attrs["value"], element) == literal("0", element)


def multiply(fe: FunctionEmitter, op: Op, left: View, right: View, place: View, zero: bool) -> None:
    """`zero`: the product is stored to `place`, else added to it."""
    *batch, rows, columns = place.shape
    depth = left.shape[-1]
    for view in (left, right, place):
        fe.arena.touch(view.buffer)
    kernel = Kernel(fe, left, right, place, panel_width(fe, op), zero)
    count = prod(batch)

    def one(i: str) -> None:
        kernel.bases(
            fe.b.multiply(i, rows * depth), fe.b.multiply(i, depth * columns), fe.b.multiply(i, rows * columns)
        )
        kernel.run()

    if count == 1:
        one("0")
    else:
        fe.b.loop("0", str(count), 1, one)
    for view in (left, right, place):
        fe.arena.touch(view.buffer)


class Kernel:
    """C[M, N] += A[M, K] @ B[K, N] on packed operands; `zero`: C is not read."""

    def __init__(self, fe: FunctionEmitter, left: View, right: View, place: View, panel: int, zero: bool) -> None:
        self.fe, self.b, self.zero = fe, fe.b, zero
        self.down, self.along = left.strides[-2:]
        self.views = (left, right, place)
        self.element = place.element
        self.rows, self.columns = place.shape[-2:]
        self.depth = left.shape[-1]
        self.panel = panel
        self.lanes = min(panel, fe.lanes * 4 // size(self.element))
        self.block = min(8 if fe.features.vector_bits >= 512 else 6, self.rows)
        self.type = llvm(self.element) if self.lanes == 1 else f"<{self.lanes} x {llvm(self.element)}>"

    def at(self, base: str, offset: str) -> str:
        if offset == "0":
            return base
        return self.b.value(f"getelementptr inbounds {llvm(self.element)}, ptr {base}, i64 {offset}")

    def bases(self, *offsets: str) -> None:
        self.left, self.right, self.place = (
            self.at(view.buffer.name, offset) for view, offset in zip(self.views, offsets, strict=True)
        )

    def run(self) -> None:
        whole = self.rows - self.rows % self.block

        def columns(j: str) -> None:
            panel = self.at(self.right, self.b.multiply(j, self.depth))
            if whole == self.block:
                self.tile("0", j, panel, self.block)
            else:
                self.b.loop("0", str(whole), self.block, lambda i: self.tile(i, j, panel, self.block))
            if self.rows % self.block:
                self.tile(str(whole), j, panel, self.rows % self.block)

        if self.columns == self.panel:
            columns("0")
        else:
            self.b.loop("0", str(self.columns), self.panel, columns)

    def tile(self, i: str, j: str, panel: str, rows: int) -> None:
        """One block of `rows` x panel accumulators, over all of K."""
        b, type, element = self.b, self.type, llvm(self.element)
        align = size(self.element)
        corner = self.at(self.place, b.add(b.multiply(i, self.columns), j))
        first = self.at(self.left, b.multiply(i, self.down))
        parts = range(0, self.panel, self.lanes)
        slots = {}
        for r in range(rows):
            for p in parts:
                place = self.at(corner, str(r * self.columns + p))
                slot = b.alloca(type)
                b.emit(f"store {type} zeroinitializer, ptr {slot}")
                slots[r, p] = (slot, place)

        def inner(k: str) -> None:
            row = self.at(panel, b.multiply(k, self.panel))
            loaded = [b.value(f"load {type}, ptr {self.at(row, str(p))}, align {align}") for p in parts]
            column = self.at(first, b.multiply(k, self.along))
            for r in range(rows):
                item = b.value(f"load {element}, ptr {self.at(column, str(r * self.down))}, align {align}")
                spread = b.splat(self.element, item, self.lanes)
                for p, line in zip(parts, loaded, strict=True):
                    slot, _ = slots[r, p]
                    old = b.value(f"load {type}, ptr {slot}")
                    b.emit(f"store {type} {self.multiply_add(spread, line, old)}, ptr {slot}")

        b.loop("0", str(self.depth), 1, inner)
        for slot, place in slots.values():
            total = b.value(f"load {type}, ptr {slot}")
            if not self.zero:  # added as a whole: a long sum in blocks is rounded less than term by term
                before = b.value(f"load {type}, ptr {place}, align {align}")
                total = b.value(f"{'add' if self.element == 'i32' else 'fadd'} {type} {before}, {total}")
            b.emit(f"store {type} {total}, ptr {place}, align {align}")

    def multiply_add(self, x: str, y: str, z: str) -> str:
        b, type = self.b, self.type
        if self.element == "i32":
            return b.value(f"add {type} {b.value(f'mul {type} {x}, {y}')}, {z}")
        if self.fe.features.fma:
            return b.call("fma", type, (type, x), (type, y), (type, z))
        return b.value(f"fadd {type} {b.value(f'fmul {type} {x}, {y}')}, {z}")
