"""Padding layers. Each is its torch.nn twin with another forward, one for each mode."""

from typing import Any

import torch
from torch import Tensor

from trident import functional as F


def _circular(self: Any, input: Tensor) -> Tensor:
    self._check_input_dim(input)
    return F.pad(input, self.padding, "circular")


def _constant(self: Any, input: Tensor) -> Tensor:
    return F.pad(input, self.padding, "constant", self.value)


def _reflect(self: Any, input: Tensor) -> Tensor:
    return F.pad(input, self.padding, "reflect")


def _replicate(self: Any, input: Tensor) -> Tensor:
    return F.pad(input, self.padding, "replicate")


class CircularPad1d(torch.nn.CircularPad1d):
    __doc__ = torch.nn.CircularPad1d.__doc__
    forward = _circular


class CircularPad2d(torch.nn.CircularPad2d):
    __doc__ = torch.nn.CircularPad2d.__doc__
    forward = _circular


class CircularPad3d(torch.nn.CircularPad3d):
    __doc__ = torch.nn.CircularPad3d.__doc__
    forward = _circular


class ConstantPad1d(torch.nn.ConstantPad1d):
    __doc__ = torch.nn.ConstantPad1d.__doc__
    forward = _constant


class ConstantPad2d(torch.nn.ConstantPad2d):
    __doc__ = torch.nn.ConstantPad2d.__doc__
    forward = _constant


class ConstantPad3d(torch.nn.ConstantPad3d):
    __doc__ = torch.nn.ConstantPad3d.__doc__
    forward = _constant


class ReflectionPad1d(torch.nn.ReflectionPad1d):
    __doc__ = torch.nn.ReflectionPad1d.__doc__
    forward = _reflect


class ReflectionPad2d(torch.nn.ReflectionPad2d):
    __doc__ = torch.nn.ReflectionPad2d.__doc__
    forward = _reflect


class ReflectionPad3d(torch.nn.ReflectionPad3d):
    __doc__ = torch.nn.ReflectionPad3d.__doc__
    forward = _reflect


class ReplicationPad1d(torch.nn.ReplicationPad1d):
    __doc__ = torch.nn.ReplicationPad1d.__doc__
    forward = _replicate


class ReplicationPad2d(torch.nn.ReplicationPad2d):
    __doc__ = torch.nn.ReplicationPad2d.__doc__
    forward = _replicate


class ReplicationPad3d(torch.nn.ReplicationPad3d):
    __doc__ = torch.nn.ReplicationPad3d.__doc__
    forward = _replicate


class ZeroPad1d(torch.nn.ZeroPad1d):
    __doc__ = torch.nn.ZeroPad1d.__doc__
    forward = _constant


class ZeroPad2d(torch.nn.ZeroPad2d):
    __doc__ = torch.nn.ZeroPad2d.__doc__
    forward = _constant


class ZeroPad3d(torch.nn.ZeroPad3d):
    __doc__ = torch.nn.ZeroPad3d.__doc__
    forward = _constant
