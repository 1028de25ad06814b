"""Padding, as a resampling with one tap (_resample.py).

    constant     y[o] = x[o - left] inside, else value      dx[i] = dy[i + left]: a padding by (-left, -right)
    reflect      y[o] = x[|o - left|, mirrored at the right edge too]
    replicate    y[o] = x[the nearest to o - left]
    circular     y[o] = x[(o - left) mod n]

The gradient of the last three adds, for each element of x, the outputs that are copies of it.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trident.ops._resample import WIDEST, resample
from trident.runtime import autocast, recompute, route
from trident.runtime.autograd import apply
from trident.runtime.exporting import surely

# what torch, `autocast` and `tuning` call each mode; the number of padded axes follows
NAMES = {
    "constant": "constant_pad",
    "reflect": "reflection_pad",
    "replicate": "replication_pad",
    "circular": "circular_pad",
}
MOST_AXES = 4  # that the kernel can pad at once


class _Pad(torch.autograd.Function):
    """Keeps nothing but the input's shape."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pad: tuple[int, ...], mode: str, value: float, dtype: torch.dtype) -> Tensor:
        ctx.like, ctx.how = (x.shape, x.dtype), (pad, mode, value)
        left, right = _sides(pad, x.dim())
        size = [n + a + b for n, a, b in zip(x.shape, left, right, strict=True)]
        # torch concatenates for "circular", and forgets channels_last
        return resample(x, mode, size, [float(n) for n in left], value, dtype, mode != "circular")

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (shape, dtype), (pad, mode, value) = ctx.like, ctx.how
        if recompute.wanted():
            x = torch.zeros((), dtype=dtype, device=dy.device).expand(shape).requires_grad_()
            found = recompute.gradients(lambda x: torch.nn.functional.pad(x, pad, mode, value), (x,), dy)
            return *found, None, None, None, None
        left, _ = _sides(pad, dy.dim())
        if mode == "constant":
            dx = resample(dy, mode, shape, [-float(n) for n in left], 0.0, dtype, True)
        else:
            dx = resample(dy, f"{mode}_grad", shape, [float(n) for n in left], 0.0, dtype, True)
        return dx, None, None, None, None


def _sides(pad: Sequence[int], dim: int) -> tuple[list[int], list[int]]:
    """torch's pairs, the last axis first -> the padding before and after each axis."""
    rest = [0] * (dim - len(pad) // 2)
    return [*rest, *pad[-2::-2]], [*rest, *pad[-1::-2]]


def _reason(x: Tensor, pad: Any, mode: str, value: Any) -> str | None:
    """Why torch must do it, or None."""
    if mode not in ("constant", "reflect", "replicate", "circular") or not isinstance(pad, tuple | list):
        return route.INVALID
    if len(pad) % 2 or len(pad) > 2 * x.dim() or not all(isinstance(n, int | torch.SymInt) for n in pad):
        return route.INVALID
    left, right = _sides(pad, x.dim())
    sides = list(zip(x.shape, left, right, strict=True))
    if any(n + a + b <= 0 for n, a, b in sides):
        return route.INVALID
    if not surely(math.prod([n + max(a, 0) + max(b, 0) for n, a, b in sides]) <= WIDEST):
        return "2^31 elements"
    if mode == "constant":
        return _constant_reason(x, pad, value)
    if len(pad) not in (2, 4, 6) or x.dim() - len(pad) // 2 not in (1, 2) or value not in (None, 0):
        return route.INVALID
    if min(pad) < 0:
        return "a padding that crops"
    most = {"reflect": -1, "replicate": WIDEST, "circular": 0}[mode]
    return route.INVALID if any(max(a, b) > max(0, n + most) for n, a, b in sides) else None


def _constant_reason(x: Tensor, pad: Sequence[int], value: Any) -> str | None:
    if max((0, *pad)) <= 0:
        return "a crop is torch's copy"
    if sum(1 for a, b in zip(pad[::2], pad[1::2], strict=True) if a or b) > MOST_AXES:
        return f"more than {MOST_AXES} padded axes"
    if value is not None and type(value) not in (int, float, bool):
        return route.INVALID
    fits = value is None or not math.isfinite(value) or abs(value) <= torch.finfo(x.dtype).max
    return None if fits else route.INVALID


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Same contract as :func:`torch.nn.functional.pad`: pairs (before, after), the last axis first."""
    floating = isinstance(input, Tensor) and input.is_floating_point()
    name = f"{NAMES.get(mode, 'constant_pad')}{len(pad) // 2 if isinstance(pad, tuple | list) else 1}d"
    if route.to_torch(name, input, unless=_reason(input, pad, mode, value) if floating else "not floating"):
        return torch.nn.functional.pad(input, pad, mode, value)
    return apply(_Pad, input, tuple(pad), mode, float(value or 0.0), autocast.output_dtype(name, input))
