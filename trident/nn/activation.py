"""Activations. Each is its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident import functional as F


class GELU(torch.nn.GELU):
    __doc__ = torch.nn.GELU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, approximate=self.approximate)


class LogSoftmax(torch.nn.LogSoftmax):
    __doc__ = torch.nn.LogSoftmax.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim, _stacklevel=5)


class ReLU(torch.nn.ReLU):
    __doc__ = torch.nn.ReLU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, inplace=self.inplace)


class SiLU(torch.nn.SiLU):
    __doc__ = torch.nn.SiLU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, inplace=self.inplace)


class Softmax(torch.nn.Softmax):
    __doc__ = torch.nn.Softmax.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim, _stacklevel=5)


class Softmax2d(torch.nn.Softmax2d):
    __doc__ = torch.nn.Softmax2d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, -3) if input.dim() in (3, 4) else super().forward(input)  # which raises


class Softmin(torch.nn.Softmin):
    __doc__ = torch.nn.Softmin.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.softmin(input, self.dim, _stacklevel=5)
