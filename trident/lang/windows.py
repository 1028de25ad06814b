"""Pooling windows along one axis: where window i begins, which windows hold element j, how many elements one counts.

regular     window(i) = [i A - P, i A - P + (K - 1) G + 1) in steps of G: stride A, padding P, dilation G
uneven      window(i) = [floor(i A / B), ceil((i + 1) A / B)), A / B = L / O in lowest terms: L elements to O outputs

Both begin at or before j for i up to `last_window(j)`, so a gradient looks there, and at the few windows before it.
"""

import triton
import triton.language as tl


@triton.jit
def window_start(i, A, B, P, UNEVEN: tl.constexpr):
    return i * A // B if UNEVEN else i * A - P


@triton.jit
def window_end(i, A, B, P, REACH, UNEVEN: tl.constexpr):
    """Past the window's last element; REACH = (K - 1) G + 1 elements are spanned by a regular one."""
    return ((i + 1) * A + B - 1) // B if UNEVEN else i * A - P + REACH


@triton.jit
def last_window(j, A, B, P, UNEVEN: tl.constexpr):
    """The last window that begins at or before element j."""
    return ((j + 1) * B + A - 1) // A - 1 if UNEVEN else (j + P) // A


@triton.jit
def skipped(start, G):
    """Elements of the window that padding takes from its front, in steps of G, as a distance from its start."""
    return tl.where(start < 0, (G - 1 - start) // G * G, 0)


@triton.jit
def window_count(i, L, A, B, P, K, UNEVEN: tl.constexpr, PADDED: tl.constexpr):
    """Elements of window i that an average divides by: of [0, L), or PADDED of [-P, L + P). No dilation."""
    start = window_start(i, A, B, P, UNEVEN)
    end = window_end(i, A, B, P, K, UNEVEN)
    if PADDED:
        end = tl.minimum(end, L + P)
    else:
        start, end = tl.maximum(start, 0), tl.minimum(end, L)
    return end - start


@triton.jit
def plane_rows(program, PLANE, HW, W, BLOCK_M: tl.constexpr):
    """Rows [BLOCK_M, 1] of planes of PLANE = D HW rows each: the row, its plane (both int64), and d, h, w in it.

    A 64-bit division is slow: one for the tile, then 32-bit ones for its rows.
    """
    begin = program * tl.full((1, 1), BLOCK_M, tl.int64)
    plane = begin // PLANE
    at = (begin - plane * PLANE).to(tl.int32) + tl.arange(0, BLOCK_M)[:, None]
    rows, plane, at = begin + tl.arange(0, BLOCK_M)[:, None], plane + at // PLANE, at % PLANE
    return rows, plane, at // HW, at % HW // W, at % W
