"""Strides of addresses along each dimension: which way a nest runs its vectors, whether elements share a place."""

from __future__ import annotations

from trident_cpu.emit.types import size
from trident_cpu.emit.values import source_map
from trident_cpu.ir import Op, Value
from trident_cpu.ops import kind


class Strides:
    """`of(value, dim)`: elements from index to index along a dimension; None when it is not a known constant.

    `first`: loop-carried value -> what it starts from; its strides are taken to be those. `moves`: what each round
    adds to it (None: nothing), for the values where that is known; `is_linear` needs it.
    """

    def __init__(self, first: dict[Value, Value], moves: dict[Value, Value | None]) -> None:
        self.first, self.moves = first, moves
        self.memo: dict[tuple[Value, int], int | None] = {}
        self.linear: dict[Value, bool] = {}

    def of(self, value: Value, dim: int) -> int | None:
        key = (value, dim)
        if key not in self.memo:
            self.memo[key] = None
            self.memo[key] = self._of(value, dim)
        return self.memo[key]

    def _of(self, value: Value, dim: int) -> int | None:
        if not value.type.is_tile or value.type.shape[dim] == 1:
            return 0
        if value in self.first:
            return self.of(self.first[value], dim)
        op = value.op
        if op is None or kind(op.name) not in ("pointwise", "index"):
            return None
        if op.name in ("tt.splat", "arith.constant", "ub.poison"):
            return 0
        if op.name == "tt.make_range":
            return 1
        if kind(op.name) == "index":
            mapped = source_map(op, tuple(range(len(value.type.shape))))
            return self.of(op.operands[0], mapped.index(dim)) if dim in mapped else 0
        parts = [self.of(v, dim) for v in op.operands]
        if all(p == 0 for p in parts):
            return 0
        if any(p is None for p in parts):
            return None
        if op.name in ("arith.addi", "tt.addptr"):
            return parts[0] + parts[1]  # type: ignore[operator]
        if op.name == "arith.subi":
            return parts[0] - parts[1]  # type: ignore[operator]
        if op.name in ("arith.extsi", "arith.trunci", "tt.bitcast"):
            return parts[0]
        if op.name == "arith.muli":
            for factor, moving in ((op.operands[1], parts[0]), (op.operands[0], parts[1])):
                known = constant(factor)
                if known is not None:
                    return known * moving  # type: ignore[operator]
        return None

    def is_linear(self, value: Value) -> bool:
        """Is it base + index * stride along every dimension, with strides that may be known only at run time?"""
        if value not in self.linear:
            self.linear[value] = False
            self.linear[value] = self._is_linear(value)
        return self.linear[value]

    def _is_linear(self, value: Value) -> bool:
        if not value.type.is_tile:
            return True
        if value in self.first:
            if value not in self.moves:
                return False
            step = self.moves[value]
            return self.is_linear(self.first[value]) and (step is None or self.is_uniform(step))
        op = value.op
        if op is None or kind(op.name) not in ("pointwise", "index"):
            return False
        if op.name == "arith.muli":
            return all(map(self.is_linear, op.operands)) and any(map(self.is_uniform, op.operands))
        if op.name in ("tt.bitcast", "arith.bitcast") and not _keeps_size(op):
            return False
        return (op.name in _LINEAR or kind(op.name) == "index") and all(map(self.is_linear, op.operands))

    def is_uniform(self, value: Value) -> bool:
        return all(self.of(value, dim) == 0 for dim in range(len(value.type.shape)))

    def one_place_each(self, pointer: Value) -> bool:
        """Proven: no two elements of a tile of pointers have one address."""
        shape = pointer.type.shape
        strides = [(self.of(pointer, dim), extent) for dim, extent in enumerate(shape) if extent > 1]
        reach = 0  # of the dimensions with smaller strides
        for stride, extent in sorted((abs(s), e) for s, e in strides if s is not None):
            if stride <= reach:
                return False
            reach += stride * (extent - 1)
        return all(s is not None for s, _ in strides) and self.is_linear(pointer)


_LINEAR = frozenset(
    ["arith.addi", "arith.subi", "tt.addptr", "arith.extsi", "arith.trunci", "tt.bitcast", "arith.bitcast"]
)


def _keeps_size(op: Op) -> bool:
    """A bitcast between pointers to elements of one size."""
    source, result = op.operands[0].type, op.results[0].type
    return source.is_pointer and result.is_pointer and size(source.pointee) == size(result.pointee)


def constant(value: Value) -> int | None:
    """The integer that every element of a value is, if its op says so."""
    op = value.op
    while op is not None and op.name in ("tt.splat", "tt.broadcast", "tt.expand_dims", "arith.extsi"):
        op = op.operands[0].op
    if op is None or op.name != "arith.constant" or not op.attrs["value"].lstrip("-").isdigit():
        return None
    return int(op.attrs["value"])
