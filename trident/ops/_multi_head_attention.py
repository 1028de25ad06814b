"""Attention of several heads over projections: Trident's linear and scaled_dot_product_attention, [L, B, E] sequences.

What torch alone does goes to torch: weights returned, biases and zeros added to the keys, keys given from outside.
"""

import torch
from torch import Tensor

from trident.ops._attention import scaled_dot_product_attention
from trident.ops._linear import linear
from trident.runtime import route

canonical_mask = torch.nn.functional._canonical_mask  # booleans as 0 and -inf; checks and warnings are torch's


def heads(x: Tensor, count: int, sequence: int) -> Tensor:
    """[B, H, L, D] of x, whose axis `sequence` is L, without a copy."""
    x = x.unflatten(-1, (count, x.shape[-1] // count))
    return x.permute(0, 2, 1, 3) if sequence == 1 else x.permute(1, 2, 0, 3)


def merged_masks(q: Tensor, k: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
    """Both masks as one for scaled_dot_product_attention, whose booleans mean the contrary of these."""
    (B, H), S = q.shape[:2], k.shape[-2]
    if padding is not None:
        padding = padding.reshape(B, 1, 1, S)
    if mask is not None and mask.dim() == 3:
        mask = mask.unflatten(0, (B, H))
    if all(t is None or t.dtype == torch.bool for t in (padding, mask)):
        seen = [~t for t in (padding, mask) if t is not None]
        return None if not seen else seen[0] & seen[-1]
    other = None if mask is None else mask.dtype
    padding = canonical_mask(padding, "key_padding_mask", other, "attn_mask", q.dtype)
    mask = canonical_mask(mask, "attn_mask", None, "", q.dtype, False)
    if padding is None or mask is None:
        return mask if padding is None else padding
    return mask + padding


def projected(
    query: Tensor, key: Tensor, value: Tensor, weights: tuple[Tensor, ...], bias: Tensor | None
) -> tuple[Tensor, ...]:
    """q, k, v. weights: one that holds all three, or three."""
    if len(weights) == 1 and query is key is value:
        return linear(query, weights[0], bias).chunk(3, -1)
    three = weights[0].chunk(3) if len(weights) == 1 else weights
    biases = (None, None, None) if bias is None else bias.chunk(3)
    return tuple(linear(*operands) for operands in zip((query, key, value), three, biases, strict=True))


def _fit(
    query: Tensor, key: Tensor, value: Tensor, embed_dim: int, count: int, padding: Tensor | None, mask: Tensor | None
) -> bool:
    if not query.dim() == key.dim() == value.dim() or query.dim() not in (2, 3) or query.shape[-1] != embed_dim:
        return False
    if embed_dim % count or key.shape[:-1] != value.shape[:-1] or query.shape[1:-1] != key.shape[1:-1]:
        return False
    L, S, batch = query.shape[0], key.shape[0], query.shape[1:-1]
    if padding is not None and padding.shape != (*batch, S):
        return False
    return mask is None or mask.shape in ((L, S), ((batch or (1,))[0] * count, L, S))


def multi_head_attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim_to_check: int,
    num_heads: int,
    in_proj_weight: Tensor | None,
    in_proj_bias: Tensor | None,
    bias_k: Tensor | None,
    bias_v: Tensor | None,
    add_zero_attn: bool,
    dropout_p: float,
    out_proj_weight: Tensor,
    out_proj_bias: Tensor | None,
    training: bool = True,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    use_separate_proj_weight: bool = False,
    q_proj_weight: Tensor | None = None,
    k_proj_weight: Tensor | None = None,
    v_proj_weight: Tensor | None = None,
    static_k: Tensor | None = None,
    static_v: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """As :func:`torch.nn.functional.multi_head_attention_forward`. Kernels run with `need_weights=False`.

    Shapes: query [L, B, E] or [L, E], key and value [S, B, E'] or [S, E']; the result as query, contiguous.
    """
    separate = (q_proj_weight, k_proj_weight, v_proj_weight)
    weights = separate if use_separate_proj_weight else (in_proj_weight,)
    reason = None
    if need_weights or add_zero_attn or any(t is not None for t in (bias_k, bias_v, static_k, static_v)):
        reason = "weights to return, or keys from outside"
    elif (is_causal and attn_mask is None) or any(w is None for w in weights) or query.is_nested:
        reason = route.INVALID
    else:
        fits = _fit(query, key, value, embed_dim_to_check, num_heads, key_padding_mask, attn_mask)
        same = use_separate_proj_weight or key.shape == value.shape
        reason = None if fits and same else route.INVALID
    if route.to_torch("multi_head_attention_forward", query, key, value, *weights, unless=reason):
        return torch.nn.functional.multi_head_attention_forward(
            query, key, value, embed_dim_to_check, num_heads, in_proj_weight, in_proj_bias, bias_k, bias_v,
            add_zero_attn, dropout_p, out_proj_weight, out_proj_bias, training, key_padding_mask, need_weights,
            attn_mask, use_separate_proj_weight, q_proj_weight, k_proj_weight, v_proj_weight, static_k, static_v,
            average_attn_weights, is_causal,
        )  # fmt: skip
    found = tuple(w for w in weights if w is not None)
    y = attend(
        query, key, value, num_heads, found, in_proj_bias, out_proj_weight, out_proj_bias,
        dropout_p if training else 0.0, key_padding_mask, attn_mask, is_causal, sequence=0,
    )  # fmt: skip
    return y, None


def attend(
    query: Tensor, key: Tensor, value: Tensor, count: int, weights: tuple[Tensor, ...], bias: Tensor | None,
    out_weight: Tensor, out_bias: Tensor | None, dropout_p: float, padding: Tensor | None, mask: Tensor | None,
    is_causal: bool, sequence: int,
) -> Tensor:  # fmt: skip
    """The attention of `count` heads to keys, of inputs that were found right. sequence: the axis of L and S."""
    batched = query.dim() == 3
    if not batched:
        same, key_is_value = query is key is value, key is value
        query = query.unsqueeze(1)
        key = query if same else key.unsqueeze(1)
        value = key if key_is_value else value.unsqueeze(1)
    q, k, v = (heads(t, count, sequence) for t in projected(query, key, value, weights, bias))
    causal = is_causal and padding is None
    merged = None if causal else merged_masks(q, k, padding, mask)
    y = scaled_dot_product_attention(q, k, v, merged, dropout_p, causal)
    # [B, H, L, D] -> [B, L, H D] or [L, B, H D]
    y = y.permute(0, 2, 1, 3) if sequence == 1 else y.permute(2, 0, 1, 3)
    y = linear(y.flatten(2), out_weight, out_bias)
    return y if batched else y.squeeze(1)
