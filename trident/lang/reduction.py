"""Reductions as the algebra of a state: up to three numbers that say of a part of a line all that its result needs.

    lift(x, x2, inside, A, B)   the states of single elements, a tile; outside the mask what changes nothing
    gather(states, AXIS)        one state for all states of a tile along AXIS
    merge(a, b)                 one state for two, the elements of b coming after those of a
    finish(s, n, A, B)          the results of a line of n elements: a tuple of one or two

A state is a tuple of tiles. Elements, chunks of a line, and the parts of a line that several programs share are all
merged by the same rules, so sums are taken in one fixed order. A and B are parameters: a norm's order, a correction.
"""

import triton
import triton.language as tl

from trident.lang.lines import line_max, line_sum, per_line
from trident.lang.moments import merged
from trident.lang.tile import INTERPRETED, load, raised_to

INF = tl.constexpr(float("inf"))


@triton.jit
def state(ptr, indices, at, mask, S, NEUTRAL: tl.constexpr, PARTS: tl.constexpr):
    """The states at `at` of [PARTS, S]; masked ones those of no elements. indices: of the second number, or None."""
    first = load(ptr + at, mask, NEUTRAL)
    if PARTS == 1:
        return (first,)
    elif indices is not None:
        return first, tl.load(indices + at, mask=mask, other=0)
    elif PARTS == 2:
        return first, load(ptr + S + at, mask)
    else:
        return first, load(ptr + S + at, mask), load(ptr + 2 * S + at, mask)


@triton.jit
def no_elements(
    like, NEUTRAL: tl.constexpr, PARTS: tl.constexpr, INDEX: tl.constexpr, AXIS: tl.constexpr,
    BLOCK_M: tl.constexpr,
):  # fmt: skip
    """The state of no elements, for each of BLOCK_M lines."""
    first, zero = per_line(NEUTRAL, like, AXIS, BLOCK_M), per_line(0.0, like, AXIS, BLOCK_M)
    if PARTS == 1:
        return (first,)
    elif INDEX:
        return first, zero.to(tl.int64)
    elif PARTS == 2:
        return first, zero
    else:
        return first, zero, zero


@triton.jit
def first(s, n, A: tl.constexpr, B: tl.constexpr):
    return (s[0],)


# Sums: (total,)


@triton.jit
def plain(x, x2, inside, A: tl.constexpr, B: tl.constexpr):
    """Masked elements are 0."""
    return (x,)


@triton.jit
def sums(s, AXIS: tl.constexpr):
    return (line_sum(s[0], AXIS),)


@triton.jit
def add(a, b):
    return (a[0] + b[0],)


@triton.jit
def mean(s, n, A: tl.constexpr, B: tl.constexpr):
    return (s[0] / n,)


# Products: (product,), or (product of the elements that are not 0, how many are)


@triton.jit
def factor(x, x2, inside, A: tl.constexpr, B: tl.constexpr):
    return (tl.where(inside, x, 1.0),)


@triton.jit
def factor_zeros(x, x2, inside, A: tl.constexpr, B: tl.constexpr):
    zero = inside & (x == 0)
    return tl.where(inside & (x != 0), x, 1.0), zero.to(x.dtype)


@triton.jit
def _times(a, b):
    return a * b


@triton.jit
def _line_product(x, AXIS: tl.constexpr):
    return tl.reduce(x, AXIS, _times, keep_dims=True)


@triton.jit
def products(s, AXIS: tl.constexpr):
    return (_line_product(s[0], AXIS),)


@triton.jit
def products_zeros(s, AXIS: tl.constexpr):
    return _line_product(s[0], AXIS), line_sum(s[1], AXIS)


@triton.jit
def multiply(a, b):
    return (a[0] * b[0],)


@triton.jit
def multiply_zeros(a, b):
    return a[0] * b[0], a[1] + b[1]


@triton.jit
def product(s, n, A: tl.constexpr, B: tl.constexpr):
    return (tl.where(s[1] > 0, s[0] * 0, s[0]),)  # inf * 0 is NaN


# Maxima, of minima by their negatives (A = -1): (top,), or (top, how many reach it), or (top, where it is found first)


@triton.jit
def _higher(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def line_top(x, AXIS: tl.constexpr):
    """The maximum, NaN if there is one."""
    if INTERPRETED:  # whose tl.reduce takes any other function element by element
        return tl.where(tl.max((x != x).to(tl.int32), axis=AXIS, keep_dims=True) > 0, float("nan"), line_max(x, AXIS))
    return tl.reduce(x, AXIS, _higher, keep_dims=True)


@triton.jit
def signed(x, x2, inside, A: tl.constexpr, B: tl.constexpr):
    return (tl.where(inside, x * A, -INF),)


@triton.jit
def difference(x, x2, B: tl.constexpr):
    return x if x2 is None else x - x2 + B


@triton.jit
def _magnitude(x, x2, inside, A: tl.constexpr, B: tl.constexpr):
    size = tl.abs(difference(x, x2, B))
    return tl.where(inside, size if A > 0 else -size, -INF)


@triton.jit
def magnitude(x, x2, inside, A: tl.constexpr, B: tl.constexpr):
    """For the norms of order inf and -inf."""
    return (_magnitude(x, x2, inside, A, B),)


@triton.jit
def signed_count(x, x2, inside, A: tl.constexpr, B: tl.constexpr):
    return tl.where(inside, x * A, -INF), inside.to(x.dtype)


@triton.jit
def magnitude_count(x, x2, inside, A: tl.constexpr, B: tl.constexpr):
    return _magnitude(x, x2, inside, A, B), inside.to(x.dtype)


@triton.jit
def equal(a, b):
    """With NaN equal to NaN."""
    return (a == b) | ((a != a) & (b != b))


@triton.jit
def tops(s, AXIS: tl.constexpr):
    return (line_top(s[0], AXIS),)


@triton.jit
def tops_count(s, AXIS: tl.constexpr):
    top = line_top(s[0], AXIS)
    return top, line_sum(tl.where(equal(s[0], top), s[1], 0.0), AXIS)


@triton.jit
def tops_index(s, AXIS: tl.constexpr):
    top = line_top(s[0], AXIS)
    last = 2**31 - 1 if s[1].dtype == tl.int32 else 2**63 - 1
    return top, tl.min(tl.where(equal(s[0], top), s[1], last), axis=AXIS, keep_dims=True)


@triton.jit
def higher(a, b):
    return (_higher(a[0], b[0]),)


@triton.jit
def higher_count(a, b):
    top = _higher(a[0], b[0])
    return top, tl.where(equal(a[0], top), a[1], 0.0) + tl.where(equal(b[0], top), b[1], 0.0)


@triton.jit
def higher_index(a, b):
    after = (b[0] > a[0]) | ((b[0] != b[0]) & (a[0] == a[0]))
    return tl.where(after, b[0], a[0]), tl.where(after, b[1], a[1])


@triton.jit
def extremum(s, n, A: tl.constexpr, B: tl.constexpr):
    return (s[0] * A,)


@triton.jit
def top_magnitude(s, n, A: tl.constexpr, B: tl.constexpr):
    return (s[0] if A > 0 else -s[0],)


# log sum exp: (top, the sum of exp(x - base(top)))


@triton.jit
def base(top):
    """`top`, or 0 where it is infinite: inf - inf would be NaN."""
    return tl.where(tl.abs(top) == INF, 0.0, top)


@triton.jit
def exponent(x, x2, inside, A: tl.constexpr, B: tl.constexpr):
    return tl.where(inside, x, -INF), inside.to(x.dtype)


@triton.jit
def exponents(s, AXIS: tl.constexpr):
    top = line_max(s[0], AXIS)
    return top, line_sum(s[1] * tl.exp(s[0] - base(top)), AXIS)


@triton.jit
def add_exponents(a, b):
    top = tl.maximum(a[0], b[0])
    return top, a[1] * tl.exp(a[0] - base(top)) + b[1] * tl.exp(b[0] - base(top))


@triton.jit
def log_sum(s, n, A: tl.constexpr, B: tl.constexpr):
    return (base(s[0]) + tl.log(s[1]),)


# Moments: (count, mean, sum of squared deviations). A: the correction


@triton.jit
def moment(x, x2, inside, A: tl.constexpr, B: tl.constexpr):
    # x, which is 0 outside, not the number 0: Triton 3.6 adds masks alone up where results of lines lie, each thread a
    # whole line (var_mean on sm_90: 159 stores of spilled registers)
    return tl.where(inside, 1.0, x), x, tl.zeros_like(x)


@triton.jit
def moments(s, AXIS: tl.constexpr):
    n = line_sum(s[0], AXIS)
    mean = line_sum(s[0] * s[1], AXIS) / n
    off = s[1] - mean
    return n, mean, line_sum(s[2] + s[0] * off * off, AXIS)


@triton.jit
def merge_moments(a, b):
    return merged(a[0], a[1], a[2], b[0], b[1], b[2])


@triton.jit
def freedom(n, A: tl.constexpr):
    """The degrees of freedom, not below 0: there variances are NaN or infinite."""
    return tl.where(n > A, n - A, 0.0)


@triton.jit
def variance(s, n, A: tl.constexpr, B: tl.constexpr):
    return s[2] / freedom(s[0], A), s[1]


@triton.jit
def deviation(s, n, A: tl.constexpr, B: tl.constexpr):
    return tl.sqrt(s[2] / freedom(s[0], A)), s[1]


# Norms of order A of x, or of x - x2 + B: (the sum of |x| ** A,). Orders inf and -inf are maxima


@triton.jit
def power(x, A: tl.constexpr):
    """|x| ** A"""
    if A == 0:
        return (x != 0).to(x.dtype)
    elif A == 1:
        return tl.abs(x)
    elif A == 2:
        return x * x
    else:
        return tl.exp2(tl.log2(tl.abs(x)) * A)


@triton.jit
def powers(x, x2, inside, A: tl.constexpr, B: tl.constexpr):
    return (tl.where(inside, power(difference(x, x2, B), A), 0.0),)


@triton.jit
def norm(s, n, A: tl.constexpr, B: tl.constexpr):
    if A == 0 or A == 1:
        return (s[0],)
    elif A == 2:
        return (tl.sqrt(s[0]),)
    else:
        return (tl.exp2(tl.log2(s[0]) * (1.0 / A)),)


# Cosines of x and x2: (the sums of x * x2, x * x and x2 * x2). A: the least norm to divide by, or B is added to squares


@triton.jit
def dots(x, x2, inside, A: tl.constexpr, B: tl.constexpr):
    """Masked elements are 0."""
    return x * x2, x * x, x2 * x2


@triton.jit
def three_sums(s, AXIS: tl.constexpr):
    return line_sum(s[0], AXIS), line_sum(s[1], AXIS), line_sum(s[2], AXIS)


@triton.jit
def add_three(a, b):
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]


@triton.jit
def divisor(square, A: tl.constexpr, B: tl.constexpr):
    """What a vector with this sum of squares is divided by."""
    return raised_to(tl.sqrt(square + B), A)


@triton.jit
def cosine(s, n, A: tl.constexpr, B: tl.constexpr):
    return (s[0] / divisor(s[1], A, B) / divisor(s[2], A, B),)
