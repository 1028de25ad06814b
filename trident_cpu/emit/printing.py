"""tl.device_print: one line of C's printf for each element, as on a GPU.

    pid (0, 1, 0) idx (3, 17) value: 2.500000 (operand 1)

The message's `operand` is left out where there is one only. C's buffer is flushed after each op, so that lines stand
in order with what Python prints flushed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from trident_cpu.emit.nest import for_each_vector
from trident_cpu.emit.types import FLOATS, llvm, size
from trident_cpu.emit.values import Context, evaluate, lanes_of
from trident_cpu.ir import Op, Value

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

_PIDS = "i32 %pid.x, i32 %pid.y, i32 %pid.z"


def emit_print(fe: FunctionEmitter, op: Op) -> None:
    fe.b.declares |= {"declare i32 @printf(ptr, ...)", "declare i32 @fflush(ptr)"}
    signs = op.attrs.get("isSigned", ())
    for at, value in enumerate(op.operands):
        suffix = f" (operand {at})" if len(op.operands) > 1 else ""
        _print_value(fe, op, value, bool(signs[at]), suffix)
    if not op.operands:
        _line(fe, f"pid (%d, %d, %d){_message(op)}", [])
    fe.b.emit("call i32 @fflush(ptr null)")


def _print_value(fe: FunctionEmitter, op: Op, value: Value, signed: bool, suffix: str) -> None:
    element, rank = value.type.element, len(value.type.shape) if value.type.is_tile else 0
    hexadecimal = bool(op.attrs.get("hex"))
    code = _code(element, signed, hexadecimal)
    index = f" idx ({', '.join(['%lld'] * rank)})" if rank else ""
    text = f"pid (%d, %d, %d){index}{_message(op)}{code}{suffix}"
    if not rank:
        _line(fe, text, [_argument(fe, fe.scalar(value), element, signed, hexadecimal)])
        return

    def body(ctx: Context) -> None:
        lanes = ctx.lanes
        vector = lanes_of(fe, evaluate(fe, value, ctx.identity, ctx), lanes)
        for lane in range(lanes):
            places = list(ctx.index)
            places[ctx.vector_dim] = fe.b.add(places[ctx.vector_dim], str(lane))
            item = fe.b.extract(element, vector, lanes, lane)
            _line(fe, text, [f"i64 {place}" for place in places] + [_argument(fe, item, element, signed, hexadecimal)])

    for_each_vector(fe, value.type.shape, element, body)


def _message(op: Op) -> str:
    return op.attrs["message"].replace("%", "%%")


def _line(fe: FunctionEmitter, text: str, arguments: list[str]) -> None:
    fe.b.emit(f"call i32 (ptr, ...) @printf({', '.join([f'ptr {_string(fe, text)}', _PIDS, *arguments])})")


def _string(fe: FunctionEmitter, text: str) -> str:
    """A global C string. MLIR's escapes (a backslash and two hexadecimal digits) are LLVM's as well."""
    body, length = text + r"\0A\00", len(text) + 2 - 2 * text.count("\\")
    name = f"@tc.text.{hashlib.sha256(text.encode()).hexdigest()[:16]}"
    fe.globals.add(f'{name} = internal constant [{length} x i8] c"{body}"')
    return name


def _code(element: str, signed: bool, hexadecimal: bool) -> str:
    if element.startswith("ptr:"):
        return "%p"
    if element in FLOATS or element.startswith("f8"):
        return "%f"
    if hexadecimal:
        return f"0x%0{2 * size(element)}llx"
    return "%lld" if signed else "%llu"


def _argument(fe: FunctionEmitter, text: str, element: str, signed: bool, hexadecimal: bool) -> str:
    """A printf argument: varargs are pointers, doubles or (here) i64."""
    if element.startswith("ptr:"):
        return f"ptr {text}"
    if element in FLOATS or element.startswith("f8"):
        return f"double {fe.pointwise(1).casts.float_to_float(text, element, 'f64')}"
    if llvm(element) == "i64":
        return f"i64 {text}"
    extend = "sext" if signed and element != "i1" and not hexadecimal else "zext"
    return f"i64 {fe.b.value(f'{extend} {llvm(element)} {text} to i64')}"
