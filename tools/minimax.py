"""Where the polynomial coefficients of trident_cpu/vmath come from: weighted minimax fits (Remez) with mpmath.

    python tools/minimax.py            # prints every table of trident_cpu/vmath/coefficients.py

A fit is sum(c[k] * x**exponents[k]) that minimises the largest weight(x) * |error| on an interval.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Sequence

import mpmath as mp

mp.mp.prec = 240
Real = Callable[[mp.mpf], mp.mpf]


def remez(f: Real, weight: Real, exponents: Sequence[int], low: float, high: float) -> tuple[list[mp.mpf], mp.mpf]:
    """(coefficients, largest weighted error)."""
    low, high, count = mp.mpf(low), mp.mpf(high), len(exponents) + 1
    nodes = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * k / (count - 1)) for k in range(count)]
    grid = [low + (high - low) * (1 - mp.cos(mp.pi * k / 400)) / 2 for k in range(401)]
    values = [(x, f(x), weight(x)) for x in grid]
    coefficients: list[mp.mpf] = []
    for _ in range(12):
        system = mp.matrix(count, count)
        right = mp.matrix(count, 1)
        for row, x in enumerate(nodes):
            for column, exponent in enumerate(exponents):
                system[row, column] = x**exponent
            system[row, count - 1] = (-1) ** row / weight(x)
            right[row] = f(x)
        solution = mp.lu_solve(system, right)
        coefficients, level = [solution[k] for k in range(count - 1)], abs(solution[count - 1])
        errors = [
            (x, w * (y - sum(c * x**e for c, e in zip(coefficients, exponents, strict=True)))) for x, y, w in values
        ]
        peaks = [max(group, key=lambda p: abs(p[1])) for _, group in itertools.groupby(errors, lambda p: p[1] > 0)]
        while len(peaks) > count:
            peaks.pop(0 if abs(peaks[0][1]) < abs(peaks[-1][1]) else -1)
        if len(peaks) < count:
            break  # the error is at the grid's own noise
        nodes = [x for x, _ in peaks]
        worst = max(abs(error) for _, error in peaks)
        if worst < level * mp.mpf("1.01"):
            return coefficients, worst
    return coefficients, max(abs(error) for _, error in errors)


def taylor_tail(f: Real, known: Sequence[mp.mpf], power: int) -> Real:
    """(f(x) - sum(known[k] x**k)) / x**power, continued through 0 by a high-order series."""
    series = mp.taylor(f, 0, 32)

    def tail(x: mp.mpf) -> mp.mpf:
        if abs(x) < mp.mpf("0.01"):
            rest = [c - (known[k] if k < len(known) else 0) for k, c in enumerate(series)]
            return mp.fsum(c * x ** (k - power) for k, c in enumerate(rest) if k >= power)
        return (f(x) - mp.fsum(c * x**k for k, c in enumerate(known))) / x**power

    return tail


def fits() -> list[tuple[str, Real, Real, int, float, float]]:
    """(name, function, weight, number of terms, low, high) of each table."""
    half_ln2 = float(mp.log(2) / 2) * 1.0001
    root = mp.sqrt(2)
    one = mp.mpf(1)
    exp_tail = taylor_tail(mp.exp, [one, one, one / 2], 3)  # exp(r) = 1 + r + r^2/2 + r^3 P(r)
    exp_square_tail = taylor_tail(mp.exp, [one, one], 2)  # exp(r) = 1 + r + r^2 P(r)
    exp2_tail = taylor_tail(lambda x: mp.mpf(2) ** x, [one, mp.log(2)], 2)  # 2^r = 1 + ln2 r + r^2 P(r)
    log_tail = taylor_tail(lambda x: mp.log(1 + x), [mp.mpf(0), one, -one / 2], 3)  # f - f^2/2 + f^3 P(f)
    log2_low, log2_high = float(1 / root - 1) * 1.0001, float(root - 1) * 1.0001

    def in_square(f: Real, known: Sequence[mp.mpf], power: int) -> Real:
        """The tail of f as a function of z = x^2."""
        tail = taylor_tail(f, known, power)
        return lambda z: tail(mp.sqrt(z))

    zero = mp.mpf(0)
    atanh_tail = in_square(lambda s: 2 * mp.atanh(s), [zero, mp.mpf(2)], 3)  # log((1+s)/(1-s)) = 2s + s z P(z)
    sin_tail = in_square(mp.sin, [zero, one], 3)
    cos_tail = in_square(mp.cos, [one, zero, -one / 2], 4)
    sinh_tail = in_square(mp.sinh, [zero, one], 3)
    atan_tail = in_square(mp.atan, [zero, one], 3)
    asin_tail = in_square(mp.asin, [zero, one], 3)

    def erf_ratio(z: mp.mpf) -> mp.mpf:  # erf(x) = x + x P(x^2)
        return (2 / mp.sqrt(mp.pi) if z < 1e-30 else mp.erf(mp.sqrt(z)) / mp.sqrt(z)) - 1

    def log_erfc(t: mp.mpf) -> mp.mpf:
        return mp.log(mp.erfc(t))

    def scaled_erfc(pivot: float) -> Real:
        """(a + 1/2) e^(a^2) erfc(a), less a number near it, of t = (a - pivot) / (a + pivot)."""

        def g(t: mp.mpf) -> mp.mpf:
            a = pivot * (1 + t) / (1 - t)
            return (a + one / 2) * mp.exp(a * a) * mp.erfc(a) - mp.mpf(ERFC_BASE)

        return g

    def turned(pivot: float, end: float) -> tuple[float, float]:
        """t from ERFC_START to the end."""
        return (ERFC_START - pivot) / (ERFC_START + pivot), (end - pivot) / (end + pivot)

    def flat(x: mp.mpf) -> mp.mpf:
        return one

    quarter_pi = float(mp.pi / 4) * 1.001
    cut = 1.0
    return [
        ("EXP_F32", exp_tail, lambda x: abs(x) ** 3 + mp.mpf("1e-3"), 4, -half_ln2, half_ln2),
        ("EXP_F64", exp_tail, lambda x: abs(x) ** 3 + mp.mpf("1e-3"), 10, -half_ln2, half_ln2),
        ("EXP_SIXTEENTH_F32", exp_square_tail, lambda x: x**2 + mp.mpf("1e-6"), 2, -half_ln2 / 16, half_ln2 / 16),
        ("EXP2_F32", exp2_tail, lambda x: x**2 + mp.mpf("1e-3"), 5, -0.5, 0.5),
        ("EXP2_F64", exp2_tail, lambda x: x**2 + mp.mpf("1e-3"), 11, -0.5, 0.5),
        ("LOG_F32", log_tail, lambda x: x**2 + mp.mpf("1e-2"), 9, log2_low, log2_high),
        ("LOG_F64", atanh_tail, lambda z: z + mp.mpf("1e-3"), 8, 0, float(((root - 1) / (root + 1)) ** 2) * 1.001),
        ("SIN_F32", sin_tail, flat, 4, 0, quarter_pi**2),
        ("SIN_F64", sin_tail, flat, 7, 0, quarter_pi**2),
        ("COS_F32", cos_tail, flat, 4, 0, quarter_pi**2),
        ("COS_F64", cos_tail, flat, 7, 0, quarter_pi**2),
        ("SINH_F64", sinh_tail, flat, 8, 0, 1.01),
        ("ATAN_F32", atan_tail, flat, 9, 0, 0.18),
        ("ASIN_F32", asin_tail, flat, 9, 0, 0.25),
        ("ERF_SMALL_F32", erf_ratio, flat, 7, 0, cut),
        ("ERF_SMALL_F64", erf_ratio, flat, 13, 0, cut),
        ("ERF_LARGE_F32", log_erfc, lambda t: mp.erfc(t) + mp.mpf("1e-9"), 9, cut, 4.0),
        ("ERF_LARGE_F64", log_erfc, lambda t: mp.erfc(t) + mp.mpf("1e-18"), 22, cut, 6.0),
        ("ERFC_F32", scaled_erfc(ERFC_PIVOT_F32), flat, 10, *turned(ERFC_PIVOT_F32, ERFC_END_F32)),
        ("ERFC_F64", scaled_erfc(ERFC_PIVOT_F64), flat, 22, *turned(ERFC_PIVOT_F64, ERFC_END_F64)),
    ]


# erfc(a) = e^(-a^2) (ERFC_BASE + P(t)) / (a + 1/2) from the start to where results have reached 0, of float32 and of
# float64; pivots near the middle, by ratio, need the fewest terms
ERFC_BASE, ERFC_START = 19 / 32, 0.6875
ERFC_PIVOT_F32, ERFC_END_F32 = 2.5, 10.25
ERFC_PIVOT_F64, ERFC_END_F64 = 3.0, 28.0


ERF_STEP = 33 / 128  # 15.5 steps reach 3.996, where erf rounds to 1
ERF_BASES = (1.0,) * 6 + (0.5,) * 6 + (0.25,) * 4  # near erf(x) / x at the 16 points, so that their difference is small


def erf_pieces() -> list[list[mp.mpf]]:
    """erf(x) / x = ERF_BASES[k] + sum(pieces[p][k] * (x - k ERF_STEP)**p): k ERF_STEP is nearest to x, and x >= 0."""

    def ratio(x: mp.mpf) -> mp.mpf:
        return 2 / mp.sqrt(mp.pi) if abs(x) < 1e-30 else mp.erf(x) / x

    rows = []
    for k in range(16):
        low, high = (0.0 if k == 0 else -ERF_STEP / 2), ERF_STEP / 2
        row, worst = remez(
            lambda h, k=k: ratio(k * mp.mpf(ERF_STEP) + h),
            lambda h, k=k: 1 / ratio(k * mp.mpf(ERF_STEP) + h), range(6), low, high,
        )  # fmt: skip
        assert worst < 2.0**-27, (k, worst)
        rows.append([row[0] - ERF_BASES[k], *row[1:]])
    return [list(column) for column in zip(*rows, strict=True)]


def print_erf_pieces() -> None:
    print("# by tools/minimax.py's erf_pieces; relative error below 2^-27")
    print(f"ERF_STEP_F32 = {ERF_STEP}\nERF_BASES_F32 = {ERF_BASES}\nERF_PIECES_F32 = (")
    for column in erf_pieces():
        print("    (")
        for start in range(0, 16, 4):
            print("        " + ", ".join(mp.nstr(c, 10) for c in column[start : start + 4]) + ",")
        print("    ),")
    print(")", flush=True)


def print_erfc_places() -> None:
    print("# by choice: see tools/minimax.py")
    for name in ("BASE", "START", "PIVOT_F32", "PIVOT_F64", "END_F32", "END_F64"):
        print(f"ERFC_{name} = {globals()[f'ERFC_{name}']}")


def main(names: Sequence[str]) -> None:
    if not names or "ERF_PIECES_F32" in names:
        print_erf_pieces()
    if not names or "ERFC_F64" in names:
        print_erfc_places()
    for name, f, weight, terms, low, high in fits():
        if names and name not in names:
            continue
        coefficients, worst = remez(f, weight, range(terms), low, high)
        print(f"# weighted error 2^{float(mp.log(worst, 2)):.1f} on [{low:.4g}, {high:.4g}]")
        print(f"{name} = (")
        for coefficient in coefficients:
            print(f"    {mp.nstr(coefficient, 18)},")
        print(")", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
