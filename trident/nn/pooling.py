"""Pooling layers. Each is its torch.nn twin with another forward."""

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
