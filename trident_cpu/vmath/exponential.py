"""exp, exp2, expm1, sinh, cosh, tanh, erf, erfc: x = n ln2 + r, |r| <= ln2/2, a polynomial in r, and a power of two."""

from __future__ import annotations

from trident_cpu.vmath import coefficients as table
from trident_cpu.vmath.builder import Builder, Vector
from trident_cpu.vmath.formats import FORMATS

_LOG2E = 1.4426950408889634
# Where results have reached 0 (below) and infinity (above), with a little to spare.
_EXP_RANGE = {"f32": (-104.0, 89.0), "f64": (-746.0, 710.0)}
_EXP2_RANGE = {"f32": (-151.0, 129.0), "f64": (-1076.0, 1025.0)}
_EXP = {"f32": table.EXP_F32, "f64": table.EXP_F64}
_EXP2 = {"f32": table.EXP2_F32, "f64": table.EXP2_F64}


def _nearest(b: Builder, x: Vector, scale: float) -> tuple[Vector, Vector]:
    """n = round(x * scale), as a float and as an integer.

    Adding 1.5 * 2^(mantissa bits) leaves n in the low bits; unlike a conversion it is defined for NaN.
    """
    form = FORMATS[x.kind]
    shifted = b.fma(x, scale, form.magic)
    return shifted - form.magic, shifted.bits() - form.magic_bits


def _power(b: Builder, n: Vector, kind: str) -> Vector:
    """2^n for n in the normal range."""
    form = FORMATS[kind]
    return ((n + form.bias) << form.mantissa).floats()


def _times_power(b: Builder, p: Vector, n: Vector, k: Vector, above: Vector | None = None) -> Vector:
    """(1 + p) * 2^n, also where the result is subnormal or overflows; k is n as an integer. By two halves of n."""
    if b.avx512:
        return b.scale(p + 1.0, n, above)
    half = k >> 1
    power = _power(b, half, p.kind)
    return b.fma(p, power, power) * _power(b, k - half, p.kind)


def _reduced(b: Builder, x: Vector, n: Vector) -> Vector:
    form = FORMATS[x.kind]
    return b.fma(n, -form.ln2_low, b.fma(n, -form.ln2_high, x))


def _reduced_in_two(b: Builder, x: Vector, n: Vector) -> tuple[Vector, Vector]:
    """(r, what rounding took from it)."""
    form = FORMATS[x.kind]
    first = b.fma(n, -form.ln2_high, x)
    r = b.fma(n, -form.ln2_low, first)
    return r, b.fma(n, -form.ln2_low, first - r)


def _exp_minus_1(b: Builder, r: Vector) -> Vector:
    """e^r - 1 for |r| <= ln2/2, relative to e^r. Odd and even powers apart: a chain of them is what takes the time."""
    square = r * r
    return b.fma(_exp_tail(b, r, square), square, r)


def _exp_tail(b: Builder, r: Vector, square: Vector) -> Vector:
    """(e^r - 1 - r) / r^2."""
    return b.fma(b.pairs(_EXP[r.kind], r, square), r, 0.5)


_SIXTEENTHS = tuple(2.0 ** (i / 16) for i in range(16))


def _exp_by_table(b: Builder, x: Vector, above: Vector) -> Vector:
    """x = n ln2 + r with n in sixteenths: 2^(n mod 1) from a register, so that three powers of r are enough."""
    form = FORMATS["f32"]
    magic = form.magic / 16  # its last place is 1/16
    shifted = b.fma(x, _LOG2E, magic)
    n = shifted - magic
    root = b.look_up(_SIXTEENTHS, shifted.bits())
    r = _reduced(b, x, n)
    slope = b.fma(b.polynomial(table.EXP_SIXTEENTH_F32, r), r, 1.0)
    return b.scale(b.fma(root * r, slope, root), n, above)


def _within(b: Builder, x: Vector, low: float, high: float) -> tuple[Vector, Vector]:
    """x in its range, and where it is not below: AVX-512 does not compute there. (A result that becomes 0 by underflow,
    as of -inf cut to `low`, takes an Intel core 150 cycles.)"""
    above, x = x.compare("ugt", low), b.at_most(x, high)
    return (x if b.avx512 else b.at_least(x, low)), above


def exp(b: Builder, x: Vector) -> Vector:
    x, above = _within(b, x, *_EXP_RANGE[x.kind])
    if x.kind == "f32" and b.avx512:
        return _exp_by_table(b, x, above)
    n, k = _nearest(b, x, _LOG2E)
    return _times_power(b, _exp_minus_1(b, _reduced(b, x, n)), n, k, above)


def exp2(b: Builder, x: Vector) -> Vector:
    x, above = _within(b, x, *_EXP2_RANGE[x.kind])
    n, k = _nearest(b, x, 1.0)
    r = x - n
    slope = b.fma(b.polynomial(_EXP2[x.kind], r), r, 0.6931471805599453)
    return b.scale(b.fma(slope, r, 1.0), n, above) if b.avx512 else _times_power(b, slope * r, n, k, above)


def _small_exp(b: Builder, x: Vector, shift: int = 0) -> Vector:
    """e^x * 2^-shift where that is a normal number (the caller has seen to it): one multiplication scales."""
    n, k = _nearest(b, x, _LOG2E)
    power = _power(b, k - shift, x.kind)
    return b.fma(_exp_minus_1(b, _reduced(b, x, n)), power, power)


def exp_plus_1(b: Builder, x: Vector) -> Vector:
    """e^x + 1, the bits of that sum: where e^x is no normal number the sum is 1, so that one multiplication scales."""
    if b.avx512:
        return exp(b, x) + 1.0
    x = b.at_least(b.at_most(x, _EXP_RANGE[x.kind][1]), -80.0)
    return b.fma(_small_exp(b, x, 1), 2.0, 1.0)


def expm1(b: Builder, x: Vector) -> Vector:
    """2^n (e^r - 1) + (2^n - 1), the sum carried in two parts; at half scale, so that n = 1024 does not overflow."""
    form, bounded = FORMATS[x.kind], b.at_most(x, _EXP_RANGE[x.kind][1])
    bounded = b.at_least(bounded, -60.0)
    n, k = _nearest(b, bounded, _LOG2E)
    r, lost = _reduced_in_two(b, bounded, n)
    tail = b.fma(b.polynomial(_EXP[x.kind], r), r, 0.5)
    low = b.fma(tail * r, r, lost)
    scale = _power(b, k - 1, x.kind)
    whole, part = scale - 0.5, scale * r
    total = whole + part
    back = total - whole
    error = (whole - (total - back)) + (part - back)
    result = (total + b.fma(scale, low, error)) * 2.0
    return b.select(abs(x) < 2.0 ** -(form.mantissa + 7), x, result)  # keeps -0 and subnormals


def tanh(b: Builder, x: Vector) -> Vector:
    """e / (e + 2) with e = expm1(2|x|), the quotient corrected once for the rounding of the sum and of itself."""
    size = b.at_most(abs(x), 22.0)
    e = expm1(b, size + size)
    total = e + 2.0
    inverse = 1.0 / total
    quotient = e * inverse
    lost = e - (total - 2.0)  # of the sum; what it loses once e outweighs 2 no longer shows
    rest = b.fma(-quotient, total, e) - quotient * lost
    return b.copysign(b.fma(rest, inverse, quotient), x)


def cosh(b: Builder, x: Vector) -> Vector:
    half = _half_exp(b, abs(x))
    return half + 0.25 / half


def sinh(b: Builder, x: Vector) -> Vector:
    size = abs(x)
    half = _half_exp(b, size)
    square = x * x
    small = b.fma(size * square, b.polynomial(table.SINH_F64, square), size)
    return b.copysign(b.select(size < 1.0, small, half - 0.25 / half), x)


def _half_exp(b: Builder, x: Vector) -> Vector:
    """e^x / 2 for x >= 0, to infinity."""
    x = b.at_most(x, _EXP_RANGE[x.kind][1] + 1.0)
    n, k = _nearest(b, x, _LOG2E)
    return _times_power(b, _exp_minus_1(b, _reduced(b, x, n)), n - 1.0, k - 1)


def _erf_by_table(b: Builder, x: Vector) -> Vector:
    """x base + x P(h): h is |x|'s distance from the nearest of 16 points, whose base (1, 1/2 or 1/4) and coefficients
    come from registers. x base is exact, and P small beside it."""
    x = b.at_least(b.at_most(x, 3.99), -3.99)
    size = abs(x)
    magic = FORMATS["f32"].magic
    shifted = b.fma(size, 1 / table.ERF_STEP_F32, magic)
    h = b.fma(shifted - magic, -table.ERF_STEP_F32, size)
    nearest = shifted.bits()
    *lower, small = [b.look_up(powers, nearest) for powers in table.ERF_PIECES_F32]
    for coefficient in reversed(lower):
        small = b.fma(small, h, coefficient)
    result = b.fma(x, small, x * b.look_up(table.ERF_BASES_F32, nearest))
    return b.at_least(b.at_most(result, 1.0), -1.0)


_ERF = {"f32": (table.ERF_SMALL_F32, table.ERF_LARGE_F32, 4.0), "f64": (table.ERF_SMALL_F64, table.ERF_LARGE_F64, 6.0)}


def erf(b: Builder, x: Vector) -> Vector:
    """x + x P(x^2) below 1, else 1 - exp(Q(|x|)) with Q fitted to log(erfc)."""
    if x.kind == "f32" and b.avx512:
        return _erf_by_table(b, x)
    small_table, large_table, limit = _ERF[x.kind]
    size = abs(x)
    small = b.fma(b.polynomial(small_table, x * x), x, x)
    large = 1.0 - _small_exp(b, b.polynomial(large_table, b.at_most(size, limit)))
    return b.select(size < 1.0, small, b.copysign(large, x))


# terms of G - 19/32 in t = (a - pivot) / (a + pivot), the pivot, and where results have reached 0
_ERFC = {
    "f32": (table.ERFC_F32, table.ERFC_PIVOT_F32, table.ERFC_END_F32),
    "f64": (table.ERFC_F64, table.ERFC_PIVOT_F64, table.ERFC_END_F64),
}


def erfc(b: Builder, x: Vector) -> Vector:
    """1 - erf below 11/16, 1 - x in two parts; above, of a = |x|, e^(-a^2) G / (a + 1/2), or 2 less that for x < 0."""
    size, end = abs(x), _ERFC[x.kind][2]
    negative = x < 0.0
    whole = 1.0 - x
    lost = (1.0 - whole) - x
    near = whole + b.fma(-x, b.polynomial(_ERF[x.kind][0], x * x), lost)
    # at -6 the result is 2 already; to compute what comes to nothing would take an assist of the CPU
    known = size > b.select(negative, b.constant(6.0, x.kind), end)
    far = _erfc_far(b, b.select(known, 6.0, size))
    far = b.select(negative, 2.0 - far, b.select(known, 0.0, far))
    return b.select(size < table.ERFC_START, near, far)


def _erfc_far(b: Builder, a: Vector) -> Vector:
    """G = (a + 1/2) e^(a^2) erfc(a) is 0.56 to 0.64. Products and the quotient are carried in two parts."""
    terms, pivot, _ = _ERFC[a.kind]
    n, k, power, power_low = _exp_of_minus_square(b, a)
    divisor, other = a + 0.5, a + pivot
    divisor_low = 0.5 - (divisor - a)
    inverse_of_both = 1.0 / (divisor * other)
    inverse = inverse_of_both * other
    t = (a - pivot) * (inverse_of_both * divisor)
    small = b.pairs(terms, t, t * t)
    g = small + table.ERFC_BASE
    g_low = small - (g - table.ERFC_BASE)
    product = power * g
    product_low = b.fma(power, g, -product) + b.fma(power, g_low, power_low * g)
    quotient = product * inverse
    rest = b.fma(-quotient, divisor, product) + b.fma(-quotient, divisor_low, product_low)
    value = b.fma(rest, inverse, quotient)
    if b.avx512:
        return b.scale(value, n)
    half = k >> 1
    return value * _power(b, half, a.kind) * _power(b, k - half, a.kind)


def _exp_of_minus_square(b: Builder, a: Vector) -> tuple[Vector, Vector, Vector, Vector]:
    """(n, k, p, p's rest): e^(-a^2) = 2^n (p + rest), where k is n as an integer."""
    square = a * a
    n, k = _nearest(b, square, -_LOG2E)
    r, lost = _reduced_in_two(b, -square, n)
    lost = lost - b.fma(a, a, -square)
    start = r + 1.0
    tail = _exp_tail(b, r, r * r) * (r * r)
    tail = tail + b.fma(lost, start + tail, r - (start - 1.0))
    power = start + tail
    return n, k, power, tail - (power - start)
