"""What the compiler needs to know of the CPU, as plain values."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Features:
    """`vector_bits`: widest vector register worth using (128, 256 or 512). `fma`: a fused multiply-add instruction."""

    vector_bits: int = 256
    fma: bool = True

    @property
    def lanes(self) -> int:
        """Lanes per vector of 32-bit elements. 16 also at 256 bits: two registers hide latency."""
        return 16 if self.vector_bits >= 256 else 8
