"""Activations. Each is its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident import functional as F


class GELU(torch.nn.GELU):
    __doc__ = torch.nn.GELU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, approximate=self.approximate)


class ReLU(torch.nn.ReLU):
    __doc__ = torch.nn.ReLU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, inplace=self.inplace)


class SiLU(torch.nn.SiLU):
    __doc__ = torch.nn.SiLU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, inplace=self.inplace)
