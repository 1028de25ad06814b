"""Static strides of addresses along each dimension: which way a nest should run its vectors."""

from __future__ import annotations

from trident_cpu.emit.values import source_map
from trident_cpu.ir import Value
from trident_cpu.ops import kind


class Strides:
    """`of(value, dim)`: elements from index to index along a dimension; None when it is not a known constant."""

    def __init__(self, first: dict[Value, Value]) -> None:
        self.first = first  # loop-carried values move as a whole: their strides are those they start with
        self.memo: dict[tuple[Value, int], int | None] = {}

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


def constant(value: Value) -> int | None:
    """The integer that every element of a value is, if its op says so."""
    op = value.op
    while op is not None and op.name in ("tt.splat", "tt.broadcast", "tt.expand_dims", "arith.extsi"):
        op = op.operands[0].op
    if op is None or op.name != "arith.constant" or not op.attrs["value"].lstrip("-").isdigit():
        return None
    return int(op.attrs["value"])
