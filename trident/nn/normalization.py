"""Normalization layers. Each is its torch.nn twin with another forward, and some options that torch has not."""

from typing import Any

import torch
from torch import Tensor

from trident import functional as F
from trident.nn._activated import Activated


class GroupNorm(Activated, torch.nn.GroupNorm):
    __doc__ = torch.nn.GroupNorm.__doc__

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        w, b = self.weight, self.bias
        return F.group_norm(input, self.num_groups, w, b, self.eps, activation=self.activation, residual=residual)


class LayerNorm(torch.nn.LayerNorm):
    __doc__ = torch.nn.LayerNorm.__doc__

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Any:
        """With a residual: the norm of input + residual, and this sum."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps, residual=residual)


class LocalResponseNorm(torch.nn.LocalResponseNorm):
    __doc__ = torch.nn.LocalResponseNorm.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)


class RMSNorm(torch.nn.RMSNorm):
    __doc__ = torch.nn.RMSNorm.__doc__

    p: float = 1.0  # of modules whose class was reassigned, too; these have no bias either

    def __init__(self, *args: Any, p: float = 1.0, bias: bool = False, **kwargs: Any) -> None:
        """As torch's; p: the share of a row that the mean is over; bias: a parameter of its own."""
        super().__init__(*args, **kwargs)
        if not 0 < p <= 1:
            raise ValueError(f"RMSNorm: p is {p}; expected 0 < p <= 1")
        self.p = p
        if bias:
            where = {name: kwargs[name] for name in ("device", "dtype") if name in kwargs}
            self.bias = torch.nn.Parameter(torch.zeros(self.normalized_shape, **where))

    @property
    def beyond_torch(self) -> bool:
        """Does it compute what torch's class cannot?"""
        return self.p != 1 or hasattr(self, "bias")

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if hasattr(self, "bias"):
            torch.nn.init.zeros_(self.bias)

    def extra_repr(self) -> str:
        more = f", p={self.p}, bias={hasattr(self, 'bias')}" if self.beyond_torch else ""
        return super().extra_repr() + more

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Any:
        """With a residual: the norm of x + residual, and this sum."""
        bias = getattr(self, "bias", None)
        shape, weight = self.normalized_shape, self.weight
        return F.rms_norm(x, shape, weight, self.eps, bias=bias, p=self.p, residual=residual)
