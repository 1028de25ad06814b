"""Rows of a nest that are walked over together, where it does nothing but reduce.

Over its rows: accumulators are in memory, read and written once for JAM rows; or in registers for all rows that are
whole, where a row is so narrow that they have room for it. Along them: what the rows share, [1, N, K] of [M, N, K], is
loaded once for all.
"""

from __future__ import annotations

import functools
from math import prod
from typing import TYPE_CHECKING

from trident_cpu.emit.bounds import Bounds, Known
from trident_cpu.emit.padding import Padding
from trident_cpu.emit.types import size
from trident_cpu.emit.values import Context
from trident_cpu.ir import Value

if TYPE_CHECKING:
    from trident_cpu.emit.nest import NestEmitter

JAM = 4
NARROW = 256  # bytes of rows that are added: longer ones are streams far apart, which main memory gives more slowly


def jams(nest: NestEmitter, dim: int) -> int:
    """Rows along `dim` that are walked over together, vector by vector; 1: each by itself."""
    names, along = {op.name for op in nest.nest.members}, [r.along for r in nest.reductions]
    if (
        nest.brief
        or nest.unroll_all
        or nest.nest.keep
        or nest.nest.updates
        or not names <= {"tt.load", "tt.reduce"}
        or any(r.start is None for r in nest.reductions)
    ):
        return 1
    if all(along):
        return min(JAM, nest.shape[dim]) if along and _shared(nest, dim) else 1
    wide = nest.extent * max(size(e) for r in nest.reductions for e in r.elements) > NARROW
    over = all(r.axis == dim for r in nest.reductions) and names == {"tt.load", "tt.reduce"}
    return JAM if over and not wide and nest.shape[dim] % JAM == 0 else 1


def _shared(nest: NestEmitter, dim: int) -> bool:
    """Is the larger part of the tiles that the nest reads in memory the same for all rows along `dim`? (Rows of
    the larger part side by side would be streams far apart.)"""
    fe = nest.fe
    read = {leaf for value in nest.nest.operands() for leaf in fe.deps.leaves(value)} & {*fe.references, *fe.views}
    whole = [shape for shape in (leaf.type.shape for leaf in read) if len(shape) == len(nest.shape)]
    return 2 * sum(prod(shape) for shape in whole if shape[dim] == 1) >= sum(map(prod, whole)) > 0


class Together:
    """The rows along `dim`, at one place of the other dimensions."""

    def __init__(self, nest: NestEmitter, dim: int) -> None:
        self.nest, self.b, self.dim, self.jam = nest, nest.b, dim, nest.jam
        self.over = not any(r.along for r in nest.reductions)

    def run(self) -> None:
        start = self.in_registers() if self.over and self.have_registers() else "0"
        # where an empty row has just changed nothing, the next one changes nothing either
        self.settled = self.b.alloca("i1", 8) if self.over else ""
        if self.over:
            self.b.emit(f"store i1 false, ptr {self.settled}")
        if start == "0":
            self.nest.each(self.dim, self.jam, False, self.few)
        else:
            self.b.loop(start, str(self.nest.shape[self.dim]), self.jam, self.few)

    # ---- rows that are whole

    def have_registers(self) -> bool:
        """Do the results of a whole row take up half of the registers at most?"""
        row = self.nest.extent * sum(size(e) for r in self.nest.reductions for e in r.elements)
        bits = self.nest.fe.features.vector_bits
        count = 16 if bits == 256 else 32
        return 2 * row <= count * min(bits, 256) // 8  # with AVX-512 registers may be used by halves, `register_bits`

    def in_registers(self) -> str:
        """Rows from the first on for as long as they are whole; where that ends.

        Masks compare numbers that change by the same from row to row, so between two rows that are whole all are.
        """
        nest, b, dim = self.nest, self.b, self.dim
        known, first_whole = self.is_whole("0")
        if not all(self.moves_evenly(mask) for mask, _ in known):
            return "0"
        place = b.alloca("i64", 8)
        b.emit(f"store i64 0, ptr {place}")

        def loop() -> None:
            head, asked, inside, end = (b.new_label(name) for name in ("head", "asked", "whole", "end"))
            b.jump(head)
            b.label(head)
            first = b.value(f"load i64, ptr {place}")
            b.branch(b.value(f"icmp slt i64 {first}, {nest.shape[dim]}"), asked, end)
            b.label(asked)
            known_too, whole = self.is_whole(b.add(first, str(self.jam - 1)))
            b.branch(whole, inside, end)
            b.label(inside)
            for k in range(self.jam):
                nest.index[dim] = b.add(first, str(k))
                nest.start_row()
                nest.each(nest.vector_dim, nest.lanes, True, lambda _i: nest.vector(known & known_too))
            b.emit(f"store i64 {b.add(first, str(self.jam))}, ptr {place}")
            b.jump(head)
            b.label(end)

        def held() -> None:
            for reduction in nest.reductions:
                reduction.hold(nest.row_start, nest.extent)
            loop()
            for reduction in nest.reductions:
                reduction.release(nest.row_start)

        b.when(first_whole, held)
        return b.value(f"load i64, ptr {place}")

    def is_whole(self, row: str) -> tuple[Known, str]:
        """The masks that can be known of a row, and an i1: do they hold in all of it?"""
        self.nest.index[self.dim] = row
        self.nest.start_row()
        known, low, high = Bounds(self.nest).find(self.nest.row_start)
        if not known:
            return known, "true"
        whole = self.b.value(f"icmp sge i64 {high}, {self.nest.extent}")
        if low is not None:
            whole = self.b.value(f"and i1 {whole}, {self.b.value(f'icmp sle i64 {low}, 0')}")
        return known, whole

    def moves_evenly(self, mask: Value) -> bool:
        op = mask.op
        assert op is not None
        return op.name == "tt.splat" or all(self.nest.fe.strides.is_linear(v) for v in op.operands)

    # ---- a few rows, whole or not

    def few(self, first: str) -> None:
        """`jam` rows from the first on: whole vectors of all of them at once, then what is left of each."""
        nest, b, dim = self.nest, self.b, self.dim
        found = []
        for reduction in nest.reductions:
            reduction.start_row()
        for k in range(self.jam):
            nest.index[dim] = b.add(first, str(k))
            nest.start_row()
            found.append((nest.index[dim], nest.row_start, *Bounds(nest).find(nest.row_start)))
        known = found[0][2]
        bounded = bool(known) and all(low is None for *_, low, _high in found)
        highs = [high for *_, high in found]

        def work() -> None:
            extent = str(nest.extent)
            whole = extent if not known else "0"
            if bounded:
                high = b.call("smax", "i64", ("i64", self.fold("smin", highs)), ("i64", "0"))
                whole = b.value(f"and i64 {b.call('smin', 'i64', ('i64', high), ('i64', extent))}, {-nest.lanes}")
            self.whole_vectors(whole, found)
            for k, (nest.index[dim], nest.row_start, _, _, high) in enumerate(found):
                self.rest(k, whole, known if bounded else frozenset(), high)

        if not (self.over and bounded and Padding(nest, known, dim).repeats()):
            work()
            return
        empty = b.value(f"icmp sle i64 {self.fold('smax', highs)}, 0")

        def watched() -> None:
            changes = [reduction.watch_memory() for reduction in nest.reductions]
            work()
            changed = "false"
            for slot in changes:
                changed = b.value(f"or i1 {changed}, {b.value(f'load i1, ptr {slot}')}")
            unchanged = b.value(f"xor i1 {changed}, true")
            b.emit(f"store i1 {b.value(f'and i1 {empty}, {unchanged}')}, ptr {self.settled}")

        settled = b.value(f"load i1, ptr {self.settled}")
        b.when(b.value(f"xor i1 {b.value(f'and i1 {empty}, {settled}')}, true"), watched)

    def fold(self, intrinsic: str, parts: list[str]) -> str:
        return functools.reduce(lambda a, c: self.b.call(intrinsic, "i64", ("i64", a), ("i64", c)), parts)

    def whole_vectors(self, stop: str, found: list[tuple[str, Context, Known, str | None, str]]) -> None:
        nest, known = self.nest, found[0][2]

        def all_rows(way: int) -> None:
            for k, (nest.index[self.dim], nest.row_start, *_) in enumerate(found):
                for reduction in nest.reductions:
                    reduction.turn(k, self.jam, way)
                nest.vector(known)

        def one_way(i: str) -> None:
            nest.index[nest.vector_dim] = i
            all_rows(0)

        rest = nest.main_part(stop, all_rows)
        if rest != stop:
            self.b.loop(rest, stop, nest.lanes, one_way)

    def rest(self, k: int, start: str, known: Known, high: str) -> None:
        """What is left of a row from `start` on."""
        nest, extent = self.nest, str(self.nest.extent)
        for reduction in nest.reductions:
            reduction.turn(k)
        padding = Padding(nest, known, nest.vector_dim)
        if known and padding.repeats():
            padding.run(start, extent, high)
        else:
            nest.vectors(start, extent, frozenset())
        for reduction in nest.reductions:
            reduction.end_row(nest.index)
