"""Losses of numbers against numbers, each a row of _pointwise_loss.py's table: its signature and what torch keeps."""

from typing import Any

import torch
from torch import Tensor

from trident.ops._pointwise_loss import PARTS, pointwise_loss
from trident.runtime import autocast, route

F = torch.nn.functional
NO_WEIGHT = "no kernel for a weight"


def _given(weight: Tensor | None) -> dict[str, Any]:
    """torch's regression losses take a weight since 2.12 only."""
    return {} if weight is None else {"weight": weight}


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|x - t|. Same contract as :func:`torch.nn.functional.l1_loss`."""
    unless = None if weight is None else NO_WEIGHT
    y = pointwise_loss("l1_loss", input, target, reduction, size_average, reduce, unless=unless)
    return F.l1_loss(input, target, size_average, reduce, reduction, **_given(weight)) if y is None else y


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(x - t)². Same contract as :func:`torch.nn.functional.mse_loss`."""
    unless = None if weight is None else NO_WEIGHT
    y = pointwise_loss("mse_loss", input, target, reduction, size_average, reduce, unless=unless)
    return F.mse_loss(input, target, size_average, reduce, reduction, **_given(weight)) if y is None else y


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """d² / 2β for d = |x - t| < β, else d - β / 2. Same contract as :func:`torch.nn.functional.smooth_l1_loss`."""
    row, unless = "l1_loss" if beta == 0 else "smooth_l1_loss", None if beta >= 0 else route.INVALID
    y = pointwise_loss(row, input, target, reduction, size_average, reduce, a=beta, unless=unless)
    return F.smooth_l1_loss(input, target, size_average, reduce, reduction, beta) if y is None else y


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """d² / 2 for d = |x - t| < δ, else δ (d - δ / 2). Same contract as :func:`torch.nn.functional.huber_loss`."""
    unless = NO_WEIGHT if weight is not None else None if delta > 0 else route.INVALID
    y = pointwise_loss("huber_loss", input, target, reduction, a=delta, unless=unless)
    return F.huber_loss(input, target, reduction, delta, **_given(weight)) if y is None else y


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(x) - t x, or x - t log(x + eps). Same contract as :func:`torch.nn.functional.poisson_nll_loss`."""
    unless = "no kernel for the derivative of Stirling's term" if full and target.requires_grad else None
    row = "poisson_nll_loss.log" if log_input else "poisson_nll_loss"
    y = pointwise_loss(row, input, target, reduction, size_average, reduce, a=eps, b=full, unless=unless)
    if y is None:
        return F.poisson_nll_loss(input, target, log_input, full, size_average, eps, reduce, reduction)
    return y


def gaussian_nll_loss(
    input: Tensor,
    target: Tensor,
    var: Tensor | float,
    full: bool = False,
    eps: float = 1e-6,
    reduction: str = "mean",
) -> Tensor:
    """(log v + (x - t)² / v) / 2 for v = max(var, eps). Same contract as
    :func:`torch.nn.functional.gaussian_nll_loss`, which raises for a negative variance. (Compiled the loss is NaN.)
    """
    row = "gaussian_nll_loss.full" if full else "gaussian_nll_loss"
    v = _variance(input, var)
    if v is None:
        unless: str | None = "a variance of another shape or type"
    else:
        unless = PARTS if autocast.active(input) else None
    checked = not torch.compiler.is_compiling()
    y = pointwise_loss(row, input, target, reduction, b=eps, third=v, unless=unless, checked=checked)
    return F.gaussian_nll_loss(input, target, var, full, eps, reduction) if y is None else y


def _variance(input: Tensor, var: Tensor | float) -> Tensor | None:
    """`var` as a tensor of input's shape, or None if torch must judge it."""
    if not isinstance(var, Tensor) or var.dtype != input.dtype or type(input) is not type(var):
        return None
    if var.shape != input.shape:
        if var.shape == input.shape[:-1]:
            var = var.unsqueeze(-1)
        one = [a for a, b in zip(var.shape, input.shape, strict=False) if a != b]
        if var.dim() != input.dim() or one != [1]:
            return None
    return var if var.shape == input.shape else var.expand(input.shape)
