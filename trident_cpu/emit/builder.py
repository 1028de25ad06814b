"""Text of one LLVM function: instructions, labels, loops, allocas, intrinsic declarations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from trident_cpu.emit.types import llvm, mangled, vector


class Builder:
    """`declares` and `math` are shared by the functions of one module."""

    def __init__(self, declares: set[str], math: set[tuple[str, str, int]]) -> None:
        self.lines: list[str] = []
        self.allocas: list[str] = []
        self.declares, self.math = declares, math
        self.count = 0

    # ---- instructions

    def emit(self, text: str) -> None:
        self.lines.append("  " + text)

    def name(self, hint: str = "t") -> str:
        self.count += 1
        return f"%{hint}{self.count}"

    def value(self, text: str) -> str:
        """Emit `%new = text` and return %new."""
        self.count += 1
        name = f"%t{self.count}"
        self.lines.append(f"  {name} = {text}")
        return name

    def alloca(self, type: str, align: int = 64) -> str:
        name = self.name("slot")
        self.allocas.append(f"  {name} = alloca {type}, align {align}")
        return name

    def call(
        self, intrinsic: str, result: str, *args: tuple[str, str], suffix: str | None = None, flags: str = ""
    ) -> str:
        """Call `@llvm.<intrinsic>.<suffix>` with (type, value) pairs; the suffix is the result's unless given."""
        suffix = mangled(result) if suffix is None else suffix
        symbol = f"@llvm.{intrinsic}.{suffix}" if suffix else f"@llvm.{intrinsic}"
        types = ", ".join(t.split(" align")[0] for t, _ in args)
        self.declares.add(f"declare {result} {symbol}({types})")
        text = f"call {flags}{result} {symbol}({', '.join(f'{t} {v}' for t, v in args)})"
        if result == "void":
            self.emit(text)
            return ""
        return self.value(text)

    # ---- control flow

    def new_label(self, hint: str) -> str:
        self.count += 1
        return f"{hint}{self.count}"

    def label(self, name: str) -> None:
        self.lines.append(name + ":")

    def jump(self, label: str) -> None:
        self.emit(f"br label %{label}")

    def branch(self, condition: str, yes: str, no: str) -> None:
        self.emit(f"br i1 {condition}, label %{yes}, label %{no}")

    def when(self, condition: str, then: Callable[[], None], otherwise: Callable[[], None] | None = None) -> None:
        """if / else; values leave through memory."""
        if condition == "true":
            then()
            return
        yes, end = self.new_label("then"), self.new_label("end")
        no = self.new_label("else") if otherwise else end
        self.branch(condition, yes, no)
        self.label(yes)
        then()
        self.jump(end)
        if otherwise:
            self.label(no)
            otherwise()
            self.jump(end)
        self.label(end)

    def loop(self, start: str, stop: str, step: int, body: Callable[[str], None], rolled: bool = False) -> None:
        """for (i64 i = start; i < stop; i += step) body(i). `rolled`: LLVM is not to unroll it."""
        slot = self.alloca("i64", 8)
        head, inside, end = self.new_label("head"), self.new_label("body"), self.new_label("end")
        self.emit(f"store i64 {start}, ptr {slot}")
        self.jump(head)
        self.label(head)
        index = self.value(f"load i64, ptr {slot}")
        self.branch(self.value(f"icmp slt i64 {index}, {stop}"), inside, end)
        self.label(inside)
        body(index)
        self.emit(f"store i64 {self.value(f'add nuw nsw i64 {index}, {step}')}, ptr {slot}")
        self.jump(f"{head}, !llvm.loop !1" if rolled else head)
        self.label(end)

    # ---- vectors

    def splat(self, element: str, value: str, lanes: int) -> str:
        """A scalar in every lane. Literals become constant vectors."""
        if lanes == 1:
            return value
        if not value.startswith("%"):
            return f"splat ({llvm(element)} {value})" if value not in ("poison", "zeroinitializer") else value
        type = vector(element, lanes)
        first = self.value(f"insertelement {type} poison, {llvm(element)} {value}, i64 0")
        return self.value(f"shufflevector {type} {first}, {type} poison, <{lanes} x i32> zeroinitializer")

    def lanes_of(self, element: str, lanes: int, stride: int = 1, start: int = 0) -> str:
        """The constant vector start, start + stride, ..."""
        return "<" + ", ".join(f"{llvm(element)} {start + i * stride}" for i in range(lanes)) + ">"

    def shuffle(self, element: str, a: str, lanes: int, pick: Sequence[int], b: str | None = None) -> str:
        """The lanes `pick` of a (and b, counted after a's); one picked lane gives a scalar."""
        type = vector(element, lanes)
        if len(pick) == 1 and b is None:
            return self.value(f"extractelement {type} {a}, i64 {pick[0]}")
        mask = ", ".join(f"i32 {i}" for i in pick)
        return self.value(f"shufflevector {type} {a}, {type} {b or 'poison'}, <{len(pick)} x i32> <{mask}>")

    def extract(self, element: str, a: str, lanes: int, lane: str | int) -> str:
        return a if lanes == 1 else self.value(f"extractelement {vector(element, lanes)} {a}, i64 {lane}")

    def insert(self, element: str, a: str, lanes: int, item: str, lane: str | int) -> str:
        if lanes == 1:
            return item
        return self.value(f"insertelement {vector(element, lanes)} {a}, {llvm(element)} {item}, i64 {lane}")

    def resize(self, value: str, source: str, target: str) -> str:
        """A signed scalar integer in another width."""
        a, b = int(llvm(source)[1:]), int(llvm(target)[1:])
        if a == b or not value.startswith("%"):
            return value
        return self.value(f"{'sext' if b > a else 'trunc'} {llvm(source)} {value} to {llvm(target)}")

    def multiply(self, a: str, factor: int) -> str:
        """i64 a * factor, folded where a is a literal."""
        if not a.startswith("%"):
            return str(int(a) * factor)
        return a if factor == 1 else self.value(f"mul nsw i64 {a}, {factor}")

    def add(self, a: str, b: str) -> str:
        """i64 a + b, folded where both are literals."""
        if a == "0":
            return b
        if b == "0":
            return a
        if not a.startswith("%") and not b.startswith("%"):
            return str(int(a) + int(b))
        return self.value(f"add nsw i64 {a}, {b}")
