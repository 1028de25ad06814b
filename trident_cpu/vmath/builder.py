"""LLVM text of arithmetic on vectors, written as Python arithmetic.

A `Vector` is an SSA value of a function under construction; operators emit instructions. Python numbers stand for
splat constants of the other operand's kind. Nothing here carries a fast-math flag: what is written is computed.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Union

_SCALARS = {"f32": "float", "f64": "double", "i32": "i32", "i64": "i64", "i1": "i1"}
_BITS = {"f32": "i32", "f64": "i64"}
_REGISTER = {"f32": 16, "i32": 16, "f64": 8, "i64": 8}  # lanes of an AVX-512 register

Operand = Union["Vector", float, int]


class Vector:
    """One SSA value; `kind` is its element type."""

    __slots__ = ("builder", "kind", "text")

    def __init__(self, builder: Builder, kind: str, text: str) -> None:
        self.builder, self.kind, self.text = builder, kind, text

    def _binary(self, other: Operand, float_op: str, int_op: str, swap: bool = False) -> Vector:
        left, right = self, self.builder.constant(other, self.kind)
        if swap:
            left, right = right, left
        return self.builder.emit(
            self.kind, f"{float_op if self.kind[0] == 'f' else int_op} {self.builder.type(self.kind)}", left, right
        )

    def __add__(self, other: Operand) -> Vector:
        return self._binary(other, "fadd", "add")

    def __sub__(self, other: Operand) -> Vector:
        return self._binary(other, "fsub", "sub")

    def __mul__(self, other: Operand) -> Vector:
        return self._binary(other, "fmul", "mul")

    def __truediv__(self, other: Operand) -> Vector:
        return self._binary(other, "fdiv", "udiv")

    def __radd__(self, other: Operand) -> Vector:
        return self._binary(other, "fadd", "add", swap=True)

    def __rsub__(self, other: Operand) -> Vector:
        return self._binary(other, "fsub", "sub", swap=True)

    def __rmul__(self, other: Operand) -> Vector:
        return self._binary(other, "fmul", "mul", swap=True)

    def __rtruediv__(self, other: Operand) -> Vector:
        return self._binary(other, "fdiv", "udiv", swap=True)

    def __and__(self, other: Operand) -> Vector:
        return self._binary(other, "", "and")

    def __or__(self, other: Operand) -> Vector:
        return self._binary(other, "", "or")

    def __xor__(self, other: Operand) -> Vector:
        return self._binary(other, "", "xor")

    def __lshift__(self, count: int) -> Vector:
        return self._binary(count, "", "shl")

    def __rshift__(self, count: int) -> Vector:
        """Arithmetic."""
        return self._binary(count, "", "ashr")

    def __neg__(self) -> Vector:
        return self.builder.emit(self.kind, f"fneg {self.builder.type(self.kind)}", self)

    def __abs__(self) -> Vector:
        return self.builder.intrinsic("fabs", self)

    def compare(self, predicate: str, other: Operand) -> Vector:
        """fcmp or icmp by LLVM's predicate; an ordered one is false for NaN."""
        other = self.builder.constant(other, self.kind)
        op = "fcmp" if self.kind[0] == "f" else "icmp"
        return self.builder.emit("i1", f"{op} {predicate} {self.builder.type(self.kind)}", self, other)

    def __lt__(self, other: Operand) -> Vector:
        return self.compare("olt", other)

    def __gt__(self, other: Operand) -> Vector:
        return self.compare("ogt", other)

    def equals(self, other: Operand) -> Vector:
        return self.compare("oeq" if self.kind[0] == "f" else "eq", other)

    def bits(self) -> Vector:
        """The same bits as integers."""
        return self.builder.convert("bitcast", self, _BITS[self.kind])

    def floats(self) -> Vector:
        """The same bits as floats."""
        return self.builder.convert("bitcast", self, {"i32": "f32", "i64": "f64"}[self.kind])

    def to_float(self) -> Vector:
        """Signed integers as floats of the same size."""
        return self.builder.convert("sitofp", self, {"i32": "f32", "i64": "f64"}[self.kind])

    def to(self, kind: str) -> Vector:
        """float32 <-> float64."""
        return self if kind == self.kind else self.builder.convert("fpext" if kind == "f64" else "fptrunc", self, kind)


class Builder:
    """The body of one function on vectors of `width` lanes (1: scalars); declarations go to `intrinsics`.

    `avx512`: the function may use that instruction set where LLVM has no portable word for an instruction.
    """

    def __init__(self, width: int, intrinsics: set[str], avx512: bool = False) -> None:
        self.width, self.intrinsics, self.avx512 = width, intrinsics, avx512
        self.lines: list[str] = []
        self._count = 0
        self._block = "entry"

    def type(self, kind: str) -> str:
        scalar = _SCALARS[kind]
        return scalar if self.width == 1 else f"<{self.width} x {scalar}>"

    def _name(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def emit(self, kind: str, head: str, *operands: Vector) -> Vector:
        name = self._name()
        self.lines.append(f"  {name} = {head} {', '.join(operand.text for operand in operands)}")
        return Vector(self, kind, name)

    def convert(self, op: str, value: Vector, kind: str) -> Vector:
        name = self._name()
        self.lines.append(f"  {name} = {op} {self.type(value.kind)} {value.text} to {self.type(kind)}")
        return Vector(self, kind, name)

    def constant(self, value: Operand, kind: str) -> Vector:
        if isinstance(value, Vector):
            return value
        text = self._literal(value, kind) if kind[0] == "f" else str(int(value))
        return Vector(self, kind, text if self.width == 1 else f"splat ({_SCALARS[kind]} {text})")

    @staticmethod
    def _literal(value: float, kind: str) -> str:
        if kind == "f32":  # LLVM writes a float constant as the double that it is
            value = struct.unpack("<f", struct.pack("<f", value))[0]
        return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"

    def intrinsic(self, name: str, *operands: Vector) -> Vector:
        """llvm.NAME on operands and a result of one type."""
        kind = operands[0].kind
        vector = self.type(kind)
        symbol = f"@llvm.{name}.{'' if self.width == 1 else f'v{self.width}'}{kind}"
        self.intrinsics.add(f"declare {vector} {symbol}({', '.join([vector] * len(operands))})")
        name = self._name()
        self.lines.append(f"  {name} = call {vector} {symbol}({', '.join(f'{vector} {o.text}' for o in operands)})")
        return Vector(self, kind, name)

    def fma(self, a: Operand, b: Operand, c: Operand) -> Vector:
        """a * b + c, rounded once."""
        (kind,) = {value.kind for value in (a, b, c) if isinstance(value, Vector)}
        return self.intrinsic("fma", *(self.constant(value, kind) for value in (a, b, c)))

    def select(self, where: Vector, then: Operand, otherwise: Operand) -> Vector:
        (kind,) = {value.kind for value in (then, otherwise) if isinstance(value, Vector)}
        then, otherwise = self.constant(then, kind), self.constant(otherwise, kind)
        name, vector = self._name(), self.type(kind)
        self.lines.append(
            f"  {name} = select {self.type('i1')} {where.text}, {vector} {then.text}, {vector} {otherwise.text}"
        )
        return Vector(self, kind, name)

    def polynomial(self, coefficients: Sequence[float], x: Vector) -> Vector:
        """Horner's rule with fma; lowest power first."""
        value = self.constant(coefficients[-1], x.kind)
        for coefficient in reversed(coefficients[:-1]):
            value = self.fma(value, x, coefficient)
        return value

    def pairs(self, coefficients: Sequence[float], x: Vector, square: Vector) -> Vector:
        """As `polynomial`, of pairs of coefficients by Horner's rule in x^2: half as long a chain."""
        even = [*coefficients, *[0.0] * (len(coefficients) % 2)]
        pairs = [self.fma(x, high, low) if high else low for low, high in zip(even[::2], even[1::2], strict=True)]
        value = self.constant(pairs[-1], x.kind)
        for pair in reversed(pairs[:-1]):
            value = self.fma(value, square, pair)
        return value

    def scale(self, x: Vector, n: Vector, where: Vector | None = None) -> Vector:
        """x * 2^floor(n), rounded once, by one instruction of AVX-512; 0 where not `where`."""
        kind, lanes = x.kind, _REGISTER[x.kind]
        symbol = f"@llvm.x86.avx512.mask.scalef.p{'s' if kind == 'f32' else 'd'}.512"
        vector = f"<{lanes} x {_SCALARS[kind]}>"
        self.intrinsics.add(f"declare {vector} {symbol}({vector}, {vector}, {vector}, i{lanes}, i32)")

        def scaled(x: str, n: str, where: str | None = None) -> str:
            bits = "-1" if where is None else self._line(f"bitcast <{lanes} x i1> {where} to i{lanes}")
            zero = f"{vector} zeroinitializer"
            return f"call {vector} {symbol}({vector} {x}, {vector} {n}, {zero}, i{lanes} {bits}, i32 4)"

        return self._by_registers(kind, scaled, x, n, *([] if where is None else [where]))

    def look_up(self, table: Sequence[float], places: Vector) -> Vector:
        """table[places % 16] of float32, by one instruction of AVX-512."""
        values = ", ".join(f"float {self._literal(value, 'f32')}" for value in table)
        symbol = "@llvm.x86.avx512.permvar.sf.512"
        self.intrinsics.add(f"declare <16 x float> {symbol}(<16 x float>, <16 x i32>)")
        return self._by_registers(
            "f32", lambda at: f"call <16 x float> {symbol}(<16 x float> <{values}>, <16 x i32> {at})", places
        )

    def _by_registers(self, kind: str, instruction: Callable[..., str], *operands: Vector) -> Vector:
        """An instruction that LLVM knows for 512-bit registers only, on operands cut into, or filled up to, those."""
        lanes, starts = _REGISTER[kind], range(0, self.width, _REGISTER[kind])
        parts = [self._line(instruction(*(self._register(o, start, lanes) for o in operands))) for start in starts]
        while len(parts) > 1:
            pairs = zip(parts[::2], parts[1::2], strict=True)
            parts = [self._shuffle(kind, lanes, range(2 * lanes), low, high) for low, high in pairs]
            lanes *= 2
        if self.width == 1:
            return Vector(self, kind, self._line(f"extractelement <{lanes} x {_SCALARS[kind]}> {parts[0]}, i32 0"))
        return Vector(self, kind, self._shuffle(kind, lanes, range(self.width), parts[0]))

    def _register(self, x: Vector, start: int, lanes: int) -> str:
        """Lanes from `start` on as one register; what is past the last of them repeats it."""
        text = x.text
        if self.width == 1:
            return self._line(f"insertelement <{lanes} x {_SCALARS[x.kind]}> poison, {self.type(x.kind)} {text}, i32 0")
        picks = [min(lane, self.width - 1) for lane in range(start, start + lanes)]
        return self._shuffle(x.kind, self.width, picks, text)

    def _shuffle(self, kind: str, width: int, picks: Iterable[int], low: str, high: str = "poison") -> str:
        picks, vector = list(picks), f"<{width} x {_SCALARS[kind]}>"
        if picks == list(range(width)):
            return low
        lanes = ", ".join(f"i32 {lane}" for lane in picks)
        return self._line(f"shufflevector {vector} {low}, {vector} {high}, <{len(picks)} x i32> <{lanes}>")

    def _line(self, text: str) -> str:
        name = self._name()
        self.lines.append(f"  {name} = {text}")
        return name

    def copysign(self, size: Vector, sign: Vector) -> Vector:
        return self.intrinsic("copysign", size, sign)

    def at_most(self, x: Vector, limit: float) -> Vector:
        """min(x, limit); NaN stays NaN."""
        return self.select(x > limit, limit, x)

    def at_least(self, x: Vector, limit: float) -> Vector:
        """max(x, limit); NaN stays NaN."""
        return self.select(x < limit, limit, x)

    # -- lane by lane, through the C library

    def libm(self, name: str, *operands: Vector) -> Vector:
        """The C library's double function on each lane; float32 operands are widened and the result rounded."""
        kind = operands[0].kind
        wide = [operand.to("f64") for operand in operands]
        self.intrinsics.add(f"declare double @{name}({', '.join(['double'] * len(wide))})")
        if self.width == 1:
            return self._call(name, [operand.text for operand in wide]).to(kind)
        result = "poison"
        vector = self.type("f64")
        for lane in range(self.width):
            scalars = []
            for operand in wide:
                scalar = self._name()
                self.lines.append(f"  {scalar} = extractelement {vector} {operand.text}, i32 {lane}")
                scalars.append(scalar)
            value, joined = self._call(name, scalars), self._name()
            self.lines.append(f"  {joined} = insertelement {vector} {result}, double {value.text}, i32 {lane}")
            result = joined
        return Vector(self, "f64", result).to(kind)

    def _call(self, name: str, scalars: Iterable[str]) -> Vector:
        value = self._name()
        self.lines.append(f"  {value} = call double @{name}({', '.join(f'double {s}' for s in scalars)})")
        return Vector(self, "f64", value)

    def libm_where(self, where: Vector, name: str, x: Vector, usual: Vector) -> Vector:
        """`usual`, but the C library's result in the (rare) lanes of `where`; jumps over it when there are none."""
        any_lane = where.text
        if self.width > 1:
            any_lane = self._name()
            reduce = f"@llvm.vector.reduce.or.v{self.width}i1"
            self.intrinsics.add(f"declare i1 {reduce}({self.type('i1')})")
            self.lines.append(f"  {any_lane} = call i1 {reduce}({self.type('i1')} {where.text})")
        rare, join, before = f"rare{self._count}", f"join{self._count}", self._block
        self.lines += [f"  br i1 {any_lane}, label %{rare}, label %{join}", f"{rare}:"]
        slow = self.select(where, self.libm(name, x), usual)
        self.lines += [f"  br label %{join}", f"{join}:"]
        self._block = join
        merged = self._name()
        self.lines.append(f"  {merged} = phi {self.type(x.kind)} [ {usual.text}, %{before} ], [ {slow.text}, %{rare} ]")
        return Vector(self, x.kind, merged)
