"""tt.scan with any combine region, any number of operands, forwards or in reverse.

Along the last dimension: log2(lanes) shifted combines inside a vector, then the carry of the vectors before it.
Along another dimension: row after row, whole vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trident_cpu.emit.buffers import View
from trident_cpu.emit.reduce import apply_region
from trident_cpu.emit.types import size, vector
from trident_cpu.emit.values import Context, Val, lanes_of, load_view, store_view
from trident_cpu.ir import Op

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter


def emit_scan(fe: FunctionEmitter, op: Op) -> None:
    sources = [fe.materialise(v, op) for v in op.operands]
    results = [fe.new_view(r, r.type.element) for r in op.results]
    Scan(fe, op, sources, results).run()
    for result, view in zip(op.results, results, strict=True):
        fe.views[result] = view


class Scan:
    def __init__(self, fe: FunctionEmitter, op: Op, sources: list[View], results: list[View]) -> None:
        self.fe, self.b, self.op, self.sources, self.results = fe, fe.b, op, sources, results
        self.shape = op.operands[0].type.shape
        self.axis, self.reverse = op.attrs["axis"], bool(op.attrs.get("reverse"))
        self.elements = [v.type.element for v in op.operands]
        last = len(self.shape) - 1
        self.along = self.axis == last
        self.dim = last
        most = fe.lanes // 2 if max(size(e) for e in self.elements) == 8 else fe.lanes
        self.lanes = min(max(1, most), self.shape[self.dim])
        self.index = ["0"] * len(self.shape)

    def run(self) -> None:
        self.level([d for d in range(len(self.shape)) if d not in (self.axis, self.dim)])

    def level(self, outer: list[int]) -> None:
        if outer:

            def at(i: str) -> None:
                self.index[outer[0]] = i
                self.level(outer[1:])

            self.b.loop("0", str(self.shape[outer[0]]), 1, at)
        elif self.along:
            self.line(self.lanes, self.vector)
        else:

            def columns(j: str) -> None:
                self.index[self.dim] = j
                self.line(1, self.row)

            self.b.loop("0", str(self.shape[self.dim]), self.lanes, columns)

    def line(self, step: int, body: object) -> None:
        """Run `body` from the first vector (or row) of the scan axis to the last, in scan order."""
        b, extent = self.b, self.shape[self.axis]
        carried = [vector(e, 1 if self.along else self.lanes) for e in self.elements]
        self.carries = [b.alloca(t) for t in carried]
        start = extent - step if self.reverse else 0
        self.index[self.axis] = str(start)
        body(True)  # type: ignore[operator]

        def at(i: str) -> None:
            self.index[self.axis] = b.value(f"sub nsw i64 {start}, {i}") if self.reverse else i
            body(False)  # type: ignore[operator]

        if extent > step:
            b.loop(str(step), str(extent), step, at)

    def load(self) -> list[str]:
        ctx = self.context()
        return [lanes_of(self.fe, load_view(self.fe, v, ctx.identity, ctx), self.lanes) for v in self.sources]

    def store(self, texts: list[str]) -> None:
        ctx = self.context()
        for view, element, text in zip(self.results, self.elements, texts, strict=True):
            store_view(self.fe, view, ctx.identity, ctx, Val("lanes", element, text))

    def context(self) -> Context:
        return Context(self.shape, list(self.index), self.dim, self.lanes)

    def row(self, first: bool) -> None:
        """One row of vectors: combine with the carry."""
        texts = self.load()
        if not first:
            texts = apply_region(self.fe, self.op.regions[0], [*self.read_carries(self.lanes), *texts], self.lanes)
        self.write_carries(texts, self.lanes)
        self.store(texts)

    def vector(self, first: bool) -> None:
        """One vector along the scan axis."""
        fe, b, lanes = self.fe, self.b, self.lanes
        texts = self.load()
        if self.reverse and lanes > 1:
            texts = [self.permute(e, t, range(lanes - 1, -1, -1)) for e, t in zip(self.elements, texts, strict=True)]
        shift = 1
        while shift < lanes:
            moved = [
                self.permute(e, t, [max(i - shift, 0) for i in range(lanes)])
                for e, t in zip(self.elements, texts, strict=True)
            ]
            both = apply_region(fe, self.op.regions[0], [*moved, *texts], lanes)
            mask = "<" + ", ".join(f"i1 {'true' if i >= shift else 'false'}" for i in range(lanes)) + ">"
            texts = [
                b.value(f"select <{lanes} x i1> {mask}, {vector(e, lanes)} {x}, {vector(e, lanes)} {t}")
                for e, x, t in zip(self.elements, both, texts, strict=True)
            ]
            shift *= 2
        if not first:
            spread = [b.splat(e, t, lanes) for e, t in zip(self.elements, self.read_carries(1), strict=True)]
            texts = apply_region(fe, self.op.regions[0], [*spread, *texts], lanes)
        self.write_carries([b.extract(e, t, lanes, lanes - 1) for e, t in zip(self.elements, texts, strict=True)], 1)
        if self.reverse and lanes > 1:
            texts = [self.permute(e, t, range(lanes - 1, -1, -1)) for e, t in zip(self.elements, texts, strict=True)]
        self.store(texts)

    def permute(self, element: str, text: str, picks: object) -> str:
        type = vector(element, self.lanes)
        indices = ", ".join(f"i32 {i}" for i in picks)  # type: ignore[attr-defined]
        return self.b.value(f"shufflevector {type} {text}, {type} poison, <{self.lanes} x i32> <{indices}>")

    def read_carries(self, lanes: int) -> list[str]:
        return [
            self.b.value(f"load {vector(e, lanes)}, ptr {s}") for e, s in zip(self.elements, self.carries, strict=True)
        ]

    def write_carries(self, texts: list[str], lanes: int) -> None:
        for element, text, slot in zip(self.elements, texts, self.carries, strict=True):
            self.b.emit(f"store {vector(element, lanes)} {text}, ptr {slot}")
