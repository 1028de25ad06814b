"""A dense tile set to one value."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from trident_cpu.emit.buffers import View
from trident_cpu.emit.types import size, stored

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter


def fill_view(fe: FunctionEmitter, view: View, text: str) -> None:
    """`text`: a literal or scalar of the view's element; a bool as "true" or "false"."""
    b, count = fe.b, prod(view.shape)
    element = "i8" if view.element == "i1" else view.element
    text = {"true": "1", "false": "0"}.get(text, text) if view.element == "i1" else text
    lanes = min(count, fe.lanes)
    fe.arena.touch(view.buffer)
    kind = stored(element) if lanes == 1 else f"<{lanes} x {stored(element)}>"
    value = b.splat(element, text, lanes)

    def put(i: str) -> None:
        place = b.value(f"getelementptr inbounds {stored(element)}, ptr {view.buffer.name}, i64 {i}")
        b.emit(f"store {kind} {value}, ptr {place}, align {size(element)}")

    if count // lanes <= 8:
        for i in range(0, count, lanes):
            put(str(i))
    else:
        b.loop("0", str(count), lanes, put)
    fe.arena.touch(view.buffer)
