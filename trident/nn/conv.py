"""Convolution layers, with an activation in the same kernel if asked for (`activation=` of their constructors).

Each is its torch.nn twin with another forward: one for convolutions, one for transposed ones, the function by its rank.
"""

# torch types the docstrings of these classes as str, and the parameters of lazy ones in two ways
# mypy: disable-error-code="assignment, misc"

from typing import Any

import torch
from torch import Tensor

from trident import functional as F
from trident.nn._activated import Activated


class _Conv(Activated):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        m: Any = self
        padding = m.padding
        if m.padding_mode != "zeros":
            input = F.pad(input, m._reversed_padding_repeated_twice, mode=m.padding_mode)
            padding = 0
        function = getattr(F, f"conv{len(m.kernel_size)}d")
        found: Tensor = function(input, weight, bias, m.stride, padding, m.dilation, m.groups, activation=m.activation)
        return found


class _ConvTranspose(Activated):
    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        m: Any = self
        if m.padding_mode != "zeros":
            raise ValueError(f"Only `zeros` padding mode is supported for {type(self).__name__}")
        n = len(m.kernel_size)
        more = m._output_padding(input, output_size, m.stride, m.padding, m.kernel_size, n, m.dilation)
        function = getattr(F, f"conv_transpose{n}d")
        found: Tensor = function(
            input, m.weight, m.bias, m.stride, m.padding, more, m.groups, m.dilation, activation=m.activation
        )
        return found


class Conv1d(_Conv, torch.nn.Conv1d):
    __doc__ = torch.nn.Conv1d.__doc__


class Conv2d(_Conv, torch.nn.Conv2d):
    __doc__ = torch.nn.Conv2d.__doc__


class Conv3d(_Conv, torch.nn.Conv3d):
    __doc__ = torch.nn.Conv3d.__doc__


class ConvTranspose1d(_ConvTranspose, torch.nn.ConvTranspose1d):
    __doc__ = torch.nn.ConvTranspose1d.__doc__


class ConvTranspose2d(_ConvTranspose, torch.nn.ConvTranspose2d):
    __doc__ = torch.nn.ConvTranspose2d.__doc__


class ConvTranspose3d(_ConvTranspose, torch.nn.ConvTranspose3d):
    __doc__ = torch.nn.ConvTranspose3d.__doc__


class LazyConv1d(_Conv, torch.nn.LazyConv1d):
    __doc__ = torch.nn.LazyConv1d.__doc__
    cls_to_become = Conv1d


class LazyConv2d(_Conv, torch.nn.LazyConv2d):
    __doc__ = torch.nn.LazyConv2d.__doc__
    cls_to_become = Conv2d


class LazyConv3d(_Conv, torch.nn.LazyConv3d):
    __doc__ = torch.nn.LazyConv3d.__doc__
    cls_to_become = Conv3d


class LazyConvTranspose1d(_ConvTranspose, torch.nn.LazyConvTranspose1d):
    __doc__ = torch.nn.LazyConvTranspose1d.__doc__
    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_ConvTranspose, torch.nn.LazyConvTranspose2d):
    __doc__ = torch.nn.LazyConvTranspose2d.__doc__
    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_ConvTranspose, torch.nn.LazyConvTranspose3d):
    __doc__ = torch.nn.LazyConvTranspose3d.__doc__
    cls_to_become = ConvTranspose3d
