"""Interpolation, as a resampling (_resample.py): on each axis an output is a weighted sum of the inputs around it.

Output o lies at x = (o + 1/2) step - 1/2 among the inputs, or at o step if their corners are aligned; step is the ratio
of the sizes, or one over the scale factor that the caller gave.

    nearest          y[o] = x[floor(o step)], and x[floor((o + 1/2) step)] for "nearest-exact"
    linear           two taps, with weights 1 - |distance|; bilinear and trilinear are products of it
    bicubic          four taps an axis, with the weights of Keys' kernel; indices beyond an edge mean the edge
    area             adaptive average pooling

Where an output lies and its weights are worked out in float64 (torch: float32), so they do not drift along an axis.
What is nearest is worked out in float32 as torch does for float32: float64 tensors may differ from torch's where an
output lies exactly between two inputs.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trident.ops import _adaptive_avg_pool
from trident.ops._resample import WIDEST, resample
from trident.runtime import autocast, recompute, route
from trident.runtime.autograd import apply
from trident.runtime.exporting import surely
from trident.runtime.layout import measured_as

# mode -> the ranks of input that it takes, the way of an axis, torch's name with the number of axes to follow
MODES: dict[str, tuple[tuple[int, ...], str, str]] = {
    "nearest": ((3, 4, 5), "nearest", "upsample_nearest"),
    "nearest-exact": ((3, 4, 5), "nearest-exact", "_upsample_nearest_exact"),
    "linear": ((3,), "linear", "upsample_linear"),
    "bilinear": ((4,), "linear", "upsample_bilinear"),
    "trilinear": ((5,), "linear", "upsample_trilinear"),
    "bicubic": ((4,), "cubic", "upsample_bicubic"),
}
POOLS = {
    3: _adaptive_avg_pool.adaptive_avg_pool1d,
    4: _adaptive_avg_pool.adaptive_avg_pool2d,
    5: _adaptive_avg_pool.adaptive_avg_pool3d,
}
LONGEST = 2**23  # outputs of an axis whose nearest inputs float32 tells apart


class _Interpolate(torch.autograd.Function):
    """Keeps nothing but the input's shape. size: None where the scale factors say it: torch.compile, with symbolic
    sizes, hands a Function no products of them."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        size: tuple[int, ...] | None,
        way: str,
        factors: tuple[float, ...],
        dtype: torch.dtype,
        how: Any,
    ) -> Tensor:
        ctx.like, ctx.way, ctx.how = (x.shape, x.dtype), way, how
        ctx.factors = [0.0, 0.0, *factors] if factors else [0.0] * x.dim()
        shape = [] if size is None else [*x.shape[:2], *size]
        return resample(x, way, shape, ctx.factors, 0.0, dtype, True)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        shape, dtype = ctx.like
        if recompute.wanted():
            x = torch.zeros((), dtype=dtype, device=dy.device).expand(shape).requires_grad_()
            found = recompute.gradients(lambda x: torch.nn.functional.interpolate(x, *ctx.how), (x,), dy)
            return *found, None, None, None, None, None
        dx = resample(dy, f"{ctx.way}_grad", shape, ctx.factors, 0.0, dtype, True)
        return dx, None, None, None, None, None


def _scaled(x: Tensor, factors: Sequence[float]) -> tuple[int, ...]:
    return tuple([torch.sym_int(n * f) for n, f in zip(x.shape[2:], factors, strict=True)])


def _listed(value: Any, axes: int, kinds: tuple[type, ...]) -> list[Any] | None:
    """`value` for each axis, or None if it is not of these kinds."""
    found = list(value) if isinstance(value, tuple | list) else [value] * axes
    return found if len(found) == axes and all(isinstance(v, kinds) for v in found) else None


def _sizes(
    input: Tensor, size: Any, scale_factor: Any, recompute_scale_factor: bool
) -> tuple[tuple[int, ...], list[float]] | None:
    """The output's size on each axis and the scale factors that torch keeps (none: it takes the ratio of the sizes).
    None: torch explains what is wrong."""
    axes = input.dim() - 2
    if (size is None) == (scale_factor is None) or (recompute_scale_factor and size is not None):
        return None
    if size is not None:
        found = _listed(size, axes, (int, torch.SymInt))
        factors: list[float] = []
    else:
        given = _listed(scale_factor, axes, (int, float))
        if given is None or any(f <= 0 for f in given):
            return None
        factors = [float(f) for f in given]
        found = list(_scaled(input, factors))
    if found is None or any(n <= 0 for n in found):
        return None
    return tuple(found), [] if recompute_scale_factor else factors


def _contradicts(way: str, input: Tensor, size: Sequence[int], factors: Sequence[float]) -> bool:
    """torch has a short cut to the nearest for outputs as long as the input or twice as long, whatever the factor."""
    if not way.startswith("nearest"):
        return False
    axes = zip(input.shape[2:], size, factors, strict=False)
    return any((o == n and f != 1) or (o == 2 * n and f != 2) for n, o, f in axes)


def interpolate(
    input: Tensor,
    size: int | Sequence[int] | None = None,
    scale_factor: float | Sequence[float] | None = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """[N, C, *spatial] -> [N, C, *size]. Same contract as :func:`torch.nn.functional.interpolate`."""
    how = (size, scale_factor, mode, align_corners, recompute_scale_factor, antialias)
    reason, found = _plan(input, *how)
    name = f"{MODES[mode][2]}{input.dim() - 2}d" if mode in MODES else "interpolate"
    if found is not None and mode == "area":
        return POOLS[input.dim()](input, found[0])
    if route.to_torch(measured_as(name, input), input, unless=reason) or found is None:
        return torch.nn.functional.interpolate(input, *how)
    return apply(_Interpolate, input, *found, autocast.output_dtype(name, input), how)


def _plan(
    input: Tensor, size: Any, scale_factor: Any, mode: str, align_corners: Any, recompute_scale: Any, antialias: Any
) -> tuple[str | None, Any]:
    """Why torch must do it, or (size, way, factors); of "area" (size,)."""
    if antialias:
        return "no kernel for antialias", None
    ranks = (3, 4, 5) if mode == "area" else MODES.get(mode, ((),))[0]
    if input.dim() not in ranks or input.numel() == 0:
        return route.INVALID, None
    _, way, _ = MODES.get(mode, ((), "area", ""))
    if way in ("area", "nearest", "nearest-exact") and align_corners is not None:
        return route.INVALID, None
    sizes = _sizes(input, size, scale_factor, bool(recompute_scale) or (mode == "area" and scale_factor is not None))
    if sizes is None:
        return route.INVALID, None
    if mode == "area":
        return None, (sizes[0],)
    way = f"{way}_aligned" if align_corners else way
    if _contradicts(way, input, *sizes):
        return "a scale factor that the sizes contradict", None
    longest = max(*input.shape[2:], *sizes[0])
    fit = surely(input.numel() <= WIDEST) and surely(math.prod([*input.shape[:2], *sizes[0]]) <= WIDEST)
    if longest > LONGEST or not fit:
        return "2^31 elements, or an axis of 2^23", None
    factors = () if way.endswith("aligned") else tuple(sizes[1])
    return None, (None if factors else sizes[0], way, factors)
