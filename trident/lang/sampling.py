"""Where a sampling grid points, along one axis, and what is read there (torch's grid_sample).

g in [-1, 1] spans the axis: from centre to centre of its outer elements if ALIGNED, else from edge to edge. What lies
outside is 0 (PADDING "zeros"), the nearest element ("border") or the mirror image ("reflection").
"""

import triton
import triton.language as tl

from trident.lang.taps import cubic_slope, cubic_weight


@triton.jit
def unnormalized(g, SIZE, ALIGNED: tl.constexpr):
    """The place of g among elements 0 to SIZE - 1."""
    return (g + 1) / 2 * (SIZE - 1) if ALIGNED else ((g + 1) * SIZE - 1) / 2


@triton.jit
def mirrored(v, SIZE, ALIGNED: tl.constexpr):
    """v, turned back at each edge that it meets, and whether it then moves against v."""
    low = 0.0 if ALIGNED else -0.5
    span = ((SIZE - 1) if ALIGNED else SIZE) * 1.0
    way = tl.abs(v - low)
    flips = tl.floor(way / tl.maximum(span, 0.5))  # one element, aligned: clipped later
    rest = way - flips * span
    odd = flips - 2 * tl.floor(flips / 2) != 0
    return tl.where(odd, span - rest, rest) + low, odd != (v < low)


@triton.jit
def padded(v, SIZE, PADDING: tl.constexpr, ALIGNED: tl.constexpr):
    """v, brought inside."""
    if PADDING == "zeros":
        return v
    if PADDING == "reflection":
        v, _ = mirrored(v, SIZE, ALIGNED)
    v = tl.where(v > 0, v, 0.0)  # NaN too, as torch on GPUs
    return tl.where(v < SIZE - 1, v, (SIZE - 1) * 1.0)


@triton.jit
def slope(g, SIZE, MODE: tl.constexpr, PADDING: tl.constexpr, ALIGNED: tl.constexpr):
    """How far g's place moves with g: not at all where an edge holds it, and against g in a mirror."""
    scale = tl.zeros_like(g) + ((SIZE - 1) if ALIGNED else SIZE) / 2.0
    if MODE == "bicubic" or PADDING == "zeros":  # bicubic: taps are brought inside, one by one
        return scale
    v = unnormalized(g, SIZE, ALIGNED)
    if PADDING == "reflection":
        v, against = mirrored(v, SIZE, ALIGNED)
        scale = tl.where(against, -scale, scale)
    return tl.where((v > 0) & (v < SIZE - 1), scale, 0.0)


@triton.jit
def axis_source(g, SIZE, MODE: tl.constexpr, PADDING: tl.constexpr, ALIGNED: tl.constexpr):
    """The element at or before g's place (for "nearest" the nearest, even ones of two) and the way on from it to g."""
    v = unnormalized(g, SIZE, ALIGNED)
    if MODE != "bicubic":
        v = padded(v, SIZE, PADDING, ALIGNED)
    v = tl.where(tl.abs(v) < 1073741824.0, v, -100.0)  # NaN and what int32 does not hold lie outside, as in torch
    if MODE == "nearest":
        i = tl.floor(v + 0.5)
        tie_to_odd = (i - v == 0.5) & (i - 2 * tl.floor(i / 2) == 1)
        i = tl.where(tie_to_odd, i - 1, i)
    else:
        i = tl.floor(v)
    return i.to(tl.int32), v - i


@triton.jit
def axis_tap(i, t, k, SIZE, MODE: tl.constexpr, PADDING: tl.constexpr, ALIGNED: tl.constexpr):
    """Tap k of an axis: its element, its weight, and whether it exists. Weights have the type of t."""
    if MODE == "nearest":
        at, weight = i, t * 0 + 1
    elif MODE == "bilinear":
        at, weight = i + k, tl.where(k == 0, 1 - t, t)
    else:
        at, weight = i + k - 1, cubic_weight(tl.abs(t + 1 - k))
        if PADDING != "zeros":
            at = padded(at.to(tl.float32), SIZE, PADDING, ALIGNED).to(tl.int32)
    return at, weight, (at >= 0) & (at < SIZE)


@triton.jit
def axis_slope(t, k, MODE: tl.constexpr):
    """How tap k's weight grows with t."""
    if MODE == "nearest":
        return t * 0
    elif MODE == "bilinear":
        return tl.where(k == 0, t * 0 - 1, t * 0 + 1)
    else:
        way = t + 1 - k
        steep = cubic_slope(tl.abs(way))
        return tl.where(way < 0, -steep, steep)
