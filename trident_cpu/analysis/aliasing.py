"""Which memory accesses may change places.

Two accesses of one kernel parameter are only interchangeable when both read. Accesses through different parameters
are taken to be interchangeable if one of them is a plain load that comes first: tile kernels pass one tensor once, or
the same tensor as source and destination at the same elements.
"""

from __future__ import annotations

from trident_cpu.ir import Op, Value
from trident_cpu.ops import kind

_THROUGH = frozenset(
    "tt.addptr tt.splat tt.broadcast tt.expand_dims tt.bitcast tt.reshape tt.trans arith.bitcast".split()
)


def touches_memory(op: Op) -> bool:
    return kind(op.name) == "memory" or op.name in ("tt.call", "tt.assert", "tt.print") or "barrier" in op.name


def root(value: Value) -> Value:
    """The pointer an address is computed from: a parameter, a loaded pointer, a block argument."""
    while value.op is not None and value.op.name in _THROUGH:
        value = value.op.operands[0]
    return value


def may_reorder(op: Op, other: Op) -> bool:
    """True if `op`, which stands after `other`, may run before it or between its elements."""
    if not touches_memory(op) or not touches_memory(other):
        return True
    if op.name == "tt.load" and other.name == "tt.load":
        return True
    if op.name == "tt.store" and other.name == "tt.load":
        return False
    return False


def same_place(op: Op, other: Op) -> bool:
    """True if `op` after `other`, each vector of `op` after the same vector of `other`, gives what whole tiles give."""
    if op.name != "tt.store" or other.name not in ("tt.load", "tt.store"):
        return False
    mine, theirs = op.operands[0], other.operands[0]
    if mine is theirs or same_address(mine, theirs):
        return True
    a, b = root(mine), root(theirs)
    return a is not b and a.op is None and b.op is None


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
