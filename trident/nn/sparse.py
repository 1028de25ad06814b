"""Embeddings. Each is its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident import functional as F


class Embedding(torch.nn.Embedding):
    __doc__ = torch.nn.Embedding.__doc__

    def forward(self, input: Tensor) -> Tensor:
        how = (self.padding_idx, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.sparse)
        return F.embedding(input, self.weight, *how)


class EmbeddingBag(torch.nn.EmbeddingBag):
    __doc__ = torch.nn.EmbeddingBag.__doc__

    def forward(self, input: Tensor, offsets: Tensor | None = None, per_sample_weights: Tensor | None = None) -> Tensor:
        return F.embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq, self.mode,
            self.sparse, per_sample_weights, self.include_last_offset, self.padding_idx,
        )  # fmt: skip
