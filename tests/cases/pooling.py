"""Cases of trident.nn.pooling."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

import trident.functional as T
from tests.cases.case import (
    Case,
    Shape,
)


def _pool(pooled: int, size: object, shapes: Sequence[Shape], bench: Sequence[Shape] = ()) -> Case:
    name = f"adaptive_avg_pool{pooled}d"
    return Case(
        ours=lambda x: getattr(T, name)(x, size),
        reference=lambda x: getattr(F, name)(x, size),
        shapes=shapes,
        reduced=lambda shape: torch.Size(shape[-pooled:]).numel(),
        errors=(
            lambda f: f(torch.randn(3), size),
            lambda f: f(torch.randn(1, *shapes[0]), 2),
            lambda f: f(torch.randn(shapes[0]), (2,) * (pooled + 1)),
            lambda f: f(torch.randn(shapes[0]), (-1,) * pooled),
            lambda f: f(torch.randn(shapes[0]), "2"),
        ),
        cls=f"AdaptiveAvgPool{pooled}d",
        module=lambda cls: cls(size),
        bench=bench,
    )


PLANE = (1, 1, 512, 512)


CASES: dict[str, Case] = {
    "adaptive_avg_pool1d": _pool(1, 3, ((2, 3, 7), (1, 1), (3, 257), (1, 2, 33), (1, 1, 65537)), ((32, 64, 4096),)),
    "adaptive_avg_pool1d.one": _pool(1, 1, ((2, 3, 7), (5, 1), (2, 65537))),
    "adaptive_avg_pool1d.more": _pool(1, (12,), ((2, 3, 5), (4, 1), (1, 2, 12))),
    "adaptive_avg_pool2d": _pool(
        2, 7, ((2, 3, 9, 11), (1, 1, 1), (1, 33, 14, 28), PLANE), ((32, 256, 112, 112), PLANE)
    ),
    "adaptive_avg_pool2d.one": _pool(2, 1, ((2, 3, 4, 5), (1, 1, 1), (7, 33, 7, 7), PLANE), ((64, 2048, 7, 7), PLANE)),
    "adaptive_avg_pool2d.two": _pool(2, (2, 2), ((2, 3, 4, 6), (1, 1, 257, 33), PLANE), (PLANE,)),
    "adaptive_avg_pool2d.oblong": _pool(2, (4, 3), ((2, 3, 8, 5), (2, 1, 7), (1, 20, 33, 7))),
    "adaptive_avg_pool2d.more": _pool(2, (9, 12), ((2, 3, 5, 6), (1, 1, 1, 1), (1, 17, 3, 4)), ((16, 64, 6, 6),)),
    "adaptive_avg_pool2d.none": _pool(2, (None, 2), ((2, 3, 4, 5), (1, 3, 1), (1, 3, 257, 7))),
    "adaptive_avg_pool2d.rows": _pool(2, (2, None), ((2, 3, 5, 4), (1, 3, 1), (1, 3, 33, 65))),
    "adaptive_avg_pool2d.same": _pool(2, (None, None), ((2, 3, 4, 5), (3, 7, 7))),
    "adaptive_avg_pool2d.half": _pool(2, 256, ((1, 1, 256, 512), PLANE), (PLANE,)),
    "adaptive_avg_pool3d": _pool(
        3, (2, 3, 4), ((2, 3, 4, 5, 8), (1, 1, 1, 1), (1, 17, 7, 9, 8)), ((8, 64, 16, 56, 56),)
    ),
    "adaptive_avg_pool3d.one": _pool(3, 1, ((2, 3, 4, 5, 6), (1, 1, 1, 1), (1, 2, 33, 17, 65))),
    "adaptive_avg_pool3d.none": _pool(3, (None, 2, None), ((2, 3, 4, 5, 2), (3, 2, 4, 2))),
    "adaptive_avg_pool3d.mixed": _pool(3, (6, 2, 1), ((2, 3, 4, 4, 5), (2, 3, 5, 7))),
}
