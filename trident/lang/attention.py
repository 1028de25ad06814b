"""What the kernels of attention share: the logits of a tile, its dropout, which tiles there are, where a head starts.

A tile is [queries, keys] or [keys, queries]: `queries` and `keys` hold the places along their axis of the tile, int32.
"""

import triton
import triton.language as tl

from trident.lang.pointwise import tanh
from trident.lang.random import ROUNDS, at_least
from trident.lang.tile import from_bits, load

LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def head(ptr, batch, h, of_batch, of_head):
    """`ptr` at head h of that batch; the last two are strides."""
    return ptr + batch.to(tl.int64) * of_batch + h.to(tl.int64) * of_head


@triton.jit
def places(block, BLOCK: tl.constexpr):
    return block * BLOCK + tl.arange(0, BLOCK)


@triton.jit
def capped(x, SCALE: tl.constexpr, CAP: tl.constexpr):
    """log2 e scale x = SCALE x, or for a cap c, CAP = log2 e c: log2 e c tanh(scale x / c) = CAP tanh(SCALE x)."""
    z = x * SCALE
    if CAP > 0:
        z = tanh(z, 0.0, 0.0) * CAP
    return z


@triton.jit
def slope_of(slopes, batch, h, a_b, a_h):
    """log2 e times ALiBi's slope of a head; None if there are none."""
    slope = None
    if slopes is not None:
        slope = load(head(slopes, batch, h, a_b, a_h), batch >= 0) * LOG2_E
    return slope


@triton.jit
def logits(
    z, mask, slope, queries, keys, m_l, m_s, L, S, shift, left, right, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
    EDGE: tl.constexpr,
):  # fmt: skip
    """z + log2 e times what is added; -inf where a query, whose place is query + shift, may not see a key.

    mask: None, or a pointer with strides m_l, m_s to what is added, or to booleans: False adds -inf. slope: None, or
    log2 e times ALiBi's. EDGE: the tile may reach beyond the keys, or over the diagonals.
    """
    if mask is not None:
        at = queries.to(tl.int64) * m_l + keys.to(tl.int64) * m_s
        inside = (queries < L) & (keys < S)
        if mask.dtype.element_ty == tl.int1:
            z += tl.where(tl.load(mask + at, mask=inside, other=0).to(tl.int1), 0.0, -float("inf"))
        else:
            z += load(mask + at, inside) * LOG2_E
    if slope is not None:
        z -= tl.abs(keys - queries - shift).to(tl.float32) * slope
    if EDGE:
        seen = keys < S
        if CAUSAL:
            seen = seen & (keys <= queries + shift + right)
        if WINDOW:
            seen = seen & (keys >= queries + shift - left)
        z = tl.where(seen, z, -float("inf"))
    return z


@triton.jit
def key_blocks(
    first, S, shift, left, right, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BLOCK_L: tl.constexpr,
    BLOCK_S: tl.constexpr,
):  # fmt: skip
    """begin, whole, end of the blocks of keys that BLOCK_L queries from `first` on see: all keys of those from begin to
    whole are seen by all of them."""
    begin, whole, end = first * 0, S // BLOCK_S, tl.cdiv(S, BLOCK_S)
    if CAUSAL:
        whole = tl.minimum(whole, tl.maximum(first + shift + right + 1, 0) // BLOCK_S)
        end = tl.minimum(end, tl.cdiv(tl.maximum(first + BLOCK_L + shift + right, 0), BLOCK_S))
    if WINDOW:
        begin = tl.maximum(first + shift - left, 0) // BLOCK_S
        whole = begin
    return begin, whole, end


@triton.jit
def query_blocks(
    first, L, shift, left, right, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, BLOCK_L: tl.constexpr,
    BLOCK_S: tl.constexpr,
):  # fmt: skip
    """The first of the blocks of queries that see any of BLOCK_S keys from `first` on, and how many there are."""
    begin, end = first * 0, tl.cdiv(L, BLOCK_L)
    if CAUSAL:
        begin = tl.maximum(first - shift - right, 0) // BLOCK_L
    if WINDOW:
        end = tl.minimum(end, tl.cdiv(tl.maximum(first + BLOCK_S - shift + left, 0), BLOCK_L))
    # not negative: with more keys than queries the last keys may be seen by none
    return begin, tl.maximum(end - begin, 0)


@triton.jit
def sequence(cu, N, block, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    """The sequence that block number `block` belongs to, of N that lie one after another, and the block's number in it.

    Sequence n has the numbers from cu[n] // BLOCK + n on, which are enough, and perhaps one too many. STEPS: halvings
    of N until one is left.
    """
    low, high = block * 0, block * 0 + N
    for _ in range(STEPS):
        middle = (low + high) // 2
        there = tl.load(cu + middle).to(tl.int32) // BLOCK + middle <= block
        low, high = tl.where(there, middle, low), tl.where(there, high, middle)
    return low, block - (tl.load(cu + low).to(tl.int32) // BLOCK + low)


@triton.jit
def dropout(x, seed, queries, keys, head_index, bound, scale):
    """D of tile x: 1 / (1 - p) or 0, a function of seed and place only. `scale` holds the bits of 1 / (1 - p)."""
    zero = tl.zeros(x.shape, tl.int32)
    random, _, _, _ = tl.philox(tl.load(seed), zero + keys, zero + queries, zero + head_index, zero, ROUNDS)
    return tl.where(at_least(random, bound), from_bits(scale), 0.0).to(x.dtype)
