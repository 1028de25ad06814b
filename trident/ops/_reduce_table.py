"""The reductions that _reduce.py computes: which functions of lang/reduction.py each one is made of."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trident.lang import reduction as R
from trident.lang import reduction_grad as G

Dims = list[int]


class Reduction(NamedTuple):
    """lift, gather, merge, finish and grad as lang/reduction.py says (grad None: the derivative is a view of dy).

    parts: numbers in a state; neutral: the first of them for no elements, the others being 0; torch: torch's function
    of (x, x2, dims, keepdim, a, b), for second derivatives.
    """

    lift: Any
    gather: Any
    merge: Any
    finish: Any
    grad: Any
    parts: int
    torch: Callable[..., Tensor]
    neutral: float = 0.0
    found: bool = False  # the state's second number is the index of an element, kept in int64
    second: bool = False  # finish gives two results


def _stacked(f: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Tensor]:
    """Both results as one tensor, as `recompute` takes them."""
    return lambda x, x2, dims, keepdim, a, b: torch.stack(f(x, dims, correction=a, keepdim=keepdim))


def _extremum(lift: Any, grad: Any, of_torch: Callable[..., Tensor]) -> Reduction:
    return Reduction(lift, R.tops_count, R.higher_count, R.extremum, grad, 2, of_torch, -math.inf)


def _vector_norm(x: Tensor, x2: Tensor | None, dims: Dims, keepdim: bool, a: float, b: float) -> Tensor:
    return torch.linalg.vector_norm(x if x2 is None else x - x2 + b, a, dims, keepdim)


def _infinite_norm(x: Tensor, x2: Tensor | None, dims: Dims, keepdim: bool, a: float, b: float) -> Tensor:
    return _vector_norm(x, x2, dims, keepdim, math.copysign(math.inf, a), b)


def _ends(x: Tensor, x2: Tensor | None, dims: Dims, keepdim: bool, a: float, b: float) -> Tensor:
    """amax and amin; max and min of everything if b."""
    if b:
        return x.max() if a > 0 else x.min()
    return x.amax(dims, keepdim) if a > 0 else x.amin(dims, keepdim)


def _end(x: Tensor, x2: Tensor | None, dims: Dims, keepdim: bool, a: float, b: float) -> Tensor:
    return (x.max(dims[0], keepdim) if a > 0 else x.min(dims[0], keepdim)).values


def _sum(x: Tensor, x2: Tensor | None, dims: Dims, keepdim: bool, a: float, b: float) -> Tensor:
    return x.sum(dims, keepdim)


def _prod(x: Tensor, x2: Tensor | None, dims: Dims, keepdim: bool, a: float, b: float) -> Tensor:
    return x.prod(dims[0], keepdim) if len(dims) == 1 else x.prod()


def _cosine(x: Tensor, x2: Tensor, dim: int, a: float, b: float) -> Tensor:
    """Of cosine_similarity; of cosine_embedding_loss if b."""
    if not b:
        return torch.cosine_similarity(x, x2, dim, a)
    squares = ((x * x).sum(dim) + b) * ((x2 * x2).sum(dim) + b)
    return (x * x2).sum(dim) / squares.sqrt()


# a name with "_" at its end: what the gradient needs is counted as well
REDUCTIONS = {
    "sum": Reduction(R.plain, R.sums, R.add, R.first, None, 1, _sum),
    "mean": Reduction(R.plain, R.sums, R.add, R.mean, None, 1, _sum),
    "prod": Reduction(R.factor, R.products, R.multiply, R.first, None, 1, _prod, 1.0),
    "prod_": Reduction(R.factor_zeros, R.products_zeros, R.multiply_zeros, R.product, G.product, 2, _prod, 1.0),
    "ends": Reduction(R.signed, R.tops, R.higher, R.extremum, None, 1, _ends, -math.inf),
    "ends_": _extremum(R.signed_count, G.shared, _ends),
    "end": Reduction(R.signed, R.tops_index, R.higher_index, R.extremum, G.at_index, 2, _end, -math.inf, True),
    "logsumexp": Reduction(
        R.exponent, R.exponents, R.add_exponents, R.log_sum, G.log_sum, 2,
        lambda x, x2, dims, keepdim, a, b: x.logsumexp(dims, keepdim), -math.inf,
    ),
    "var": Reduction(
        R.moment, R.moments, R.merge_moments, R.variance, G.variance, 3, _stacked(torch.var_mean), second=True
    ),
    "std": Reduction(
        R.moment, R.moments, R.merge_moments, R.deviation, G.deviation, 3, _stacked(torch.std_mean), second=True
    ),
    "norm": Reduction(R.powers, R.sums, R.add, R.norm, G.norm, 1, _vector_norm),
    "norm_inf": Reduction(R.magnitude, R.tops, R.higher, R.top_magnitude, None, 1, _infinite_norm, -math.inf),
    "norm_inf_": Reduction(
        R.magnitude_count, R.tops_count, R.higher_count, R.top_magnitude, G.top_magnitude, 2, _infinite_norm, -math.inf
    ),
    "cosine": Reduction(
        R.dots, R.three_sums, R.add_three, R.cosine, G.cosine, 3,
        lambda x, x2, dims, keepdim, a, b: _cosine(x, x2, dims[0], a, b),
    ),
}  # fmt: skip


def differentiable(name: str) -> str:
    """The row for where a gradient will be asked for: one whose gradient needs more than its result has a twin."""
    return f"{name}_" if f"{name}_" in REDUCTIONS else name
