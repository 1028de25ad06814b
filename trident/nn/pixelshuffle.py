"""Pixel shuffles. Each is its torch.nn twin with another forward."""

import torch

from trident import functional as F
from trident.nn._calling import calling


class PixelShuffle(torch.nn.PixelShuffle):
    __doc__ = torch.nn.PixelShuffle.__doc__
    forward = calling(F.pixel_shuffle, "upscale_factor")


class PixelUnshuffle(torch.nn.PixelUnshuffle):
    __doc__ = torch.nn.PixelUnshuffle.__doc__
    forward = calling(F.pixel_unshuffle, "downscale_factor")
