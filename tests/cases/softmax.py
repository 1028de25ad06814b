"""Cases of trident.nn.softmax."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

import trident.functional as T
from tests.cases.case import (
    CHANNELS_BENCH,
    LONG_ROWS,
    ROWS_BENCH,
    Case,
    Shape,
)


def _softmax(
    name: str, cls: str, dim: int = -1, shapes: Sequence[Shape] = (), module: bool = True, **kwargs: object
) -> Case:
    return Case(
        ours=lambda x: getattr(T, name)(x, dim, **kwargs),
        reference=lambda x: getattr(F, name)(x, dim, **kwargs),
        shapes=shapes or LONG_ROWS,
        reduced=lambda shape: shape[dim],
        errors=(lambda f: f(torch.randn(2, 3), 2), lambda f: f(torch.randn(2, 3), "a")),
        cls=cls,
        module=(lambda cls: cls(dim) if cls.__name__ != "Softmax2d" else cls()) if module else None,
        bench=CHANNELS_BENCH[4] if shapes is COLUMNS else ROWS_BENCH,
    )


COLUMNS = ((2, 3, 4, 5), (1, 1, 1, 1), (7, 33, 2, 1), (2, 257, 5, 3), (3, 5, 9, 33), (1, 4097, 5, 13))


CASES: dict[str, Case] = {
    "softmax": _softmax("softmax", "Softmax"),
    "softmax.0": _softmax("softmax", "Softmax", 0, ((3, 2), (1, 1), (7, 5), (65537, 2), (129, 2, 257))),
    "softmax.2d": _softmax("softmax", "Softmax2d", -3, COLUMNS),
    "log_softmax": _softmax("log_softmax", "LogSoftmax"),
    "log_softmax.1": _softmax("log_softmax", "LogSoftmax", 1, COLUMNS),
    "softmin": _softmax("softmin", "Softmin"),
    "softmin.1": _softmax("softmin", "Softmin", 1, COLUMNS),
}
