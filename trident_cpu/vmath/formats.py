"""The constants of each floating-point format that the functions share."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

_LN2 = (0.6931471805599453, 2.3190468138462996e-17)  # ln 2 in two doubles


def as_float32(value: float) -> float:
    return struct.unpack("<f", struct.pack("<f", value))[0]


@dataclass(frozen=True)
class Format:
    mantissa: int  # explicit bits
    bias: int
    sign: int  # the sign bit, as a signed integer
    ln2_high: float  # ln 2 in two parts
    ln2_low: float
    root_half: int  # bits of sqrt(1/2)

    @property
    def magic(self) -> float:
        """1.5 * 2^mantissa: adding it rounds to an integer, which its low bits then hold."""
        return math.ldexp(1.5, self.mantissa)

    @property
    def magic_bits(self) -> int:
        return ((self.bias + self.mantissa) << self.mantissa) + (1 << (self.mantissa - 1))

    @property
    def least_normal(self) -> float:
        return math.ldexp(1.0, 1 - self.bias)


_HIGH32 = as_float32(_LN2[0])
FORMATS = {
    "f32": Format(23, 127, -(2**31), _HIGH32, as_float32(_LN2[0] - _HIGH32), 0x3F3504F3),
    "f64": Format(52, 1023, -(2**63), *_LN2, 0x3FE6A09E667F3BCD),
}
