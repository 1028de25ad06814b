"""Accesses of one nest that may touch each other's memory: checked as the nest starts, and led round where they do.

A nest alternates its loads and stores vector by vector; Triton's order is tile by tile. Where two of them might meet,
a load reads a copy of its tile, made before the nest; a store writes to a buffer, which is stored when the nest ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trident_cpu.analysis.aliasing import same_address
from trident_cpu.emit.buffers import View, dense_strides
from trident_cpu.emit.extent import Extents, element_address, one_place_each
from trident_cpu.emit.memory import Access
from trident_cpu.emit.values import Context, Val, evaluate, store_view, view_address
from trident_cpu.ir import Op, Value
from trident_cpu.plan import Nest

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter


@dataclass
class Detour:
    """An access that goes to `view` where `meets` (an i1) holds. `base` is its row's first element, `stride` in
    elements; None for a store whose own addresses are no row of elements, which branches at each vector."""

    op: Op
    meets: str
    view: View
    stride: int | None
    base: str = ""


class Detours:
    def __init__(
        self,
        fe: FunctionEmitter,
        nest: Nest,
        vector_dim: int,
        lanes: int,
        emit_nest: Callable[[FunctionEmitter, Nest, bool], None],
    ) -> None:
        self.fe, self.b, self.nest, self.vector_dim, self.lanes = fe, fe.b, nest, vector_dim, lanes
        self.emit_nest = emit_nest
        self.row = Context(nest.shape, ["0"] * len(nest.shape), vector_dim, lanes)
        self.found: dict[Op, Detour] = {}
        for at, op in enumerate(nest.members):
            others = nest.members[at + 1 :] if op.name == "tt.load" else nest.members[:at]
            if op.name in ("tt.load", "tt.store"):
                self.find(op, [other for other in others if other.name == "tt.store"])

    def find(self, op: Op, stores: list[Op]) -> None:
        """A load against the stores after it, a store against those before it."""
        stores = [store for store in stores if not self.fe.aliasing.is_safe(op, store)]
        if not stores:
            return
        fe, shape, is_load = self.fe, self.nest.shape, op.name == "tt.load"
        pointer = evaluate(fe, op.operands[0], self.row.identity, self.row)
        in_line = dense_strides(shape)[self.vector_dim] == 1
        stride = 1 if pointer.stride == 1 and in_line else 0 if pointer.is_uniform and is_load else None
        meets = "true" if is_load and stride is None else self.meets(op, stores)
        value = op.results[0] if is_load else op.operands[1]
        detour = Detour(op, meets, fe.arena.new(value.type.element, shape), stride)
        self.found[op] = detour
        if is_load:
            copied = Value("copied", value.type)
            fe.views[copied] = detour.view
            self.copy(detour, Nest(shape, [op], [(copied, value)]))
            fe.arena.touch(detour.view.buffer)

    def meets(self, op: Op, stores: list[Op]) -> str:
        """i1: might the op touch what one of the stores writes, other than at the same element?"""
        apart = [self.apart(op, store) for store in stores]
        known = [text for text in apart if text is not None]
        if len(known) < len(apart) or self.fe.state.sanitize:  # the sanitizer checks the accesses of the copy
            return "true"
        together = known[0]
        for text in known[1:]:
            together = self.b.value(f"and i1 {together}, {text}")
        return self.b.value(f"xor i1 {together}, true")

    def apart(self, op: Op, store: Op) -> str | None:
        """i1: no common byte, or every element has its own place, the same for both. None: unknown."""
        fe, b = self.fe, self.b
        mine, theirs = op.operands[0], store.operands[0]
        a, c = fe.aliasing.parameters(op, store)
        single = one_place_each(fe, mine) if same_address(mine, theirs, (a, c)) else None
        if a is c:
            return single
        disjoint = Extents(fe).disjoint(mine, theirs)
        if single is None or disjoint is None:
            return disjoint
        equal = b.value(f"and i1 {single}, {b.value(f'icmp eq ptr {fe.scalar(a)}, {fe.scalar(c)}')}")
        return b.value(f"or i1 {disjoint}, {equal}")

    # ---- as the nest runs

    def start_row(self, row: Context) -> None:
        """Where each detoured access has the first element of its row."""
        for detour in self.found.values():
            if detour.meets != "true" and detour.stride is None:
                continue
            copied, stride = view_address(self.fe, detour.view, row.identity, row)
            if detour.meets == "true":
                detour.base, detour.stride = copied, stride
            else:
                original = evaluate(self.fe, detour.op.operands[0], row.identity, row).text
                detour.base = self.b.value(f"select i1 {detour.meets}, ptr {copied}, ptr {original}")

    def at(self, index: list[str]) -> dict[Op, Val]:
        """Addresses in place of the accesses' own, for the vector at `index`."""
        found = {}
        for op, detour in self.found.items():
            if detour.stride is None or (op.name == "tt.store" and detour.meets == "true"):
                continue
            text = element_address(self.fe, detour.base, detour.view.element, index[self.vector_dim], detour.stride)
            self.fe.arena.touch(detour.view.buffer)
            is_vector = detour.stride and self.lanes > 1
            element = op.operands[0].type.element
            found[op] = Val("affine", element, text, detour.stride) if is_vector else Val("uniform", element, text)
        return found

    def store(self, op: Op, access: Access) -> None:
        detour, ctx = self.found.get(op), access.ctx
        if detour is None or op in ctx.detours:
            access.store(op)
            return

        def aside() -> None:
            store_view(self.fe, detour.view, ctx.identity, ctx, value)

        _, value, *_ = access.operands(op)  # before the branch: both of its sides, and those after it, use them
        if detour.meets == "true":
            aside()
        else:
            self.b.when(detour.meets, aside, lambda: access.store(op))

    def finish(self) -> None:
        """After the nest: what was written aside goes to its place, in order."""
        for op, detour in self.found.items():
            if op.name == "tt.store":
                address, value, *mask = op.operands
                written = Value("written", value.type)
                self.fe.views[written] = detour.view
                store = Op("tt.store", [address, written, *mask], op.attrs, op.loc)
                self.copy(detour, Nest(self.nest.shape, [store]))

    def copy(self, detour: Detour, nest: Nest) -> None:
        """Where it is the exception a copy should cost little code."""
        brief = detour.meets != "true"
        self.b.when(detour.meets, lambda: self.emit_nest(self.fe, nest, brief))
