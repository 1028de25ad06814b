"""Masks as ranges: the columns of a row for which the comparisons under its masks hold, worked out once per row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from trident_cpu.analysis.uses import is_lazy
from trident_cpu.emit.types import llvm
from trident_cpu.emit.values import Context, Map, evaluate, source_map
from trident_cpu.ir import Function, Op, Value
from trident_cpu.ops import kind

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter
    from trident_cpu.emit.nest import NestEmitter

Known = frozenset[tuple[Value, Map]]  # masks, under an index map, that hold in the vectors at hand

SIGNED_ORDER = ("slt", "sle", "sgt", "sge")
_MASK = {"tt.load": 1, "tt.store": 2}  # which operand


class Bounds:
    """The columns of a row for which the masks of the nest's accesses hold."""

    def __init__(self, nest: NestEmitter) -> None:
        self.nest, self.fe, self.b = nest, nest.fe, nest.b
        self.identity: Map = tuple(range(len(nest.shape)))

    def find(self, whole_row: Context) -> tuple[Known, str | None, str]:
        """(masks known to be true in [low, high), low or None for 0, high)."""
        nest = self.nest
        if nest.lanes == 1:
            return frozenset(), None, ""
        known: set[tuple[Value, Map]] = set()
        lows: list[str] = []
        highs: list[str] = []
        for value, index_map in dict.fromkeys([*self.leaves(nest.nest.members), *self.further()]):
            if value.op is not None and value.op.name == "tt.splat":
                highs.append(self.all_or_nothing(self.fe.scalar(value.op.operands[0])))
                known.add((value, index_map))
            elif self.available(value) and self.compare(value, index_map, whole_row, lows, highs):
                known.add((value, index_map))
        if not known:
            return frozenset(), None, ""
        high = self.fold("smin", highs) or str(nest.extent)
        return frozenset(known), self.fold("smax", lows), high

    def fold(self, intrinsic: str, parts: list[str]) -> str | None:
        if not parts:
            return None
        result = parts[0]
        for part in parts[1:]:
            result = self.b.call(intrinsic, "i64", ("i64", result), ("i64", part))
        return result

    def all_or_nothing(self, condition: str) -> str:
        return self.b.value(f"select i1 {condition}, i64 {self.nest.extent}, i64 0")

    def available(self, value: Value) -> bool:
        """Not resting on what this nest loads or keeps."""
        made = self.nest.nest.registers() | self.nest.nest.reductions()
        return not any(leaf in made for leaf in self.fe.deps.leaves(value))

    def compare(self, value: Value, index_map: Map, row: Context, lows: list[str], highs: list[str]) -> bool:
        """Add the bound that `a < b` (or <=, >, >=) puts on the columns."""
        op = value.op
        assert op is not None
        predicate = op.attrs["words"][0]
        a, c = (evaluate(self.fe, v, index_map, row) for v in op.operands)
        if a.is_uniform and c.is_uniform:
            test = self.b.value(f"icmp {predicate} {llvm(a.element)} {a.text}, {c.text}")
            highs.append(self.all_or_nothing(test))
            return True
        if a.is_uniform and c.form == "affine":  # n > cols is cols < n
            a, c = c, a
            predicate = {"l": "g", "g": "l"}[predicate[1]].join((predicate[0], predicate[2]))
        if not (a.form == "affine" and a.stride == 1 and c.is_uniform):
            return False
        start, limit = (self.b.resize(v.text, v.element, "i64") for v in (a, c))
        distance = self.b.value(f"sub i64 {limit}, {start}")
        if predicate in ("sle", "sgt"):
            distance = self.b.value(f"add i64 {distance}, 1")
        (highs if predicate in ("slt", "sle") else lows).append(distance)
        return True

    def leaves(self, members: Sequence[Op]) -> list[tuple[Value, Map]]:
        """The comparisons under the masks of loads and stores, with their index maps."""
        masks = []
        for op in members:
            at = _MASK.get(op.name)
            if at is not None and len(op.operands) > at:
                masks.append((op.operands[at], self.identity))
        return list(comparisons(self.fe, masks))

    def further(self) -> list[tuple[Value, Map]]:
        """Those under the masks of tiles that are read again, and under selections by what bounds an access elsewhere:
        `where(cols < N, ...)`."""
        fe, nest = self.fe, self.nest.nest
        stack = [(v, self.identity) for v in nest.operands() if v.type.is_tile]
        again: list[tuple[Value, Map]] = []
        chosen: list[tuple[Value, Map]] = []
        seen = set()
        while stack:
            value, index_map = stack.pop()
            if (value, index_map) in seen or not value.type.is_tile:
                continue
            seen.add((value, index_map))
            op = value.op
            if value in fe.references and op is not None:
                again += [(mask, index_map) for mask in op.operands[1:2]]
            elif op is not None and is_lazy(op) and (value not in fe.views or value in self.nest.producing):
                if kind(op.name) == "pointwise":
                    stack += [(v, index_map) for v in op.operands]
                    chosen += [(v, index_map) for v in op.operands[:1] if op.name == "arith.select"]
                elif op.operands and op.operands[0].type.is_tile:
                    stack.append((op.operands[0], source_map(op, index_map)))
        return [*comparisons(fe, again), *(c for c in comparisons(fe, chosen) if c[0] in fe.bounds)]


def comparisons(fe: FunctionEmitter, masks: Sequence[tuple[Value, Map]]) -> Iterator[tuple[Value, Map]]:
    """What has to hold for masks to hold, as far as they are conjunctions."""
    stack, seen = list(masks), set()
    while stack:
        value, index_map = stack.pop()
        if (value, index_map) in seen or value in fe.views or value.op is None or not value.type.is_tile:
            continue
        seen.add((value, index_map))
        op = value.op
        if op.name == "arith.andi":
            stack += [(v, index_map) for v in op.operands]
        elif op.name in ("tt.broadcast", "tt.expand_dims"):
            stack.append((op.operands[0], source_map(op, index_map)))
        elif op.name == "tt.splat" or (op.name == "arith.cmpi" and op.attrs["words"][0] in SIGNED_ORDER):
            yield value, index_map


def bounds_of_accesses(function: Function) -> frozenset[Value]:
    """Every comparison under the mask of a load or store."""
    stack = [op.operands[at] for op in function.body.walk() for at in (_MASK.get(op.name),) if at and op.operands[at:]]
    found, seen = set(), set()
    while stack:
        value = stack.pop()
        if value in seen or value.op is None:
            continue
        seen.add(value)
        if value.op.name in ("arith.andi", "tt.broadcast", "tt.expand_dims"):
            stack += value.op.operands
        else:
            found.add(value)
    return frozenset(found)
