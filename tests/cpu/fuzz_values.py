"""What the fuzzer's programs are made of: types, shapes, values, outputs."""

from __future__ import annotations

from dataclasses import dataclass

SIZE = 4096  # elements of every buffer, a power of 2: indices are made by `& (SIZE - 1)`
PROGRAMS = 3  # of the grid

INTS = ("int8", "int16", "int32", "int64", "uint8")
FLOATS = ("float16", "float32", "float64")
EPSILON = {"float16": 1e-3, "bfloat16": 8e-3, "float32": 1.2e-7, "float64": 2.3e-16}
LARGEST = {"float16": 1e3, "float32": 1e15, "float64": 1e100}
SHAPES = [
    (1,), (2,), (8,), (16,), (64,), (128,), (256,), (1024,),
    (1, 16), (4, 4), (8, 2), (16, 16), (2, 64), (32, 8), (32, 32), (2, 4, 8), (4, 1, 16), (2, 2, 32),
]  # fmt: skip


@dataclass(frozen=True)
class Value:
    name: str
    dtype: str  # 'int1' is a truth value
    shape: tuple[int, ...]
    bound: float = 0.0  # of a float's magnitude
    exact: bool = True

    @property
    def is_float(self) -> bool:
        return self.dtype.startswith("float")


@dataclass(frozen=True)
class Output:
    name: str
    dtype: str
    tolerance: float  # 0: bit for bit
