"""A linear layer and the cross entropy of its logits, which never exist all at once."""

from typing import Any

import torch
from torch import Tensor

from trident import functional as F

# torch 2.13 has this class
_Twin: Any = getattr(torch.nn, "LinearCrossEntropyLoss", torch.nn.modules.loss._WeightedLoss)


class LinearCrossEntropyLoss(_Twin):
    __doc__ = _Twin.__doc__ if hasattr(torch.nn, "LinearCrossEntropyLoss") else None

    if not hasattr(torch.nn, "LinearCrossEntropyLoss"):

        def __init__(
            self, in_features: int, num_classes: int, *, out_features: tuple[int, ...] = (), bias: bool = False,
            device: Any = None, dtype: torch.dtype | None = None, reduction: str = "mean",
            weight: Tensor | None = None, ignore_index: int | None = None, label_smoothing: float = 0.0,
            options: Any = None,
        ) -> None:  # fmt: skip
            super().__init__(weight, None, None, reduction)
            if out_features or options is not None:
                raise NotImplementedError("LinearCrossEntropyLoss: out_features and options need torch 2.13")
            self.num_classes, self.out_features = num_classes, out_features
            self.ignore_index, self.label_smoothing, self.options = ignore_index, label_smoothing, options
            self.linear = torch.nn.Linear(in_features, num_classes, bias, device, dtype)

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        shape = (self.num_classes, *self.out_features)
        bias = self.linear.bias
        return F.linear_cross_entropy(
            input,
            self.linear.weight.reshape(*shape, -1),
            target,
            linear_bias=None if bias is None else bias.reshape(shape),
            weight=self.weight,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            options=self.options,
        )
