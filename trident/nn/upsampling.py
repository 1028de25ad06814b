"""Upsampling layers. Each is its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident import functional as F


def _upsample(self: torch.nn.Upsample, input: Tensor) -> Tensor:
    return F.interpolate(
        input, self.size, self.scale_factor, self.mode, self.align_corners, self.recompute_scale_factor
    )


class Upsample(torch.nn.Upsample):
    __doc__ = torch.nn.Upsample.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return _upsample(self, input)


class UpsamplingBilinear2d(torch.nn.UpsamplingBilinear2d):
    __doc__ = torch.nn.UpsamplingBilinear2d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return _upsample(self, input)


class UpsamplingNearest2d(torch.nn.UpsamplingNearest2d):
    __doc__ = torch.nn.UpsamplingNearest2d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return _upsample(self, input)
