"""What the kernels of attention share: the logits of a tile, its dropout, and where a head of a tensor starts.

A tile is [queries, keys] or [keys, queries]: `queries` and `keys` hold the places along their axis of the tile, int32.
"""

import triton
import triton.language as tl

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
def logits(
    x, mask, queries, keys, m_l, m_s, L, S, SCALE: tl.constexpr, CAUSAL: tl.constexpr, EDGE: tl.constexpr
):  # fmt: skip
    """log2 e (scale x + mask), -inf where a query may not see a key; SCALE = scale log2 e.

    mask: None, or a pointer with strides m_l, m_s to what is added, or to booleans: False adds -inf. EDGE: the tile may
    reach beyond the keys, or over the diagonal.
    """
    z = x * SCALE
    if mask is not None:
        at = queries.to(tl.int64) * m_l + keys.to(tl.int64) * m_s
        inside = (queries < L) & (keys < S)
        if mask.dtype.element_ty == tl.int1:
            z += tl.where(tl.load(mask + at, mask=inside, other=0).to(tl.int1), 0.0, -float("inf"))
        else:
            z += load(mask + at, inside) * LOG2_E
    if EDGE:
        seen = keys < S
        if CAUSAL:
            seen = seen & (keys <= queries)
        z = tl.where(seen, z, -float("inf"))
    return z


@triton.jit
def dropout(x, seed, queries, keys, head_index, bound, scale):
    """D of tile x: 1 / (1 - p) or 0, a function of seed and place only. `scale` holds the bits of 1 / (1 - p)."""
    zero = tl.zeros(x.shape, tl.int32)
    random, _, _, _ = tl.philox(tl.load(seed), zero + keys, zero + queries, zero + head_index, zero, ROUNDS)
    return tl.where(at_least(random, bound), from_bits(scale), 0.0).to(x.dtype)
