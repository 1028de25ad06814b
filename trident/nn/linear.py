"""Linear layers. Each is its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident import functional as F


class Linear(torch.nn.Linear):
    __doc__ = torch.nn.Linear.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)


class Bilinear(torch.nn.Bilinear):
    __doc__ = torch.nn.Bilinear.__doc__

    def forward(self, input1: Tensor, input2: Tensor) -> Tensor:
        return F.bilinear(input1, input2, self.weight, self.bias)


class LazyLinear(torch.nn.LazyLinear):
    __doc__ = torch.nn.LazyLinear.__doc__
    cls_to_become = Linear

    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)
