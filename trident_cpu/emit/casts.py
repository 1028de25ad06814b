"""Conversions between element types, on values that already are LLVM scalars or vectors."""

from __future__ import annotations

from dataclasses import dataclass

from trident_cpu.emit.builder import Builder
from trident_cpu.emit.types import float_literal, llvm, size, vector


@dataclass(frozen=True)
class Float8:
    """Mantissa bits, exponent bias, largest finite code; whether it has infinities (e5m2) or NaN only at -0 (FNUZ)."""

    mantissa: int
    bias: int
    largest: int
    infinities: bool = False
    nan_is_negative_zero: bool = False


FLOAT8 = {
    "f8E5M2": Float8(2, 15, 0x7B, infinities=True),
    "f8E4M3FN": Float8(3, 7, 0x7E),
    "f8E5M2FNUZ": Float8(2, 16, 0x7F, nan_is_negative_zero=True),
    "f8E4M3FNUZ": Float8(3, 8, 0x7F, nan_is_negative_zero=True),
}


class Casts:
    """Emits into `b` at a fixed number of lanes. `native_bf16`: the CPU has AVX512-BF16."""

    def __init__(self, b: Builder, lanes: int, native_bf16: bool = False) -> None:
        self.b, self.lanes = b, lanes
        self.native_bf16 = native_bf16 and lanes == 32

    def op(self, name: str, value: str, source: str, target: str) -> str:
        return self.b.value(f"{name} {vector(source, self.lanes)} {value} to {vector(target, self.lanes)}")

    def ints(self, name: str, element: str, a: str, b: str | int) -> str:
        other = self.b.splat(element, str(b), self.lanes) if isinstance(b, int) else b
        return self.b.value(f"{name} {vector(element, self.lanes)} {a}, {other}")

    def select(self, mask: str, element: str, yes: str | int, no: str | int) -> str:
        yes, no = (self.b.splat(element, str(x), self.lanes) if isinstance(x, int) else x for x in (yes, no))
        type = vector(element, self.lanes)
        return self.b.value(f"select {vector('i1', self.lanes)} {mask}, {type} {yes}, {type} {no}")

    # ---- floats

    def float_to_float(self, value: str, source: str, target: str) -> str:
        """Round to nearest even; exact where the target is wider."""
        if source == target:
            return value
        if source in FLOAT8:
            return self.float_to_float(self.decode8(value, FLOAT8[source]), "f32", target)
        if target in FLOAT8:
            return self.encode8(self.to_f32_odd(value, source), FLOAT8[target])
        if source == "bf16":
            return self.float_to_float(self.bf16_to_f32(value), "f32", target)
        if target == "bf16":
            return self.f32_to_bf16(self.to_f32_odd(value, source))
        if source == "f64" and target == "f16":  # in two steps; the first to odd, so the second rounds once
            return self.op("fptrunc", self.to_f32_odd(value, source), "f32", "f16")
        return self.op("fpext" if size(target) > size(source) else "fptrunc", value, source, target)

    def to_f32_odd(self, value: str, source: str) -> str:
        """f64 -> f32 rounded to odd, from which any narrower type rounds correctly; other types widen exactly."""
        if source != "f64":
            return self.float_to_float(value, source, "f32")
        near = self.op("fptrunc", value, "f64", "f32")
        back = self.op("fpext", near, "f32", "f64")
        type = vector("f64", self.lanes)
        inexact = self.b.value(f"fcmp one {type} {back}, {value}")
        size_near = self.b.call("fabs", type, (type, back))
        size_value = self.b.call("fabs", type, (type, value))
        above = self.b.value(f"fcmp ogt {type} {size_near}, {size_value}")
        bits = self.op("bitcast", near, "f32", "i32")
        bits = self.ints("sub", "i32", bits, self.op("zext", above, "i1", "i32"))
        bits = self.ints("or", "i32", bits, self.op("zext", inexact, "i1", "i32"))
        return self.op("bitcast", bits, "i32", "f32")

    def bf16_to_f32(self, value: str) -> str:
        bits = self.ints("shl", "i32", self.op("zext", value, "i16", "i32"), 16)
        return self.op("bitcast", bits, "i32", "f32")

    def f32_to_bf16(self, value: str) -> str:
        """By the CPU's own instruction, which flushes denormals: where there are any, in integers."""
        if not self.native_bf16:
            return self.rounded_to_bf16(value)
        b, kind = self.b, "<32 x i16>"
        halves = [b.shuffle("f32", value, 32, range(start, start + 16)) for start in (0, 16)]
        denormal = [
            b.call("x86.avx512.fpclass.ps.512", "<16 x i1>", ("<16 x float>", half), ("i32", "32"), suffix="")
            for half in halves
        ]
        some = b.value(f"or <16 x i1> {denormal[0]}, {denormal[1]}")
        slot = b.alloca(kind)

        def rare() -> None:
            b.emit(f"store {kind} {self.rounded_to_bf16(value)}, ptr {slot}")

        def usual() -> None:
            name, operands = "x86.avx512bf16.cvtne2ps2bf16.512", [("<16 x float>", half) for half in reversed(halves)]
            near = b.call(name, "<32 x bfloat>", *operands, suffix="")
            b.emit(f"store <32 x bfloat> {near}, ptr {slot}")

        b.when(b.value(f"icmp ne i16 {b.value(f'bitcast <16 x i1> {some} to i16')}, 0"), rare, usual)
        return b.value(f"load {kind}, ptr {slot}")

    def rounded_to_bf16(self, value: str) -> str:
        """To nearest even in integers."""
        bits = self.op("bitcast", value, "f32", "i32")
        odd = self.ints("and", "i32", self.ints("lshr", "i32", bits, 16), 1)
        rounded = self.ints("add", "i32", self.ints("add", "i32", bits, 0x7FFF), odd)
        nan = self.b.value(f"fcmp uno {vector('f32', self.lanes)} {value}, {value}")
        quiet = self.ints("or", "i32", bits, 0x400000)
        high = self.ints("lshr", "i32", self.select(nan, "i32", quiet, rounded), 16)
        return self.op("trunc", high, "i32", "i16")

    def decode8(self, value: str, format: Float8) -> str:
        """An 8-bit float as f32: its bits moved under f32's exponent, then scaled by the difference of the biases."""
        b, type = self.b, vector("f32", self.lanes)
        wide = self.op("zext", value, "i8", "i32")
        low = self.ints("and", "i32", wide, 0x7F)
        magnitude = self.op("bitcast", self.ints("shl", "i32", low, 23 - format.mantissa), "i32", "f32")
        scale = b.splat("f32", float_literal(2.0 ** (127 - format.bias), "f32"), self.lanes)
        magnitude = b.value(f"fmul {type} {magnitude}, {scale}")
        bits = self.op("bitcast", magnitude, "f32", "i32")
        if format.nan_is_negative_zero:
            nan = self.ints("icmp eq", "i32", wide, 0x80)
        else:
            nan = self.ints("icmp ugt", "i32", low, format.largest + (1 if format.infinities else 0))
        if format.infinities:
            infinite = self.ints("icmp eq", "i32", low, format.largest + 1)
            bits = self.select(infinite, "i32", 0x7F800000, bits)
        bits = self.select(nan, "i32", 0x7FC00000, bits)
        sign = self.ints("shl", "i32", self.ints("and", "i32", wide, 0x80), 24)
        return self.op("bitcast", self.ints("or", "i32", bits, sign), "i32", "f32")

    def encode8(self, value: str, format: Float8) -> str:
        """f32 -> 8 bits, to nearest even, saturating at the largest finite value as the GPU instruction does."""
        b, type, m = self.b, vector("f32", self.lanes), format.mantissa
        bits = self.op("bitcast", value, "f32", "i32")
        low = self.ints("and", "i32", bits, 0x7FFFFFFF)
        magnitude = self.op("bitcast", low, "i32", "f32")
        odd = self.ints("and", "i32", self.ints("lshr", "i32", low, 23 - m), 1)
        rounded = self.ints("add", "i32", self.ints("add", "i32", low, (1 << (22 - m)) - 1), odd)
        normal = self.ints("sub", "i32", self.ints("lshr", "i32", rounded, 23 - m), (127 - format.bias) << m)
        magic = 2.0 ** (24 - format.bias - m)  # its last place is the smallest denormal
        literal = b.splat("f32", float_literal(magic, "f32"), self.lanes)
        denormal = self.op("bitcast", b.value(f"fadd {type} {magnitude}, {literal}"), "f32", "i32")
        denormal = self.ints("sub", "i32", denormal, self.op("bitcast", literal, "f32", "i32"))
        small = self.ints("icmp ult", "i32", low, (128 - format.bias) << 23)
        code = self.select(small, "i32", denormal, normal)
        code = self.select(self.ints("icmp ugt", "i32", code, format.largest), "i32", format.largest, code)
        sign = self.ints("and", "i32", self.ints("lshr", "i32", bits, 24), 0x80)
        nan = self.ints("icmp ugt", "i32", low, 0x7F800000)
        if format.nan_is_negative_zero:
            sign = self.select(self.ints("icmp eq", "i32", code, 0), "i32", 0, sign)
            code = self.select(nan, "i32", 0x80, self.ints("or", "i32", code, sign))
        else:
            code = self.ints("or", "i32", self.select(nan, "i32", 0x7F, code), sign)
        return self.op("trunc", code, "i32", "i8")

    # ---- integers

    def int_to_float(self, name: str, value: str, source: str, target: str) -> str:
        if target in ("bf16", "f16") or target in FLOAT8:
            wide = "f64" if size(source) >= 4 else "f32"  # both hold every source of their row exactly, or round to odd
            if size(source) == 8:
                return self.float_to_float(self.wide_int_to_f32(name, value, source), "f32", target)
            return self.float_to_float(self.int_to_float(name, value, source, wide), wide, target)
        return self.op(name, value, source, target)

    def wide_int_to_f32(self, name: str, value: str, source: str) -> str:
        return self.op(name, value, source, "f32")

    def float_to_int(self, name: str, value: str, source: str, target: str) -> str:
        """Truncate. Out of range gives what two's complement truncation of a wider result gives, never poison."""
        if source in ("bf16", "f16"):
            value, source = self.float_to_float(value, source, "f32"), "f32"
        if target == "i1":
            zero = self.b.splat(source, float_literal(0.0, source), self.lanes)
            return self.b.value(f"fcmp une {vector(source, self.lanes)} {value}, {zero}")
        if size(target) < 4:
            return self.op("trunc", self.op("fptosi", value, source, "i32"), "i32", target)
        if name == "fptoui" and target == "i32":
            return self.op("trunc", self.op("fptosi", value, source, "i64"), "i64", "i32")
        return self.op(name, value, source, target)

    def int_to_int(self, name: str, value: str, source: str, target: str) -> str:
        return value if llvm(source) == llvm(target) else self.op(name, value, source, target)
