"""Normalization layers. Each is its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident import functional as F


class LayerNorm(torch.nn.LayerNorm):
    __doc__ = torch.nn.LayerNorm.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)
