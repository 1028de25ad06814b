"""`attn_implementation="trident"` in transformers: its registry's name for Trident's attention.

"sdpa" calls torch's function, which `trident.optimize` redirects: nothing need be chosen. This one besides takes keys
and values of fewer heads as they are where there is a mask ("sdpa" repeats them), and is the same outside of
`optimize`. It is not put in the place of "sdpa" by itself: models ask for that name and go other ways without it.
"""

from typing import Any

import torch
from torch import Tensor

from trident import functional as F

NAME = "trident"
UNKNOWN = ("s_aux", "head_mask", "output_attentions")  # they change the result; "eager" has them


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """query [B, H, L, E], key and value [B, K, S, E] -> [B, L, H, E] and no weights. ValueError: what it cannot do.

    softcap: logits are c tanh(logits / c), before the mask.
    """
    asked = [name for name in UNKNOWN if kwargs.get(name) is not None and kwargs[name] is not False]
    if asked:
        raise ValueError(f"attn_implementation='trident' has no {', '.join(asked)}; 'eager' has")
    L, S = query.shape[-2], key.shape[-2]
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    causal = bool(causal) and L > 1 and attention_mask is None
    if causal and S > L:  # a cache that is still empty behind these
        key, value = key[..., :L, :], value[..., :L, :]
        position_bias = None if position_bias is None else position_bias[..., :L]
    if position_bias is not None:
        attention_mask, causal = _biased(position_bias, attention_mask, causal), False
    if softcap:
        y = F.flash_attention(query, key, value, attention_mask, dropout, causal, scaling, softcap=softcap)
        return y.transpose(1, 2).contiguous(), None
    shared = query.shape[-3] != key.shape[-3]
    if shared and L == 1 and (attention_mask is None or attention_mask.shape[1] == 1):
        return _of_groups(query, key, value, attention_mask, dropout, scaling), None
    y = F.scaled_dot_product_attention(
        query, key, value, attention_mask, dropout, causal, scale=scaling, enable_gqa=shared
    )
    return y.transpose(1, 2).contiguous(), None


def _of_groups(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, dropout: float, scale: float | None) -> Tensor:
    """A query of the heads of a group as so many queries of one head: a cache is read once, not once a head."""
    rows = q.reshape(q.shape[0], k.shape[1], -1, q.shape[3])
    y = F.scaled_dot_product_attention(rows, k, v, mask, dropout, scale=scale)
    return y.reshape(q.shape[0], 1, q.shape[1], v.shape[3])


def _biased(bias: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """What is added to the logits: the bias, and the dtype's lowest number where nothing is to be seen."""
    if causal:
        mask = torch.ones(bias.shape[-2:], dtype=torch.bool, device=bias.device).tril()
    if mask is None:
        return bias
    return bias.masked_fill(~mask, torch.finfo(bias.dtype).min) if mask.dtype == torch.bool else bias + mask


def register_attention() -> None:
    """Make the name known to transformers, which must be installed. Then `attn_implementation="trident"` loads, and
    `model.set_attn_implementation("trident")` changes, a model."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
