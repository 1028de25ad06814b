"""A launch compiled for a GPU, and what of the GPU it will take."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import triton

from trident.inspect import instructions
from trident.inspect.instructions import Accesses
from trident.inspect.launches import Launch
from trident.inspect.targets import Occupancy, Target, occupancy


@dataclass(frozen=True)
class Compiled:
    registers: int  # 32-bit ones of a thread; on AMD vector registers of both files
    spills: int  # instructions that store a register to a thread's stack (AMD: registers stored)
    shared: int  # bytes of a program
    warps: int
    occupancy: Occupancy
    accesses: Accesses
    matrix: dict[str, int]  # instruction -> how many

    def widest(self, operand: str, way: str) -> int | None:
        """Bytes of the widest access to an operand; None if it has none."""
        return max((a.width for a in self.accesses if a.operand in (operand, "?") and a.way == way), default=None)


def compiled(launched: Launch, target: Target) -> Compiled:
    """Raises what Triton raises where it cannot compile, MemoryError for more shared memory than a program may have."""
    launched = launched.on(target.gpu)
    options = {"enable_fp_fusion": True, **dict(launched.options)}  # as `launch` gives it
    binary = triton.compile(launched.source(), target=target.gpu, options=options)
    shared, warps = binary.metadata.shared, binary.metadata.num_warps
    if shared > target.shared:
        raise MemoryError(f"{shared} bytes of shared memory, where a program may have {target.shared}")
    if "cubin" in binary.asm:
        registers, spills, scalar = _cubin(binary.asm["cubin"])
        accesses, matrix = instructions.ptx(binary.asm["ptx"], launched.pointers())
    else:
        text = binary.asm["amdgcn"]
        said = instructions.gcn_resources(text)
        # one file for both kinds of vector registers since gfx90a: LLVM's vgpr_count is their sum
        registers, spills, scalar = said["vgpr_count"], said["vgpr_spill_count"], said["sgpr_count"]
        accesses, matrix = instructions.amdgcn(text)
    fits = occupancy(target, warps, registers, scalar, shared)
    return Compiled(registers, spills, shared, warps, fits, accesses, dict(matrix))


def _tool(*args: Any) -> str:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return subprocess.run([tool, *args], capture_output=True, text=True, check=True).stdout


def _cubin(code: bytes) -> tuple[int, int, int]:
    """(registers, instructions that store to a thread's stack, 0): calls, as of 64-bit divisions, have a stack without
    a spill."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        usage = _tool("--dump-resource-usage", file.name)
        ((registers, stack),) = re.findall(r"REG:(\d+) STACK:(\d+)", usage)
        spills = 0 if stack == "0" else len(re.findall(r"\bSTL\b", _tool("-sass", file.name)))
    return int(registers), spills, 0
