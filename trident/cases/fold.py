"""Cases of trident.nn.fold, and of sampling at the places of a grid."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import Case, Errors, Shape, randn

IMAGES = ((2, 3, 6, 7), (1, 1, 5, 4), (2, 2, 33, 20))
BENCH = ((1, 3, 16, 16), (4, 16, 64, 64), (8, 32, 128, 128))


def _patches(kernel: tuple[int, int], bench: Sequence[Shape] = (), errors: Errors = (), **options: Any) -> Case:
    return Case(
        ours=lambda x: T.unfold(x, kernel, **options),
        reference=lambda x: F.unfold(x, kernel, **options),
        shapes=IMAGES,
        reduced=lambda shape: math.prod(kernel),
        errors=errors,
        cls="Unfold",
        module=lambda cls: cls(kernel, **options),
        bench=bench,
    )


def _image(
    size: tuple[int, int], kernel: tuple[int, int], shapes: Sequence[Shape], errors: Errors = (), **options: Any
) -> Case:
    """shapes: [N, C KH KW, L]."""
    return Case(
        ours=lambda x: T.fold(x, size, kernel, **options),
        reference=lambda x: F.fold(x, size, kernel, **options),
        shapes=shapes,
        reduced=lambda shape: math.prod(kernel),
        errors=errors,
        cls="Fold",
        module=lambda cls: cls(size, kernel, **options),
    )  # fmt: skip


# from 8 channels on vectors lie along them on CPUs
PLACES = ((2, 3, 5, 6), (1, 1, 4, 4), (2, 9, 20, 33))
DEEP = ((2, 2, 3, 4, 5), (1, 9, 6, 5, 4))


def _grid(
    mode: str,
    padding: str,
    aligned: bool,
    shapes: Sequence[Shape] = PLACES,
    bench: Sequence[Shape] = (),
    errors: Errors = (),
) -> Case:
    """Places reach one and a half times as far as the image."""

    def inputs(shape: Shape) -> list[torch.Tensor]:
        places = [n + 1 for n in shape[2:]]
        return [randn(*shape), torch.rand(shape[0], *places, len(places), dtype=torch.float64) * 3 - 1.5]

    return Case(
        ours=lambda x, g: T.grid_sample(x, g, mode, padding, aligned),
        reference=lambda x, g: F.grid_sample(x, g, mode, padding, aligned),
        shapes=shapes,
        inputs=inputs,
        reduced=lambda shape: 64 * shape[1] * math.prod(shape[2:]),
        errors=errors,
        bench=bench,
    )  # fmt: skip


CASES: dict[str, Case] = {
    "unfold": _patches(
        (3, 2),
        padding=1,
        dilation=(1, 2),
        stride=(1, 2),
        bench=BENCH,
        errors=(
            lambda f: f(torch.randn(2, 3), 2),
            lambda f: f(torch.randn(2, 3, 4, 4), 0),
            lambda f: f(torch.randn(2, 3, 4, 4), 9),
            lambda f: f(torch.randn(2, 3, 4, 4), (2, 2, 2)),
        ),
    ),
    "unfold.patches": _patches((3, 3), stride=3),
    "fold": _image(
        (6, 7),
        (3, 2),
        ((2, 12, 24), (1, 6, 24), (3, 66, 24)),
        padding=1,
        dilation=(1, 2),
        stride=(1, 2),
        errors=(
            lambda f: f(torch.randn(2, 12, 23), (6, 7), (3, 2)),
            lambda f: f(torch.randn(2, 5, 20), (6, 7), (3, 2)),
            lambda f: f(torch.randn(2, 12, 20), (6, 7), 0),
        ),
    ),
    "fold.patches": _image((9, 12), (3, 3), ((2, 18, 12), (1, 9, 12)), stride=3),
    "grid_sample": _grid(
        "bilinear",
        "zeros",
        False,
        bench=BENCH,
        errors=(
            lambda f: f(torch.randn(2, 3, 4, 4), torch.randn(1, 4, 4, 2)),
            lambda f: f(torch.randn(2, 3, 4, 4), torch.randn(2, 4, 4, 3)),
            lambda f: f(torch.randn(2, 3, 4, 4), torch.randn(2, 4, 4, 2), "no"),
            lambda f: f(torch.randn(2, 3, 4, 4), torch.randn(2, 4, 4, 2), "nearest", "no"),
            lambda f: f(torch.randn(2, 3, 4, 4, 4), torch.randn(2, 4, 4, 4, 3), "bicubic"),
        ),
    ),
    "grid_sample.border": _grid("bilinear", "border", True),
    "grid_sample.reflection": _grid("bilinear", "reflection", False),
    "grid_sample.nearest": _grid("nearest", "reflection", True),
    "grid_sample.bicubic": _grid("bicubic", "reflection", False, PLACES[::2], bench=BENCH[1:]),
    "grid_sample.space": _grid("bilinear", "zeros", True, DEEP),
    "affine_grid": Case(
        ours=lambda t: T.affine_grid(t, (t.shape[0], 3, 7, 40), False),
        reference=lambda t: F.affine_grid(t, [t.shape[0], 3, 7, 40], False),
        shapes=((2, 2, 3), (1, 2, 3), (5, 2, 3)),
        reduced=lambda shape: 280,
        errors=(
            lambda f: f(torch.randn(2, 2, 3), (2, 3, 4), False),
            lambda f: f(torch.randn(2, 2, 2), (2, 3, 4, 4), False),
            lambda f: f(torch.randn(2, 2, 3), (2, 3, 0, 4), False),
        ),
        bench=((16, 2, 3),),
    ),
    "affine_grid.space": Case(
        ours=lambda t: T.affine_grid(t, (t.shape[0], 3, 4, 5, 6), True),
        reference=lambda t: F.affine_grid(t, [t.shape[0], 3, 4, 5, 6], True),
        shapes=((2, 3, 4), (1, 3, 4)),
        reduced=lambda shape: 120,
    ),
}
