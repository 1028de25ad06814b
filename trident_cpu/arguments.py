"""Kernel arguments: the key each contributes to a call, its value in the launch block, and the slot it fills there."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, NoReturn

from trident_cpu.compiler import CPUOptions

# Slot formats by Triton's names of types; each fills 8 bytes, little endian. Pointers are 'Q'.
_FORMATS = {
    "u1": "B7x", "i1": "B7x", "i8": "b7x", "i16": "h6x", "i32": "i4x", "i64": "q",
    "u8": "B7x", "u16": "H6x", "u32": "I4x", "u64": "Q",
    "fp16": "e6x", "bf16": "H6x", "fp32": "f4x", "f32": "f4x", "fp64": "d",
}  # fmt: skip


@dataclass(frozen=True)
class Slot:
    """Where one slot's value comes from: argument `path[0]`, then into tuples; `type` is Triton's name of its type."""

    path: tuple[int, ...]
    type: str

    @property
    def format(self) -> str:
        if self.type.startswith("*"):
            return "Q"
        if self.type not in _FORMATS:
            raise TypeError(f"trident_cpu: no argument slot for Triton's type {self.type!r}")
        return _FORMATS[self.type]


def argument_slots(signature: dict[str, Any]) -> list[Slot]:
    """The slots of a signature in order: constexprs (and what was folded into one) have none, tuples are opened."""

    def visit(kind: Any, path: tuple[int, ...]) -> Iterator[Slot]:
        if isinstance(kind, tuple):
            for at, inner in enumerate(kind):
                yield from visit(inner, (*path, at))
        elif kind.startswith("tensordesc"):
            yield from (Slot((*path, at), inner) for at, inner in enumerate(_descriptor_types(kind)))
        elif kind != "constexpr":
            yield Slot(path, kind)

    return [slot for at, kind in enumerate(signature.values()) for slot in visit(kind, (at,))]


def _descriptor_types(kind: str) -> list[str]:
    """Types of a host tensor descriptor's parts, in the order Triton passes them to code without TMA hardware."""
    from triton.backends import driver

    if hasattr(driver, "_expand_descriptor"):
        return driver._expand_descriptor(kind, False, None)
    # Until 3.7 each GPU's driver had its own. Drop when triton>=3.8.
    element, _, block = kind.removeprefix("tensordesc<").partition("[")
    rank = block.partition("]")[0].count(",") + 1
    return [f"*{element}", *["i64"] * 2 * rank, *["i1"] * (1 + _rounds()), *["i32"] * rank, *["i64"] * rank]


def _rounds() -> bool:
    """Whether descriptors say that float32 is to be rounded to TF32; Triton 3.6's do not."""
    from triton.tools.tensor_descriptor import TensorDescriptor

    return hasattr(TensorDescriptor, "round_f32_to_tf32")


def _descriptor_parts(value: Any) -> list[Any]:
    """The values of these parts; the first is the tensor."""
    from triton.backends import driver

    if hasattr(driver, "decompose_descriptor"):
        return driver.decompose_descriptor(value)
    flags = [value.padding == "nan"] + ([value.round_f32_to_tf32] if _rounds() else [])
    return [value.base, *value.shape, *value.strides, *flags, *value.shape, *value.strides]


# -- keys


def constant_key(value: Any) -> Any:
    """A hashable stand-in for a constexpr: equal exactly where compiled code may be shared (1, 1.0, True differ)."""
    kind = type(value)
    if kind is float:
        return float, value.hex()
    if kind is tuple or kind is list:
        return kind, *map(constant_key, value)
    if kind is bool or kind is int or value is None:
        return kind, value
    return _other_key(value)


def _other_key(value: Any) -> Any:
    from triton.language import constexpr
    from triton.runtime.jit import JITFunction

    if isinstance(value, JITFunction):  # whose own hash takes a lock and reads a digest, twice a launch
        try:
            return value._trident_cpu_key
        except AttributeError:
            value._trident_cpu_key = key = object()
            return key
    if isinstance(value, constexpr):
        return constant_key(value.value)
    if isinstance(value, float):
        return float, value.hex()
    if isinstance(value, tuple | list):
        return type(value), *map(constant_key, value)
    return type(value), value


def option_key(given: dict[str, Any]) -> tuple[Any, ...]:
    """The launch options that change code, as a key; KeyError for a name that is neither argument nor option."""
    for name in given:
        if name not in _OPTIONS:
            raise KeyError(f"Keyword argument {name} was specified but unrecognised")
    return tuple((name, given[name]) for name in CPUOptions.CODE if given.get(name) is not None)


_OPTIONS = frozenset(field.name for field in fields(CPUOptions))


def unusual(name: str, value: Any) -> tuple[Any, Any]:
    """(key, value for the launch block) of an argument that is not a plain tensor, int, float, bool or None.

    Tensors of a subclass, wrapped pointers, tuples, numpy scalars, host tensor descriptors. Raises ValueError for
    data that is not in this machine's memory and TypeError for what Triton knows no type for.
    """
    from triton._C.libtriton import native_specialize_impl

    from trident_cpu.compiler import CPUBackend

    if isinstance(value, tuple):
        parts = [unusual(f"{name}[{at}]", part) for at, part in enumerate(value)]
        kind = (type(value), tuple(value._fields)) if hasattr(value, "_fields") else tuple
        return (kind, *(key for key, _ in parts)), tuple(inner for _, inner in parts)
    if value is None:
        return None, 0
    kind, mark = native_specialize_impl(CPUBackend, value, False, True, False)
    if hasattr(value, "data_ptr"):
        on_cpu(name, value)
        return kind, value.data_ptr()
    if isinstance(kind, str) and kind.startswith("tensordesc"):
        on_cpu(name, value.base)
        base, *rest = _descriptor_parts(value)
        return kind, (base.data_ptr(), *rest)
    if kind == "constexpr":
        return (kind, constant_key(value)), value
    return (kind, mark), value


def on_cpu(name: str, tensor: Any) -> None:
    """Raises ValueError, naming the argument, unless the tensor's data are in CPU memory."""
    device = getattr(tensor, "device", None)
    if device is None:
        device = getattr(getattr(tensor, "base", None), "device", None)  # Triton's TensorWrapper
    if getattr(device, "type", device) != "cpu":
        raise ValueError(f"trident_cpu: argument {name!r} is on {device}, and this launch is for CPU tensors; move it")


def value_of(argument: Any, name: str = "argument") -> Any:
    """An argument's value for the launch block; tensors become addresses."""
    if isinstance(argument, int | float):
        return argument
    return unusual(name, argument)[1]


# -- slots whose value Python's struct refuses


def bfloat16_bits(value: float) -> int:
    """Nearest bfloat16, ties to even, as its 16 bits."""
    if math.isnan(value):
        return 0x7FC0
    bits = int.from_bytes(struct.pack("<f", single(value)), "little")
    return (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16


def single(value: float) -> float:
    """`value` where float32 can hold it, else the infinity that C's conversion gives."""
    try:
        struct.pack("<f", value)
    except OverflowError:
        return math.copysign(math.inf, value)
    return value


def mend(kernel: str, names: list[str], slots: list[Slot], values: list[Any]) -> list[Any]:
    """Values after struct refused them: floats too large become infinite as in C; anything else raises, named."""
    mended = []
    for slot, value in zip(slots, values, strict=True):
        code, name = slot.format[0], names[slot.path[0]]
        if code in "efd":
            value = float(value)
            try:
                struct.pack("<" + code, value)
            except OverflowError:
                value = math.copysign(math.inf, value)
        else:
            try:
                struct.pack("<" + code, value)
            except struct.error as error:
                _refuse(kernel, name, slot.type, value, error)
        mended.append(value)
    return mended


def _refuse(kernel: str, name: str, kind: str, value: Any, error: Exception) -> NoReturn:
    raise TypeError(f"trident_cpu: {kernel}: {value!r} does not fit argument {name!r} of type {kind}") from error
