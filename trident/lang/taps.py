"""Taps: which elements of an axis an element of another one is made of, for padding and interpolation.

A tap function (at, k, n_in, n_out, a) says of tap k of position `at` (of n_out) its index among the n_in elements that
are read, its weight, and whether it exists. `a` is the axis' parameter, an int64: the padding on its left, or the bits
of its step (the distance of two outputs, in inputs). Each function has a partner for the gradient, which goes the other
way: there n_out is the input's size, n_in the output's.
"""

import triton
import triton.language as tl

from trident.lang.tile import from_bits


@triton.jit
def constant(at, k, n_in, n_out, a):
    i = at - a
    return i, 1.0, (i >= 0) & (i < n_in)


@triton.jit
def reflect(at, k, n_in, n_out, a):
    i = tl.abs(at - a)
    return n_in - 1 - tl.abs(n_in - 1 - i), 1.0, at < n_out


@triton.jit
def reflect_grad(at, k, n_in, n_out, a):
    """Three taps: the element itself, its image in the left edge, its image in the right edge."""
    k += at * 0  # a tile: masks made of scalars are integers in the interpreter, which refuses them
    i = tl.where(k == 0, at + a, tl.where(k == 1, a - at, a + 2 * (n_out - 1) - at))
    image = ((k == 0) | (k == 1) & (at > 0)) | (k == 2) & (at < n_out - 1)
    return i, 1.0, image & (i >= 0) & (i < n_in)


@triton.jit
def replicate(at, k, n_in, n_out, a):
    return tl.minimum(tl.maximum(at - a, 0), n_in - 1), 1.0, at < n_out


@triton.jit
def replicate_grad(at, k, n_in, n_out, a):
    """1 + padding taps: the element itself, then the copies left (of the first), then those right (of the last)."""
    k += at * 0  # a tile: masks made of scalars are integers in the interpreter, which refuses them
    left = k <= a
    i = tl.where(k == 0, at + a, tl.where(left, k - 1, n_out + k - 1))
    return i, 1.0, (k == 0) | left & (at == 0) | (k > a) & (at == n_out - 1)


@triton.jit
def circular(at, k, n_in, n_out, a):
    i = at - a
    return i + tl.where(i < 0, n_in, 0) - tl.where(i >= n_in, n_in, 0), 1.0, at < n_out


@triton.jit
def circular_grad(at, k, n_in, n_out, a):
    """Three taps: the element itself and its copies one turn to the left and to the right."""
    i = at + a + tl.where(k == 0, 0, tl.where(k == 1, -n_out, n_out))
    return i, 1.0, (i >= 0) & (i < n_in)


@triton.jit
def nearest(at, k, n_in, n_out, a):
    """floor(at step); floor((at + 1/2) |step|) where the step is negative ("nearest-exact"), as torch in float32."""
    step = from_bits(a).to(tl.float32)
    x = at.to(tl.float32) + tl.where(step < 0, 0.5, 0.0)
    return tl.minimum(tl.floor(x * tl.abs(step)).to(tl.int32), n_in - 1), 1.0, at < n_out


@triton.jit
def nearest_grad(at, k, n_in, n_out, a):
    """The outputs whose nearest is `at` follow one another; the first is guessed, and mended by one for rounding."""
    step = from_bits(a)
    guess = tl.ceil(at.to(tl.float64) / tl.abs(step) - tl.where(step < 0, 0.5, 0.0)).to(tl.int32)
    before, _, _ = nearest(guess - 1, k, n_out, n_in, a)
    this, _, _ = nearest(guess, k, n_out, n_in, a)
    i = guess + tl.where(this < at, 1, tl.where((guess > 0) & (before >= at), -1, 0)) + k
    of, _, _ = nearest(i, k, n_out, n_in, a)
    return i, 1.0, (i >= 0) & (i < n_in) & (of == at)


@triton.jit
def source(at, a):
    """Where output `at` lies among the inputs (float64). A negative step: with the corners of both aligned."""
    step = from_bits(a)
    x = at.to(tl.float64)
    return tl.where(step < 0, x * -step, (x + 0.5) * step - 0.5)


@triton.jit
def first_within(at, a, RADIUS: tl.constexpr):
    """The first output that lies less than RADIUS from input `at`."""
    step = from_bits(a)
    x = at.to(tl.float64) - RADIUS
    lower = tl.where(step < 0, x / -step, (x + 0.5) / step - 0.5)
    return tl.maximum(tl.floor(lower).to(tl.int32) + 1, 0)


@triton.jit
def linear(at, k, n_in, n_out, a):
    x = tl.maximum(source(at, a), 0.0)
    i = tl.minimum(tl.floor(x).to(tl.int32), n_in - 1)
    w = x - i.to(tl.float64)
    return tl.minimum(i + k, n_in - 1), tl.where(k == 0, 1 - w, w), at < n_out


@triton.jit
def linear_grad(at, k, n_in, n_out, a):
    i = first_within(at, a, 1) + k
    x = tl.minimum(tl.maximum(source(i, a), 0.0), n_out - 1.0)
    return i, tl.maximum(1 - tl.abs(x - at.to(tl.float64)), 0.0), i < n_in


@triton.jit
def cubic_weight(x):
    """Keys' kernel (1981) with A = -3/4, as torch's; 0 <= x < 2."""
    near = (x * 1.25 - 2.25) * x * x + 1
    far = ((x * -0.75 + 3.75) * x - 6) * x + 3
    return tl.where(x <= 1, near, far)


@triton.jit
def cubic_slope(x):
    """How it grows with x."""
    near = (x * 3.75 - 4.5) * x
    far = (x * -2.25 + 7.5) * x - 6
    return tl.where(x <= 1, near, far)


@triton.jit
def cubic(at, k, n_in, n_out, a):
    x = source(at, a)
    i = tl.floor(x).to(tl.int32)
    tap = i + k - 1
    w = cubic_weight(tl.abs(x - tap.to(tl.float64)))
    return tl.minimum(tl.maximum(tap, 0), n_in - 1), w, at < n_out


@triton.jit
def cubic_grad(at, k, n_in, n_out, a):
    """Every tap of the output that falls on `at`: at an edge several do."""
    i = first_within(at, a, 2) + k
    x = source(i, a)
    w = x * 0.0
    for j in tl.static_range(4):
        tap = tl.floor(x).to(tl.int32) + (j - 1)
        falls = tl.minimum(tl.maximum(tap, 0), n_out - 1) == at
        w += tl.where(falls, cubic_weight(tl.abs(x - tap.to(tl.float64))), 0.0)
    return i, w, i < n_in
