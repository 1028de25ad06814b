"""The math library of compiled kernels: LLVM text of vector functions, float32 and float64, within 2 ulp of the truth.

`function(name, element, width, intrinsics)` returns the definition of `@tc.NAME.vWIDTHELEMENT`. Special values (signed
zeros, infinities, NaN, subnormals, huge arguments) give what C's functions give. The common ones are branch-free
vector code of their own; those in `LIBM` call the C library lane by lane: right, not fast. `tests/cpu/test_vmath.py`
measures every one against mpmath.
"""

from __future__ import annotations

from collections.abc import Callable

from trident_cpu.vmath import algebraic, exponential, logarithm, trigonometric
from trident_cpu.vmath.builder import Builder, Vector

_Body = Callable[..., Vector]


def _wide(body: _Body) -> _Body:
    """A float64 body that also serves float32, rounding at the end."""
    return lambda b, *operands: body(b, *(x.to("f64") for x in operands)).to(operands[0].kind)


# Bodies for both formats ...
_BOTH: dict[str, _Body] = {
    "exp": exponential.exp,
    "exp2": exponential.exp2,
    "expm1": exponential.expm1,
    "exp_plus_1": exponential.exp_plus_1,
    "tanh": exponential.tanh,
    "sinh": _wide(exponential.sinh),
    "cosh": _wide(exponential.cosh),
    "erf": exponential.erf,
    "erfc": exponential.erfc,
    "log": logarithm.log,
    "log2": logarithm.log2,
    "log10": logarithm.log10,
    "log1p": logarithm.log1p,
    "sin": trigonometric.sin,
    "cos": trigonometric.cos,
    "tan": trigonometric.tan,
    "sqrt": algebraic.sqrt,
    "rsqrt": algebraic.rsqrt,
    "cbrt": _wide(algebraic.cbrt),
}
# ... and for float32 only: float64 calls the C library, which is right to the last place or nearly so.
_SINGLE: dict[str, _Body] = {
    "pow": _wide(algebraic.power),
    "asin": _wide(algebraic.asin),
    "acos": _wide(algebraic.acos),
    "atan": _wide(algebraic.atan),
}
# name -> operands
LIBM: dict[str, int] = {
    "pow": 2, "asin": 1, "acos": 1, "atan": 1, "atan2": 2, "asinh": 1, "acosh": 1, "atanh": 1, "tgamma": 1,
    "lgamma": 1, "hypot": 2, "fmod": 2, "remainder": 2, "nextafter": 2, "j0": 1, "j1": 1, "y0": 1, "y1": 1,
}  # fmt: skip
# nextafter of a widened float32 is not the next float32
_FLOAT64_ONLY = {"nextafter"}

ARITY: dict[str, int] = {**LIBM, **dict.fromkeys(_BOTH, 1)}
NAMES: frozenset[str] = frozenset(ARITY)
ELEMENTS = ("f32", "f64")


def symbol(name: str, element: str, width: int) -> str:
    """The name that `function` defines."""
    return f"@tc.{name}.v{width}{element}"


def function(name: str, element: str, width: int, intrinsics: set[str], avx512: bool = False) -> str:
    """The definition of one function on vectors of `width` lanes; what it calls is added to `intrinsics` as declares.

    `avx512`: the code may use that instruction set.

    Raises KeyError for a name not in NAMES, ValueError for another element or for float32's nextafter.
    """
    if element not in ELEMENTS or (name in _FLOAT64_ONLY and element == "f32"):
        raise ValueError(f"trident_cpu.vmath: no {name} of {element}")
    b = Builder(width, intrinsics, avx512)
    operands = [Vector(b, element, f"%x{at}") for at in range(ARITY[name])]
    body = _BOTH.get(name) or (_SINGLE.get(name) if element == "f32" else None)
    result = body(b, *operands) if body else b.libm(name, *operands)
    vector = b.type(element)
    header = ", ".join(f"{vector} {operand.text}" for operand in operands)
    return (
        f"define internal {vector} {symbol(name, element, width)}({header}) alwaysinline nounwind {{\nentry:\n"
        + "\n".join(b.lines)
        + f"\n  ret {vector} {result.text}\n}}\n"
    )
