"""MultiheadAttention: its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident.ops._multi_head_attention import attend
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
        separate = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        weights = (self.in_proj_weight,) if self._qkv_same_embed_dim else separate
        y = attend(
            query, key, value, self.num_heads, weights, self.in_proj_bias, self.out_proj.weight, self.out_proj.bias,
            self.dropout if self.training else 0.0, *masks, is_causal,
            sequence=1 if self.batch_first and query.dim() == 3 else 0,
        )  # fmt: skip
        return y, None

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
