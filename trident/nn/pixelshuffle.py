"""Pixel shuffles. Each is its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident import functional as F


class PixelShuffle(torch.nn.PixelShuffle):
    __doc__ = torch.nn.PixelShuffle.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_shuffle(input, self.upscale_factor)


class PixelUnshuffle(torch.nn.PixelUnshuffle):
    __doc__ = torch.nn.PixelUnshuffle.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.pixel_unshuffle(input, self.downscale_factor)
