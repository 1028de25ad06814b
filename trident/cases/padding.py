"""Cases of trident.nn.padding."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import Case, Shape


def _pad(
    cls: str, pad: Sequence[int], mode: str, shapes: Sequence[Shape], *value: float, bench: Sequence[Shape] = ()
) -> Case:
    arguments: Any = (tuple(pad), mode, *value)
    return Case(
        ours=lambda x: T.pad(x, *arguments),
        reference=lambda x: F.pad(x, *arguments),
        shapes=shapes,
        reduced=lambda shape: 1 if mode == "constant" else 3 ** (len(pad) // 2),
        errors=(
            lambda f: f(torch.randn(2, 3), (1,), mode),
            lambda f: f(torch.randn(2, 3), (1,) * 6, mode),
            lambda f: f(torch.randn(2, 3), (1, -4), mode),
            lambda f: f(torch.randn(2, 3), (1, 1), "no"),
            lambda f: f(torch.randn(2, 3), (9, 9), mode, "1"),
        ),
        cls=cls,
        module=(lambda cls: cls(pad, *value)) if cls else None,
        bench=bench,
    )


LINES = ((2, 3, 4), (1, 3, 3), (5, 33), (2, 5000))
PLANES = ((2, 3, 4, 5), (1, 3, 3, 3), (3, 7, 33, 3), (2, 3, 70, 65))
SPACES = ((2, 3, 3, 4, 5), (1, 3, 3, 3, 3), (2, 5, 3, 17, 4))
BENCH = ((4, 4, 8, 8), (16, 16, 32, 32), (16, 64, 128, 128))

CASES: dict[str, Case] = {
    "pad": _pad("ZeroPad2d", (1, 2, 0, 1), "constant", PLANES, bench=BENCH),
    "pad.line": _pad("ZeroPad1d", (3, 0), "constant", LINES),
    "pad.space": _pad("ZeroPad3d", (1, 1, 2, 0, 0, 1), "constant", SPACES),
    "pad.value": _pad("ConstantPad1d", (2, 1), "constant", LINES, -1.5),
    "pad.inf": _pad("ConstantPad2d", (0, 0, 2, 2), "constant", PLANES, float("inf")),
    "pad.crop": _pad("ConstantPad3d", (1, -1, -1, 3, 0, 2), "constant", SPACES, 0.25),
    "pad.axes": _pad("", (0, 1, 0, 0, 1, 0, 2, 0), "constant", PLANES),
    "pad.reflect": _pad("ReflectionPad2d", (1, 2, 2, 0), "reflect", PLANES, bench=BENCH),
    "pad.reflect1": _pad("ReflectionPad1d", (2, 1), "reflect", LINES),
    "pad.reflect3": _pad("ReflectionPad3d", (1, 2, 0, 1, 2, 2), "reflect", SPACES),
    "pad.replicate": _pad("ReplicationPad2d", (1, 5, 2, 0), "replicate", (*PLANES, (1, 2, 1, 1)), bench=BENCH),
    "pad.replicate1": _pad("ReplicationPad1d", (4, 1), "replicate", LINES),
    "pad.replicate3": _pad("ReplicationPad3d", (1, 2, 0, 3, 2, 2), "replicate", SPACES),
    "pad.circular": _pad("CircularPad2d", (3, 2, 0, 1), "circular", PLANES, bench=BENCH),
    "pad.circular1": _pad("CircularPad1d", (2, 3), "circular", LINES),
    "pad.circular3": _pad("CircularPad3d", (1, 2, 0, 3, 2, 2), "circular", SPACES),
}
