"""Normalization layers. Each is its torch.nn twin with another forward, and some options that torch has not."""

import torch
from torch import Tensor

from trident import functional as F
from trident.nn._activated import Activated


class GroupNorm(Activated, torch.nn.GroupNorm):
    __doc__ = torch.nn.GroupNorm.__doc__

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        w, b = self.weight, self.bias
        return F.group_norm(input, self.num_groups, w, b, self.eps, activation=self.activation, residual=residual)


class LayerNorm(torch.nn.LayerNorm):
    __doc__ = torch.nn.LayerNorm.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(torch.nn.RMSNorm):
    __doc__ = torch.nn.RMSNorm.__doc__

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)
