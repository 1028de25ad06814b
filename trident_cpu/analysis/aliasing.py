"""Which memory accesses may change places, and which may share a nest.

Whole tiles are loaded before the next op stores. In one nest, vectors of loads and stores alternate; that is the same
where the store writes what was just read (equal addresses), or where source and destination do not overlap. Accesses
through different parameters are taken to fit, and `emit/nest.py` checks their ranges as the nest starts. Two stores
through different parameters are taken not to overlap: no kernel with such outputs is right on a GPU either.
"""

from __future__ import annotations

from trident_cpu.ir import Function, Op, Value
from trident_cpu.ops import kind

_THROUGH = frozenset(
    ["tt.addptr", "tt.splat", "tt.broadcast", "tt.expand_dims", "tt.bitcast", "tt.reshape", "tt.trans", "arith.bitcast"]
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

    def conflict(self, load: Op, store: Op) -> tuple[Value, Value] | None:
        """The two parameters, where a load and a later store of a nest must be checked as it runs."""
        mine, theirs = load.operands[0], store.operands[0]
        if same_address(mine, theirs):
            return None
        a, b = self.root(mine), self.root(theirs)
        assert a is not None and b is not None
        return a, b


def same_address(a: Value, b: Value, parameters: tuple[Value, Value] | None = None) -> bool:
    """Structural equality of two address computations; with `parameters`, as if those two were one."""
    if a is b or (a, b) == parameters:
        return True
    x, y = a.op, b.op
    if x is None or y is None or x.name != y.name or x.attrs != y.attrs or len(x.operands) != len(y.operands):
        return False
    if kind(x.name) not in ("pointwise", "index") or a.type != b.type:
        return False
    return all(same_address(p, q, parameters) for p, q in zip(x.operands, y.operands, strict=True))
