"""Pooling layers. Each is its torch.nn twin with another forward: its function, given some attributes by name."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trident import functional as F
from trident.nn._calling import calling

ADAPTIVE = ("output_size",)
AVERAGE = ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad")
LP = ("norm_type", "kernel_size", "stride", "ceil_mode")
MAXIMUM = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")


def _unpooling(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    def forward(self: Any, input: Tensor, indices: Tensor, output_size: list[int] | None = None) -> Tensor:
        return function(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    return forward


class AdaptiveAvgPool1d(torch.nn.AdaptiveAvgPool1d):
    __doc__ = torch.nn.AdaptiveAvgPool1d.__doc__
    forward = calling(F.adaptive_avg_pool1d, *ADAPTIVE)


class AdaptiveAvgPool2d(torch.nn.AdaptiveAvgPool2d):
    __doc__ = torch.nn.AdaptiveAvgPool2d.__doc__
    forward = calling(F.adaptive_avg_pool2d, *ADAPTIVE)


class AdaptiveAvgPool3d(torch.nn.AdaptiveAvgPool3d):
    __doc__ = torch.nn.AdaptiveAvgPool3d.__doc__
    forward = calling(F.adaptive_avg_pool3d, *ADAPTIVE)


class AdaptiveMaxPool1d(torch.nn.AdaptiveMaxPool1d):
    __doc__ = torch.nn.AdaptiveMaxPool1d.__doc__
    forward = calling(F.adaptive_max_pool1d, *ADAPTIVE, "return_indices")


class AdaptiveMaxPool2d(torch.nn.AdaptiveMaxPool2d):
    __doc__ = torch.nn.AdaptiveMaxPool2d.__doc__
    forward = calling(F.adaptive_max_pool2d, *ADAPTIVE, "return_indices")


class AdaptiveMaxPool3d(torch.nn.AdaptiveMaxPool3d):
    __doc__ = torch.nn.AdaptiveMaxPool3d.__doc__
    forward = calling(F.adaptive_max_pool3d, *ADAPTIVE, "return_indices")


class AvgPool1d(torch.nn.AvgPool1d):
    __doc__ = torch.nn.AvgPool1d.__doc__
    forward = calling(F.avg_pool1d, *AVERAGE)


class AvgPool2d(torch.nn.AvgPool2d):
    __doc__ = torch.nn.AvgPool2d.__doc__
    forward = calling(F.avg_pool2d, *AVERAGE, "divisor_override")


class AvgPool3d(torch.nn.AvgPool3d):
    __doc__ = torch.nn.AvgPool3d.__doc__
    forward = calling(F.avg_pool3d, *AVERAGE, "divisor_override")


class LPPool1d(torch.nn.LPPool1d):
    __doc__ = torch.nn.LPPool1d.__doc__
    forward = calling(F.lp_pool1d, *LP)


class LPPool2d(torch.nn.LPPool2d):
    __doc__ = torch.nn.LPPool2d.__doc__
    forward = calling(F.lp_pool2d, *LP)


class LPPool3d(torch.nn.LPPool3d):
    __doc__ = torch.nn.LPPool3d.__doc__
    forward = calling(F.lp_pool3d, *LP)


class MaxPool1d(torch.nn.MaxPool1d):
    __doc__ = torch.nn.MaxPool1d.__doc__
    forward = calling(F.max_pool1d, *MAXIMUM)


class MaxPool2d(torch.nn.MaxPool2d):
    __doc__ = torch.nn.MaxPool2d.__doc__
    forward = calling(F.max_pool2d, *MAXIMUM)


class MaxPool3d(torch.nn.MaxPool3d):
    __doc__ = torch.nn.MaxPool3d.__doc__
    forward = calling(F.max_pool3d, *MAXIMUM)


class MaxUnpool1d(torch.nn.MaxUnpool1d):
    __doc__ = torch.nn.MaxUnpool1d.__doc__
    forward = _unpooling(F.max_unpool1d)


class MaxUnpool2d(torch.nn.MaxUnpool2d):
    __doc__ = torch.nn.MaxUnpool2d.__doc__
    forward = _unpooling(F.max_unpool2d)


class MaxUnpool3d(torch.nn.MaxUnpool3d):
    __doc__ = torch.nn.MaxUnpool3d.__doc__
    forward = _unpooling(F.max_unpool3d)
