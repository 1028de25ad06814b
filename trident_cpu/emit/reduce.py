"""tt.reduce inside a nest, with any combine region and any number of operands.

Along the vector dimension: lanes accumulate in registers, one set per row, folded in halves at the row's end.
Along another dimension: the result tile itself is the accumulator, in memory.
Sums, products, maxima and such start from their neutral element; other regions start from the first vector.
Where the order of a region's arguments matters, each vector is folded by neighbours, then joins one running value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trident_cpu.analysis.commutes import commutes
from trident_cpu.emit.fill import fill_view
from trident_cpu.emit.pointwise import EITHER_ZERO, Call
from trident_cpu.emit.types import float_literal, literal, size, vector
from trident_cpu.emit.values import Context, Val, evaluate, lanes_of, load_view, store_view
from trident_cpu.errors import UnsupportedOp
from trident_cpu.ir import Op, Region, Value
from trident_cpu.ops import kind

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

_NAN = float("nan")
_INF = float("inf")
NEUTRAL: dict[str, float | str] = {
    "arith.addf": -0.0, "arith.mulf": 1.0, "arith.maxnumf": _NAN, "arith.minnumf": _NAN, "arith.maximumf": -_INF,
    "arith.minimumf": _INF, "arith.addi": "0", "arith.muli": "1", "arith.ori": "0", "arith.xori": "0",
    "arith.andi": "-1", "arith.maxui": "0", "arith.minui": "-1", "arith.maxsi": "least", "arith.minsi": "most",
}  # fmt: skip


def neutral(op: Op, element: str) -> str | None:
    """The literal that a one-op region leaves unchanged, or None."""
    ops = op.regions[0].block.ops
    args = op.regions[0].block.args
    if len(op.operands) != 1 or len(ops) != 2 or ops[0].name not in NEUTRAL or set(ops[0].operands) != set(args):
        return None
    if ops[1].operands != ops[0].results:
        return None
    value = NEUTRAL[ops[0].name]
    if isinstance(value, float):
        return float_literal(value, element)
    if element == "i1":
        return {"0": "false", "1": "true", "-1": "true"}.get(value)
    bits = 8 * size(element)
    return {"least": str(-(1 << (bits - 1))), "most": str((1 << (bits - 1)) - 1)}.get(value, value)


def apply_region(fe: FunctionEmitter, region: Region, args: Sequence[str], lanes: int) -> list[str]:
    """A combine region on LLVM values; what it reads from outside is uniform."""
    env = dict(zip(region.block.args, args, strict=True))

    def get(value: Value) -> str:
        if value not in env:
            if value.op is not None and value.op.name == "arith.constant":
                text = literal(value.op.attrs["value"], value.type.element)
            else:
                text = fe.scalar(value)
            env[value] = fe.b.splat(value.type.element, text, lanes)
        return env[value]

    for op in region.block.ops:
        group = kind(op.name)
        if group == "end":
            return [get(v) for v in op.operands]
        if op.name == "arith.constant":
            continue
        if group != "pointwise":
            raise UnsupportedOp(op.name, "inside a combine function", fe.where(op))
        elements = tuple(v.type.element for v in op.operands)
        # lanes are combined side by side: which of two equal zeros comes first is not known anyway
        attrs = {**op.attrs, EITHER_ZERO: op.name in ("arith.maximumf", "arith.minimumf")}
        call = Call(op.name, elements, op.results[0].type.element, attrs, fe.where(op))
        env[op.results[0]] = fe.pointwise(lanes)(call, [get(v) for v in op.operands])
    raise UnsupportedOp("tt.reduce", "combine function without a result", "")


class Reduction:
    def __init__(self, fe: FunctionEmitter, op: Op, vector_dim: int, lanes: int) -> None:
        self.fe, self.b, self.op, self.lanes = fe, fe.b, op, lanes
        self.axis = op.attrs["axis"]
        self.elements = [v.type.element for v in op.operands]
        self.along = self.axis == vector_dim
        self.start = neutral(op, self.elements[0])
        self.region = op.regions[0]
        self.in_order = self.along and self.start is None and lanes > 1 and not commutes(self.region)
        self.width = 1 if self.in_order else lanes  # lanes of an accumulator
        self.finals: list[str] = []
        self.row, self.way = 0, 0  # of those walked over together; the accumulator in use
        self.begins, self.ends = True, True  # an accumulator in memory is read, and written, by this step
        self.held: dict[str, list[str]] = {}  # slots of accumulators in registers, by their place in the row
        self.watched = ""  # the slot of an i1: has a step changed an accumulator in memory?
        self.change: list[str] | None = None  # while watched: i1s, has a step changed an accumulator?

    def prepare(self, shape: tuple[int, ...], ways: int, rows: int) -> None:
        """Before the nest: accumulators, `ways` of them for each operand and for each of `rows` walked over together
        along the vector dimension."""
        b, fe = self.b, self.fe
        self.ways = ways
        self.kept = tuple(d for d in range(len(shape)) if d != self.axis)
        self.views = [fe.new_view(r) for r in self.op.results] if self.op.results[0].type.is_tile else []
        if self.along:
            self.slots = [[b.alloca(vector(e, self.width)) for e in self.elements] for _ in range(rows * ways)]
            self.started = b.alloca("i1", 8) if self.start is None else ""
            return
        if self.start is not None:
            fill_view(fe, self.views[0], self.start)

    def start_row(self) -> None:
        if not self.along:
            return
        if self.start is None:
            self.b.emit(f"store i1 true, ptr {self.started}")
            return
        type = vector(self.elements[0], self.lanes)
        for slots in self.slots:
            self.b.emit(f"store {type} {self.b.splat(self.elements[0], self.start, self.lanes)}, ptr {slots[0]}")

    def turn(self, row: int = 0, rows: int = 1, way: int = 0) -> None:
        """The next steps are of this one of `rows` that are walked over together, and of this way."""
        self.row, self.way = row, row * self.ways + way
        self.begins, self.ends = row == 0 or rows == 1, row == rows - 1 or rows == 1

    def step(self, ctx: Context) -> None:
        """Combine one vector."""
        fe, lanes = self.fe, self.lanes
        news = [lanes_of(fe, evaluate(fe, v, ctx.identity, ctx), lanes) for v in self.op.operands]
        if self.along:
            self.step_along(ctx, news)
        else:
            self.step_across(ctx, news)

    def step_along(self, ctx: Context, news: list[str]) -> None:
        b, lanes, slots = self.b, self.width, self.slots[self.way]
        if self.in_order:
            news = self.fold(news, self.lanes)
        types = [vector(e, lanes) for e in self.elements]
        place = ctx.index[ctx.vector_dim]
        is_first = self.start is None and place == "0"  # a literal 0: straight code, the row's first vector
        result, olds = news, []
        if not is_first:
            olds = [b.value(f"load {t}, ptr {s}") for t, s in zip(types, slots, strict=True)]
            result = apply_region(self.fe, self.region, [*olds, *news], lanes)
        if self.start is None and place.startswith("%"):
            first = b.value(f"load i1, ptr {self.started}")
            result = [
                b.value(f"select i1 {first}, {t} {new}, {t} {both}")
                for t, new, both in zip(types, news, result, strict=True)
            ]
            b.emit(f"store i1 false, ptr {self.started}")
            if self.change is not None:
                self.change.append(first)
        if self.change is not None:
            self.change += [self.differ(*pair) for pair in zip(self.elements, olds, result, strict=True)]
        for t, text, slot in zip(types, result, slots, strict=True):
            b.emit(f"store {t} {text}, ptr {slot}")

    def watch(self) -> None:
        """From the next step on, until `changed` is asked."""
        self.change = []

    def changed(self) -> str:
        """i1: has the step since `watch` changed a bit of an accumulator?"""
        assert self.change
        first, *more = self.change
        self.change = None
        for other in more:
            first = self.b.value(f"or i1 {first}, {other}")
        return first

    def differ(self, element: str, old: str, new: str) -> str:
        """i1: is a bit of the lanes of two vectors different?"""
        b, lanes = self.b, self.width
        if element != "i1":
            bits = f"i{8 * size(element)}" if lanes == 1 else f"<{lanes} x i{8 * size(element)}>"
            old, new = (b.value(f"bitcast {vector(element, lanes)} {text} to {bits}") for text in (old, new))
            differs = b.value(f"icmp ne {bits} {old}, {new}")
        else:
            differs = b.value(f"xor {vector(element, lanes)} {old}, {new}")
        if lanes == 1:
            return differs
        return b.value(f"icmp ne i{lanes} {b.value(f'bitcast <{lanes} x i1> {differs} to i{lanes}')}, 0")

    def step_across(self, ctx: Context, news: list[str]) -> None:
        b, fe, lanes = self.b, self.fe, self.lanes
        place = tuple(self.kept)
        index = ctx.index[self.axis]

        def put(texts: list[str]) -> None:
            for view, element, text in zip(self.views, self.elements, texts, strict=True):
                store_view(fe, view, place, ctx, Val("lanes", element, text))

        def combine() -> None:
            if self.begins:
                self.olds = [lanes_of(fe, load_view(fe, view, place, ctx), lanes) for view in self.views]
            olds, self.olds = self.olds, apply_region(fe, self.region, [*self.olds, *news], lanes)
            if self.watched and self.begins and self.ends:
                self.note(olds)
            if self.ends:
                put(self.olds)

        if not self.views:
            raise UnsupportedOp("tt.reduce", "a scalar result across vectors", fe.where(self.op))
        if self.held:
            slots = self.held[ctx.index[ctx.vector_dim]]
            olds = [b.value(f"load {vector(e, lanes)}, ptr {s}") for e, s in zip(self.elements, slots, strict=True)]
            self.keep(slots, apply_region(fe, self.region, [*olds, *news], lanes))
        elif self.start is not None:
            combine()
        elif not index.startswith("%"):
            put(news) if index == "0" else combine()
        else:
            b.when(b.value(f"icmp eq i64 {index}, 0"), lambda: put(news), combine)

    def hold(self, row: Context, extent: int) -> None:
        """From here on the accumulators of a row of results are slots at known places, which LLVM makes registers."""
        for at in range(0, extent, self.lanes):
            ctx = self.vector_of(row, str(at))
            slots = [self.b.alloca(vector(e, self.lanes)) for e in self.elements]
            self.keep(slots, [lanes_of(self.fe, load_view(self.fe, v, self.kept, ctx), self.lanes) for v in self.views])
            self.held[str(at)] = slots

    def release(self, row: Context) -> None:
        """They are in memory again."""
        held, self.held = self.held, {}
        for at, slots in held.items():
            for view, e, slot in zip(self.views, self.elements, slots, strict=True):
                text = self.b.value(f"load {vector(e, self.lanes)}, ptr {slot}")
                store_view(self.fe, view, self.kept, self.vector_of(row, at), Val("lanes", e, text))

    def keep(self, slots: list[str], texts: list[str]) -> None:
        for e, slot, text in zip(self.elements, slots, texts, strict=True):
            self.b.emit(f"store {vector(e, self.lanes)} {text}, ptr {slot}")

    def vector_of(self, row: Context, at: str) -> Context:
        index = list(row.index)
        index[row.vector_dim] = at
        return Context(row.shape, index, row.vector_dim, self.lanes)

    def watch_memory(self) -> str:
        """From here on single rows note whether they change an accumulator, in this slot of an i1."""
        self.watched = self.b.alloca("i1", 8)
        self.b.emit(f"store i1 false, ptr {self.watched}")
        return self.watched

    def note(self, olds: list[str]) -> None:
        changed = self.b.value(f"load i1, ptr {self.watched}")
        for old, new, e in zip(olds, self.olds, self.elements, strict=True):
            changed = self.b.value(f"or i1 {changed}, {self.differ(e, old, new)}")
        self.b.emit(f"store i1 {changed}, ptr {self.watched}")

    def end_row(self, index: list[str]) -> None:
        """Fold the lanes; the result of the row goes to its place."""
        if not self.along:
            return
        b, fe = self.b, self.fe
        texts: list[str] = []
        for slots in self.slots[self.row * self.ways : (self.row + 1) * self.ways]:
            more = [
                b.value(f"load {vector(e, self.width)}, ptr {s}") for e, s in zip(self.elements, slots, strict=True)
            ]
            texts = apply_region(fe, self.region, [*texts, *more], self.width) if texts else more
        texts = self.fold(texts, self.width)
        if not self.views:
            self.finals = texts
            return
        ctx = Context((), list(index), -1, 1)
        for view, element, text in zip(self.views, self.elements, texts, strict=True):
            store_view(fe, view, self.kept, ctx, Val("uniform", element, text))

    def fold(self, texts: list[str], lanes: int) -> list[str]:
        """All lanes as one: the lower half with the upper, or, in order, each even lane with the next."""
        while lanes > 1:
            half = lanes // 2
            picks = (range(0, lanes, 2), range(1, lanes, 2)) if self.in_order else (range(half), range(half, lanes))
            sides = [
                self.b.shuffle(e, t, lanes, pick) for pick in picks for e, t in zip(self.elements, texts, strict=True)
            ]
            texts = apply_region(self.fe, self.region, sides, half)
            lanes = half
        return texts

    def publish(self) -> None:
        """After the nest: results become readable."""
        for result, view in zip(self.op.results, self.views, strict=False):
            self.fe.views[result] = view
        for result, text in zip(self.op.results, self.finals, strict=False):
            self.fe.scalars[result] = text
