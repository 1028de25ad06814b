"""Losses of probabilities, each a row of _pointwise_loss.py's table: its signature and what torch keeps."""

import warnings

import torch
from torch import Tensor

from trident.ops._pointwise_loss import PARTS, pointwise_loss
from trident.ops._reduction import mean
from trident.runtime import autocast

F = torch.nn.functional


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-w (t log x + (1 - t) log(1 - x)). Same contract as :func:`torch.nn.functional.binary_cross_entropy`.

    What is outside [0, 1] raises on CPUs, as in torch. Compiled and on GPUs an input outside gives NaN (where torch
    stops the whole process).
    """
    name, checked = "binary_cross_entropy", not (input.device.type == "cuda" or torch.compiler.is_compiling())
    unless = autocast.refused(name, input)
    y = pointwise_loss(
        name, input, target, reduction, size_average, reduce, w=weight, b=checked, unless=unless, checked=checked
    )
    return F.binary_cross_entropy(input, target, weight, size_average, reduce, reduction) if y is None else y


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """binary_cross_entropy of σ(x). Same contract as :func:`torch.nn.functional.binary_cross_entropy_with_logits`."""
    name, legacy = "binary_cross_entropy_with_logits", (size_average, reduce)
    row = name if pos_weight is None else f"{name}.positives"
    y = pointwise_loss(row, input, target, reduction, *legacy, w=weight, third=pos_weight)
    if y is None:
        return F.binary_cross_entropy_with_logits(input, target, weight, *legacy, reduction, pos_weight)
    return y


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """t (log t - x), or exp(t) (t - x) if log_target. Same contract as :func:`torch.nn.functional.kl_div`."""
    per_batch = reduction == "batchmean"
    row = "kl_div.log" if log_target else "kl_div"
    y = pointwise_loss(row, input, target, "sum" if per_batch else reduction, size_average, reduce)
    if y is None:
        return F.kl_div(input, target, size_average, reduce, reduction, log_target)
    if reduction == "mean" and not torch.compiler.is_compiling():
        warnings.warn("kl_div: 'mean' divides by all elements; the divergence is 'batchmean'", stacklevel=3)
    return y / input.shape[0] if per_batch and input.dim() else y


def multilabel_soft_margin_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """binary_cross_entropy_with_logits, its mean over the last dimension. Same contract as
    :func:`torch.nn.functional.multilabel_soft_margin_loss`.
    """
    name = "multilabel_soft_margin_loss"
    unless = "no classes" if input.dim() == 0 else PARTS if autocast.active(input) else None
    y = pointwise_loss(
        "binary_cross_entropy_with_logits", input, target, reduction, size_average, reduce, w=weight, unless=unless,
        name=name,
    )  # fmt: skip
    if y is None:
        return F.multilabel_soft_margin_loss(input, target, weight, size_average, reduce, reduction)
    if reduction == "none":
        return mean(y, -1)
    return y / input.shape[-1] if reduction == "sum" else y
