"""Which memory accesses may change places, and which may share a nest.

Whole tiles are loaded before the next op stores. In one nest, vectors of loads and stores alternate; that is the same
where a store writes what was just read or written (equal addresses, and no address twice in the tile), or where the
two do not overlap. Accesses through different parameters are taken to fit, and so are equal addresses that may hold
one place twice; `emit/detours.py` checks them as the nest starts.
"""

from __future__ import annotations

from trident_cpu.analysis.affine import Strides
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
        moves: dict[Value, Value | None] = {}
        for op in function.body.walk():
            if op.name == "scf.for":
                block = op.regions[0].block
                self.first.update(zip(block.args[1:], op.operands[3:], strict=True))
                self.first.update(zip(op.results, op.operands[3:], strict=True))
                ends = block.ops[-1].operands if block.ops[-1].name == "scf.yield" else []
                for arg, result, end in zip(block.args[1:], op.results, ends, strict=True):
                    if end is arg:
                        moves[arg] = moves[result] = None
                    elif end.op and end.op.name in ("tt.addptr", "arith.addi") and end.op.operands[0] is arg:
                        moves[arg] = moves[result] = end.op.operands[1]
        self.strides = Strides(self.first, moves)

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
        """May a store after `other`, each vector after the same vector of `other`, give what whole tiles give? Either
        it does (`is_safe`), or the two have parameters to compare."""
        if op.name != "tt.store" or other.name not in ("tt.load", "tt.store"):
            return False
        mine, theirs = op.operands[0], other.operands[0]
        a, b = self.root(mine), self.root(theirs)
        return a is not None and b is not None and (a is not b or same_address(mine, theirs))

    def is_safe(self, op: Op, other: Op) -> bool:
        """Proven: both have equal addresses, each of them once."""
        mine, theirs = op.operands[0], other.operands[0]
        return same_address(mine, theirs) and self.strides.one_place_each(mine)

    def parameters(self, op: Op, other: Op) -> tuple[Value, Value]:
        """The parameters that two accesses which fit (`same_place`) go through."""
        a, b = self.root(op.operands[0]), self.root(other.operands[0])
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
