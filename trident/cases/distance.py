"""Cases of trident.nn.distance."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import Case, Errors, Shape, randn

BAD: Errors = (
    lambda f: f(torch.randn(2, 3), torch.randn(2, 4)),
    lambda f: f(torch.randn(2, 3), torch.randn(2, 3), "a"),
)
PAIRS = ((2, 3), (1, 1), (257, 33), (2, 65537))


def _pair(
    name: str,
    cls: str,
    *,
    shapes: Sequence[Shape] = PAIRS,
    other: Callable[[Shape], Shape] = lambda shape: shape,
    over: Callable[[Shape], int] = lambda shape: shape[-1],
    module: bool = True,
    **options: Any,
) -> Case:
    """other: the shape of the second tensor. Modules take the same options."""
    return Case(
        ours=lambda x1, x2: getattr(T, name)(x1, x2, **options),
        reference=lambda x1, x2: getattr(F, name)(x1, x2, **options),
        shapes=shapes,
        inputs=lambda shape: [randn(*shape), randn(*other(shape))],
        reduced=over,
        errors=BAD,
        cls=cls,
        module=(lambda cls: cls(**options)) if module else None,
        takes=2,
        bench=((4, 256), (2048, 128), (65536, 256)) if len(shapes[0]) == 2 else (),
    )


CASES: dict[str, Case] = {
    "pairwise_distance": _pair("pairwise_distance", "PairwiseDistance"),
    "pairwise_distance.one": _pair(
        "pairwise_distance", "PairwiseDistance", other=lambda shape: shape[-1:], p=1.5, keepdim=True, module=False
    ),
    "pairwise_distance.inf": _pair("pairwise_distance", "PairwiseDistance", p=math.inf, eps=1e-3),
    "cosine_similarity": _pair("cosine_similarity", "CosineSimilarity", over=lambda shape: shape[1] ** 2),
    "cosine_similarity.maps": _pair(
        "cosine_similarity",
        "CosineSimilarity",
        shapes=((2, 3, 4, 5), (1, 2, 1, 1), (2, 100, 5, 33)),
        other=lambda shape: (1, *shape[1:]),
        over=lambda shape: shape[1] ** 2,
        dim=-3,
        eps=0.5,
    ),
}
