"""Random Triton programs for the fuzzer: source text and inputs, a pure function of the seed.

A program builds values from loads, arithmetic, reductions, scans, loops and branches, and stores them. Each value
carries a bound of its size, so that nothing overflows, and whether it is *exact*: the same bits from any correct
implementation. Exact values may feed anything; inexact ones (float sums, exp, dot) are only stored, with a tolerance.
Every address is inside its buffer by construction.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import ClassVar

from tests.cpu.fuzz_steps import STEPS
from tests.cpu.fuzz_values import EPSILON, FLOATS, INTS, LARGEST, PROGRAMS, SHAPES, SIZE, Output, Value

HELPERS = """import triton
import triton.language as tl


@triton.jit
def pick_max(a, b):
    return tl.where(a > b, a, b)


@triton.jit
def add_up(a, b):
    return a + b


@triton.jit
def affine(a0, b0, a1, b1):
    return a0 * a1, b0 * a1 + b1


@triton.jit
def twice_plus(x, y):
    return x * 2 + y


@triton.jit(noinline=True)
def twice_plus_there(x, y):
    return x * 2 + y


"""


class Program:
    """`source` and `outputs`; inputs are x0..x5 (see fuzz.py) and the scalars n, k, s."""

    def __init__(self, seed: int) -> None:
        self.seed, self.random = seed, random.Random(seed)
        self.lines: list[str] = []
        self.indent = "    "
        self.pool: list[Value] = []
        self.outputs: list[Output] = []
        self.count = 0
        self.shape = self.random.choice(SHAPES)
        self.block = 1
        for extent in self.shape:
            self.block *= extent
        self.build()

    # -- writing

    def new(self, text: str, dtype: str, shape: tuple[int, ...], bound: float = 0.0, exact: bool = True) -> Value:
        self.count += 1
        value = Value(f"v{self.count}", dtype, shape, bound, exact)
        self.line(f"{value.name} = {text}")
        self.pool.append(value)
        return value

    def line(self, text: str) -> None:
        self.lines.append(self.indent + text)

    def any(self, wanted: Callable[[Value], bool] = lambda v: True) -> Value | None:
        found = [v for v in self.pool if v.exact and wanted(v)]
        # the newest are the least explored
        return self.random.choice(found[-8:] if found and self.random.random() < 0.7 else found) if found else None

    def tile(self, kinds: tuple[str, ...] = (*INTS, *FLOATS), shape: tuple[int, ...] | None = None) -> Value | None:
        shape = shape or self.shape
        return self.any(lambda v: v.shape == shape and v.dtype in kinds)

    def partner(self, value: Value) -> Value:
        """Another value of the same type: a tile, a row or column, or a scalar that broadcasts."""
        rank = len(value.shape)

        def fits(v: Value) -> bool:
            broadcasts = len(v.shape) == rank and all(a in (1, b) for a, b in zip(v.shape, value.shape, strict=True))
            return v.dtype == value.dtype and (v.shape in ((), value.shape) or broadcasts)

        return self.any(fits) or value

    # -- the program

    def build(self) -> None:
        self.line("pid = tl.program_id(0)")
        for at, extent in enumerate(self.shape):
            index = ", ".join(":" if d == at else "None" for d in range(len(self.shape)))
            self.line(f"i{at} = tl.arange(0, {extent})" + (f"[{index}]" if len(self.shape) > 1 else ""))
        strides, stride = [], 1
        for extent in reversed(self.shape):
            strides.insert(0, stride)
            stride *= extent
        flat = " + ".join(f"i{at} * {stride}" for at, stride in enumerate(strides))
        self.line(f"at = {flat}")
        self.line(f"mine = pid * {self.block} + at")
        self.pool += [
            Value("at", "int32", self.shape),
            Value("n", "int32", ()),
            Value("pid", "int32", ()),
            Value("s", "float32", (), 4.0),
        ]
        for _ in range(self.random.randint(1, 3)):
            self.load()
        steps = [step for step, weight in STEPS.items() for _ in range(weight)]
        for _ in range(self.random.randint(3, 14)):
            self.random.choice(steps)(self)
        stored = [v for v in self.pool if v.name not in ("at", "n", "pid", "s")]
        for value in {v.name: v for v in self.random.choices(stored, k=min(6, len(stored)))}.values():
            self.store(value)
        for value in [v for v in stored if not v.exact][-3:]:
            self.store(value)

    @property
    def source(self) -> str:
        outputs = ", ".join(output.name for output in self.outputs)
        return HELPERS + "\n".join([
            "@triton.jit",
            f"def kernel(x0, x1, x2, x3, x4, x5, temp, {outputs}, n, k, s, SIZE: tl.constexpr):",
            *self.lines,
        ]) + "\n"  # fmt: skip

    # -- memory

    def address(self) -> str:
        """An index into a buffer, of the tile's shape."""
        r = self.random
        forms = [
            "mine",
            "mine + 3",
            f"{self.block - 1} - at",
            f"at * {r.choice([2, 3, 5])}",
            "at * k + pid",
            "(at * 7 + n)",
        ]
        if len(self.shape) > 1:
            forms += ["i0 * n + i1", "i1 * 32 + i0", "i1 + pid", "i0"]
        index = self.tile(("int32", "int64", "int16"))
        if index:
            forms.append(index.name)
        form = r.choice(forms)
        contiguous = form.startswith("mine") or form.endswith("- at")
        return form if contiguous and self.block * PROGRAMS + 3 <= SIZE else f"(({form}) & (SIZE - 1))"

    def mask(self) -> Value | None:
        choice = self.random.random()
        if choice < 0.35:
            return self.any(lambda v: v.dtype == "int1" and v.shape == self.shape)
        if choice < 0.65:
            return Value(self.random.choice(["mine < n", "at < n", "(at & 3) != 1", "i0 < k"]), "int1", self.shape)
        return None

    BUFFERS: ClassVar = {"x0": "float32", "x1": "int32", "x2": "float16", "x3": "int8"}

    def load(self) -> None:
        buffer = self.random.choice(list(self.BUFFERS))
        dtype, mask = self.BUFFERS[buffer], self.mask()
        extra = ""
        if mask:
            extra = f", {mask.name}, other={self.random.choice(['0', '1'])}"
            # what the mask leaves out is undefined without `other`
        text = f"tl.load({buffer} + {self.address()}{extra})"
        self.new(self.whole(text, extra), dtype, self.shape, 4.0 if dtype.startswith("float") else 0.0)

    def whole(self, text: str, extra: str) -> str:
        """An address made of fewer indices gives a smaller tile: broadcast it to the full shape."""
        if len(self.shape) == 1:
            return text
        pointer, rest = text.removeprefix("tl.load(")[:2], text
        return rest.replace(f"{pointer} + ", f"{pointer} + at * 0 + ", 1)

    def output(self, dtype: str, tolerance: float = 0.0) -> str:
        """A fresh buffer of results."""
        self.outputs.append(Output(f"out{len(self.outputs)}", dtype, tolerance))
        return self.outputs[-1].name

    def store(self, value: Value) -> None:
        tolerance = 0.0 if value.exact else 64 * EPSILON[value.dtype] * max(1.0, value.bound)
        dtype = "int8" if value.dtype == "int1" else value.dtype
        if value.dtype == "float32" and value.exact and self.random.random() < 0.3:
            dtype = self.random.choice(["float16", "float64"])  # converted by the store
            if value.bound > LARGEST["float16"]:
                dtype = "float64"
        name = self.output(dtype, tolerance)
        text = f"{value.name}.to(tl.int8)" if value.dtype == "int1" else value.name
        if value.shape == ():
            self.line(f"tl.store({name} + pid, {text})")
            return
        if value.shape == self.shape:
            mask = self.mask()
            place = self.random.choice(["mine", "mine", f"(pid * {self.block} + {self.block - 1} - at)"])
            self.line(f"tl.store({name} + {place}, {text}{f', {mask.name}' if mask else ''})")
            return
        count = 1
        for extent in value.shape:
            count *= extent
        flat = f"tl.reshape({text}, [{count}])" if len(value.shape) > 1 else text
        self.line(f"tl.store({name} + pid * {count} + tl.arange(0, {count}), {flat})")

    def through_memory(self) -> None:
        """A tile written to a buffer and read back in another order by the same program."""
        value = self.tile(("float32",))
        if value:
            back = self.random.choice(
                [f"{self.block - 1} - at", "(at + 1) % BLOCK".replace("BLOCK", str(self.block)), "at"]
            )
            self.line(f"tl.store(temp + mine, {value.name})")
            self.line("tl.debug_barrier()")
            self.new(f"tl.load(temp + pid * {self.block} + {back})", "float32", self.shape, value.bound)
            self.line("tl.debug_barrier()")
