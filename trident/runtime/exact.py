"""Run-time floats that a kernel must see as float64: Triton passes a Python float as float32."""

import struct


def bits(value: float) -> int:
    """The float64 pattern of `value` as an int64; `lang.tile.from_bits` turns it back."""
    return int(struct.unpack("<q", struct.pack("<d", value))[0])


def from_bits(value: int) -> float:
    """The float64 that `bits` made `value` of."""
    return float(struct.unpack("<d", struct.pack("<q", value))[0])
