"""Tiles of rows: the addressing, loads and reductions that row-wise kernels share."""

import triton
import triton.language as tl
from triton import knobs

INTERPRETED = tl.constexpr(knobs.runtime.interpret)


@triton.jit
def row_tile(tile, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Rows [BLOCK_M, 1] (int64, so that rows * N cannot overflow), columns [1, BLOCK_N], and their masks."""
    rows = (tile * tl.full((1,), BLOCK_M, tl.int64) + tl.arange(0, BLOCK_M))[:, None]
    cols = tl.arange(0, BLOCK_N)[None, :]
    return rows, cols, rows < M, cols < N


@triton.jit
def matrix_tile(down, right, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Rows [BLOCK_M, 1] and columns [1, BLOCK_N] of a tile of [M, N], both int64, and the mask of both."""
    rows = (down * tl.full((1,), BLOCK_M, tl.int64) + tl.arange(0, BLOCK_M))[:, None]
    cols = (right * tl.full((1,), BLOCK_N, tl.int64) + tl.arange(0, BLOCK_N))[None, :]
    return rows, cols, (rows < M) & (cols < N)


@triton.jit
def band_tile(band, step, M, N, BY_ROW: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Tile number `step` of a band of rows of [M, N], or of a band of columns: as `matrix_tile`."""
    down, right = (band, step) if BY_ROW else (step, band)
    return matrix_tile(down, right, M, N, BLOCK_M, BLOCK_N)


@triton.jit
def flat_tile(N, BLOCK: tl.constexpr):
    """The offsets [BLOCK] of this program in N elements, and their mask. int64: N may exceed 2^31."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    return at, at < N


@triton.jit
def multiple(n, BY: tl.constexpr):
    """n, which BY divides, so said that the compiler knows it, which only looks whether 16 divides an argument: where
    rows of n elements are whole segments of 16 bytes a thread then reads and writes 16 at once. See `tuning.aligned`.
    """
    return n if BY == 1 else n // BY * BY


@triton.jit
def load(ptr, mask, other=0.0):
    """Load in float32 (float64 stays float64); masked lanes read `other`."""
    x = tl.load(ptr, mask=mask, other=other)
    if x.dtype != tl.float64:
        x = x.to(tl.float32)
    return x


@triton.jit
def from_bits(bits):
    """The float64 that `runtime.exact.bits` passed. (Small integers come as int32.)"""
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def raised_to(x, least):
    """The greater of `x` and a number; NaN where x is."""
    least = tl.full((), least, x.dtype)  # before Triton 3.9 tl.maximum makes a float32 of a number
    return tl.maximum(x, least, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def row_sum(x):
    return tl.sum(x, axis=1, keep_dims=True)


@triton.jit
def row_mean(x, N):
    return tl.sum(x, axis=1, keep_dims=True) / N


@triton.jit
def col_sum(x):
    return tl.sum(x, axis=0, keep_dims=True)


@triton.jit
def accumulator(x, M: tl.constexpr, N: tl.constexpr):
    """Zeros [M, N] of the type that elements of pointer `x` are summed in: float32 (float64 for float64)."""
    DTYPE: tl.constexpr = tl.float64 if x.dtype.element_ty == tl.float64 else tl.float32
    return tl.zeros((M, N), DTYPE)


@triton.jit
def matrix(ptr, mask):
    """An operand of tl.dot as it is stored: matrix units read 16-bit types, and sum in float32."""
    x = tl.load(ptr, mask=mask, other=0.0)
    if INTERPRETED and x.dtype != tl.float64:  # the interpreter multiplies bfloat16 as if it were integers
        x = x.to(tl.float32)
    return x


@triton.jit
def nearest(x, ptr):
    """float32 x, rounded to nearest for a store to `ptr`: Triton's interpreter cuts bfloat16 off."""
    if INTERPRETED and ptr.dtype.element_ty == tl.bfloat16:
        bits = x.to(tl.int32, bitcast=True)
        x = ((bits + (((bits >> 16) & 1) + 0x7FFF)) & -65536).to(tl.float32, bitcast=True)
    return x
