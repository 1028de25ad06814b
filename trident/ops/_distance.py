"""Distances and cosines of pairs of vectors: rows of _reduce.py's table that read two tensors.

pairwise_distance   (Σ |x1 - x2 + eps|ᵖ)^(1/p) over the last dimension
cosine_similarity   Σ x1 x2 / (max(|x1|, eps) max(|x2|, eps)) over `dim`
"""

import torch
from torch import Tensor

from trident.ops._reduce import reduce
from trident.ops._reduction import norm_row
from trident.runtime import autocast, broadcast, route


def _common(x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor, bool]:
    """Both so that the second broadcasts to the first, and whether they changed places; as they are if they have no
    common shape: torch then says so."""
    if x1.dim() == x2.dim() and x1.shape == x2.shape:
        return x1, x2, False
    try:
        shape = torch.broadcast_shapes(x1.shape, x2.shape)
    except RuntimeError:
        return x1, x2, False
    if x2.dim() == len(shape) and x2.shape == shape:
        return x2, x1, True
    return x1.expand(shape), x2, False


def distance(x1: Tensor, x2: Tensor, p: float, eps: float, keepdim: bool, dtype: torch.dtype) -> Tensor:
    """By the kernel. x1, x2: of one dtype, x2 broadcasts to x1."""
    row, order = norm_row(float(p))
    y: Tensor = reduce(row, x1, x2, [x1.dim() - 1], keepdim, dtype, order, float(eps))
    return y


def pairwise_distance(x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Tensor:
    """The norm of order p of x1 - x2 + eps. Same contract as :func:`torch.nn.functional.pairwise_distance`.

    Shapes: [*, D] and [*, D], broadcast; the result [*] or, if keepdim, [*, 1].
    """
    a, b, turned = _common(x1, x2)
    unless = None if broadcast.fits(b.shape, a.shape) and a.dim() > 0 and not isinstance(p, str) else route.INVALID
    if route.to_torch("pairwise_distance", a, b, unless=unless):
        return torch.nn.functional.pairwise_distance(x1, x2, p, eps, keepdim)
    return distance(a, b, p, -eps if turned else eps, keepdim, a.dtype)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between x1 and x2. Same contract as :func:`torch.nn.functional.cosine_similarity`.

    Shapes: those of x1 and x2, broadcast; the result lacks `dim`.
    """
    a, b, _ = _common(x1, x2)
    fits = broadcast.fits(b.shape, a.shape) and a.dim() > 0 and type(dim) is int and -a.dim() <= dim < a.dim()
    if route.to_torch("cosine_similarity", a, b, unless=None if fits else route.INVALID):
        return torch.nn.functional.cosine_similarity(x1, x2, dim, eps)
    dtype = autocast.output_dtype("cosine_similarity", a)
    y: Tensor = reduce("cosine", a, b, [dim % a.dim()], False, dtype, float(eps))
    return y
