"""log, log2, log10, log1p: x = 2^k m with m in [sqrt(1/2), sqrt(2)), and log(m) = f + low with f = m - 1 exact."""

from __future__ import annotations

import math

from trident_cpu.vmath import coefficients as table
from trident_cpu.vmath.builder import Builder, Vector
from trident_cpu.vmath.formats import FORMATS, as_float32


def _split(b: Builder, x: Vector) -> tuple[Vector, Vector]:
    """(k, m) of a positive normal x."""
    form = FORMATS[x.kind]
    above = x.bits() - form.root_half
    m = ((above & ((1 << form.mantissa) - 1)) + form.root_half).floats()
    return (above >> form.mantissa).to_float(), m


def _split_any(b: Builder, x: Vector) -> tuple[Vector, Vector]:
    """(k, m) of a positive x, subnormal or not."""
    form = FORMATS[x.kind]
    tiny = x < form.least_normal
    k, m = _split(b, b.select(tiny, x * math.ldexp(1.0, form.mantissa + 2), x))
    return b.select(tiny, k - float(form.mantissa + 2), k), m


def _low(b: Builder, f: Vector) -> Vector:
    """log(1 + f) - f."""
    half_square = f * f * 0.5
    if f.kind == "f32":
        return b.fma(b.polynomial(table.LOG_F32, f) * f, f * f, -half_square)
    s = f / (f + 2.0)
    z = s * s
    return s * b.fma(z, b.polynomial(table.LOG_F64, z), half_square) - half_square


def _special(b: Builder, x: Vector, result: Vector) -> Vector:
    """log's value at 0, infinity, and where there is none."""
    result = b.select(x.equals(0.0), -math.inf, result)
    result = b.select(x.equals(math.inf), math.inf, result)
    return b.select(x.compare("ult", 0.0), math.nan, result)


def log(b: Builder, x: Vector) -> Vector:
    k, m = _split_any(b, x)
    f = m - 1.0
    return _special(b, x, _natural(b, k, f, _low(b, f)))


def _natural(b: Builder, k: Vector, f: Vector, low: Vector) -> Vector:
    """k ln2 + f + low."""
    form = FORMATS[f.kind]
    return b.fma(k, form.ln2_high, f + b.fma(k, form.ln2_low, low))


def log1p(b: Builder, x: Vector) -> Vector:
    """log(u) for u = 1 + x rounded, plus what rounding lost, over u."""
    u = x + 1.0
    lost = b.select(abs(x) < 1.0, x - (u - 1.0), 1.0 - (u - x))
    k, m = _split(b, u)
    f = m - 1.0
    result = _natural(b, k, f, _low(b, f) + lost / u)
    result = b.select(abs(x) < 2.0 ** -(FORMATS[x.kind].mantissa + 7), x, result)  # keeps -0 and subnormals
    result = b.select(u.equals(0.0), -math.inf, result)
    result = b.select(x.equals(math.inf), math.inf, result)
    return b.select(x.compare("ult", -1.0), math.nan, result)


def _parts(high: float, low: float, kind: str) -> tuple[float, float]:
    """A constant in two parts of the format."""
    if kind == "f64":
        return high, low
    return as_float32(high), as_float32(high - as_float32(high))


_LOG2_E = (1.4426950408889634, 2.0355273740931033e-17)
_LOG10_E = (0.4342944819032518, 1.098319650216765e-17)
_LOG10_2 = (0.3010299956639812, -2.8037281277851704e-18)


def _based(b: Builder, x: Vector, factor: tuple[float, float], of_two: tuple[float, float]) -> Vector:
    """k of_two + (f + low) factor, the product f factor carried in two parts."""
    k, m = _split_any(b, x)
    f = m - 1.0
    high, rest = _parts(*factor, x.kind)
    product = f * high
    tail = b.fma(_low(b, f), high, b.fma(f, rest, b.fma(f, high, -product)))
    two, two_rest = _parts(*of_two, x.kind)
    whole = k * two
    total = whole + product
    error = product - (total - whole)  # |whole| >= |product| unless k = 0, when nothing is lost
    tail = tail + b.fma(k, two_rest, b.fma(k, two, -whole))
    return _special(b, x, total + (error + tail))


def log2(b: Builder, x: Vector) -> Vector:
    return _based(b, x, _LOG2_E, (1.0, 0.0))


def log10(b: Builder, x: Vector) -> Vector:
    return _based(b, x, _LOG10_E, _LOG10_2)
