"""Stores that go past the cache, for results larger than it.

An ordinary store first reads the line it will overwrite: a third of the traffic of a pointwise kernel. Where the
launch says that what it writes will not stay in the cache anyway (bit 0 of the flags after the kernel's arguments, see
`trident_cpu.binder`), or the kernel does (`tl.store(..., cache_modifier=".cs")`), whole rows of aligned vectors are
written directly, by a copy of their loop. Kernels that synchronise through memory keep to ordinary stores, whose order
the processor guarantees.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

from trident_cpu.emit.types import size, stored
from trident_cpu.ir import Module, Op

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

_STREAMING = re.compile(r"cache(?:_m|M)odifier = cs\b")  # Triton 3.9's spelling and 3.6's
_LEAST_BYTES = 1024  # of a tile, for the second copy of its loop to be worth the code


def may_stream(module: Module) -> bool:
    """No atomics and no barriers anywhere."""
    names = {op.name for function in module.functions.values() for op in function.body.walk()}
    return not any("atomic" in name or "barrier" in name for name in names)


def streamable(fe: FunctionEmitter, element: str, shape: tuple[int, ...]) -> bool:
    """Is a tile of results large enough?"""
    return fe.state.streams and prod(shape) * size(element) >= _LEAST_BYTES


def streams_always(op: Op) -> bool:
    """Does the kernel ask for it, whatever the launch says?"""
    return op.name == "tt.store" and _STREAMING.search(op.attrs.get("text", "")) is not None


def may_start(fe: FunctionEmitter, addresses: Sequence[tuple[str, str]], lanes: int, asked: bool) -> str:
    """i1: the launch wants streaming, or it is asked for, and rows of whole vectors that start at these (address,
    element) are aligned."""
    b, wanted = fe.b, "true" if asked else "%stream"
    for address, element in addresses:
        low = b.value(f"and i64 {b.value(f'ptrtoint ptr {address} to i64')}, {_alignment(element, lanes) - 1}")
        wanted = b.value(f"and i1 {wanted}, {b.value(f'icmp eq i64 {low}, 0')}")
    return wanted


def store_vector(fe: FunctionEmitter, text: str, address: str, element: str, lanes: int, streaming: bool) -> None:
    """An unmasked store of `lanes` elements to consecutive addresses; `streaming`: aligned, and past the cache."""
    kind, align, hint = f"<{lanes} x {stored(element)}>", size(element), ""
    if streaming:
        fe.globals.add("!0 = !{i32 1}")
        align, hint = _alignment(element, lanes), ", !nontemporal !0"
    fe.b.emit(f"store {kind} {text}, ptr {address}, align {align}{hint}")


def _alignment(element: str, lanes: int) -> int:
    """Of a streamed vector: its own size, or a cache line."""
    return min(64, lanes * size(element))
