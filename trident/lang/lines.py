"""Lines: the N elements of a tensor along one dimension, seen as [outer, N, inner], where they lie `inner` apart.

A tile holds BLOCK_M lines and BLOCK_N elements of each. AXIS is the tile's axis along which a line runs: 1 where lines
are contiguous (inner = 1, tiles [BLOCK_M, BLOCK_N]), else 0 (tiles [BLOCK_N, BLOCK_M]), so that the tile's last axis is
the one that is contiguous in memory, without a transposing copy.
"""

import triton
import triton.language as tl

from trident.lang.tile import multiple


@triton.jit
def segments(N, inner, ALIGN: tl.constexpr, AXIS: tl.constexpr):
    """N and inner, of which ALIGN divides what is a row in memory (`tuning.lines`)."""
    return (multiple(N, ALIGN), inner) if AXIS == 1 else (N, multiple(inner, ALIGN))


@triton.jit
def line_tile(tile, M, N, inner, AXIS: tl.constexpr, SPAN: tl.constexpr, BLOCK_M: tl.constexpr):
    """The indices of BLOCK_M lines (int64), where each starts, and which exist: three [BLOCK_M, 1] or [1, BLOCK_M].

    SPAN: a tile may hold lines of several outer indices. Else lines tile each outer index apart: contiguous addresses.
    """
    if AXIS == 1:
        lines = (tile * tl.full((1,), BLOCK_M, tl.int64) + tl.arange(0, BLOCK_M))[:, None]
        start = lines * N
        exist = lines < M
    elif SPAN:
        first = tile * tl.full((1,), BLOCK_M, tl.int64)
        lines = (first + tl.arange(0, BLOCK_M))[None, :]
        # divisions in 32 bits: CPUs have vectors of those, and in 64 they took nine tenths of the time of short lines
        i = ((first % inner).to(tl.int32) + tl.arange(0, BLOCK_M))[None, :]
        start = (first // inner + i // inner) * inner * N + i % inner
        exist = lines < M
    else:
        tiles = tl.cdiv(inner, BLOCK_M)
        first = (tile // tiles) * tl.full((1,), inner, tl.int64)
        i = ((tile % tiles) * BLOCK_M + tl.arange(0, BLOCK_M))[None, :]
        lines = first + i
        start = first * N + i
        exist = i < inner
    return lines, start, exist


@triton.jit
def along(chunk, AXIS: tl.constexpr, BLOCK_N: tl.constexpr):
    """The indices (int64) of chunk `chunk` of a line: [1, BLOCK_N] or [BLOCK_N, 1]."""
    n = chunk * tl.full((1,), BLOCK_N, tl.int64) + tl.arange(0, BLOCK_N)
    return n[None, :] if AXIS == 1 else n[:, None]


@triton.jit
def per_line(value, ptr, AXIS: tl.constexpr, BLOCK_M: tl.constexpr):
    """`value` for each line, [BLOCK_M, 1] or [1, BLOCK_M], in the type that elements of `ptr` are summed in."""
    if ptr.dtype.element_ty == tl.float64:
        full = tl.full((BLOCK_M,), value, tl.float64)
    else:
        full = tl.full((BLOCK_M,), value, tl.float32)
    return full[:, None] if AXIS == 1 else full[None, :]


@triton.jit
def line_sum(x, AXIS: tl.constexpr):
    return tl.sum(x, axis=AXIS, keep_dims=True)


@triton.jit
def line_max(x, AXIS: tl.constexpr):
    return tl.max(x, axis=AXIS, keep_dims=True)


@triton.jit
def online_softmax(top, total, x, AXIS: tl.constexpr):
    """One chunk x of a line more: top = max(x), total = sum(exp(x - top)), each as a tile with one element per line.

    Start from top = -inf, total = 0. Chunks of nothing but -inf leave total at 0: a whole line of them ends as NaN.
    """
    higher = tl.maximum(top, line_max(x, AXIS))
    base = finite(higher)
    return higher, total * tl.exp(top - base) + line_sum(tl.exp(x - base), AXIS)


@triton.jit
def finite(top):
    """`top`, or 0 for -inf: what to subtract, since -inf - -inf would be NaN."""
    return tl.where(top == -float("inf"), 0.0, top)
