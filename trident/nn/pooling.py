"""Pooling layers. Each is its torch.nn twin with another forward."""

from typing import Any

import torch
from torch import Tensor

from trident import functional as F


class AdaptiveAvgPool1d(torch.nn.AdaptiveAvgPool1d):
    __doc__ = torch.nn.AdaptiveAvgPool1d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(torch.nn.AdaptiveAvgPool2d):
    __doc__ = torch.nn.AdaptiveAvgPool2d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(torch.nn.AdaptiveAvgPool3d):
    __doc__ = torch.nn.AdaptiveAvgPool3d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.adaptive_avg_pool3d(input, self.output_size)


class AdaptiveMaxPool1d(torch.nn.AdaptiveMaxPool1d):
    __doc__ = torch.nn.AdaptiveMaxPool1d.__doc__

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(torch.nn.AdaptiveMaxPool2d):
    __doc__ = torch.nn.AdaptiveMaxPool2d.__doc__

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool3d(torch.nn.AdaptiveMaxPool3d):
    __doc__ = torch.nn.AdaptiveMaxPool3d.__doc__

    def forward(self, input: Tensor) -> Any:
        return F.adaptive_max_pool3d(input, self.output_size, self.return_indices)


class AvgPool1d(torch.nn.AvgPool1d):
    __doc__ = torch.nn.AvgPool1d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        how = self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        return F.avg_pool1d(input, *how)


class AvgPool2d(torch.nn.AvgPool2d):
    __doc__ = torch.nn.AvgPool2d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        how = self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        return F.avg_pool2d(input, *how, self.divisor_override)


class AvgPool3d(torch.nn.AvgPool3d):
    __doc__ = torch.nn.AvgPool3d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        how = self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        return F.avg_pool3d(input, *how, self.divisor_override)


class LPPool1d(torch.nn.LPPool1d):
    __doc__ = torch.nn.LPPool1d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.lp_pool1d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class LPPool2d(torch.nn.LPPool2d):
    __doc__ = torch.nn.LPPool2d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.lp_pool2d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class LPPool3d(torch.nn.LPPool3d):
    __doc__ = torch.nn.LPPool3d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.lp_pool3d(input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode)


class MaxPool1d(torch.nn.MaxPool1d):
    __doc__ = torch.nn.MaxPool1d.__doc__

    def forward(self, input: Tensor) -> Any:
        how = self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        return F.max_pool1d(input, *how)


class MaxPool2d(torch.nn.MaxPool2d):
    __doc__ = torch.nn.MaxPool2d.__doc__

    def forward(self, input: Tensor) -> Any:
        how = self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        return F.max_pool2d(input, *how)


class MaxPool3d(torch.nn.MaxPool3d):
    __doc__ = torch.nn.MaxPool3d.__doc__

    def forward(self, input: Tensor) -> Any:
        how = self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode, self.return_indices
        return F.max_pool3d(input, *how)


class MaxUnpool1d(torch.nn.MaxUnpool1d):
    __doc__ = torch.nn.MaxUnpool1d.__doc__

    def forward(self, input: Tensor, indices: Tensor, output_size: list[int] | None = None) -> Tensor:
        return F.max_unpool1d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool2d(torch.nn.MaxUnpool2d):
    __doc__ = torch.nn.MaxUnpool2d.__doc__

    def forward(self, input: Tensor, indices: Tensor, output_size: list[int] | None = None) -> Tensor:
        return F.max_unpool2d(input, indices, self.kernel_size, self.stride, self.padding, output_size)


class MaxUnpool3d(torch.nn.MaxUnpool3d):
    __doc__ = torch.nn.MaxUnpool3d.__doc__

    def forward(self, input: Tensor, indices: Tensor, output_size: list[int] | None = None) -> Tensor:
        return F.max_unpool3d(input, indices, self.kernel_size, self.stride, self.padding, output_size)
