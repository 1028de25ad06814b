"""Cases of trident.nn.dropout."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import (
    CHANNELS_BENCH,
    FLAT,
    FLAT_BENCH,
    Case,
    Errors,
    Shape,
)


def _dropout(name: str, cls: str, shapes: Sequence[Shape], errors: Errors = ()) -> Case:
    return Case(
        ours=lambda x: getattr(T, name)(x, 0.3, True),
        reference=lambda x: getattr(F, name)(x, 0.3, True),
        shapes=shapes,
        random=True,
        errors=(lambda f: f(torch.randn(2, 3), -0.1), lambda f: f(torch.randn(2, 3), 1.1), *errors),
        cls=cls,
        module=lambda cls: cls(0.3),
        bench=FLAT_BENCH if shapes is FLAT else CHANNELS_BENCH[len(shapes[0])],
    )


PLANES = ((2, 3, 4, 5), (1, 1, 1, 1), (5, 7, 33, 1))


CASES: dict[str, Case] = {
    "alpha_dropout": _dropout("alpha_dropout", "AlphaDropout", FLAT),
    "dropout": _dropout("dropout", "Dropout", FLAT),
    "dropout1d": _dropout("dropout1d", "Dropout1d", ((2, 3, 4), (1, 1), (5, 33)), (lambda f: f(torch.randn(3)),)),
    "dropout2d": _dropout("dropout2d", "Dropout2d", PLANES),
    "dropout3d": _dropout("dropout3d", "Dropout3d", ((2, 3, 4, 2, 5), (1, 1, 1, 1), (5, 7, 33, 1))),
    "feature_alpha_dropout": _dropout(
        "feature_alpha_dropout", "FeatureAlphaDropout", PLANES, (lambda f: f(torch.randn(3), 0.5, True),)
    ),
}
