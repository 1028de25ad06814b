"""Names that torch keeps for old programs. They warn in torch's words and call what they point to."""

import warnings
from typing import Any

import torch
from torch import Tensor

from trident.ops._interpolate import interpolate


def _warn(name: str) -> None:
    if not torch.compiler.is_compiling():  # a warning would break the graph
        words = f"`nn.functional.{name}` is deprecated. Use `nn.functional.interpolate` instead."
        warnings.warn(words, stacklevel=4)


def upsample(
    input: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: bool | None = None
) -> Tensor:
    """As :func:`torch.nn.functional.upsample`."""
    _warn("upsample")
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """As :func:`torch.nn.functional.upsample_nearest`."""
    _warn("upsample_nearest")
    return interpolate(input, size, scale_factor, mode="nearest")


def upsample_bilinear(input: Tensor, size: Any = None, scale_factor: Any = None) -> Tensor:
    """As :func:`torch.nn.functional.upsample_bilinear`."""
    _warn("upsample_bilinear")
    return interpolate(input, size, scale_factor, mode="bilinear", align_corners=True)
