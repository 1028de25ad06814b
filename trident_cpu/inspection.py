"""Every stage of a kernel's compilation, for tests and for the curious."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trident_cpu import build, jit
from trident_cpu.launcher import specialise


@dataclass(frozen=True)
class Artefacts:
    ttir: str
    llvm_ir: str  # as lowered
    optimised_ir: str
    asm: str
    binary: build.Binary


def inspect(kernel: Any, *args: Any, **kwargs: Any) -> Artefacts:
    """Compile `kernel` for these arguments (as in a launch, without the grid) and return each stage; runs nothing."""
    source, options = specialise(kernel, args, kwargs)
    stages = build.stages(source, options)
    optimised, asm = jit.to_assembly(stages.llvm_ir)
    return Artefacts(stages.ttir, stages.llvm_ir, optimised, asm, stages.binary)
