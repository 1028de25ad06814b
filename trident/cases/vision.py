"""Cases of trident.nn.upsampling, pixelshuffle and channelshuffle."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import Case, Errors, Shape

LINES = ((2, 3, 4), (1, 2, 1), (3, 5, 33), (1, 2, 700))
PLANES = ((2, 3, 4, 5), (1, 2, 1, 1), (3, 7, 33, 3), (1, 3, 60, 70))
SPACES = ((2, 3, 3, 4, 5), (1, 2, 1, 2, 2), (1, 5, 3, 9, 4))
BENCH = ((1, 4, 16, 16), (4, 16, 32, 32), (8, 32, 128, 128))

BAD: Errors = (
    lambda f: f(torch.randn(2, 3), size=2),
    lambda f: f(torch.randn(2, 3, 4)),
    lambda f: f(torch.randn(2, 3, 4), size=2, scale_factor=2.0),
    lambda f: f(torch.randn(2, 3, 4), size=2, mode="nearest", align_corners=True),
    lambda f: f(torch.randn(2, 3, 4), size=2, mode="bilinear"),
    lambda f: f(torch.randn(2, 3, 4), size=(2, 3)),
    lambda f: f(torch.randn(2, 3, 4), size=2.5),
    lambda f: f(torch.randn(2, 3, 4), scale_factor=0.1),
    lambda f: f(torch.randn(2, 3, 4), size=2, recompute_scale_factor=True),
    lambda f: f(torch.randn(2, 3, 4, 4), size=2, mode="no"),
)


def _interpolate(
    shapes: Sequence[Shape],
    mode: str,
    cls: str = "Upsample",
    errors: Errors = (),
    bench: Sequence[Shape] = (),
    most: int = 64,  # outputs that an input is a tap of
    call: Callable[..., torch.Tensor] | None = None,  # with literal factors: torch cannot trace symbolic fractions
    **options: Any,
) -> Case:
    named = {"mode": mode, **options} if cls == "Upsample" else {k: v for k, v in options.items() if "corners" not in k}
    return Case(
        ours=lambda x: call(T.interpolate, x) if call else T.interpolate(x, mode=mode, **options),
        reference=lambda x: call(F.interpolate, x) if call else F.interpolate(x, mode=mode, **options),
        shapes=shapes,
        reduced=lambda shape: max(most, math.prod(shape[2:]) if mode == "area" else 1),
        errors=errors,
        cls=cls,
        module=lambda cls: cls(**named),
        bench=bench,
    )


def _old(name: str, *args: Any) -> Case:
    """A deprecated name."""

    return Case(
        ours=lambda x: getattr(T, name)(x, *args),
        reference=lambda x: getattr(F, name)(x, *args),
        shapes=PLANES[:1],
        reduced=lambda shape: 64,
        errors=(lambda f: f(torch.randn(2, 3, 4, 4)),),
    )


def _shuffle(name: str, cls: str, r: int, shapes: Sequence[Shape], bench: Sequence[Shape] = ()) -> Case:
    return Case(
        ours=lambda x: getattr(T, name)(x, r),
        reference=lambda x: getattr(F, name)(x, r),
        shapes=shapes,
        errors=(
            lambda f: f(torch.randn(2, 3), 2),
            lambda f: f(torch.randn(2, 5, 7, 3), 2),
            lambda f: f(torch.randn(2, 4, 4, 4), 0),
            lambda f: f(torch.randn(2, 4, 4, 4), -2),
            lambda f: f(torch.randn(2, 4, 4, 4), 2.0),
        ),
        cls=cls,
        module=lambda cls: cls(r),
        bench=bench,
    )


CASES: dict[str, Case] = {
    "channel_shuffle": _shuffle(
        "channel_shuffle",
        "ChannelShuffle",
        3,
        ((2, 6, 2, 3), (1, 3, 1), (2, 9, 70), (3, 66, 5, 4)),
        ((16, 60, 64, 64),),
    ),
    "pixel_shuffle": _shuffle(
        "pixel_shuffle", "PixelShuffle", 2, ((2, 8, 3, 4), (4, 1, 1), (3, 4, 5, 33), (1, 32, 40, 70)), BENCH
    ),
    "pixel_shuffle.three": _shuffle("pixel_shuffle", "PixelShuffle", 3, ((2, 9, 3, 2), (3, 27, 7, 33))),
    "pixel_unshuffle": _shuffle(
        "pixel_unshuffle", "PixelUnshuffle", 2, ((2, 2, 4, 6), (1, 2, 2), (3, 1, 10, 66), (1, 8, 80, 70)), BENCH
    ),
    "interpolate": _interpolate(PLANES, "nearest", scale_factor=2, errors=BAD, bench=BENCH),
    "interpolate.nearest_line": _interpolate(LINES, "nearest", size=11),
    "interpolate.nearest_space": _interpolate(
        SPACES, "nearest", scale_factor=(2, 0.7, 3), call=lambda f, x: f(x, scale_factor=(2, 0.7, 3))
    ),
    "interpolate.nearest2d": _interpolate(PLANES, "nearest", "UpsamplingNearest2d", size=(9, 3)),
    "interpolate.exact_line": _interpolate(
        LINES, "nearest-exact", scale_factor=1.6, call=lambda f, x: f(x, scale_factor=1.6, mode="nearest-exact")
    ),
    "interpolate.exact": _interpolate(PLANES, "nearest-exact", size=(7, 2)),
    "interpolate.exact_space": _interpolate(SPACES, "nearest-exact", scale_factor=2),
    "interpolate.linear": _interpolate(
        LINES, "linear", scale_factor=2.5, call=lambda f, x: f(x, scale_factor=2.5, mode="linear")
    ),
    "interpolate.linear_aligned": _interpolate(LINES, "linear", size=9, align_corners=True),
    "interpolate.bilinear": _interpolate(PLANES, "bilinear", scale_factor=2, bench=BENCH),
    "interpolate.bilinear2d": _interpolate(PLANES, "bilinear", "UpsamplingBilinear2d", size=(7, 9), align_corners=True),
    "interpolate.bilinear_less": _interpolate(
        (PLANES[0], *PLANES[2:]),
        "bilinear",
        scale_factor=0.4,
        recompute_scale_factor=True,
        call=lambda f, x: f(x, scale_factor=0.4, mode="bilinear", recompute_scale_factor=True),
    ),
    "interpolate.trilinear": _interpolate(
        SPACES,
        "trilinear",
        scale_factor=(2, 1, 1.5),
        call=lambda f, x: f(x, scale_factor=(2, 1, 1.5), mode="trilinear"),
    ),
    "interpolate.trilinear_aligned": _interpolate(SPACES, "trilinear", size=(1, 5, 3), align_corners=True),
    "interpolate.bicubic": _interpolate(PLANES, "bicubic", scale_factor=2, bench=BENCH),
    "interpolate.bicubic_less": _interpolate(PLANES, "bicubic", size=3),
    "interpolate.bicubic_aligned": _interpolate(PLANES, "bicubic", size=(6, 11), align_corners=True),
    "interpolate.area": _interpolate(PLANES, "area", size=(3, 2)),
    "native_channel_shuffle": dataclasses.replace(
        _shuffle("channel_shuffle", "ChannelShuffle", 3, ((2, 6, 2, 3),)),  # torch's own has no gradient to compare
        ours=lambda x: T.native_channel_shuffle(x, 3),
    ),
    "upsample": _old("upsample", None, 2),
    "upsample_nearest": _old("upsample_nearest", None, 2),
    "upsample_bilinear": _old("upsample_bilinear", (7, 9)),
}
