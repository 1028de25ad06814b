"""sin, cos, tan in float64: x = n pi/2 + r, polynomials on |r| <= pi/4, and the quadrant's sign and swap.

Results for float32 come from the same code with fewer coefficients. Arguments too large for the reduction in parts
are rare, and go to the C library.
"""

from __future__ import annotations

from dataclasses import dataclass

from trident_cpu.vmath import coefficients as table
from trident_cpu.vmath.builder import Builder, Vector
from trident_cpu.vmath.formats import FORMATS

_HALF_PI = (1.5707963267948966, 6.123233995736766e-17, -1.4973849048591833e-33)
_TWO_OVER_PI = 0.6366197723675814


@dataclass(frozen=True)
class _Reduced:
    high: Vector  # r
    low: Vector | None  # what rounding took from r; None where float32 needs none
    quadrant: Vector  # n as an integer


def _two_difference(a: Vector, b: Vector) -> tuple[Vector, Vector]:
    """a - b rounded, and the rounding's error."""
    difference = a - b
    back = difference - a
    return difference, (a - (difference - back)) - (b + back)


def _reduce(b: Builder, x: Vector, precise: bool) -> _Reduced:
    form = FORMATS["f64"]
    shifted = b.fma(x, _TWO_OVER_PI, form.magic)
    n, quadrant = shifted - form.magic, shifted.bits()
    if not precise:
        return _Reduced(b.fma(n, -_HALF_PI[1], b.fma(n, -_HALF_PI[0], x)), None, quadrant)
    first = n * _HALF_PI[0]
    second = n * _HALF_PI[1]
    near, near_low = _two_difference(x - first, b.fma(n, _HALF_PI[0], -first))
    high, high_low = _two_difference(near, second)
    rest = b.fma(n, -_HALF_PI[2], (near_low + high_low) - b.fma(n, _HALF_PI[1], -second))
    total = high + rest
    return _Reduced(total, rest - (total - high), quadrant)


def _sine(b: Builder, r: _Reduced, terms: tuple[float, ...]) -> Vector:
    z = r.high * r.high
    tail = r.high * z * b.polynomial(terms, z)
    return r.high + (tail if r.low is None else b.fma(r.low, b.fma(z, -0.5, 1.0), tail))


def _cosine(b: Builder, r: _Reduced, terms: tuple[float, ...]) -> Vector:
    z = r.high * r.high
    half = z * 0.5
    main = 1.0 - half
    tail = z * z * b.polynomial(terms, z)
    if r.low is not None:
        tail = tail - r.high * r.low
    return main + (((1.0 - main) - half) + tail)


_TERMS = {"f32": (table.SIN_F32, table.COS_F32), "f64": (table.SIN_F64, table.COS_F64)}
_LARGE = {"f32": 2.0**46, "f64": 2.0**22}


def _wave(b: Builder, x: Vector, name: str, quarter: int) -> Vector:
    """sin(x + quarter * pi/2)."""
    sine, cosine = _TERMS[x.kind]
    r = _reduce(b, x.to("f64"), precise=x.kind == "f64")
    quadrant = r.quadrant + quarter
    odd = (quadrant & 1).equals(1)
    value = b.select(odd, _cosine(b, r, cosine), _sine(b, r, sine))
    value = (value.bits() ^ ((quadrant & 2) << 62)).floats().to(x.kind)
    if quarter == 0:
        value = b.select(x.equals(0.0), x, value)  # -0
    return b.libm_where(abs(x) > _LARGE[x.kind], name, x, value)


def sin(b: Builder, x: Vector) -> Vector:
    return _wave(b, x, "sin", 0)


def cos(b: Builder, x: Vector) -> Vector:
    return _wave(b, x, "cos", 1)


def tan(b: Builder, x: Vector) -> Vector:
    sine, cosine = _TERMS[x.kind]
    r = _reduce(b, x.to("f64"), precise=x.kind == "f64")
    s, c = _sine(b, r, sine), _cosine(b, r, cosine)
    odd = (r.quadrant & 1).equals(1)
    value = (b.select(odd, -c, s) / b.select(odd, s, c)).to(x.kind)
    value = b.select(x.equals(0.0), x, value)
    return b.libm_where(abs(x) > _LARGE[x.kind], "tan", x, value)
