"""sqrt, rsqrt, cbrt, pow, and the inverse trigonometric functions of float32."""

from __future__ import annotations

import math

from trident_cpu.vmath import coefficients as table
from trident_cpu.vmath.builder import Builder, Vector
from trident_cpu.vmath.exponential import exp2
from trident_cpu.vmath.logarithm import log2


def sqrt(b: Builder, x: Vector) -> Vector:
    return b.intrinsic("sqrt", x)


def rsqrt(b: Builder, x: Vector) -> Vector:
    return 1.0 / b.intrinsic("sqrt", x)


def cbrt(b: Builder, x: Vector) -> Vector:
    """In float64: a third of the exponent as a first guess (3%), then Halley's iteration, which cubes the error."""
    size = abs(x)
    tiny, huge = size < 2.0**-1022, size > 2.0**1000
    scaled = b.select(tiny, size * 2.0**54, b.select(huge, size * 2.0**-54, size))
    t = (scaled.bits() / 3 + 0x2A9F7893782DA1CE).floats()
    for _ in range(3):
        cube = t * t * t
        t = t + t * ((scaled - cube) / (cube + cube + scaled))
    t = b.select(tiny, t * 2.0**-18, b.select(huge, t * 2.0**18, t))
    ordinary = (size > 0.0) & (size < math.inf)
    return b.select(ordinary, b.copysign(t, x), x)


def power(b: Builder, x: Vector, y: Vector) -> Vector:
    """x^y = 2^(y log2 |x|) in float64, exact enough for float32; then C's rules for signs, ones and integers."""
    size = abs(x)
    value = exp2(b, y * log2(b, size))
    whole = y.equals(b.intrinsic("trunc", y))
    half = y * 0.5
    odd = whole & half.compare("one", b.intrinsic("trunc", half))
    value = b.select(odd, b.copysign(value, x), value)
    undefined = (x < 0.0) & (x > -math.inf) & whole.compare("eq", 0)
    # an infinite y is whole: trunc keeps it, and half of it too
    value = b.select(undefined, math.nan, value)
    one = x.equals(1.0) | y.equals(0.0) | (size.equals(1.0) & abs(y).equals(math.inf))
    return b.select(one, 1.0, value)


def atan(b: Builder, x: Vector) -> Vector:
    """Of 1/|x| above 1; then of (t-1)/(t+1), less pi/4, above tan(pi/8)."""
    size = abs(x)
    inverted = size > 1.0
    t = b.select(inverted, 1.0 / size, size)
    turned = t > 0.41421356237309503
    u = b.select(turned, (t - 1.0) / (t + 1.0), t)
    z = u * u
    angle = b.fma(u * z, b.polynomial(table.ATAN_F32, z), u)
    angle = b.select(turned, angle + math.pi / 4, angle)
    return b.copysign(b.select(inverted, math.pi / 2 - angle, angle), x)


def _asin_parts(b: Builder, x: Vector) -> tuple[Vector, Vector]:
    """(|x| > 1/2, asin(s)) with s = |x|, or sqrt((1 - |x|)/2) above 1/2."""
    size = abs(x)
    steep = size > 0.5
    z = b.select(steep, (1.0 - size) * 0.5, size * size)
    s = b.select(steep, b.intrinsic("sqrt", z), size)
    return steep, b.fma(s * z, b.polynomial(table.ASIN_F32, z), s)


def asin(b: Builder, x: Vector) -> Vector:
    steep, angle = _asin_parts(b, x)
    return b.copysign(b.select(steep, math.pi / 2 - (angle + angle), angle), x)


def acos(b: Builder, x: Vector) -> Vector:
    steep, angle = _asin_parts(b, x)
    double = angle + angle
    outer = b.select(x < 0.0, math.pi - double, double)
    return b.select(steep, outer, math.pi / 2 - b.copysign(angle, x))
