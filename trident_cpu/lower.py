"""The one entry point of the compiler: TTIR text -> LLVM IR text.

    parse -> verify -> simplify -> per function: plan (nests, buffers) -> emit -> math functions -> text

The IR defines

    void @<name>.range(ptr args, i64 begin, i64 end, i32 gx, i32 gy, i32 gz, ptr scratch, ptr report)

which runs the programs begin .. end - 1 of the grid, x fastest. `args` holds 8 bytes per kernel parameter, little
endian, then an i64 of flags (bit 0: results are larger than the cache, see emit/stream.py). `scratch` is the calling
thread's arena of `Lowered.scratch_bytes`, aligned to 64 bytes. `report` is a record of 64 bytes: i64 code (0: none),
i64 index into `Lowered.faults`, i64 program id, i64 address, and, for the sanitizer, the address of its table
(emit/guard.py).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from trident_cpu import vmath
from trident_cpu.emit.function import ModuleState
from trident_cpu.emit.kernel import emit_module
from trident_cpu.features import Features
from trident_cpu.ops import kind
from trident_cpu.parse import parse
from trident_cpu.simplify import simplify
from trident_cpu.verify import verify


@dataclass(frozen=True)
class Lowered:
    llvm_ir: str
    name: str
    scratch_bytes: int  # per thread
    params: tuple[str, ...]  # element type of each kernel parameter: "ptr:f32", "i32", ...
    faults: tuple[tuple[str, str, str], ...]  # (kind, "file:line", text) by the index in the report


def lower(
    ttir: str, *, features: Collection[str] = ("avx2", "fma"), fuse: bool = True, sanitize: bool = False
) -> Lowered:
    """`features`: LLVM's names. `fuse`: a * b + c may round once. Raises errors.CompileError for what is unknown."""
    module = parse(ttir)
    verify(module)
    simplify(module)
    state = ModuleState(module, Features.of(features), fuse, sanitize)
    text, scratch = emit_module(state)
    avx512 = state.features.vector_bits == 512
    functions = [vmath.function(*key, state.declares, avx512) for key in sorted(state.math)]
    bits = register_bits(state)
    attributes = f'attributes #0 = {{ nounwind "min-legal-vector-width"="{bits}" "prefer-vector-width"="{bits}" }}'
    parts = [*sorted(state.globals), *functions, text, *sorted(state.declares), attributes]
    kernel = module.kernel
    params = tuple(v.type.element for v in kernel.params)
    return Lowered("\n\n".join(parts) + "\n", kernel.name, scratch, params, tuple(state.faults))


def register_bits(state: ModuleState) -> int:
    """Width of the registers that vectors are cut into: 256 bits where a kernel moves memory and computes little.

    Zen 4 reads main memory up to a sixth faster in pieces of 256 bits than of 512, and its caches as fast.
    """
    wide = state.features.vector_bits
    if wide <= 256 or state.math or any(".512(" in declared for declared in state.declares):
        return wide
    work = accesses = 0
    for function in state.module.functions.values():
        for op in function.body.walk():
            if op.name == "tt.dot":
                return wide
            tile = next((r.type for r in op.results if r.type.is_tile), None)
            accesses += op.name in ("tt.load", "tt.store")
            work += kind(op.name) == "pointwise" and tile is not None and not tile.is_pointer and tile.element != "i1"
    return 256 if work <= 8 * accesses else wide
