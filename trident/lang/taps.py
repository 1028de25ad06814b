"""Taps: which elements of an axis an element of another one is made of, for padding and interpolation.

A tap function (at, k, n_in, n_out, a) says of tap k of position `at` (of n_out) its index among the n_in elements that
are read, its weight, and whether it exists. `a` is the axis' parameter, an int64: the padding on its left, or the bits
of its step (the distance of two outputs, in inputs). Each function has a partner for the gradient, which goes the other
way: there n_out is the input's size, n_in the output's.
"""

import triton
import triton.language as tl


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
    i = tl.where(k == 0, at + a, tl.where(k == 1, a - at, a + 2 * (n_out - 1) - at))
    image = ((k == 0) | (k == 1) & (at > 0)) | (k == 2) & (at < n_out - 1)
    return i, 1.0, image & (i >= 0) & (i < n_in)


@triton.jit
def replicate(at, k, n_in, n_out, a):
    return tl.minimum(tl.maximum(at - a, 0), n_in - 1), 1.0, at < n_out


@triton.jit
def replicate_grad(at, k, n_in, n_out, a):
    """1 + padding taps: the element itself, then the copies left (of the first), then those right (of the last)."""
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
