"""One loop nest: vectors along one dimension, loops over the others, an unmasked main part, reductions on the way.

Bounds: comparisons such as `cols < N` that are affine along the vector dimension give, once per row, the range of
columns for which they hold. Inside it whole vectors run with those masks known to be true.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import TYPE_CHECKING

from trident_cpu.emit.bounds import Bounds, Known
from trident_cpu.emit.buffers import View, dense_strides
from trident_cpu.emit.detours import Detours
from trident_cpu.emit.memory import Access
from trident_cpu.emit.padding import Padding
from trident_cpu.emit.prefetch import fetch, worth
from trident_cpu.emit.reduce import Reduction
from trident_cpu.emit.stream import may_start, streamable, streams_always
from trident_cpu.emit.together import Together, jams
from trident_cpu.emit.transpose import column, side, squares, store_turned
from trident_cpu.emit.transpose import fits as fits_turned
from trident_cpu.emit.types import size
from trident_cpu.emit.values import Context, Val, evaluate, store_view
from trident_cpu.ir import Op, Value
from trident_cpu.plan import Nest

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

UNROLL = 8  # nests of at most so many vectors become straight code
WAYS = 4  # accumulators of a cheap sum along a row
CHEAP = 8.0  # relative cost of its operands, see Dependencies.cost
SHORT = 4  # vectors of a row: with an instruction for masked accesses, masks cost less than finding where they hold
INNER_UNROLL = 4  # and so do the vectors of a row
TURN = 8.0  # relative cost of storing a vector that is turned round in registers


def emit_nest(fe: FunctionEmitter, nest: Nest, brief: bool = False) -> None:
    """`brief`: one rolled, masked loop, for what seldom runs."""
    NestEmitter(fe, nest, brief).run()


class NestEmitter:
    def __init__(self, fe: FunctionEmitter, nest: Nest, brief: bool = False) -> None:
        # sanitised code is compiled far more often than it is run for long (docs/decisions/024)
        self.fe, self.b, self.nest, self.shape, self.brief = fe, fe.b, nest, nest.shape, brief or fe.state.sanitize
        self.most_lanes = self.widest()
        self.vector_dim = self.choose_dim()
        self.extent = self.shape[self.vector_dim]
        self.lanes = min(self.most_lanes, self.extent)
        self.index = ["0"] * len(self.shape)
        self.producing: frozenset[Value] = frozenset()
        self.streaming: frozenset[Op] = frozenset()
        if not self.brief:
            fe.ahead |= worth(nest, self.vector_dim)
        self.row_start = Context(self.shape, self.index, self.vector_dim, self.lanes)

    # ---- shape of the loops

    def widest(self) -> int:
        """Lanes per vector: fewer when 8-byte data pass through the nest."""
        data = [v for op in self.nest.members for v in [*op.operands, *op.results]]
        data += [v for _, v in self.nest.updates] + self.nest.keep
        widest = max((size(v.type.element) for v in data if not v.type.is_pointer), default=4)
        return max(1, self.fe.lanes // 2) if widest == 8 else self.fe.lanes

    def choose_dim(self) -> int:
        """The dimension along which accesses are contiguous and vectors full, by a rough count of instructions."""
        best, best_cost = len(self.shape) - 1, float("inf")
        for dim in range(len(self.shape) - 1, -1, -1):
            extent = self.shape[dim]
            if extent == 1 and prod(self.shape) != 1:
                continue
            lanes = min(self.most_lanes, extent)
            per_vector = 4.0 + sum(self.access_cost(op.operands[0], dim, lanes) for op in self.nest.members)
            per_vector += self.buffers_cost(dim, lanes)
            if dim == len(self.shape) - 2 and self.may_turn(dim):
                per_vector += TURN * len(self.nest.keep)
            elif dim != len(self.shape) - 1 and (self.nest.keep or self.nest.updates):
                per_vector += 1.5 * lanes * (len(self.nest.keep) + len(self.nest.updates))
            total = per_vector * prod(self.shape) / lanes
            for op in self.nest.members:
                if op.name == "tt.reduce" and op.attrs["axis"] == dim:
                    total += prod(self.shape) / extent * 2.0 * lanes.bit_length()
            if total < best_cost * 0.99:
                best, best_cost = dim, total
        return best

    def may_turn(self, dim: int) -> bool:
        """Is the nest nothing but loads of consecutive elements along `dim`, kept in memory?"""
        nest, n = self.nest, side(self.fe)
        return (
            not self.brief
            and bool(nest.keep)
            and not nest.updates
            and all(op.name == "tt.load" and self.fe.strides.of(op.operands[0], dim) == 1 for op in nest.members)
            and min(self.shape[-2:]) >= n
            and all(size(self.fe.view_element(value)) == 4 for value in nest.keep)
        )

    def access_cost(self, address: Value, dim: int, lanes: int) -> float:
        if not address.type.is_pointer:
            return 1.0
        stride = self.fe.strides.of(address, dim)
        return 1.0 if stride in (0, 1) else 1.5 * lanes

    def buffers_cost(self, dim: int, lanes: int) -> float:
        """What reading tiles that earlier nests left in memory costs: their rows are contiguous."""
        if dense_strides(self.shape)[dim] == 1:
            return 0.0
        made = self.nest.registers()
        leaves = {leaf for value in self.nest.operands() for leaf in self.fe.deps.leaves(value)} - made
        read = [leaf for leaf in leaves if leaf in self.fe.views and leaf.type.shape == self.shape]
        again = [leaf for leaf in leaves if leaf in self.fe.references and leaf.type.shape == self.shape]
        return 1.5 * lanes * len(read) + sum(
            self.access_cost(leaf.op.operands[0], dim, lanes) for leaf in again if leaf.op
        )

    # ---- emission

    def run(self) -> None:
        fe, nest = self.fe, self.nest
        kept = {value: fe.new_view(value) for value in nest.keep}
        self.reductions = [
            Reduction(fe, op, self.vector_dim, self.lanes) for op in nest.members if op.name == "tt.reduce"
        ]
        self.producing = frozenset(nest.keep)
        self.detours = Detours(fe, nest, self.vector_dim, self.lanes, emit_nest)
        fe.views |= kept  # the detours' copies, made before the nest, find nothing there yet
        vectors = prod(self.shape) // self.lanes
        self.unroll_all = vectors <= UNROLL and not self.brief
        self.ways = WAYS if not self.brief and self.wants_ways() else 1
        outer = [d for d in range(len(self.shape) - 1, -1, -1) if d != self.vector_dim]
        outer.sort(key=lambda dim: jams(self, dim))
        self.jam = jams(self, outer[-1]) if outer else 1
        self.ways = max(1, self.ways // self.jam)
        for reduction in self.reductions:
            reduction.prepare(self.shape, self.ways, self.jam)
        if self.vector_dim == len(self.shape) - 2 and self.may_turn(self.vector_dim) and self.turns():
            squares(fe, self.shape, self.square)
        else:
            self.level(outer)
        for reduction in self.reductions:
            reduction.publish()
        self.detours.finish()

    def turns(self) -> bool:
        return not self.detours.found and all(fits_turned(self.fe, self.fe.views[value]) for value in self.nest.keep)

    def square(self, index: list[str]) -> None:
        """Loads along the last dimension but one, stores along the last."""
        fe, nest = self.fe, self.nest
        columns: dict[Value, list[Val]] = {value: [] for value in nest.keep}
        for k in range(side(fe)):
            ctx = column(fe, self.shape, index, k)
            ctx.producing = self.producing
            access = Access(fe, ctx)
            for op in nest.members:
                ctx.memo[(op.results[0], ctx.identity)] = access.load(op)
            for value, found in columns.items():
                found.append(evaluate(fe, value, ctx.identity, ctx))
        for value, found in columns.items():
            store_turned(fe, fe.views[value], index, found)

    def level(self, outer: list[int]) -> None:
        if not outer:
            self.row()
            return
        dim, rest = outer[0], outer[1:]
        if not rest and self.jam > 1:
            Together(self, dim).run()
        else:
            self.each(dim, 1, self.unroll_all, lambda _i: self.level(rest))

    def each(self, dim: int, step: int, unroll: bool, body: Callable[[str], None]) -> None:
        extent = self.shape[dim]
        if extent == step or unroll:
            for i in range(0, extent, step):
                self.index[dim] = str(i)
                body(str(i))
        else:

            def at(i: str) -> None:
                self.index[dim] = i
                body(i)

            self.b.loop("0", str(extent), step, at, rolled=self.brief)
        self.index[dim] = "0"

    def row(self) -> None:
        """All vectors along the vector dimension at one place of the others."""
        for reduction in self.reductions:
            reduction.start_row()
        self.start_row()
        known, low, high = (frozenset(), None, "") if self.brief else Bounds(self).find(self.row_start)
        dim, lanes, extent = self.vector_dim, self.lanes, self.extent
        if not known:
            if self.unroll_all or self.brief or extent // lanes <= INNER_UNROLL:
                self.each(dim, lanes, not self.brief, lambda _i: self.vector(frozenset()))
            else:
                stop = str(extent)
                self.streamed(lambda: self.vectors(self.main_part(stop), stop, frozenset()))
        elif extent == lanes:
            self.index[dim] = "0"
            full = self.b.value(f"icmp sge i64 {high}, {extent}")
            if low is not None:
                full = self.b.value(f"and i1 {full}, {self.b.value(f'icmp sle i64 {low}, 0')}")
            self.b.when(full, lambda: self.vector(known), lambda: self.vector(frozenset()))
        elif low is not None and extent // lanes <= SHORT and self.fe.features.vector_bits >= 512:
            self.each(dim, lanes, True, lambda _i: self.vector(frozenset()))
        else:
            self.split_row(known, low, high, self.end_of_row(known, high))
        for reduction in self.reductions:
            reduction.end_row(self.index)

    def start_row(self) -> None:
        """Emit once per row the addresses that its vectors share."""
        fe = self.fe
        self.row_start = Context(self.shape, list(self.index), self.vector_dim, self.lanes, producing=self.producing)
        self.row_start.index[self.vector_dim] = "0"
        made = self.nest.registers()
        for op in self.nest.members:
            pointer = op.operands[0]
            if op.name in ("tt.load", "tt.store") and not made & fe.deps.leaves(pointer).keys():
                evaluate(fe, pointer, self.row_start.identity, self.row_start)
        self.detours.start_row(self.row_start)

    def end_of_row(self, known: Known, high: str) -> str:
        """Where the row may stop: past `high` nothing happens if every member's effect is a store under these masks."""
        nest, b = self.nest, self.b
        if nest.keep or nest.updates or any(op.name not in ("tt.load", "tt.store") for op in nest.members):
            return str(self.extent)
        bounds = Bounds(self)
        if not all(known <= set(bounds.leaves([op])) for op in nest.members if op.name == "tt.store"):
            return str(self.extent)
        last = b.call("smax", "i64", ("i64", high), ("i64", "0"))
        last = b.value(f"and i64 {b.value(f'add i64 {last}, {self.lanes - 1}')}, {-self.lanes}")
        return b.call("smin", "i64", ("i64", last), ("i64", str(self.extent)))

    def split_row(self, known: Known, low: str | None, high: str, end: str) -> None:
        """[0, low) masked, [low, high) unmasked, [high, end) masked; one copy of each body."""
        b, lanes, extent = self.b, self.lanes, self.extent
        whole = b.call("smax", "i64", ("i64", high), ("i64", "0"))
        whole = b.call("smin", "i64", ("i64", whole), ("i64", str(extent)))
        whole = b.value(f"and i64 {whole}, {-lanes}")
        if low is None:
            self.streamed(lambda: self.vectors(self.main_part(whole, known=known), whole, known))
            padding = Padding(self, known, self.vector_dim)
            if end == str(extent) and padding.repeats():
                padding.run(whole, end, high)
            else:
                self.vectors(whole, end, frozenset())
            return
        first = b.call("smax", "i64", ("i64", low), ("i64", "0"))
        first = b.value(f"and i64 {b.value(f'add i64 {first}, {lanes - 1}')}, {-lanes}")
        first = b.call("smin", "i64", ("i64", first), ("i64", str(extent)))
        whole = b.call("smax", "i64", ("i64", whole), ("i64", first))

        def phase(p: str) -> None:
            early = b.value(f"icmp eq i64 {p}, 0")
            start = b.value(f"select i1 {early}, i64 0, i64 {whole}")
            middle = b.value(f"select i1 {early}, i64 {first}, i64 {end}")
            stop = b.value(f"select i1 {early}, i64 {whole}, i64 {end}")
            self.vectors(start, middle, frozenset())
            self.streamed(lambda: self.vectors(middle, stop, known))

        b.loop("0", "2", 1, phase)

    def vectors(self, start: str, stop: str, masks: Known) -> None:
        """A loop over the vectors from one index of the row to another."""
        dim = self.vector_dim
        if start == stop:
            return

        def body(i: str) -> None:
            self.index[dim] = i
            self.vector(masks)

        self.b.loop(start, stop, self.lanes, body)
        self.index[dim] = "0"

    def streamed(self, loop: Callable[[], None]) -> None:
        """A row's loop over whole vectors, in two copies where its stores may go past the cache."""
        identity = self.row_start.identity
        addresses, stores = [], []
        asked = [op for op in self.nest.members if streams_always(op)]
        for op in asked or self.nest.members:
            if op.name != "tt.store" or op in self.detours.found:
                continue
            if not streamable(self.fe, op.operands[0].type.pointee, self.shape):
                continue
            start = self.row_start.memo.get((op.operands[0], identity))
            if start is not None and start.form == "affine" and start.stride == 1:
                addresses.append((start.text, op.operands[0].type.pointee))
                stores.append(op)
        if not stores:
            loop()
            return

        def past_the_cache() -> None:
            self.streaming = frozenset(stores)
            loop()
            self.streaming = frozenset()

        self.b.when(may_start(self.fe, addresses, self.lanes, bool(asked)), past_the_cache, loop)

    def main_part(self, stop: str, each: Callable[[int], None] | None = None, known: Known = frozenset()) -> str:
        """Reductions in `ways` accumulators, so that no addition waits for the one before it; where the rest starts.
        `each`: the work of one vector, given its way."""
        if self.ways == 1:
            return "0"
        b, step = self.b, self.ways * self.lanes
        rest = b.value(f"and i64 {stop}, {-step}") if stop.startswith("%") else str(int(stop) // step * step)

        def one(way: int) -> None:
            for reduction in self.reductions:
                reduction.turn(way=way)
            self.vector(known)

        def body(i: str) -> None:
            for way in range(self.ways):
                self.index[self.vector_dim] = b.add(i, str(way * self.lanes))
                (each or one)(way)

        b.loop("0", rest, step, body)
        self.index[self.vector_dim] = "0"
        for reduction in self.reductions:
            reduction.turn()
        return rest

    def wants_ways(self) -> bool:
        """Cheap sums along long rows wait for their own last addition; costly ones have work in between."""
        along = [r for r in self.reductions if r.along]
        if not along or len(along) != len(self.reductions) or any(r.start is None for r in along):
            return False
        cost = sum(self.fe.deps.cost(v) for r in along for v in r.op.operands)
        return self.extent >= 4 * WAYS * self.lanes and cost <= CHEAP

    def vector(self, known: Known) -> None:
        """Every member for one vector."""
        fe, nest = self.fe, self.nest
        ctx = Context(self.shape, list(self.index), self.vector_dim, self.lanes, known, self.producing)
        ctx.detours, ctx.row, ctx.streaming = self.detours.at(self.index), self.row_start, self.streaming
        access, identity = Access(fe, ctx), ctx.identity
        reductions = iter(self.reductions)
        for op in nest.members:
            if op.name == "tt.load":
                ctx.memo[(op.results[0], identity)] = access.load(op)
                if not self.brief and op not in ctx.detours:
                    fetch(fe, op.results[0], evaluate(fe, op.operands[0], identity, ctx), self.lanes)
            elif op.name == "tt.store":
                self.detours.store(op, access)
            elif op.name == "tt.reduce":
                next(reductions).step(ctx)
            else:
                ctx.memo[(op.results[0], identity)] = access.atomic(op)
        for value in nest.keep:
            store_view(fe, fe.views[value], identity, ctx, evaluate(fe, value, identity, ctx))
        news = [(target, evaluate(fe, value, identity, ctx)) for target, value in nest.updates]
        for target, val in news:
            store_view(fe, fe.views[target], identity, ctx, val)


def for_each_vector(fe: FunctionEmitter, shape: tuple[int, ...], element: str, body: Callable[[Context], None]) -> None:
    """Run `body` for every vector of a shape, lanes along the last dimension of more than one element."""
    emitter = NestEmitter(fe, Nest(shape))
    emitter.lanes = min(max(1, fe.lanes // 2) if size(element) == 8 else fe.lanes, emitter.extent)

    def vector(known: Known) -> None:
        body(Context(shape, list(emitter.index), emitter.vector_dim, emitter.lanes))

    emitter.vector = vector  # type: ignore[method-assign]
    emitter.run()


def store_everywhere(fe: FunctionEmitter, value: Value, view: View) -> None:
    """Evaluate a tile into a view of its shape."""

    def body(ctx: Context) -> None:
        store_view(fe, view, ctx.identity, ctx, evaluate(fe, value, ctx.identity, ctx))

    widest = max((value.type.element, view.element), key=size)
    for_each_vector(fe, value.type.shape, widest, body)
