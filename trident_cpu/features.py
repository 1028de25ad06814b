"""What the compiler needs to know of the CPU, as plain values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Features:
    """`vector_bits`: widest vector register worth using (128, 256 or 512). `fma`: a fused multiply-add instruction.
    `bf16`: one that rounds float32 to bfloat16."""

    vector_bits: int = 256
    fma: bool = True
    bf16: bool = False

    @classmethod
    def of(cls, names: Collection[str]) -> Features:
        """From LLVM's feature names ("avx2", "fma", "neon", ...)."""
        bits = 512 if "avx512f" in names and "avx512bw" in names else 256 if "avx2" in names else 128
        return cls(bits, "fma" in names or "neon" in names, bits == 512 and "avx512bf16" in names)

    @property
    def lanes(self) -> int:
        """Lanes per vector of 32-bit elements: two registers of the wider kinds, whose instructions hide each other's
        latency (AVX-512, silu of 2^18 float32: 0.24 ns an element with one, 0.23 with two; float16 and bfloat16 gain
        a tenth)."""
        return self.vector_bits // 16
