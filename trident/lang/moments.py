"""Mean and sum of squared deviations (m2) of rows met in chunks, by Chan's update: stable whatever the mean is."""

import triton
import triton.language as tl

from trident.lang.lines import along, line_sum, per_line
from trident.lang.tile import load, row_sum


@triton.jit
def merged(n_a, mean_a, m2_a, n_b, mean_b, m2_b):
    """Count, mean and m2 of two parts together; not both may be empty."""
    n = n_a + n_b
    delta = mean_b - mean_a
    share = n_b / n
    return n, mean_a + delta * share, m2_a + m2_b + delta * delta * n_a * share


HEAD = tl.constexpr(16)


@triton.jit
def shifted_moments(x, inside, size, near, AXIS: tl.constexpr):
    """Mean and m2 along AXIS of `size` elements of each line, in one walk: sums of x - near and of its square.

    `near`: the mean of the first HEAD elements. That is so near the mean that m2 does not cancel: n elements of which
    one is d off have m2 >= d^2 / 2, and the squares then sum up to m2 + n (d / HEAD)^2: a chunk of 16384 elements loses
    7 bits at worst.
    """
    off = tl.where(inside, x - near, 0.0)
    total, squares = tl.sum(off, axis=AXIS, keep_dims=True), tl.sum(off * off, axis=AXIS, keep_dims=True)
    m2 = squares - total * (total / size)
    return near + total / size, tl.where(m2 < 0, 0.0, m2)


@triton.jit
def line_moments(
    x, start, exist, first, past, N, inner, AXIS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """How many elements, mean and m2 of chunks first .. past of lines of N elements that lie `inner` apart."""
    n, mean, m2 = (
        per_line(0.0, x, AXIS, BLOCK_M),
        per_line(0.0, x, AXIS, BLOCK_M),
        per_line(0.0, x, AXIS, BLOCK_M),
    )
    for chunk in range(first, past):
        s = along(chunk, AXIS, BLOCK_N)
        inside = exist & (s < N)
        size = per_line(0.0, x, AXIS, BLOCK_M) + tl.minimum(N - chunk * tl.full((), BLOCK_N, tl.int64), BLOCK_N)
        head = chunk * tl.full((), BLOCK_N, tl.int64) + along(0, AXIS, HEAD)
        near = line_sum(load(x + start + head * inner, exist & (head < N)), AXIS) / tl.minimum(size, HEAD)
        b_mean, b_m2 = shifted_moments(load(x + start + s * inner, inside), inside, size, near, AXIS)
        n, mean, m2 = merged(n, mean, m2, size, b_mean, b_m2)
    return n, mean, m2


@triton.jit
def moments(x, first, N, BLOCK_N: tl.constexpr):
    """Mean and m2, each [1, 1], of the N > 0 elements that start at x + first ([1, 1], int64)."""
    n, mean, m2 = per_line(0.0, x, 1, 1), per_line(0.0, x, 1, 1), per_line(0.0, x, 1, 1)
    for chunk in range(0, tl.cdiv(N, BLOCK_N)):
        cols = along(chunk, 1, BLOCK_N)
        inside = cols < N
        b_x = load(x + first + cols, inside)
        b_n = row_sum(inside.to(b_x.dtype))
        b_mean = row_sum(b_x) / b_n
        centered = tl.where(inside, b_x - b_mean, 0.0)
        n, mean, m2 = merged(n, mean, m2, b_n, b_mean, row_sum(centered * centered))
    return mean, m2


@triton.jit
def squares(x, first, N, BLOCK_N: tl.constexpr):
    """The sum of squares, [1, 1], of the N elements that start at x + first ([1, 1], int64)."""
    total = per_line(0.0, x, 1, 1)
    for chunk in range(0, tl.cdiv(N, BLOCK_N)):
        cols = along(chunk, 1, BLOCK_N)
        b_x = load(x + first + cols, cols < N)
        total += row_sum(b_x * b_x)
    return total
