"""Ops that stand alone between nests, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trident_cpu.emit import control, dot, effects, gather, layout, scan
from trident_cpu.emit.memory import Access
from trident_cpu.emit.printing import emit_print
from trident_cpu.emit.values import scalar_context
from trident_cpu.errors import UnsupportedOp
from trident_cpu.ir import Op

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter


def scalar_load(fe: FunctionEmitter, op: Op) -> None:
    fe.scalars[op.results[0]] = Access(fe, scalar_context()).load(op).text


def scalar_store(fe: FunctionEmitter, op: Op) -> None:
    Access(fe, scalar_context()).store(op)


def scalar_atomic(fe: FunctionEmitter, op: Op) -> None:
    fe.scalars[op.results[0]] = Access(fe, scalar_context()).atomic(op).text


TABLE: dict[str, Callable[[FunctionEmitter, Op], None]] = {
    "tt.load": scalar_load,
    "tt.store": scalar_store,
    "tt.atomic_rmw": scalar_atomic,
    "tt.atomic_cas": scalar_atomic,
    "scf.for": control.emit_for,
    "scf.if": control.emit_if,
    "scf.while": control.emit_while,
    "tt.call": control.emit_call,
    "tt.dot": dot.emit_dot,
    "tt.scan": scan.emit_scan,
    "tt.reshape": layout.emit_reshape,
    "tt.split": layout.emit_split,
    "tt.join": layout.emit_join,
    "tt.cat": layout.emit_cat,
    "tt.gather": gather.emit_gather,
    "tt.histogram": layout.emit_histogram,
    "tt.unsplat": layout.emit_unsplat,
    "tt.assert": effects.emit_assert,
    "tt.print": emit_print,
    "llvm.intr.assume": effects.nothing,
    "gpu.barrier": effects.nothing,
    "ttg.barrier": effects.nothing,
}


def emit_single(fe: FunctionEmitter, op: Op) -> None:
    emit = TABLE.get(op.name)
    if emit is None:
        raise UnsupportedOp(op.name, "no code for this op", fe.where(op))
    emit(fe, op)
