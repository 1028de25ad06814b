"""Stores that go past the cache, for results larger than it.

An ordinary store first reads the line it will overwrite: a third of the traffic of a pointwise kernel. Where the
launch says that what it writes will not stay in the cache anyway (bit 0 of the flags after the kernel's arguments, see
`trident_cpu.binder`), a whole, aligned vector is written directly. Kernels that synchronise through memory keep to
ordinary stores, whose order the processor guarantees.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trident_cpu.emit.types import size, stored
from trident_cpu.ir import Module

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

_LEAST_BYTES = 1024  # of a tile, for the second copy of the store to be worth its code
_HINT = "!nontemporal !0"


def may_stream(module: Module) -> bool:
    """No atomics and no barriers anywhere."""
    names = {op.name for function in module.functions.values() for op in function.body.walk()}
    return not any("atomic" in name or "barrier" in name for name in names)


def store_vector(fe: FunctionEmitter, text: str, address: str, element: str, lanes: int, tile_bytes: int) -> None:
    """An unmasked store of `lanes` elements to consecutive addresses."""
    b, kind, align = fe.b, f"<{lanes} x {stored(element)}>", size(element)
    usual = f"store {kind} {text}, ptr {address}, align {align}"
    width = lanes * align
    if not fe.state.streams or tile_bytes < _LEAST_BYTES or width < 16:
        b.emit(usual)
        return
    fe.globals.add("!0 = !{i32 1}")
    low = b.value(f"and i64 {b.value(f'ptrtoint ptr {address} to i64')}, {width - 1}")
    aligned = b.value(f"icmp eq i64 {low}, 0")
    b.when(
        b.value(f"and i1 %stream, {aligned}"),
        lambda: b.emit(f"store {kind} {text}, ptr {address}, align {width}, {_HINT}"),
        lambda: b.emit(usual),
    )
