"""The derivatives of the reductions of lang/reduction.py.

    grad(dy, dy2, x, x2, n, s, N, A, B)     the derivatives by x, and by x2: a tuple of one or two tiles

dy and dy2 are the gradients of the one or two results of each line (None: there is none), s is the line's state, n the
index of each element along its line, N the length of a line, A and B the parameters. Sub-gradients and NaN are torch's.
"""

import triton
import triton.language as tl

from trident.lang.reduction import base, difference, divisor, equal, power


@triton.jit
def _sign(x):
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)  # torch's sgn: 0 for NaN


@triton.jit
def product(dy, dy2, x, x2, n, s, N, A: tl.constexpr, B: tl.constexpr):
    """The product of the other elements: 0 if two are 0; if one is, only its own derivative is not."""
    of_zero = tl.where((x == 0) & (s[1] == 1), dy * s[0], 0.0)
    return (tl.where(s[1] > 0, of_zero, dy * s[0] / x),)


@triton.jit
def shared(dy, dy2, x, x2, n, s, N, A: tl.constexpr, B: tl.constexpr):
    """Equal shares for the elements that reach the extremum. NaN in a line: all of it NaN; if B, its NaN share."""
    share = tl.where(equal(x * A, s[0]), dy / s[1], 0.0)
    if B == 0:
        share = tl.where(s[0] == s[0], share, float("nan"))
    return (share,)


@triton.jit
def at_index(dy, dy2, x, x2, n, s, N, A: tl.constexpr, B: tl.constexpr):
    return (tl.where(n == s[0], dy, 0.0),)


@triton.jit
def log_sum(dy, dy2, x, x2, n, s, N, A: tl.constexpr, B: tl.constexpr):
    return (dy * tl.exp(x - (base(s[0]) + tl.log(s[1]))),)


@triton.jit
def _centered(slope, dy2, x, s, N):
    """slope (x - mean), and the derivative of the mean."""
    dx = tl.zeros_like(x) if slope is None else slope * (x - s[1])
    return (dx,) if dy2 is None else (dx + dy2 / N,)


@triton.jit
def variance(dy, dy2, x, x2, n, s, N, A: tl.constexpr, B: tl.constexpr):
    return _centered(None if dy is None else dy * (2 / (s[0] - A)), dy2, x, s, N)


@triton.jit
def deviation(dy, dy2, x, x2, n, s, N, A: tl.constexpr, B: tl.constexpr):
    """0 where the deviation is 0."""
    slope = None
    if dy is not None:
        slope = tl.where(s[2] == 0, 0.0, dy / tl.sqrt(s[2] / (s[0] - A))) / (s[0] - A)
    return _centered(slope, dy2, x, s, N)


@triton.jit
def norm(dy, dy2, x, x2, n, s, N, A: tl.constexpr, B: tl.constexpr):
    """sgn(x) |x| ** (A - 1) norm ** (1 - A) for A other than 0; 0 where the norm is 0. By x2 its negative."""
    d = difference(x, x2, B)
    if A == 1:
        dx = dy * _sign(d)
    elif A == 2:
        dx = tl.where(s[0] == 0, 0.0, dy / tl.sqrt(s[0])) * d
    else:
        scale = tl.where(s[0] == 0, 0.0, dy * tl.exp2(tl.log2(s[0]) * ((1 - A) / A)))
        dx = tl.where(d == 0, 0.0, _sign(d) * power(d, A - 1) * scale)
    return (dx,) if x2 is None else (dx, -dx)


@triton.jit
def top_magnitude(dy, dy2, x, x2, n, s, N, A: tl.constexpr, B: tl.constexpr):
    """Equal shares for the elements that reach the norm; 0 where it is 0. By x2 its negative."""
    d = difference(x, x2, B)
    size = tl.abs(d) if A > 0 else -tl.abs(d)
    dx = tl.where(equal(size, s[0]), dy / s[1], 0.0) * _sign(d)
    return (dx,) if x2 is None else (dx, -dx)


@triton.jit
def _turn(dy, x, x2, cosine, square, square2, A: tl.constexpr, B: tl.constexpr):
    """dcos / dx = (x2 / |x2| - cos x / |x|) / |x|, where the norms that divide are A at least but their slopes not."""
    norm = tl.sqrt(square + B)
    unit = tl.where(norm == 0, 0.0, x / norm)  # a norm has no derivative at 0
    return dy / divisor(square, A, B) * (x2 / divisor(square2, A, B) - cosine * unit)


@triton.jit
def cosine(dy, dy2, x, x2, n, s, N, A: tl.constexpr, B: tl.constexpr):
    cos = s[0] / divisor(s[1], A, B) / divisor(s[2], A, B)
    return _turn(dy, x, x2, cos, s[1], s[2], A, B), _turn(dy, x2, x, cos, s[2], s[1], A, B)
