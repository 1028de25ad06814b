"""The shifted GELU layer of the first Trident, which torch.nn does not have."""

from typing import Any

import torch
from torch import Tensor

from trident import functional as F


class ShiftGELU(torch.nn.Module):
    """gelu(x + bias), bias a parameter that begins as zeros. Shapes: [*, num_features] -> the same."""

    def __init__(self, num_features: int, **factory: Any) -> None:
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(num_features, **factory))

    def forward(self, input: Tensor) -> Tensor:
        return F.shift_gelu(input, self.bias)

    def extra_repr(self) -> str:
        return f"{self.bias.numel()}"
