"""What Triton is asked to compile: launches, described as its own specialisation describes them."""

import functools
from typing import Any, NamedTuple

import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from trident.cases import CASES
from trident.inspect.watch import watched

POINTERS = {
    **{torch.float64: "*fp64", torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"},
    **{torch.int64: "*i64", torch.int32: "*i32", torch.int16: "*i16", torch.int8: "*i8"},
    **{torch.uint8: "*u8", torch.bool: "*i1"},
}


class Launch(NamedTuple):
    """What a kernel is compiled for."""

    kernel: Any
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: frozenset[str]  # integers that are multiples of 16, and pointers (torch's are)
    options: tuple[tuple[str, Any], ...]

    def source(self) -> ASTSource:
        index = {parameter.name: (i,) for i, parameter in enumerate(self.kernel.params)}
        return ASTSource(
            self.kernel,
            dict(self.signature),
            constexprs={index[name]: value for name, value in self.constants},
            attrs={index[name]: [["tt.divisibility", 16]] for name in self.aligned},
        )

    def on(self, gpu: GPUTarget) -> "Launch":
        """As `tuning` asks for it there: only NVIDIA's units sum three products of tf32, AMD's multiply float32."""
        ieee = tuple((name, "ieee" if value == "tf32x3" else value) for name, value in self.constants)
        return self._replace(constants=ieee) if gpu.backend == "hip" else self

    def kind(self) -> tuple[Any, ...]:
        """The launch without its numbers."""
        constants = tuple((name, value) for name, value in self.constants if not isinstance(value, int | float))
        pointers = tuple((name, kind) for name, kind in self.signature if kind.startswith("*"))
        return self.kernel, pointers, constants

    def pointers(self) -> list[str]:
        """Names of the parameters that the compiled code takes and that are tensors, by their place among all it takes
        ("" for those that are not)."""
        taken = [(name, kind) for name, kind in self.signature if kind != "constexpr"]
        return [name if kind.startswith("*") else "" for name, kind in taken]


def described(kernel: Any, args: tuple[Any, ...], meta: dict[str, Any]) -> Launch:
    """Specialised as Triton does: None and 1 are constants, of other integers it is known if 16 divides them; not of
    those that a kernel says it is the same for."""
    values = {**dict(zip((p.name for p in kernel.params), args, strict=False)), **meta}
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    aligned = set()
    for parameter in kernel.params:
        name, value = parameter.name, values.pop(parameter.name)
        special = type(value) is int and not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (special and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            aligned.add(name)
        elif isinstance(value, bool):
            signature[name] = "i1"
        elif isinstance(value, int):
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if special and value % 16 == 0:
                aligned.add(name)
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            raise TypeError(f"{kernel.__name__}: {name} is a {type(value).__name__}")
    options = tuple(sorted(values.items()))
    return Launch(kernel, tuple(signature.items()), tuple(constants.items()), frozenset(aligned), options)


@functools.cache
def launches(dtype: torch.dtype) -> dict[Launch, str]:
    """Each distinct launch of the cases at the largest shapes they are timed at -> the first case that makes it."""
    found: dict[Launch, str] = {}
    for name, case in CASES.items():
        if dtype not in case.dtypes:
            continue
        for direction in watched(case, (case.bench or case.shapes)[-1], dtype):
            for event in direction.events:
                if event.kernel is not None:
                    found.setdefault(described(event.kernel, event.args, event.meta), name)
    return found
