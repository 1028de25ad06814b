"""Layers of patches. Each is its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident import functional as F


class Fold(torch.nn.Fold):
    __doc__ = torch.nn.Fold.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.fold(input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride)


class Unfold(torch.nn.Unfold):
    __doc__ = torch.nn.Unfold.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.unfold(input, self.kernel_size, self.dilation, self.padding, self.stride)
