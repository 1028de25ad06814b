"""MultiheadAttention: its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident import functional as F
from trident.runtime.redirect import aside

canonical_mask = torch.nn.functional._canonical_mask  # booleans as 0 and -inf; checks and warnings are torch's


class MultiheadAttention(torch.nn.MultiheadAttention):
    __doc__ = torch.nn.MultiheadAttention.__doc__

    @aside  # torch's inference path is not taken while a mode redirects functions
    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As torch's. Kernels run with `need_weights=False`; torch's inference path stays. The result is contiguous."""
        masks = (key_padding_mask, attn_mask)
        if need_weights or self._left_to_torch(query, key, value, is_causal, *masks):
            return super().forward(
                *(query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal)
            )
        batched = query.dim() == 3
        sequence = 1 if self.batch_first and batched else 0  # the axis along which q, k and v attend
        if not batched:
            same, key_is_value = query is key is value, key is value
            query = query.unsqueeze(1)
            key = query if same else key.unsqueeze(1)
            value = key if key_is_value else value.unsqueeze(1)
        q, k, v = (self._heads(t, sequence) for t in self._projected(query, key, value))
        causal = is_causal and key_padding_mask is None
        mask = None if causal else self._mask(q, k, *masks)
        y = F.scaled_dot_product_attention(q, k, v, mask, self.dropout if self.training else 0.0, causal)
        # [B, H, L, D] -> [B, L, H D] or [L, B, H D]
        y = y.permute(0, 2, 1, 3) if sequence == 1 else y.permute(2, 0, 1, 3)
        y = F.linear(y.flatten(2), self.out_proj.weight, self.out_proj.bias)
        return (y if batched else y.squeeze(1)), None

    def _left_to_torch(
        self, query: Tensor, key: Tensor, value: Tensor, is_causal: bool, padding: Tensor | None, mask: Tensor | None
    ) -> bool:
        """Is it something that only torch does, something wrong that it explains, or a call for its inference path?"""
        if self.bias_k is not None or self.add_zero_attn or query.is_nested or (is_causal and mask is None):
            return True
        if not query.dim() == key.dim() == value.dim() or query.dim() not in (2, 3):
            return True
        sizes = (self.embed_dim, self.kdim, self.vdim)
        if tuple(t.shape[-1] for t in (query, key, value)) != sizes or key.shape[:-1] != value.shape[:-1]:
            return True
        batch = 0 if self.batch_first else 1
        if query.dim() == 3 and query.shape[batch] != key.shape[batch]:
            return True
        if not self._fit(query, key, padding, mask):
            return True
        no_gradient = not (torch.is_grad_enabled() and (query.requires_grad or self.out_proj.weight.requires_grad))
        return no_gradient and not self.training and self.batch_first and query is key is value

    def _fit(self, query: Tensor, key: Tensor, padding: Tensor | None, mask: Tensor | None) -> bool:
        """Have the masks the shapes that torch accepts?"""
        axis = 1 if self.batch_first and query.dim() == 3 else 0
        L, S = query.shape[axis], key.shape[axis]
        batch = (query.shape[1 - axis],) if query.dim() == 3 else ()
        if padding is not None and padding.shape != (*batch, S):
            return False
        return mask is None or mask.shape in ((L, S), ((batch or (1,))[0] * self.num_heads, L, S))

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        if not self._qkv_same_embed_dim:
            weights: tuple[Tensor, ...] = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        elif query is key is value:
            return F.linear(query, self.in_proj_weight, self.in_proj_bias).chunk(3, -1)
        else:
            weights = self.in_proj_weight.chunk(3)
        biases = (None, None, None) if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        return tuple(F.linear(*operands) for operands in zip((query, key, value), weights, biases, strict=True))

    def _heads(self, x: Tensor, sequence: int) -> Tensor:
        """[B, H, L, D] of x, without a copy."""
        x = x.unflatten(-1, (self.num_heads, self.head_dim))
        return x.permute(0, 2, 1, 3) if sequence == 1 else x.permute(1, 2, 0, 3)

    def _mask(self, q: Tensor, k: Tensor, padding: Tensor | None, mask: Tensor | None) -> Tensor | None:
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
