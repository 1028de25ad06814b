"""Losses that want a margin: between a score and its sign, between two scores, between distances.

Each is a row of _pointwise_loss.py's table; those of vectors first reduce these to cosines or distances, in float32
(float64 for float64).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from trident.ops._distance import pairwise_distance
from trident.ops._pointwise_loss import REDUCTIONS, by_kernel, pointwise_loss
from trident.ops._reduce import reduce as reduce_pairs
from trident.ops._triplet import triplet_loss
from trident.runtime import autocast, route
from trident.runtime.precision import compute_dtype

F = torch.nn.functional
LEGACY = "size_average and reduce are deprecated"
SQUARE = 1e-12  # what torch adds to squares of vectors in cosine_embedding_loss


def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """log(1 + exp(-t x)). Same contract as :func:`torch.nn.functional.soft_margin_loss`."""
    y = pointwise_loss("soft_margin_loss", input, target, reduction, size_average, reduce)
    return F.soft_margin_loss(input, target, size_average, reduce, reduction) if y is None else y


def hinge_embedding_loss(
    input: Tensor,
    target: Tensor,
    margin: float = 1.0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """x where t is 1, max(0, margin - x) where it is -1. Same contract as
    :func:`torch.nn.functional.hinge_embedding_loss`."""
    y = pointwise_loss("hinge_embedding_loss", input, target, reduction, size_average, reduce, a=margin)
    return F.hinge_embedding_loss(input, target, margin, size_average, reduce, reduction) if y is None else y


def margin_ranking_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, margin - t (x1 - x2)). Same contract as :func:`torch.nn.functional.margin_ranking_loss`."""
    unless = None if input1.shape == target.shape else "no kernel for input and target of different shapes"
    y = pointwise_loss(
        "margin_ranking_loss", input1, input2, reduction, size_average, reduce, b=margin, third=target, unless=unless
    )
    if y is None:
        return F.margin_ranking_loss(input1, input2, target, margin, size_average, reduce, reduction)
    return y


def cosine_embedding_loss(
    input1: Tensor,
    input2: Tensor,
    target: Tensor,
    margin: float = 0,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """1 - cos where t is 1, max(0, cos - margin) where it is -1. Same contract as
    :func:`torch.nn.functional.cosine_embedding_loss`.

    Shapes: inputs [N, D] and target [N], or [D] and a scalar.
    """
    unless = _unfit(size_average, reduce, reduction, input1.shape == input2.shape)
    if target.dim() not in (0, 1) or input1.dim() != target.dim() + 1 or input1.shape[:-1] != target.shape:
        unless = unless or route.INVALID
    name, dtypes = "cosine_embedding_loss", route.HALF_TO_DOUBLE | {torch.int64}
    if target.requires_grad or not input1.is_floating_point() or input1.dtype != input2.dtype:
        unless = unless or "no kernel for these dtypes, or the derivative by the target"
    if route.to_torch(name, input1, input2, target, unless=unless, mixed=True, dtypes=dtypes):
        return F.cosine_embedding_loss(input1, input2, target, margin, size_average, reduce, reduction)
    cosine = reduce_pairs("cosine", input1, input2, [input1.dim() - 1], False, compute_dtype(input1), 0.0, SQUARE)
    return by_kernel(name, cosine, target, reduction, autocast.output_dtype(name, input1), margin, 0.0)


def triplet_margin_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    margin: float = 1.0,
    p: float = 2,
    eps: float = 1e-6,
    swap: bool = False,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """max(0, margin + d(a, p) - d(a, n)), d being the pairwise distance. Same contract as
    :func:`torch.nn.functional.triplet_margin_loss`.
    """
    alike = anchor.shape == positive.shape == negative.shape and anchor.dim() > 0
    unless = _unfit(size_average, reduce, reduction, alike) or (
        None if margin > 0 and not isinstance(p, str) else route.INVALID
    )
    if p == 0:
        unless = unless or "no kernel for numbers of differences"
    name = "triplet_margin_loss"
    if route.to_torch(name, anchor, positive, negative, unless=unless):
        return F.triplet_margin_loss(anchor, positive, negative, margin, p, eps, swap, size_average, reduce, reduction)

    dtype = autocast.output_dtype(name, anchor)
    return triplet_loss(anchor, positive, negative, p, eps, margin, swap, reduction, dtype)


def triplet_margin_with_distance_loss(
    anchor: Tensor,
    positive: Tensor,
    negative: Tensor,
    *,
    distance_function: Callable[[Tensor, Tensor], Tensor] | None = None,
    margin: float = 1.0,
    swap: bool = False,
    reduction: str = "mean",
) -> Tensor:
    """max(0, margin + d(a, p) - d(a, n)) of any distance d. Same contract as
    :func:`torch.nn.functional.triplet_margin_with_distance_loss`.
    """
    alike = anchor.dim() == positive.dim() == negative.dim()
    unless = _unfit(None, None, reduction, alike) or (None if margin > 0 else route.INVALID)
    name = "triplet_margin_with_distance_loss"
    if route.to_torch(name, anchor, positive, negative, unless=unless):
        return F.triplet_margin_with_distance_loss(
            anchor,
            positive,
            negative,
            distance_function=distance_function,
            margin=margin,
            swap=swap,
            reduction=reduction,
        )
    dtype = autocast.output_dtype(name, anchor)
    if distance_function is None and anchor.shape == positive.shape == negative.shape and anchor.dim() > 0:
        return triplet_loss(anchor, positive, negative, 2.0, 1e-6, margin, swap, reduction, dtype)
    apart = distance_function or pairwise_distance
    near, far = apart(anchor, positive), apart(anchor, negative)
    if swap:
        far = torch.minimum(far, apart(positive, negative))
    return by_kernel("margin_ranking_loss", near, far, reduction, dtype, -1.0, margin)


def _unfit(size_average: bool | None, reduce: bool | None, reduction: str, alike: bool) -> str | None:
    if size_average is not None or reduce is not None:
        return LEGACY
    if reduction not in REDUCTIONS:
        return route.INVALID
    return None if alike else "no kernel for inputs of different shapes"
