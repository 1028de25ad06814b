"""Elements seen as rows of N columns, and operands that have one value for each element, column, row, or one for all.

runtime/broadcast.py says which operand is which. Where none broadcasts N is None: one long row.
"""

import triton
import triton.language as tl

from trident.lang.tile import load


@triton.jit
def elements(tile, n, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Of tile number `tile` of n elements: the offsets, rows [BLOCK_M, 1], columns [1, BLOCK_N], and the masks of the
    three and of one number for all. (Where N is None: [BLOCK_N], three times.)"""
    if N is None:
        at = tile * tl.full((), BLOCK_N, tl.int64) + tl.arange(0, BLOCK_N)
        return (at, at, at), (at < n, at < n, at < n, n > 0)
    else:
        across = tl.cdiv(N, BLOCK_N)
        rows = (tile // across * tl.full((), BLOCK_M, tl.int64) + tl.arange(0, BLOCK_M))[:, None]
        cols = (tile % across * tl.full((), BLOCK_N, tl.int64) + tl.arange(0, BLOCK_N))[None, :]
        in_rows, in_cols = rows < n // N, cols < N
        return (rows * N + cols, rows, cols), (in_rows & in_cols, in_rows, in_cols, n > 0)


@triton.jit
def tiles(n, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """How many tiles there are."""
    if N is None:
        return tl.cdiv(n, BLOCK_N)
    else:
        return tl.cdiv(n // N, BLOCK_M) * tl.cdiv(N, BLOCK_N)


@triton.jit
def nothing(like, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Zeros for a tile's elements, in the type that elements of `like` are summed in."""
    DTYPE: tl.constexpr = tl.float64 if like.dtype.element_ty == tl.float64 else tl.float32
    return tl.zeros((BLOCK_N,) if N is None else (BLOCK_M, BLOCK_N), DTYPE)


@triton.jit
def values(ptr, places, masks, period, BY: tl.constexpr):
    """What an operand holds for a tile's elements, in float32 (float64 stays float64): as large as it repeats itself.

    BY: what it has a value for; a "row" one repeats itself after `period` rows.
    """
    if BY == "each":
        return load(ptr + places[0], masks[0])
    elif BY == "row":
        return load(ptr + places[1] % period, masks[1])
    elif BY == "column":
        return load(ptr + places[2], masks[2])
    else:
        return load(ptr, masks[3])
