"""Where a convolution's outputs lie and what they read, along one axis: numbers for the tiles of ops/_conv.py.

    forward      output q reads inputs q S - P + k G, k in [0, K)      stride S, padding P, dilation G
    transposed   output i reads inputs (i + P - k G) / S, where S divides that

Outputs i of one residue mod S read the same taps k, every (S / E)-th of them, E = gcd(S, G), at inputs that lie G / E
apart: a class of outputs is a plain convolution. There are S classes an axis; number k0 + (S / E) e is that of the
outputs which tap k0 reaches, moved by e. Where e is not 0, or there is no tap k0, nothing reaches them.
"""

import triton
import triton.language as tl

from trident.lang.tile import multiple


@triton.jit
def axis_of_class(cls, OUT, K, S, P, G, E, TRANSPOSED: tl.constexpr):
    """Of a class's outputs: the first and how many; the input that its tap 0 of output 0 reads, and how many inputs on
    the next output reads, and the next tap; its taps: the first, the distance to the next, their number."""
    if TRANSPOSED:
        apart = S // E
        tap, shift = cls % apart, cls // apart
        first = (tap * G + shift + S - P % S) % S
        outputs = (OUT - first + S - 1) // S
        start = (first + P - tap * G) // S  # exact where shift is 0
        taps = tl.where((shift == 0) & (tap < K), (K - 1 - tap) // apart + 1, 0)
        return first, outputs, start, 1, -(G // E), tap, apart, taps
    else:
        return cls, OUT, -P, S, G, cls, 1, K


@triton.jit
def positions(begin, PLANE, HW, W, BLOCK: tl.constexpr, AXIS: tl.constexpr):
    """BLOCK positions from `begin` (int64) on, in planes of PLANE = D HW, along AXIS: their planes (int64), places in
    them, d, h and w. Of places the compiler knows that they are neighbours, of what quotients are put together to not.

    A 64-bit division is slow: one for the tile, then 32-bit ones for its positions.
    """
    plane = begin // PLANE
    at = (begin - plane * PLANE).to(tl.int32) + tl.arange(0, BLOCK)
    at = at[:, None] if AXIS == 0 else at[None, :]
    return plane + at // PLANE, at % PLANE, at % PLANE // HW, at % HW // W, at % W


@triton.jit
def hinted(C, CO, PLANE, LAST: tl.constexpr, ALIGN: tl.constexpr):
    """The sizes that are rows in memory, of which ALIGN divides C, and CO if LAST, else PLANE; or is None."""
    if ALIGN is not None:
        C = multiple(C, ALIGN[0])
        if LAST:
            CO = multiple(CO, ALIGN[1])
        else:
            PLANE = multiple(PLANE, ALIGN[1])
    return C, CO, PLANE


@triton.jit
def tap_and_channel(step, k, C, TAPS, BLOCK_K: tl.constexpr, FLAT: tl.constexpr):
    """Number `step` of the walk over all (tap, channel): the taps, the channels, and which exist. FLAT: BLOCK_K pairs
    in their order, else BLOCK_K channels of one tap, whose last step may be partly empty."""
    if FLAT:
        at = step * BLOCK_K + k
        tap = at // C
        return tap, at - tap * C, at < TAPS * C
    else:
        blocks = tl.cdiv(C, BLOCK_K)
        tap = step // blocks
        channel = (step - tap * blocks) * BLOCK_K + k
        return tap, channel, channel < C


@triton.jit
def walk_steps(C, TAPS, BLOCK_K: tl.constexpr, FLAT: tl.constexpr):
    """The number of steps of `tap_and_channel`."""
    return tl.cdiv(TAPS * C, BLOCK_K) if FLAT else TAPS * tl.cdiv(C, BLOCK_K)
