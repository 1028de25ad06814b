"""Element types in LLVM: names, sizes, literals. bf16 and the 8-bit floats are kept as integers of their size."""

from __future__ import annotations

import struct

LLVM = {
    "i1": "i1", "i8": "i8", "i16": "i16", "i32": "i32", "i64": "i64", "i128": "i128", "index": "i64",
    "f16": "half", "bf16": "i16", "f32": "float", "f64": "double",
    "f8E5M2": "i8", "f8E4M3FN": "i8", "f8E4M3FNUZ": "i8", "f8E5M2FNUZ": "i8",
}  # fmt: skip
BYTES = {
    "i1": 1, "i8": 1, "i16": 2, "i32": 4, "i64": 8, "index": 8, "f16": 2, "bf16": 2, "f32": 4, "f64": 8,
    "f8E5M2": 1, "f8E4M3FN": 1, "f8E4M3FNUZ": 1, "f8E5M2FNUZ": 1,
}  # fmt: skip
FLOATS = frozenset({"f16", "bf16", "f32", "f64"})


def llvm(element: str) -> str:
    return "ptr" if element.startswith("ptr:") else LLVM[element]


def stored(element: str) -> str:
    """The LLVM type in memory: a bool takes a byte."""
    return "i8" if element == "i1" else llvm(element)


def size(element: str) -> int:
    return 8 if element.startswith("ptr:") else BYTES[element]


def vector(element: str, lanes: int) -> str:
    return llvm(element) if lanes == 1 else f"<{lanes} x {llvm(element)}>"


def mangled(type: str) -> str:
    """`<16 x float>` -> `v16f32`, as intrinsic names spell it."""
    if type.startswith("<"):
        count, _, inner = type[1:-1].partition(" x ")
        return f"v{count}{mangled(inner)}"
    return {"float": "f32", "double": "f64", "half": "f16", "ptr": "p0"}.get(type, type)


def round_to_bf16(bits: int) -> int:
    """The bf16 nearest to a float32 given by its bits, ties to even; NaN stays NaN."""
    if bits & 0x7FFFFFFF > 0x7F800000:
        return 0x7FC0 | (bits >> 16 & 0x8000)
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16 & 0xFFFF


def float_literal(value: float, element: str) -> str:
    """A Python float as a literal of `element`; rounds to nearest even."""
    if element == "f64":
        return f"0x{int.from_bytes(struct.pack('<d', value), 'little'):016X}"
    if element == "f16":
        try:
            return f"0xH{int.from_bytes(struct.pack('<e', value), 'little'):04X}"
        except OverflowError:
            return "0xH7C00" if value > 0 else "0xHFC00"
    try:
        bits = struct.unpack("<I", struct.pack("<f", value))[0]
    except OverflowError:
        bits = 0x7F800000 if value > 0 else 0xFF800000
    if element == "bf16":
        return str(round_to_bf16(bits))
    return float_literal(struct.unpack("<f", struct.pack("<I", bits))[0], "f64")  # LLVM writes floats as doubles


def literal(text: str, element: str) -> str:
    """An MLIR literal (`true`, `-3`, `1.5e-3`, `0x7F800000`) as an LLVM literal of `element`."""
    if element == "i1":
        return {"true": "true", "false": "false", "1": "true", "-1": "true", "0": "false"}[text]
    if element not in FLOATS:
        if element.startswith("f8"):
            if not text.startswith("0x"):
                raise NotImplementedError(f"{element} constant {text}")
            return str(int(text, 16))
        return str(int(text, 0))
    if text.startswith("0x"):
        bits = int(text, 16)
        if element == "bf16":
            return str(bits)
        if element == "f16":
            return f"0xH{bits:04X}"
        if element == "f64":
            return f"0x{bits:016X}"
        return float_literal(struct.unpack("<f", struct.pack("<I", bits))[0], element)
    return float_literal(float(text), element)
