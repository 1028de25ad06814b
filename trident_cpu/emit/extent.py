"""The range of addresses that a tile of pointers can reach, as scalar code: interval arithmetic over its expression.

Used once per nest, to find out whether a store may touch what a load of another parameter has yet to read; and whether
two elements of a tile of pointers may be one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trident_cpu.emit.types import literal, size, stored
from trident_cpu.emit.values import Context, evaluate
from trident_cpu.ir import Value
from trident_cpu.ops import kind

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

Interval = tuple[str, str]  # lowest and highest, i64


class Extents:
    """`of(value)`: an interval that holds every element; None where there is no bound (loaded indices)."""

    def __init__(self, fe: FunctionEmitter) -> None:
        self.fe, self.b = fe, fe.b
        self.memo: dict[Value, Interval | None] = {}

    def of(self, value: Value) -> Interval | None:
        if value not in self.memo:
            self.memo[value] = self._of(value)
        return self.memo[value]

    def disjoint(self, a: Value, b: Value) -> str | None:
        """i1: two tiles of pointers reach no common byte. None: unknown."""
        x, y = self.of(a), self.of(b)
        if x is None or y is None:
            return None
        x_end = self.b.add(x[1], str(size(a.type.pointee)))
        y_end = self.b.add(y[1], str(size(b.type.pointee)))
        below = self.b.value(f"icmp sle i64 {x_end}, {y[0]}")
        above = self.b.value(f"icmp sle i64 {y_end}, {x[0]}")
        return self.b.value(f"or i1 {below}, {above}")

    def _of(self, value: Value) -> Interval | None:
        fe = self.fe
        if value in fe.aliases:
            return self.of(fe.aliases[value])
        if not value.type.is_tile:
            return self.point(fe.scalar(value), value.type.element)
        if value in fe.inductions:
            first, step, count = fe.inductions[value]
            scale = size(value.type.pointee) if value.type.is_pointer else 1
            return self.sum(self.of(first), self.scale(self.product(self.of(step), (count, count)), scale))
        op = value.op
        if op is None or value in fe.views or kind(op.name) not in ("pointwise", "index"):
            return None
        name = op.name
        if name == "tt.make_range":
            return str(op.attrs["start"]), str(op.attrs["end"] - 1)
        if name == "arith.constant":
            return self.point(literal(op.attrs["value"], value.type.element), value.type.element)
        if name in _SAME:
            return self.of(op.operands[0])
        if name == "tt.addptr":
            return self.sum(self.of(op.operands[0]), self.scale(self.of(op.operands[1]), size(value.type.pointee)))
        parts = [self.of(v) for v in op.operands]
        if name == "arith.addi":
            return self.sum(*parts)
        if name == "arith.subi":
            return self.sum(parts[0], self.scale(parts[1], -1))
        if name == "arith.muli":
            return self.product(*parts)
        if name == "arith.remsi":
            return self.remainder(*parts)
        return None

    def point(self, text: str, element: str) -> Interval | None:
        if element.startswith("ptr:"):
            text = self.b.value(f"ptrtoint ptr {text} to i64")
        elif element in ("i8", "i16", "i32"):
            text = self.b.resize(text, element, "i64")
        elif element not in ("i64", "index"):
            return None
        return text, text

    def sum(self, x: Interval | None, y: Interval | None) -> Interval | None:
        return None if x is None or y is None else (self.b.add(x[0], y[0]), self.b.add(x[1], y[1]))

    def scale(self, x: Interval | None, factor: int) -> Interval | None:
        if x is None:
            return None
        low, high = (self.b.multiply(t, factor) for t in x)
        return (low, high) if factor >= 0 else (high, low)

    def product(self, x: Interval | None, y: Interval | None) -> Interval | None:
        if x is None or y is None:
            return None
        if x[0] == x[1]:
            x, y = y, x
        corners = [self.times(p, q) for p in x for q in ((y[0],) if y[0] == y[1] else y)]
        low = high = corners[0]
        for corner in corners[1:]:
            low = self.b.call("smin", "i64", ("i64", low), ("i64", corner))
            high = self.b.call("smax", "i64", ("i64", high), ("i64", corner))
        return low, high

    def times(self, a: str, b: str) -> str:
        if not a.startswith("%"):
            return self.b.multiply(b, int(a))
        return self.b.multiply(a, int(b)) if not b.startswith("%") else self.b.value(f"mul i64 {a}, {b}")

    def remainder(self, x: Interval | None, y: Interval | None) -> Interval | None:
        """Between -(d - 1) and d - 1 for the one divisor d, and never below 0 for a dividend from 0 up."""
        if x is None or y is None or y[0] != y[1]:
            return None
        high = self.b.add(self.b.call("abs", "i64", ("i64", y[0]), ("i1", "false")), "-1")
        low = self.b.call("smax", "i64", ("i64", self.b.multiply(high, -1)), ("i64", x[0]))
        return self.b.call("smin", "i64", ("i64", low), ("i64", "0")), high


_SAME = frozenset(
    [
        "tt.splat",
        "tt.broadcast",
        "tt.expand_dims",
        "tt.trans",
        "tt.reshape",
        "arith.extsi",
        "tt.bitcast",
        "arith.bitcast",
    ]
)


def one_place_each(fe: FunctionEmitter, pointer: Value) -> str | None:
    """i1: no two elements of a tile of pointers have one address. None: unknown."""
    if fe.strides.one_place_each(pointer):
        return "true"
    b, shape = fe.b, pointer.type.shape
    dims = [dim for dim, extent in enumerate(shape) if extent > 1]
    if not fe.strides.is_linear(pointer) or len(dims) > 2:
        return None

    def place(dim: int | None) -> str:
        at = Context(shape, ["1" if d == dim else "0" for d in range(len(shape))], -1, 1)
        return b.value(f"ptrtoint ptr {evaluate(fe, pointer, at.identity, at).text} to i64")

    origin = place(None)
    steps = [b.call("abs", "i64", ("i64", b.value(f"sub i64 {place(dim)}, {origin}")), ("i1", "false")) for dim in dims]
    moving = [b.value(f"icmp ne i64 {step}, 0") for step in steps]
    if len(dims) == 1:
        return moving[0]
    (step, other), (extent, other_extent) = steps, (shape[dim] for dim in dims)
    past = [
        b.value(f"icmp ugt i64 {wide}, {b.multiply(narrow, count - 1)}")
        for wide, narrow, count in ((step, other, other_extent), (other, step, extent))
    ]
    apart = b.value(f"or i1 {past[0]}, {past[1]}")
    return b.value(f"and i1 {apart}, {b.value(f'and i1 {moving[0]}, {moving[1]}')}")


def element_address(fe: FunctionEmitter, base: str, element: str, index: str, stride: int) -> str:
    """base + index * stride, in elements."""
    offset = fe.b.multiply(index, stride)
    if offset == "0":
        return base
    return fe.b.value(f"getelementptr {stored(element)}, ptr {base}, i64 {offset}")
