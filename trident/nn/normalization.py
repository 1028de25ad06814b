"""Normalization layers. Each is its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident import functional as F


class LayerNorm(torch.nn.LayerNorm):
    __doc__ = torch.nn.LayerNorm.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(torch.nn.RMSNorm):
    __doc__ = torch.nn.RMSNorm.__doc__

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)
