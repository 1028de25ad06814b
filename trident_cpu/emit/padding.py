"""The padded end of a row: columns past every mask, which a tile has because its size is a power of two.

There each vector is like the one before: masked loads give their `other`, selections by the masks one side. So the
first whole vector of it that changes no accumulator is the last one that need be worked out (50,257 columns of 65,536,
768 of 1,024: a quarter of a row; every vector of a row past the last one).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trident_cpu.analysis.uses import is_lazy
from trident_cpu.emit.bounds import Known, comparisons
from trident_cpu.emit.values import Context, Map, load_view, source_map, store_view
from trident_cpu.ir import Value
from trident_cpu.ops import kind

if TYPE_CHECKING:
    from trident_cpu.emit.nest import NestEmitter


class Padding:
    """What happens along `dim` of a nest where the comparisons `known` do not all hold in any lane."""

    def __init__(self, nest: NestEmitter, known: Known, dim: int) -> None:
        self.nest, self.fe, self.b, self.known, self.dim = nest, nest.fe, nest.b, known, dim
        self.memo: dict[tuple[Value, Map], bool] = {}

    def repeats(self) -> bool:
        """Is the work at each place that at the one before? Stores do nothing, loads and selections take one side."""
        nest, identity = self.nest.nest, self.nest.row_start.identity
        if nest.updates or any(op.name not in ("tt.load", "tt.store", "tt.reduce") for op in nest.members):
            return False
        if not all(reduction.axis == self.dim for reduction in self.nest.reductions):
            return False
        stores = [op for op in nest.members if op.name == "tt.store"]
        if not all(len(op.operands) > 2 and self.fails(op.operands[2], identity) for op in stores):
            return False
        values = [v for op in nest.members if op.name == "tt.reduce" for v in op.operands]
        return all(self.is_constant(value, identity) for value in [*values, *nest.keep])

    def fails(self, mask: Value, index_map: Map) -> bool:
        """Does the mask hold in no lane? It must rest on all of the comparisons: which of them fails is not known."""
        return self.known <= set(comparisons(self.fe, [(mask, index_map)]))

    def is_constant(self, value: Value, index_map: Map) -> bool:
        """Has the value the same lanes at every place?"""
        key = (value, index_map)
        if key not in self.memo:
            self.memo[key] = self._is_constant(value, index_map)
        return self.memo[key]

    def _is_constant(self, value: Value, index_map: Map) -> bool:
        fe, op = self.fe, value.op
        if not value.type.is_tile or self.dim not in index_map:
            return True
        if op is None or value in fe.aliases or value in fe.inductions:
            return False
        if op.name == "tt.load" and (value in fe.references or value in self.nest.nest.registers()):
            masked = len(op.operands) > 1 and self.fails(op.operands[1], index_map)
            return masked and all(self.is_constant(v, index_map) for v in op.operands[2:])
        if (value in fe.views and value not in self.nest.producing) or not is_lazy(op) or op.name == "tt.make_range":
            return False
        if kind(op.name) != "pointwise":
            sources = [v for v in op.operands if v.type.is_tile]
            return all(self.is_constant(v, source_map(op, index_map)) for v in sources)
        if op.name == "arith.select" and op.operands[0].type.is_tile and self.fails(op.operands[0], index_map):
            return self.is_constant(op.operands[2], index_map)
        return all(self.is_constant(v, index_map) for v in op.operands)

    def run(self, start: str, end: str, high: str) -> None:
        """The vectors from `start` to `end`, as far as they differ; masks hold before `high` only."""
        nest, b = self.nest, self.b
        dim, lanes = nest.vector_dim, nest.lanes
        place = b.alloca("i64", 8)
        b.emit(f"store i64 {start}, ptr {place}")
        inside, done = b.new_label("partial"), b.new_label("padded")
        b.branch(b.value(f"icmp slt i64 {start}, {end}"), inside, done)
        b.label(inside)
        index = b.value(f"load i64, ptr {place}")
        nest.index[dim] = index
        for reduction in nest.reductions:
            reduction.watch()
        nest.vector(frozenset())
        after = b.value(f"add nuw nsw i64 {index}, {lanes}")
        b.emit(f"store i64 {after}, ptr {place}")
        again = b.value(f"icmp slt i64 {index}, {high}")
        for reduction in nest.reductions:
            again = b.value(f"or i1 {again}, {reduction.changed()}")
        b.branch(b.value(f"and i1 {again}, {b.value(f'icmp slt i64 {after}, {end}')}"), inside, done)
        b.label(done)
        if nest.nest.keep:
            self.fill(b.value(f"load i64, ptr {place}"), end)
        nest.index[dim] = "0"

    def fill(self, start: str, end: str) -> None:
        """What later nests read of the vectors that were not worked out is what the last one was."""
        nest, fe = self.nest, self.fe
        last = self.b.value(f"sub i64 {start}, {nest.lanes}")

        def copy(i: str) -> None:
            for value in nest.nest.keep:
                there, here = self.at(last), self.at(i)
                store_view(
                    fe, fe.views[value], here.identity, here, load_view(fe, fe.views[value], there.identity, there)
                )

        self.b.loop(start, end, nest.lanes, copy)

    def at(self, index: str) -> Context:
        place = list(self.nest.index)
        place[self.nest.vector_dim] = index
        return Context(self.nest.shape, place, self.nest.vector_dim, self.nest.lanes)
