"""What the compiler needs to know of the CPU, as plain values."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True)
class Features:
    """`vector_bits`: widest vector register worth using (128, 256 or 512). `fma`: a fused multiply-add instruction."""

    vector_bits: int = 256
    fma: bool = True

    @classmethod
    def of(cls, names: Collection[str]) -> Features:
        """From LLVM's feature names ("avx2", "fma", "neon", ...)."""
        bits = 512 if "avx512f" in names and "avx512bw" in names else 256 if "avx2" in names else 128
        return cls(bits, "fma" in names or "neon" in names)

    @property
    def lanes(self) -> int:
        """Lanes per vector of 32-bit elements. 16 also at 256 bits: two registers hide latency."""
        return 16 if self.vector_bits >= 256 else 8
