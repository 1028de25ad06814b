"""Gated linear layers, which torch.nn does not have: a linear layer of twice the width, one half gating the other."""

from typing import Any

import torch
from torch import Tensor

from trident import functional as F


class _Gated(torch.nn.Linear):
    """weight [2 * out_features, in_features], bias [2 * out_features]; the second halves make the gate."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True, **factory: Any) -> None:
        super().__init__(in_features, 2 * out_features, bias, **factory)

    def extra_repr(self) -> str:
        return f"in_features={self.in_features}, out_features={self.out_features // 2}, bias={self.bias is not None}"


class SwiGLU(_Gated):
    """a * silu(b), [a, b] = x Wᵀ + bias (arXiv:2002.05202). Shapes: [*, in_features] -> [*, out_features]."""

    def forward(self, input: Tensor) -> Tensor:
        return F.swiglu(F.linear(input, self.weight, self.bias))


class GEGLU(_Gated):
    """a * gelu(b), [a, b] = x Wᵀ + bias (arXiv:2002.05202). Shapes: [*, in_features] -> [*, out_features]."""

    def forward(self, input: Tensor) -> Tensor:
        return F.geglu(F.linear(input, self.weight, self.bias))


class ReGLU(_Gated):
    """a * relu(b), [a, b] = x Wᵀ + bias (arXiv:2002.05202). Shapes: [*, in_features] -> [*, out_features]."""

    def forward(self, input: Tensor) -> Tensor:
        return F.reglu(F.linear(input, self.weight, self.bias))
