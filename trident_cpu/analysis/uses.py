"""Who uses a value, and what a lazily evaluated value rests on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from trident_cpu.emit.values import is_squeeze
from trident_cpu.ir import Block, Function, Op, Region, Value
from trident_cpu.ops import cost, kind


def is_lazy(op: Op | None) -> bool:
    """Evaluated wherever it is needed, not at its place."""
    if op is None:
        return False
    group = kind(op.name)
    return group in ("pointwise", "index") or (op.name == "tt.reshape" and is_squeeze(op))


def free_values(ops: Iterable[Op]) -> set[Value]:
    """What the ops, with their regions, use and do not define."""
    used: set[Value] = set()
    defined: set[Value] = set()
    for op in ops:
        for inner in op.walk():
            used.update(inner.operands)
            for _, passed in inner.successors:
                used.update(passed)
            defined.update(inner.results)
            for region in inner.regions:
                for block in region.blocks:
                    defined.update(block.args)
    return used - defined


class Dependencies:
    """For each value the leaves it rests on: values that are not lazy. A leaf maps to True where every path to it
    keeps the element index (so it may be a register of the same nest)."""

    def __init__(self, function: Function) -> None:
        self.use_count: dict[Value, int] = {}
        self.users: dict[Value, list[Op]] = {}
        for op in function.body.walk():
            for value in [*op.operands, *(v for _, passed in op.successors for v in passed)]:
                self.use_count[value] = self.use_count.get(value, 0) + 1
                self.users.setdefault(value, []).append(op)
        self.block_of = {op: block for block in blocks(function.body) for op in block.ops}
        self._leaves: dict[Value, dict[Value, bool]] = {}
        self._cost: dict[Value, float] = {}
        self.extra: dict[Value, tuple[Value, ...]] = {}  # inductions and aliases: what a block argument stands for

    def leaves(self, value: Value) -> dict[Value, bool]:
        found = self._leaves.get(value)
        if found is not None:
            return found
        result: dict[Value, bool] = {}
        if value in self.extra:
            parts = [(v, True) for v in self.extra[value]]
        elif is_lazy(value.op):
            assert value.op is not None
            same = kind(value.op.name) == "pointwise"
            parts = [(v, same and v.type.is_tile) for v in value.op.operands]
        else:
            self._leaves[value] = {value: True}
            return self._leaves[value]
        for part, same in parts:
            for leaf, identity in self.leaves(part).items():
                result[leaf] = result.get(leaf, True) and identity and same
        self._leaves[value] = result
        return result

    def forget(self) -> None:
        """After `extra` changed."""
        self._leaves.clear()
        self._cost.clear()

    def together(self, value: Value, op: Op) -> bool:
        """Is the value made in the block of `op`, so that wherever it may be read `op` has run if it stands before?"""
        return value.op is not None and self.block_of.get(value.op) is self.block_of.get(op)

    def cost(self, value: Value) -> float:
        """Relative cost per element of evaluating a value again; the sum over its tree."""
        found = self._cost.get(value)
        if found is not None:
            return found
        self._cost[value] = 0.0
        op = value.op
        if not value.type.is_tile or value in self.extra:
            total = 0.0
        elif not is_lazy(op):
            total = 4.0 if op is not None and op.name == "tt.gather" else 0.5  # a gather may wait for its reader
        else:
            assert op is not None
            own = cost(op.name) if kind(op.name) == "pointwise" else 0.0
            if own == 1.0 and (value.type.is_pointer or value.type.element == "i1"):
                own = 0.2
            elif own == 1.0 and value.type.element in ("i32", "i64"):
                own = 0.4
            total = own + sum(self.cost(v) for v in op.operands)
            if op.name == "tt.broadcast":  # once for all the elements that it is spread over
                total *= op.operands[0].type.size / value.type.size
        self._cost[value] = min(total, 1e6)
        return self._cost[value]


def blocks(region: Region) -> Iterator[Block]:
    """Those of the region and of all regions in it."""
    for block in region.blocks:
        yield block
        for op in block.ops:
            for inner in op.regions:
                yield from blocks(inner)


def defined_in(block: Block) -> set[Value]:
    return {*block.args, *(r for op in block.ops for r in op.results)}
