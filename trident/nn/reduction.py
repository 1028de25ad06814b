"""Reductions as layers, with the names that the first Trident gave them; torch.nn does not have them."""

import torch
from torch import Tensor

from trident import functional as F


class _Reduction(torch.nn.Module):
    """dim: the dimension or dimensions to reduce. keepdim: whether they stay, with size 1."""

    def __init__(self, dim: int | tuple[int, ...], keepdim: bool = False) -> None:
        super().__init__()
        self.dim, self.keepdim = dim, keepdim

    def extra_repr(self) -> str:
        return f"dim={self.dim}, keepdim={self.keepdim}"


class Sum(_Reduction):
    """:func:`torch.sum` over `dim`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.sum(input, self.dim, self.keepdim)


class Mean(_Reduction):
    """:func:`torch.mean` over `dim`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.mean(input, self.dim, self.keepdim)


class Max(_Reduction):
    """The values of :func:`torch.max` over one `dim`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.max(input, self.dim, self.keepdim)[0]


class Argmax(_Reduction):
    """:func:`torch.argmax` over one `dim`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.argmax(input, self.dim, self.keepdim)  # type: ignore[arg-type]


class _Moments(_Reduction):
    """correction: what is taken from the number of elements before the variance is divided by it."""

    def __init__(self, dim: int | tuple[int, ...], keepdim: bool = False, correction: float = 1) -> None:
        super().__init__(dim, keepdim)
        self.correction = correction

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, correction={self.correction}"


class Var(_Moments):
    """:func:`torch.var` over `dim`."""

    def forward(self, input: Tensor) -> Tensor:
        return F.var(input, self.dim, correction=self.correction, keepdim=self.keepdim)


class VarMean(_Moments):
    """:func:`torch.var_mean` over `dim`: variance and mean."""

    def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
        return F.var_mean(input, self.dim, correction=self.correction, keepdim=self.keepdim)
