"""Cases of trident.nn.softmax."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import (
    CHANNELS_BENCH,
    LONG_ROWS,
    ROWS_BENCH,
    Case,
    Shape,
    randn,
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


def _masked(mask_shape: Callable[[Shape], Sequence[int]], shapes: Sequence[Shape], dim: int = -1) -> Case:
    """A mask of which some lines keep nothing."""

    def inputs(shape: Shape) -> list[torch.Tensor]:
        mask = torch.rand(*mask_shape(shape)) < 0.6
        if len(mask) > 1:
            mask[0] = False
        return [randn(*shape), mask]

    return Case(
        ours=lambda x, mask: T.masked_softmax(x, mask, dim),
        reference=lambda x, mask: torch._safe_softmax(x.masked_fill(~mask, -torch.inf), dim),
        shapes=shapes,
        inputs=inputs,
        reduced=lambda shape: shape[dim],
        bench=ROWS_BENCH if dim == -1 else CHANNELS_BENCH[4],
    )


CASES: dict[str, Case] = {
    "softmax": _softmax("softmax", "Softmax"),
    "softmax.0": _softmax("softmax", "Softmax", 0, ((3, 2), (1, 1), (7, 5), (65537, 2), (129, 2, 257))),
    "softmax.2d": _softmax("softmax", "Softmax2d", -3, COLUMNS),
    "log_softmax": _softmax("log_softmax", "LogSoftmax"),
    "log_softmax.1": _softmax("log_softmax", "LogSoftmax", 1, COLUMNS),
    "masked_softmax": _masked(lambda shape: shape, ((2, 3), (5, 7), (257, 3), (3, 4, 33), (2, 32769))),
    "masked_softmax.padding": _masked(
        lambda shape: (shape[0], *(1,) * (len(shape) - 2), shape[-1]), ((2, 2, 3, 5), (3, 2, 130))
    ),
    "masked_softmax.rows": _masked(lambda shape: shape[-2:], ((3, 2, 5), (2, 2, 3, 33))),
    "masked_softmax.1": _masked(lambda shape: (1, *shape[1:-1], 1), ((2, 3, 4, 5), (1, 4097, 5, 13)), 1),
    "softmin": _softmax("softmin", "Softmin"),
    "softmin.1": _softmax("softmin", "Softmin", 1, COLUMNS),
}
