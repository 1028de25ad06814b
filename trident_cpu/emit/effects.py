"""Assertions. A failed assertion is recorded in the fault report; the first one wins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trident_cpu.emit.nest import for_each_vector
from trident_cpu.emit.values import Context, evaluate, lanes_of
from trident_cpu.ir import Op

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter


def nothing(fe: FunctionEmitter, op: Op) -> None:
    """Barriers order the threads of one program: here a program is one thread. Assumptions are not used."""


def emit_assert(fe: FunctionEmitter, op: Op) -> None:
    condition = op.operands[0]
    fault = fe.new_fault("assert", fe.where(op), op.attrs["message"])
    if not condition.type.is_tile:
        failed = fe.b.value(f"xor i1 {fe.scalar(condition)}, true")
        fe.b.when(failed, lambda: fe.report(fault, "null"))
        return

    def body(ctx: Context) -> None:
        lanes, b = ctx.lanes, fe.b
        text = lanes_of(fe, evaluate(fe, condition, ctx.identity, ctx), lanes)
        if lanes > 1:
            bits = b.value(f"bitcast <{lanes} x i1> {text} to i{lanes}")
            failed = b.value(f"icmp ne i{lanes} {bits}, -1")
        else:
            failed = b.value(f"xor i1 {text}, true")
        b.when(failed, lambda: fe.report(fault, "null"))

    for_each_vector(fe, condition.type.shape, "i32", body)
