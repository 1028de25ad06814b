"""Attention as language models use it: windows, capped logits, ALiBi, packed sequences, a cache of keys.

The formulas are in ops/_attention.py and the kernels in ops/_attention_kernels.py: those of
scaled_dot_product_attention, where this function leaves what torch has too. Tiles that a window hides are not computed.
A single query of grouped heads, as in decoding, is seen as GROUP queries of one head, so that a cache is read once.
"""

import torch
from torch import Tensor

from trident.ops._attention import (
    WITH_BOOL,
    Also,
    Attention,
    How,
    _four,
    _in_torch,
    _lowered,
    scaled_dot_product_attention,
    seed_for,
)
from trident.runtime import route, tuning_llm
from trident.runtime.autograd import apply

INDICES = (torch.int32, torch.int64)


def _wrong(what: str) -> ValueError:
    return ValueError(f"flash_attention: {what}")


def _named(q: Tensor, k: Tensor, v: Tensor) -> str:
    return f"query {list(q.shape)}, key {list(k.shape)}, value {list(v.shape)}"


def _check_operands(q: Tensor, k: Tensor, v: Tensor, packed: bool) -> None:
    dims, heads, length = (3, 1, 0) if packed else (4, 1, 2)
    if not q.dim() == k.dim() == v.dim() == dims:
        raise _wrong(
            f"{_named(q, k, v)}; expected {dims} dimensions each" + (", as sequences are packed" if packed else "")
        )
    if q.shape[-1] != k.shape[-1] or k.shape[:-1] != v.shape[:-1] or (not packed and q.shape[0] != k.shape[0]):
        raise _wrong(f"{_named(q, k, v)}; expected query and key of one last size, key and value alike before it")
    if q.shape[heads] % max(1, k.shape[heads]):
        raise _wrong(
            f"{_named(q, k, v)}; expected a multiple of key's heads (dim {heads}; dim {length} is the sequence)"
        )
    if not q.dtype == k.dtype == v.dtype or q.dtype not in route.HALF_TO_DOUBLE:
        raise _wrong(f"dtypes {q.dtype}, {k.dtype}, {v.dtype}; expected one floating dtype")


def _check_extras(
    q: Tensor, k: Tensor, mask: Tensor | None, cu_q: Tensor | None, cu_k: Tensor | None, used: Tensor | None,
    slopes: Tensor | None, window: tuple[int, int], softcap: float, p: float,
) -> None:  # fmt: skip
    packed, heads = cu_q is not None, q.shape[1]
    if (cu_q is None) != (cu_k is None):
        raise _wrong("cu_seqlens_q and cu_seqlens_k: expected both, or neither")
    if cu_q is not None and cu_k is not None and (cu_q.dim() != 1 or cu_q.shape != cu_k.shape or len(cu_q) < 2):
        raise _wrong(f"cu_seqlens_q {list(cu_q.shape)}, cu_seqlens_k {list(cu_k.shape)}; expected [N + 1] each")
    batch = q.shape[0] if cu_q is None else cu_q.shape[0] - 1
    if used is not None and used.shape != (batch,):
        raise _wrong(f"seqused_k is {list(used.shape)}; expected [{batch}]")
    if any(t is not None and t.dtype not in INDICES for t in (cu_q, cu_k, used)):
        raise _wrong("cu_seqlens_q, cu_seqlens_k and seqused_k: expected int32 or int64")
    if slopes is not None and slopes.shape not in ((heads,), (1 if packed else batch, heads)):
        raise _wrong(f"alibi_slopes is {list(slopes.shape)}; expected [{heads}], or one such row a batch")
    if mask is not None:
        whole = (*q.shape[:3], k.shape[2]) if not packed else ()
        sizes = zip(reversed(mask.shape), reversed(whole), strict=False)
        if packed or not 2 <= mask.dim() <= 4 or any(n not in (1, m) for n, m in sizes):
            raise _wrong(f"attn_mask is {list(mask.shape)}; expected one that broadcasts to [B, H, L, S], unpacked")
        if mask.dtype not in (torch.bool, torch.float32, q.dtype):
            raise _wrong(f"attn_mask is {mask.dtype}; expected booleans, float32 or query's {q.dtype}")
    if len(window) != 2 or min(window) < -1 or softcap < 0 or not 0 <= p < 1:
        raise _wrong(f"window_size {window}, softcap {softcap}, dropout_p {p}; expected -1 or more, >= 0, [0, 1)")


def _unfit(q: Tensor, k: Tensor, v: Tensor, slopes: Tensor | None) -> str | None:
    """Why the kernels do not take these operands, or None."""
    if 0 in (q.numel(), k.numel(), v.numel()):
        return "no elements"
    longest = tuning_llm.longest_head(q.dtype, q.device)
    if max(q.shape[-1], v.shape[-1]) > longest:
        return f"heads of more than {longest} elements"
    if slopes is not None and slopes.requires_grad and torch.is_grad_enabled():
        return "the gradient of the slopes"
    return None


# Queries of a head of keys up to which torch's products were measured faster than tiles of 16 rows: where each sees
# other keys, and where all see the same (docs/measured.md)
FEW, FEW_ALIKE = 4, 16


def _sliceable(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, how: How, also: Also) -> bool:
    """Few queries of a cache with room, whose lengths the host may read: that waits for nothing on a CPU."""
    if also.used is None or also.cu_q is not None or also.slopes is not None or mask is not None:
        return False
    if how.cap or how.p or how.left >= 0 or how.right > 0:
        return False
    if q.shape[2] > (FEW if how.right == 0 else FEW_ALIKE) or q.shape[2] * q.shape[1] > FEW_ALIKE * k.shape[1]:
        return False
    tensors = (q, k, v, also.used)
    if torch.compiler.is_compiling() or not all(t.is_cpu and type(t) in (Tensor, torch.nn.Parameter) for t in tensors):
        return False
    if torch._C._len_torch_dispatch_stack() or route.transformed(tensors) is not None:
        return False
    return not (torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v)))


def _in_slices(q: Tensor, k: Tensor, v: Tensor, how: How, used: Tensor) -> Tensor:
    """torch's attention of the keys that are there, of each batch or, where there are as many in all, at once."""
    counts = used.tolist()
    if len({*counts}) == 1:
        return _slice(q, k, v, counts[0], how)
    parts = zip(q.split(1), k.split(1), v.split(1), counts, strict=True)
    return torch.cat([_slice(of_q, of_k, of_v, count, how) for of_q, of_k, of_v, count in parts])


def _slice(q: Tensor, k: Tensor, v: Tensor, count: int, how: How) -> Tensor:
    """Grouped heads are more queries of one."""
    if count < 1:
        return q.new_zeros(*q.shape[:-1], v.shape[-1])
    (B, H, L, E), K, mask = q.shape, k.shape[1], None
    if how.right == 0 and L > 1:
        mask = torch.ones(L, count, dtype=torch.bool).tril(count - L).repeat(H // K, 1)
    rows = q.reshape(B, K, -1, E)
    alone = rows.shape[2] == 1 and q.dtype.itemsize == 2
    if alone:  # torch multiplies two rows of halves in a third of the time of one
        rows = rows.expand(B, K, 2, E)
    y = torch.nn.functional.scaled_dot_product_attention(rows, k[:, :, :count], v[:, :, :count], mask, scale=how.scale)
    return y[:, :, :1] if alone else y.reshape(B, H, L, -1)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, how: How, also: Also) -> Tensor:
    """Of operands [B, H, L, E] that were found right."""
    B, H, L, E = q.shape
    group = H // max(1, k.shape[1])
    if L == 1 and also.cu_q is None and how.from_end:  # its place is that of the last key
        how = how._replace(right=-1)
        if how.left >= 0 and also.used is None:
            k, v = (t[..., -1 - how.left :, :] for t in (k, v))
            mask = mask if mask is None or mask.shape[-1] == 1 else mask[..., -1 - how.left :]
            how = how._replace(left=-1)
        if mask is None and also.slopes is None and how.left < 0 and group > 1 and q.numel() > 0:
            y = _attend(q.reshape(B, H // group, group, E), k, v, None, how, also)
            return y.reshape(B, H, 1, v.shape[-1])
    plain = how.left < 0 and how.cap == 0 and all(t is None for t in also)
    if plain and (how.right < 0 or (how.right == 0 and mask is None and k.shape[2] == L)):
        return scaled_dot_product_attention(q, k, v, mask, how.p, how.right == 0, how.scale, enable_gqa=group != 1)
    tensors = (q, k, v, mask, *also)
    reason = _unfit(q, k, v, also.slopes)
    dtypes = WITH_BOOL | set(INDICES)
    sliceable = route.policy == "auto" and reason is None and _sliceable(q, k, v, mask, how, also)
    name = "flash_attention (slices)" if sliceable else "flash_attention"
    if route.to_torch(name, *tensors, unless=reason, mixed=True, dtypes=dtypes):
        if sliceable:
            assert also.used is not None  # for mypy
            return _in_slices(q, k, v, how, also.used)
        kept = None if how.p == 0 else torch.nn.functional.dropout(q.new_ones(B, H, L, k.shape[2]), how.p)
        return _in_torch(q, k, v, mask, kept, how, also)
    if mask is not None:
        mask = _four(mask.expand(*q.shape[:-1], k.shape[-2]))
    seed = seed_for(q) if how.p > 0 else None
    found: Tensor = apply(Attention, q, k, v, mask, seed, how, also, q.shape[-1] == v.shape[-1])
    return found


def flash_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    causal: bool = False,
    scale: float | None = None,
    *,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    seqused_k: Tensor | None = None,
) -> Tensor:
    """softmax(cap(scale query keyᵀ) + ALiBi + attn_mask) value over the keys that each query sees.

    Shapes: query [B, H, L, E], key [B, K, S, E], value [B, K, S, V] with H a multiple of K; the result [B, H, L, V]. Of
    packed sequences, query [T, H, E], key and value [T', K, ...] as the offsets cu_seqlens_q and cu_seqlens_k [N + 1]
    divide T and T'; what lies after the last offset gives 0. The last query of a sequence has the place of its last key
    (unlike scaled_dot_product_attention's, where L and S differ): L new queries see a cache and one another.

    causal: no key after its own place is seen. window_size: how many keys before and after it are, -1: all.
    softcap: c tanh(logits / c) for logits, 0: none. alibi_slopes [H] or [B, H]: -slope |key - place| is added.
    seqused_k [B] or [N]: how many keys there are, the last ones being room in a cache. attn_mask: any strides,
    broadcast to [B, H, L, S]; booleans are True where a query may see a key. A query that sees no key gives 0.
    Dtypes: float16, bfloat16, float32, float64; float32 inside (float64 for float64). ValueError: other operands.
    """
    q, k, v, mask = _lowered(query, key, value, attn_mask)
    packed = cu_seqlens_q is not None
    _check_operands(q, k, v, packed)
    _check_extras(q, k, mask, cu_seqlens_q, cu_seqlens_k, seqused_k, alibi_slopes, window_size, softcap, dropout_p)
    left, right = window_size
    how = How(dropout_p, left, 0 if causal else right, True, float(softcap), scale)
    slopes = alibi_slopes if alibi_slopes is None or alibi_slopes.dim() == 2 else alibi_slopes[None]
    also = Also(slopes, cu_seqlens_q, cu_seqlens_k, seqused_k)
    if not packed:
        return _attend(q, k, v, mask, how, also)
    q, k, v = (t.transpose(0, 1)[None] for t in (q, k, v))
    y = _attend(q, k, v, mask, how, also)
    return y[0].transpose(0, 1)
