"""Every pointwise op on values that already are LLVM scalars or vectors of `lanes` lanes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trident_cpu import vmath
from trident_cpu.emit.builder import Builder
from trident_cpu.emit.casts import Casts
from trident_cpu.emit.types import FLOATS, float_literal, llvm, size, stored, vector
from trident_cpu.errors import UnsupportedOp

INT_BINARY = {
    "arith.addi": "add", "arith.subi": "sub", "arith.muli": "mul", "arith.andi": "and", "arith.ori": "or",
    "arith.xori": "xor",
}  # fmt: skip
SHIFTS = {"arith.shli": "shl", "arith.shrsi": "ashr", "arith.shrui": "lshr"}
DIVISIONS = {
    "arith.divsi": "sdiv", "arith.divui": "udiv", "arith.remsi": "srem", "arith.remui": "urem",
}  # fmt: skip
FLOAT_BINARY = {
    "arith.addf": "fadd", "arith.subf": "fsub", "arith.mulf": "fmul", "arith.divf": "fdiv", "arith.remf": "frem",
    "tt.precise_divf": "fdiv",
}  # fmt: skip
INTRINSIC = {
    "arith.maxsi": "smax", "arith.minsi": "smin", "arith.maxui": "umax", "arith.minui": "umin",
    "arith.maxnumf": "maxnum", "arith.minnumf": "minnum", "arith.maximumf": "maximum", "arith.minimumf": "minimum",
    "math.sqrt": "sqrt", "tt.precise_sqrt": "sqrt", "math.absf": "fabs", "math.floor": "floor", "math.ceil": "ceil",
    "math.trunc": "trunc", "math.round": "round", "math.roundeven": "roundeven", "math.fma": "fma",
    "math.copysign": "copysign", "math.ctpop": "ctpop",
}  # fmt: skip
CASTS = {
    "arith.extsi": "sext", "arith.extui": "zext", "arith.trunci": "trunc", "arith.sitofp": "sitofp",
    "arith.uitofp": "uitofp", "arith.fptosi": "fptosi", "arith.fptoui": "fptoui",
}  # fmt: skip
# libdevice names without "__nv_" and the trailing f -> the op that computes them
LIBDEVICE = {
    "sqrt": "math.sqrt", "rsqrt": "math.rsqrt", "fabs": "math.absf", "floor": "math.floor",
    "ceil": "math.ceil", "trunc": "math.trunc", "round": "math.round", "rint": "math.roundeven",
    "nearbyint": "math.roundeven", "fma": "math.fma", "copysign": "math.copysign", "fmod": "arith.remf",
    "fast_exp": "math.exp", "fast_log": "math.log", "fast_sin": "math.sin", "fast_cos": "math.cos",
    "fast_tanh": "math.tanh", "fast_pow": "math.powf", "fast_log2": "math.log2", "fast_log10": "math.log10",
    "fast_divide": "arith.divf", "fmax": "arith.maxnumf", "fmin": "arith.minnumf", "div_rn": "arith.divf",
    "sqrt_rn": "math.sqrt", "rsqrt_rn": "math.rsqrt", "fma_rn": "math.fma", "isnan": "math.isnan",
    "isinf": "math.isinf", "finite": "math.isfinite", "isfinited": "math.isfinite", "abs": "math.absi",
    "fast_fdivide": "arith.divf", "popc": "math.ctpop",
    "mul_rn": "arith.mulf", "add_rn": "arith.addf", "sub_rn": "arith.subf",
}  # fmt: skip


@dataclass(frozen=True)
class Call:
    """What a pointwise op is asked: operand elements, result element, attributes, and where it stands (for errors)."""

    name: str
    elements: tuple[str, ...]
    out: str
    attrs: dict[str, Any]
    where: str = ""


# An attribute of a maximum or minimum: which of the zeros 0 and -0 it gives does not matter (half the instructions).
EITHER_ZERO = "either zero"


class Pointwise:
    """Emits into `b` at a fixed number of lanes. `contract` allows a*b+c to round once."""

    def __init__(self, b: Builder, lanes: int, contract: bool, native_bf16: bool = False) -> None:
        self.b, self.lanes = b, lanes
        self.casts = Casts(b, lanes, native_bf16)
        self.flags = "contract " if contract else ""

    def __call__(self, call: Call, args: Sequence[str]) -> str:
        name, out = call.name, call.out
        if name in CASTS or name in _CAST_OPS:
            return self.cast(call, args[0])
        if any(e in _NARROW for e in call.elements) and name not in _BITWISE:
            return self.widened(call, args)
        if name in INT_BINARY:
            return self.binary(INT_BINARY[name], out, args)
        if name in FLOAT_BINARY:
            return self.binary(f"{FLOAT_BINARY[name]} {self.flags}".strip(), out, args)
        if name in SHIFTS:
            return self.shift(SHIFTS[name], out, *args)
        if name in DIVISIONS:
            return self.divide(DIVISIONS[name], out, *args)
        if name in INTRINSIC:
            return self.intrinsic(INTRINSIC[name], out, args, "nsz " if call.attrs.get(EITHER_ZERO) else "")
        if name in ("arith.cmpi", "arith.cmpf"):
            compare = "icmp" if name == "arith.cmpi" else "fcmp"
            return self.binary(f"{compare} {call.attrs['words'][0]}", call.elements[0], args)
        if name == "arith.select":
            mask = vector("i1", self.lanes) if call.attrs.get("mask lanes", True) else "i1"
            type = vector(out, self.lanes)
            return self.b.value(f"select {mask} {args[0]}, {type} {args[1]}, {type} {args[2]}")
        special = _SPECIAL.get(name)
        if special is not None:
            return special(self, call, args)
        function = _vmath_name(name)
        if function:
            return self.vmath(function, out, args)
        raise UnsupportedOp(name, "no code for this op", call.where)

    # ---- families

    def binary(self, instruction: str, element: str, args: Sequence[str]) -> str:
        return self.b.value(f"{instruction} {vector(element, self.lanes)} {args[0]}, {args[1]}")

    def intrinsic(self, name: str, element: str, args: Sequence[str], flags: str = "") -> str:
        type = vector(element, self.lanes)
        return self.b.call(name, type, *[(type, a) for a in args], flags=flags)

    def constant(self, element: str, value: float | int) -> str:
        text = float_literal(float(value), element) if element in FLOATS else str(value)
        return self.b.splat(element, text, self.lanes)

    def widened(self, call: Call, args: Sequence[str]) -> str:
        """bf16 always, f16 for functions: compute in f32 and round once."""
        wide = [
            self.casts.float_to_float(a, e, "f32") if e in _NARROW else a
            for a, e in zip(args, call.elements, strict=True)
        ]
        elements = tuple("f32" if e in _NARROW else e for e in call.elements)
        out = "f32" if call.out in _NARROW else call.out
        result = self(Call(call.name, elements, out, call.attrs, call.where), wide)
        return self.casts.float_to_float(result, "f32", call.out) if call.out in _NARROW else result

    def vmath(self, function: str, element: str, args: Sequence[str]) -> str:
        type = vector(element, self.lanes)
        self.b.math.add((function, element, self.lanes))
        passed = ", ".join(f"{type} {a}" for a in args)
        return self.b.value(f"call {type} @tc.{function}.v{self.lanes}{element}({passed})")

    # ---- integers

    def shift(self, instruction: str, element: str, value: str, amount: str) -> str:
        """A shift by the width or more gives 0, or the sign; in LLVM it would be poison."""
        bits = 8 * size(element)
        if _literal(amount) is not None and 0 <= _literal(amount) < bits:  # type: ignore[operator]
            return self.binary(instruction, element, (value, amount))
        if instruction == "ashr":
            most = self.intrinsic("umin", element, (amount, self.constant(element, bits - 1)))
            return self.binary("ashr", element, (value, most))
        inside = self.binary("icmp ult", element, (amount, self.constant(element, bits)))
        shifted = self.binary(instruction, element, (value, self.casts.select(inside, element, amount, 0)))
        return self.casts.select(inside, element, shifted, 0)

    def divide(self, instruction: str, element: str, value: str, divisor: str) -> str:
        """Integer division that never traps: by 0 it is by 1, and the least integer by -1 wraps."""
        known = _literal(divisor)
        if known is not None and known not in (0, -1):
            return self.binary(instruction, element, (value, divisor))
        if self.lanes > 1 and size(element) <= 4 and element != "i1":
            return self.divide_as_float(instruction, element, value, divisor)
        zero = self.binary("icmp eq", element, (divisor, self.constant(element, 0)))
        safe = self.casts.select(zero, element, 1, divisor)
        if instruction[0] == "u":
            return self.binary(instruction, element, (value, safe))
        minus = self.binary("icmp eq", element, (divisor, self.constant(element, -1)))
        safe = self.casts.select(minus, element, 1, safe)
        result = self.binary(instruction, element, (value, safe))
        if instruction == "srem":
            return result
        return self.casts.select(
            minus, element, self.binary("sub", element, (self.constant(element, 0), value)), result
        )

    def divide_as_float(self, instruction: str, element: str, value: str, divisor: str) -> str:
        """Up to 32 bits the truncated f64 quotient is exact, and vectors have no integer division."""
        zero = self.binary("icmp eq", element, (divisor, self.constant(element, 0)))
        divisor = self.casts.select(zero, element, 1, divisor)
        to, back = ("sitofp", "fptosi") if instruction[0] == "s" else ("uitofp", "fptoui")
        a, d = self.casts.op(to, value, element, "f64"), self.casts.op(to, divisor, element, "f64")
        quotient = self.integer_quotient(back, self.binary("fdiv", "f64", (a, d)), element)
        return self.remainder(instruction, element, value, divisor, quotient)

    def divide_by_uniform(self, instruction: str, element: str, value: str, divisor: str) -> str:
        """One scalar divisor for every lane: multiply by its reciprocal, made a little larger.

        With |value|, |divisor| < 2^32 the product exceeds an exact quotient and stays below the next integer.
        """
        scalar = Pointwise(self.b, 1, False)
        zero = scalar.binary("icmp eq", element, (divisor, "0"))
        divisor = scalar.casts.select(zero, element, 1, divisor)
        to, back = ("sitofp", "fptosi") if instruction[0] == "s" else ("uitofp", "fptoui")
        factor = self.b.value(
            f"fdiv double {float_literal(1.0 + 2.0**-50, 'f64')}, {scalar.casts.op(to, divisor, element, 'f64')}"
        )
        product = self.binary(
            "fmul", "f64", (self.casts.op(to, value, element, "f64"), self.b.splat("f64", factor, self.lanes))
        )
        quotient = self.integer_quotient(back, product, element)
        return self.remainder(instruction, element, value, self.b.splat(element, divisor, self.lanes), quotient)

    def integer_quotient(self, instruction: str, value: str, element: str) -> str:
        """f64 -> integer; through i64 at 32 bits so that 2^31 (the least integer by -1) wraps."""
        if element == "i32" and instruction == "fptosi":
            return self.casts.op("fptosi", value, "f64", "i32")
        wide = self.casts.op("fptoui" if instruction == "fptoui" else "fptosi", value, "f64", "i32")
        return self.casts.int_to_int("trunc", wide, "i32", element)

    def remainder(self, instruction: str, element: str, value: str, divisor: str, quotient: str) -> str:
        if instruction[1:] == "div":
            return quotient
        return self.binary("sub", element, (value, self.binary("mul", element, (quotient, divisor))))

    def multiply_high(self, call: Call, args: Sequence[str]) -> str:
        wide, bits = ("i64", 32) if call.out == "i32" else ("i128", 64)
        a, b = (self.casts.op("zext", x, call.out, wide) for x in args)
        product = self.binary("mul", wide, (a, b))
        return self.casts.op("trunc", self.binary("lshr", wide, (product, self.constant(wide, bits))), wide, call.out)

    def flagged(self, call: Call, args: Sequence[str]) -> str:
        """Intrinsics with a trailing `i1 poison on the odd case`: abs, ctlz, cttz."""
        type, name = vector(call.out, self.lanes), {"absi": "abs"}.get(call.name[5:], call.name[5:])
        return self.b.call(name, type, (type, args[0]), ("i1", "false"))

    def rounded_division(self, call: Call, args: Sequence[str]) -> str:
        """ceildiv and floordiv: the truncated quotient, corrected where the remainder points the other way."""
        signed = call.name.endswith("si")
        instruction = "sdiv" if signed else "udiv"
        q = self.divide(instruction, call.out, *args)
        r = self.binary("sub", call.out, (args[0], self.binary("mul", call.out, (q, args[1]))))
        wrong = self.binary("icmp ne", call.out, (r, self.constant(call.out, 0)))
        up = call.name.startswith("arith.ceil")
        if signed:
            signs = self.binary("xor", call.out, (args[0], args[1]))
            side = "sge" if up else "slt"
            same = self.binary(f"icmp {side}", call.out, (signs, self.constant(call.out, 0)))
            wrong = self.binary("and", "i1", (wrong, same))
        step = self.casts.op("zext", wrong, "i1", call.out)
        return self.binary("add" if up else "sub", call.out, (q, step))

    # ---- floats

    def negate(self, call: Call, args: Sequence[str]) -> str:
        return self.b.value(f"fneg {vector(call.out, self.lanes)} {args[0]}")

    def rsqrt(self, call: Call, args: Sequence[str]) -> str:
        return self.binary("fdiv", call.out, (self.constant(call.out, 1.0), self.intrinsic("sqrt", call.out, args)))

    def clamp(self, call: Call, args: Sequence[str]) -> str:
        """min(max(x, low), high). Without propagation a NaN x gives low."""
        keep = call.attrs.get("propagateNan", "none") == "all"
        low = self.intrinsic("maximum" if keep else "maxnum", call.out, args[:2])
        return self.intrinsic("minimum" if keep else "minnum", call.out, (low, args[2]))

    def classify(self, call: Call, args: Sequence[str]) -> str:
        """isnan, isinf, isfinite -> i1."""
        element, type = call.elements[0], vector(call.elements[0], self.lanes)
        if call.name == "math.isnan":
            result = self.b.value(f"fcmp uno {type} {args[0]}, {args[0]}")
        else:
            test = "oeq" if call.name == "math.isinf" else "one"
            absolute = self.intrinsic("fabs", element, args)
            result = self.b.value(f"fcmp {test} {type} {absolute}, {self.constant(element, float('inf'))}")
        return result if call.out == "i1" else self.casts.op("zext", result, "i1", call.out)

    # ---- casts

    def cast(self, call: Call, value: str) -> str:
        name, source, target = call.name, call.elements[0], call.out
        if name in ("arith.extf", "arith.truncf", "tt.fp_to_fp"):
            if call.attrs.get("rounding", "rtne") != "rtne":
                raise UnsupportedOp(name, f"rounding {call.attrs['rounding']}", call.where)
            return self.casts.float_to_float(value, source, target)
        if name in ("arith.sitofp", "arith.uitofp"):
            return self.casts.int_to_float(CASTS[name], value, source, target)
        if name in ("arith.fptosi", "arith.fptoui"):
            return self.casts.float_to_int(CASTS[name], value, source, target)
        if name in CASTS:
            return self.casts.int_to_int(CASTS[name], value, source, target)
        if name in ("arith.index_cast", "arith.index_castui"):
            extend = "sext" if name == "arith.index_cast" else "zext"
            return self.casts.int_to_int(extend if size(target) > size(source) else "trunc", value, source, target)
        if name == "tt.ptr_to_int":
            return self.casts.op("ptrtoint", value, source, target)
        if name == "tt.int_to_ptr":
            return self.casts.op("inttoptr", value, source, target)
        if llvm(source) == llvm(target):  # bitcasts
            return value
        if "i1" in (source, target):
            return self.casts.int_to_int("zext" if source == "i1" else "trunc", value, source, target)
        return self.casts.op("bitcast", value, source, target)

    def add_pointer(self, call: Call, args: Sequence[str]) -> str:
        pointers, offset = vector(call.out, self.lanes), vector(call.elements[1], self.lanes)
        return self.b.value(f"getelementptr {stored(call.out[4:])}, {pointers} {args[0]}, {offset} {args[1]}")

    def external(self, call: Call, args: Sequence[str]) -> str:
        """A libdevice function by its symbol, mapped to the op that computes it."""
        symbol = call.attrs.get("symbol", "")
        base = symbol.removeprefix("__nv_")
        for known in (base, base.removesuffix("f"), base.removesuffix("d")):
            if known in LIBDEVICE:
                return self(Call(LIBDEVICE[known], call.elements, call.out, {}, call.where), args)
            if known in vmath.NAMES and set(call.elements) == {call.out} and call.out in vmath.ELEMENTS:
                return self.vmath(known, call.out, args)
        raise UnsupportedOp(call.name, f"libdevice function {symbol!r} is not mapped", call.where)


_NARROW = frozenset({"bf16", "f16"})
_CAST_OPS = frozenset(
    [
        "arith.extf",
        "arith.truncf",
        "tt.fp_to_fp",
        "arith.index_cast",
        "arith.index_castui",
        "tt.ptr_to_int",
        "tt.int_to_ptr",
        "arith.bitcast",
        "tt.bitcast",
    ]
)
# Ops that need no widening: they move f16 and bf16 without looking inside.
_BITWISE = frozenset({"arith.select", "tt.addptr"})
_SPECIAL: dict[str, Callable[[Pointwise, Call, Sequence[str]], str]] = {
    "tt.mulhiui": Pointwise.multiply_high,
    "math.absi": Pointwise.flagged,
    "math.ctlz": Pointwise.flagged,
    "math.cttz": Pointwise.flagged,
    "arith.ceildivsi": Pointwise.rounded_division,
    "arith.ceildivui": Pointwise.rounded_division,
    "arith.floordivsi": Pointwise.rounded_division,
    "arith.negf": Pointwise.negate,
    "math.rsqrt": Pointwise.rsqrt,
    "tt.clampf": Pointwise.clamp,
    "math.isnan": Pointwise.classify,
    "math.isinf": Pointwise.classify,
    "math.isfinite": Pointwise.classify,
    "tt.addptr": Pointwise.add_pointer,
    "tt.extern_elementwise": Pointwise.external,
}


def _vmath_name(name: str) -> str | None:
    base = {"math.powf": "pow"}.get(name, name.removeprefix("math."))
    return base if name.startswith("math.") and base in vmath.NAMES else None


def _literal(text: str) -> int | None:
    """The integer of a literal, or of a splat of one."""
    if text.startswith("splat ("):
        text = text[7:-1].split()[-1]
    return int(text) if text.lstrip("-").isdigit() else None
