"""The math library against mpmath: at most 2 units in the last place, and C's special values."""

import ctypes
import math

import mpmath
import numpy as np
import pytest
import torch

from trident_cpu import jit, vmath

mpmath.mp.prec = 120
RANDOM = np.random.default_rng(0)


AVX512 = "avx512f" in jit.features()


def compiled(name: str, element: str, width: int, avx512: bool = AVX512):
    """numpy arrays -> numpy array, through the library's function on vectors of `width`."""
    declares: set[str] = set()
    body = vmath.function(name, element, width, declares, avx512)
    scalar = {"f32": "float", "f64": "double"}[element]
    vector = scalar if width == 1 else f"<{width} x {scalar}>"
    arity = vmath.ARITY[name]
    loads, arguments = "", []
    for at in range(arity):
        loads += (
            f"  %p{at} = getelementptr {scalar}, ptr %in{at}, i64 %i\n  %a{at} = load {vector}, ptr %p{at}, align 4\n"
        )
        arguments.append(f"{vector} %a{at}")
    pointers = ", ".join(f"ptr %in{at}" for at in range(arity))
    text = f"""
define void @apply({pointers}, ptr %out, i64 %n) {{
entry:
  br label %loop
loop:
  %i = phi i64 [ 0, %entry ], [ %j, %loop ]
{loads}  %y = call {vector} {vmath.symbol(name, element, width)}({", ".join(arguments)})
  %q = getelementptr {scalar}, ptr %out, i64 %i
  store {vector} %y, ptr %q, align 4
  %j = add i64 %i, {width}
  %more = icmp slt i64 %j, %n
  br i1 %more, label %loop, label %done
done:
  ret void
}}
"""
    address = jit.address(jit.to_object(body + text + "\n".join(sorted(declares))), "apply")
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * (arity + 1), ctypes.c_int64)(address)
    dtype = {"f32": np.float32, "f64": np.float64}[element]

    def apply(*arrays):
        padded = [np.concatenate([x, np.ones(-len(x) % width)]).astype(dtype) for x in arrays]
        out = np.empty_like(padded[0])
        call(*[x.ctypes.data for x in padded], out.ctypes.data, len(out))
        return out[: len(arrays[0])]

    return apply


def ulps(exact: mpmath.mpf, found: float, element: str) -> float:
    """|exact - found| in units of the last place of the exact value's binade."""
    mantissa, least = {"f32": (24, -149), "f64": (53, -1074)}[element]
    largest = {"f32": 3.4028234663852886e38, "f64": 1.7976931348623157e308}[element]
    if math.isinf(found):
        return 0.0 if abs(exact) >= largest else math.inf
    if exact == 0:
        return 0.0 if found == 0 else math.inf
    unit = mpmath.mpf(2) ** max(int(mpmath.floor(mpmath.log(abs(exact), 2))) + 1 - mantissa, least)
    return float(abs(exact - mpmath.mpf(found)) / unit)


def spread(low: float, high: float, count: int, element: str) -> np.ndarray:
    """Both signs where allowed: uniform in [low, high], and all magnitudes down to the subnormals."""
    dtype = {"f32": np.float32, "f64": np.float64}[element]
    tiny = {"f32": -149, "f64": -1074}[element]
    uniform = RANDOM.uniform(low / 2, high / 2, count) * 2
    top = math.log2(max(abs(low), abs(high)))
    scaled = np.exp2(RANDOM.uniform(tiny, top, count)) * RANDOM.choice([-1.0, 1.0], count)
    every = np.concatenate([uniform, scaled]).astype(dtype)
    return every[(every >= low) & (every <= high)]


HUGE = {"f32": 3e38, "f64": 1e308}
EXP = {"f32": (-103.5, 88.7), "f64": (-744.5, 709.7)}
EXP2 = {"f32": (-149.0, 127.9), "f64": (-1074.0, 1023.9)}
ERFC_END = {"f32": 10.1, "f64": 27.3}  # results are 0 there, subnormal a little below


def everywhere(element):
    return -HUGE[element], HUGE[element]


def positive(element):
    return 0.0, HUGE[element]


# name -> (the truth, its range for each element)
FUNCTIONS = {
    "exp": (mpmath.exp, EXP.get),
    "exp2": (lambda x: mpmath.mpf(2) ** x, EXP2.get),
    "expm1": (mpmath.expm1, lambda e: (-50.0, EXP[e][1])),
    "exp_plus_1": (lambda x: mpmath.exp(x) + 1, EXP.get),
    "sinh": (mpmath.sinh, lambda e: (-EXP[e][1], EXP[e][1])),
    "cosh": (mpmath.cosh, lambda e: (-EXP[e][1], EXP[e][1])),
    "tanh": (mpmath.tanh, lambda e: (-25.0, 25.0)),
    "erf": (mpmath.erf, lambda e: (-7.0, 7.0)),
    "erfc": (mpmath.erfc, lambda e: (-7.0, ERFC_END[e])),
    "log": (mpmath.log, positive),
    "log2": (lambda x: mpmath.log(x, 2), positive),
    "log10": (mpmath.log10, positive),
    "log1p": (mpmath.log1p, lambda e: (-1.0, HUGE[e])),
    "sin": (mpmath.sin, everywhere),
    "cos": (mpmath.cos, everywhere),
    "tan": (mpmath.tan, everywhere),
    "asin": (mpmath.asin, lambda e: (-1.0, 1.0)),
    "acos": (mpmath.acos, lambda e: (-1.0, 1.0)),
    "atan": (mpmath.atan, everywhere),
    "asinh": (mpmath.asinh, everywhere),
    "acosh": (mpmath.acosh, lambda e: (1.0, HUGE[e])),
    "atanh": (mpmath.atanh, lambda e: (-1.0, 1.0)),
    "sqrt": (mpmath.sqrt, positive),
    "rsqrt": (lambda x: 1 / mpmath.sqrt(x), positive),
    "cbrt": (lambda x: mpmath.sign(x) * mpmath.cbrt(abs(x)), everywhere),
}
# Where each is hardest: around these points as well.
CENTRES = {
    "exp": [0.34657, 1.0],
    "expm1": [0.34657, -0.34657, 1.0397, 0.69],
    "exp_plus_1": [-17.3, -37.0, -80.0],
    "sinh": [1.0],
    "cosh": [0.5],
    "tanh": [0.03, 0.17, 0.5, 1.0],
    "erf": [1.0, 0.5, 3.0],
    "log": [1.0, 0.70710678, 1.41421356],
    "log2": [1.0, 0.70710678, 2.0],
    "log10": [1.0, 10.0, 0.70710678],
    "log1p": [-0.2928, 0.41421356, 1.0],
    "sin": [3.14159265, 6.2831853, 100.0, 1e5],
    "cos": [1.57079633, 4.71238898, 1e5],
    "tan": [1.57079633, 3.14159265, 0.785398, 1e5],
    "asin": [1.0, 0.5],
    "acos": [1.0, 0.5, -0.5],
    "atan": [1.0, 0.4142, 2.414],
    "asinh": [0.12, 0.46, 0.51],
    "acosh": [1.0001, 1.002, 1.0076, 2.0],
    "atanh": [0.03, 0.06, 0.4],
    "erfc": [0.6875, -0.6875, 1.17, 1.21, 0.5],
}


@pytest.mark.parametrize("element", vmath.ELEMENTS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_within_two_ulp(name, element):
    truth, bounds = FUNCTIONS[name]
    low, high = bounds(element)
    near = [c * (1 + RANDOM.normal(0, 10.0 ** -RANDOM.integers(1, 7), 150)) for c in CENTRES.get(name, [])]
    moderate = spread(max(low, -20.0), min(high, 20.0), 300, element)
    x = np.concatenate([spread(low, high, 300, element), moderate, *near])
    x = x.astype({"f32": np.float32, "f64": np.float64}[element])
    x = x[(x >= low) & (x <= high)]
    found = compiled(name, element, 16 if element == "f32" else 8)(x)
    worst, at = 0.0, None
    for value, result in zip(x.tolist(), found.tolist(), strict=True):
        if name in ("sin", "cos", "tan") and abs(value) > 1e30:
            with mpmath.workprec(1300):
                exact = truth(mpmath.mpf(value))
        elif value == 0 and name in ("log", "log2", "log10", "rsqrt"):
            continue
        else:
            exact = truth(mpmath.mpf(value))
        if mpmath.isinf(exact):
            assert result == float(exact)
            continue
        error = ulps(exact, result, element)
        if error > worst:
            worst, at = error, value
    assert worst <= 2, f"{worst:.2f} ulp at {at!r}"


@pytest.mark.parametrize("element", vmath.ELEMENTS)
def test_pow_within_two_ulp(element):
    x = np.abs(spread(-100.0, 100.0, 400, element)) + 1e-30
    y = spread(-12.0, 12.0, 400, element)
    count = min(len(x), len(y))
    dtype = {"f32": np.float32, "f64": np.float64}[element]
    x, y = x[:count].astype(dtype), RANDOM.permutation(y)[:count].astype(dtype)
    found = compiled("pow", element, 8)(x, y)
    for a, b, result in zip(x.tolist(), y.tolist(), found.tolist(), strict=True):
        assert ulps(mpmath.power(a, b), result, element) <= 2, (a, b)


SPECIAL = [0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0, -3.0, 1e-40, -1e-40]
NUMPY = {
    "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "asinh": np.arcsinh, "acosh": np.arccosh,
    "atanh": np.arctanh, "rsqrt": lambda x: 1 / np.sqrt(x), "exp_plus_1": lambda x: np.exp(x) + 1,
}  # fmt: skip


def same_special(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    real = ~np.isnan(expected)
    assert np.array_equal(np.isinf(found), np.isinf(expected))
    assert np.array_equal(np.signbit(found)[real], np.signbit(expected)[real])
    assert np.array_equal(found[real] == 0, expected[real] == 0)


@pytest.mark.parametrize("element", vmath.ELEMENTS)
@pytest.mark.parametrize("width", [1, 2, 16])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_special_values(name, element, width):
    dtype = {"f32": np.float32, "f64": np.float64}[element]
    x = np.array([*SPECIAL, HUGE[element], -HUGE[element]], dtype)
    with np.errstate(all="ignore"):
        if name in ("erf", "erfc"):
            expected = getattr(torch, name)(torch.from_numpy(x)).numpy()
        else:
            expected = NUMPY.get(name, getattr(np, name, None))(x)
    found = compiled(name, element, width)(x)
    same_special(found, expected)
    finite = np.isfinite(expected)
    assert np.allclose(found[finite], expected[finite], rtol=1e-5, atol=0)


@pytest.mark.parametrize("element", vmath.ELEMENTS)
@pytest.mark.parametrize("name", [name for name, arity in vmath.ARITY.items() if arity == 2 and name != "nextafter"])
def test_special_values_of_two(name, element):
    dtype = {"f32": np.float32, "f64": np.float64}[element]
    x, y = (part.ravel() for part in np.meshgrid(np.array(SPECIAL, dtype), np.array(SPECIAL, dtype)))
    reference = {"pow": np.power, "atan2": np.arctan2, "hypot": np.hypot, "fmod": np.fmod}.get(name)
    if reference is None:
        with np.errstate(all="ignore"):
            expected = np.array([_c_remainder(a, b) for a, b in zip(x, y, strict=True)], dtype)
    else:
        with np.errstate(all="ignore"):
            expected = reference(x, y)
    same_special(compiled(name, element, 8)(x, y), expected)


def _c_remainder(a: float, b: float) -> float:
    try:
        return math.remainder(a, b)
    except ValueError:
        return math.nan


def test_erf_is_good_enough_for_exact_gelu():
    x = np.linspace(-6, 6, 20001, dtype=np.float32)
    found = compiled("erf", "f32", 16)(x).astype(np.float64)
    exact = torch.erf(torch.from_numpy(x).double()).numpy()
    assert np.abs(found - exact).max() < 1e-7


@pytest.mark.parametrize("avx512", [False, True])
@pytest.mark.parametrize(
    "name", ["exp", "log", "tanh", "erf", "expm1", "log1p", "exp2", "log2", "sinh", "cosh", "erfc"]
)
def test_every_exponent_of_float32(name, avx512):
    """All exponents, dense mantissas, against float64: the places where a reduction changes its branch."""
    if avx512 and not AVX512:
        pytest.skip("this CPU has no AVX-512")
    patterns = np.arange(0, 2**32, 20011, dtype=np.uint64).astype(np.uint32)
    x = patterns.view(np.float32)
    found = compiled(name, "f32", 16, avx512)(x).astype(np.float64)
    with np.errstate(all="ignore"):
        wide = x.astype(np.float64)
        exact = getattr(np, name)(wide) if hasattr(np, name) else getattr(torch, name)(torch.from_numpy(wide)).numpy()
        single = exact.astype(np.float32)
        same_special(found, single.astype(np.float64))
        unit = np.maximum(np.spacing(np.abs(single)), np.float32(1e-45)).astype(np.float64)
        finite = np.isfinite(single)
        error = np.abs(found - exact)[finite] / unit[finite]
    assert error.max() <= 2, (error.max(), x[finite][error.argmax()])


@pytest.mark.parametrize("width", [1, 2, 4, 8, 16, 32])
def test_widths_agree(width):
    x = np.linspace(-9, 9, 997)
    for name in ("exp", "tanh", "erf", "erfc", "sin", "atan"):
        for element in vmath.ELEMENTS:
            assert np.array_equal(compiled(name, element, width)(x), compiled(name, element, 1)(x)), (name, element)


@pytest.mark.parametrize("element, subnormal", [("f32", 9.19), ("f64", 26.54)])
@pytest.mark.parametrize("avx512", [False, True])
def test_erfc_everywhere(element, subnormal, avx512):
    """In both sets of instructions: all of the range, where its two forms meet, and results that are subnormal."""
    if avx512 and not AVX512:
        pytest.skip("this CPU has no AVX-512")
    end = ERFC_END[element]
    parts = [(-9, end, 900), (0.5, 1.2, 600), (-1, -0.6, 100), (0.68, 0.69, 100), (subnormal, end, 300), (end, 40, 50)]
    dtype = {"f32": np.float32, "f64": np.float64}[element]
    x = np.concatenate([RANDOM.uniform(low, high, count) for low, high, count in parts]).astype(dtype)
    found = compiled("erfc", element, 16, avx512)(x)
    errors = [ulps(mpmath.erfc(a), y, element) for a, y in zip(x.tolist(), found.tolist(), strict=True)]
    assert max(errors) <= 1, (max(errors), x[int(np.argmax(errors))])


@pytest.mark.parametrize("element", vmath.ELEMENTS)
@pytest.mark.parametrize("avx512", [False, True])
def test_exp_plus_1_has_the_bits_of_the_sum(element, avx512):
    if avx512 and not AVX512:
        pytest.skip("this CPU has no AVX-512")
    dense = np.concatenate([np.linspace(low, high, 100003) for low, high in ((-800, 720), (-90, 90), (-1, 1))])
    x = np.concatenate([dense, SPECIAL]).astype({"f32": np.float32, "f64": np.float64}[element])
    with np.errstate(all="ignore"):
        expected = compiled("exp", element, 8, avx512)(x) + 1
    assert np.array_equal(compiled("exp_plus_1", element, 8, avx512)(x), expected, equal_nan=True)


@pytest.mark.parametrize("name", ["exp", "exp2"])
@pytest.mark.parametrize("element", vmath.ELEMENTS)
@pytest.mark.parametrize("avx512", [False, True])
def test_exponentials_that_are_zero(name, element, avx512):
    if avx512 and not AVX512:
        pytest.skip("this CPU has no AVX-512")
    x = np.array([-np.inf, -1e30, -1e9, -1100.0, -np.inf, -1.0, np.nan, 0.0] * 4).astype(
        {"f32": np.float32, "f64": np.float64}[element]
    )
    expected = getattr(np, name)(x)
    found = compiled(name, element, 16, avx512)(x)
    assert np.array_equal(found == 0, expected == 0)
    assert not np.signbit(found[found == 0]).any()
    assert np.array_equal(np.isnan(found), np.isnan(x))
    if avx512:  # no lane is computed whose result is 0: an underflow takes Intel cores 150 cycles
        text = vmath.function(name, element, 16, set(), True)
        assert "scalef" in text
        assert not any("scalef" in line and " -1, i32 4)" in line for line in text.splitlines())


def test_unknown_names_raise():
    with pytest.raises(KeyError):
        vmath.function("cosine", "f32", 4, set())
    with pytest.raises(ValueError, match="f16"):
        vmath.function("exp", "f16", 4, set())
