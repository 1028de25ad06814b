"""Which memory accesses may change places.

Two accesses of one kernel parameter are only interchangeable when both read. Accesses through different parameters
are taken to be interchangeable if one of them is a plain load that comes first: tile kernels pass one tensor once, or
the same tensor as source and destination at the same elements.
"""

from __future__ import annotations

from trident_cpu.ir import Function, Op, Value
from trident_cpu.ops import kind

_THROUGH = frozenset(
    "tt.addptr tt.splat tt.broadcast tt.expand_dims tt.bitcast tt.reshape tt.trans arith.bitcast".split()
)


def touches_memory(op: Op) -> bool:
    return kind(op.name) == "memory" or op.name in ("tt.call", "tt.assert", "tt.print") or "barrier" in op.name


class Aliasing:
    """Answers for one function."""

    def __init__(self, function: Function) -> None:
        self.params = set(function.params)
        self.first: dict[Value, Value] = {}  # loop-carried value -> what it starts from
        for op in function.body.walk():
            if op.name == "scf.for":
                self.first.update(zip(op.regions[0].block.args[1:], op.operands[3:], strict=True))
                self.first.update(zip(op.results, op.operands[3:], strict=True))

    def root(self, value: Value) -> Value | None:
        """The parameter an address is computed from, or None."""
        while value not in self.params:
            if value in self.first:
                value = self.first[value]
            elif value.op is not None and value.op.name in _THROUGH:
                value = value.op.operands[0]
            else:
                return None
        return value

    def may_reorder(self, op: Op, other: Op) -> bool:
        """True if `op`, which stands after `other`, may run before it or between its elements."""
        if not touches_memory(op) or not touches_memory(other):
            return True
        return op.name == "tt.load" and other.name == "tt.load"

    def same_place(self, op: Op, other: Op) -> bool:
        """True if a store after `other`, each vector after the same vector of `other`, gives what whole tiles give."""
        if op.name != "tt.store" or other.name not in ("tt.load", "tt.store"):
            return False
        mine, theirs = op.operands[0], other.operands[0]
        if same_address(mine, theirs):
            return True
        a, b = self.root(mine), self.root(theirs)
        return a is not None and b is not None and a is not b


def same_address(a: Value, b: Value) -> bool:
    """Structural equality of two address computations."""
    if a is b:
        return True
    x, y = a.op, b.op
    if x is None or y is None or x.name != y.name or x.attrs != y.attrs or len(x.operands) != len(y.operands):
        return False
    if kind(x.name) not in ("pointwise", "index") or a.type != b.type:
        return False
    return all(same_address(p, q) for p, q in zip(x.operands, y.operands, strict=True))
