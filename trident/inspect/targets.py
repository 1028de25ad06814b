"""GPUs that kernels are compiled for, cards whose time is estimated: limits and peaks, each with its source."""

from collections.abc import Callable
from typing import NamedTuple

from triton.backends.compiler import GPUTarget


class Target(NamedTuple):
    """What one multiprocessor (compute unit) of an architecture holds at once."""

    gpu: GPUTarget
    shared: int  # bytes that one program may have
    shared_total: int  # bytes of a multiprocessor
    shared_kept: int  # bytes of each program that are the driver's
    warps: int
    programs: int
    registers: Callable[[int, int], int]  # (registers a thread, as reported; scalar registers) -> warps that fit


def _nvidia(registers: int, scalar: int) -> int:
    """65536 registers, given to a warp in units of 256, in four parts: CUDA occupancy calculator, 8.0 to 10.0."""
    each = -(-max(1, registers) * 32 // 256) * 256
    return 4 * (65536 // 4 // each)


def _cdna3(registers: int, scalar: int) -> int:
    """Four SIMDs, each with 512 vector registers a lane in units of 8, 800 scalar ones in units of 16, 8 waves at most:
    LLVM's AMDGPUBaseInfo.cpp (gfx940), AMD Instinct MI300 ISA guide, 3.6."""
    vector = 512 // (-(-max(1, registers) // 8) * 8)
    scalars = 800 // (-(-max(1, scalar) // 16) * 16)
    return 4 * min(8, vector, scalars)


# NVIDIA: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability". gfx942: AMD CDNA3 white paper,
# MI300 ISA guide (64 KB of local memory a compute unit, 16 workgroups of more than one wave).
TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 163 << 10, 164 << 10, 1 << 10, 64, 32, _nvidia),
    "sm_90": Target(GPUTarget("cuda", 90, 32), 227 << 10, 228 << 10, 1 << 10, 64, 32, _nvidia),
    "sm_100": Target(GPUTarget("cuda", 100, 32), 227 << 10, 228 << 10, 1 << 10, 64, 32, _nvidia),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 64 << 10, 64 << 10, 0, 32, 16, _cdna3),
}


class Occupancy(NamedTuple):
    """Warps that a multiprocessor holds over those it could, and what keeps it from more."""

    share: float
    limit: str  # registers, shared memory, programs or warps


def occupancy(target: Target, warps: int, registers: int, scalar: int, shared: int) -> Occupancy:
    """Of programs of so many warps and bytes of shared memory, and so many registers a thread."""
    programs = {
        "warps": target.warps // warps,
        "programs": target.programs if warps > 1 or target.gpu.backend == "cuda" else target.warps,
        "registers": target.registers(registers, scalar) // warps,
        "shared memory": target.shared_total // (shared + target.shared_kept) if shared else target.programs * 2,
    }
    limit = min(programs, key=lambda name: programs[name])
    return Occupancy(programs[limit] * warps / target.warps, limit)


class Card(NamedTuple):
    """Peaks of a card, dense: bytes/s, and flop/s of vector units (float32, float64) and of matrix units by dtype."""

    arch: str
    bandwidth: float
    float32: float
    float64: float
    half: float  # float16 and bfloat16
    tf32: float
    source: str


T = 1e12
CARDS = {
    "A100": Card("sm_80", 2.039 * T, 19.5 * T, 9.7 * T, 312 * T, 156 * T, "NVIDIA A100 80GB SXM data sheet, 2021"),
    "H100": Card("sm_90", 3.35 * T, 67 * T, 34 * T, 989.5 * T, 494.7 * T, "NVIDIA H100 SXM data sheet, half of sparse"),
    "H200": Card("sm_90", 4.8 * T, 67 * T, 34 * T, 989.5 * T, 494.7 * T, "NVIDIA H200 SXM data sheet, half of sparse"),
    "B200": Card("sm_100", 8.0 * T, 75 * T, 37 * T, 2250 * T, 1100 * T, "NVIDIA HGX B200 data sheet, half of sparse"),
    "MI300X": Card("gfx942", 5.3 * T, 163.4 * T, 81.7 * T, 1307.4 * T, 653.7 * T, "AMD Instinct MI300X data sheet"),
}  # fmt: skip


def roofline(card: Card, nbytes: float, flops: float, matrix: dict[str, float], double: bool = False) -> float:
    """Seconds below which a card cannot do this work: the longest of memory, vector units and matrix units.

    matrix: flop by how matrix units multiply: "half", "tf32", "tf32x3" (three products each) or "ieee" (float32 on
    NVIDIA's vector units; AMD's matrix units have the rate of its vector units here).
    """
    vector = card.float64 if double else card.float32
    rates = {"half": card.half, "tf32": card.tf32, "tf32x3": card.tf32 / 3, "ieee": vector}
    products = sum(amount / rates[how] for how, amount in matrix.items())
    return max(nbytes / card.bandwidth, flops / vector, products)
