"""Average pooling, and the power mean of Lp pooling. The kernels are `_pool.py`'s.

average     y[i] = sum of x over window(i) / count(i)
Lp          y[i] = (K mean of x^p over window(i))^(1/p), K elements in a whole window: torch's way with ceil_mode
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trident.ops._pool import NO_CODES, Pool
from trident.ops._windows import as_plane, channels_last, kind, windows
from trident.runtime import autocast, route
from trident.runtime.autograd import apply

F = torch.nn.functional
TORCH: dict[str, Callable[..., Tensor]] = {
    f"{kind}_pool{n}d": getattr(F, f"{kind}_pool{n}d") for kind in ("avg", "lp") for n in (1, 2, 3)
}


def _average(
    pooled: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool, count_include_pad: bool,
    divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    name = f"avg_pool{pooled}d"
    found = windows(input, pooled, kernel_size, stride, padding, 1, ceil_mode)
    fine = found and _covered(input, pooled, found.window) and isinstance(count_include_pad, bool)
    fine = fine and _is_divisor(divisor_override)
    asked = kind(name, input, pooled, found)
    if route.to_torch(asked, input, unless=None if fine else route.INVALID) or found is None:
        args = (kernel_size, stride, padding, ceil_mode, count_include_pad)
        return TORCH[name](input, *args) if pooled == 1 else TORCH[name](input, *args, divisor_override)
    x, axes, (size, window) = as_plane(input, pooled, found)
    kernel, step, around = (window[i : i + axes] for i in range(0, 3 * axes, axes))
    again = (f"avg_pool{axes}d", kernel, step, around, ceil_mode, count_include_pad, divisor_override)
    last = channels_last(x, axes) and axes == 2  # in 3d torch's is contiguous
    dtype, divisor = autocast.output_dtype(name, input), divisor_override or 0
    y = apply(Pool, x, "mean", size, window, 1.0, divisor, count_include_pad, NO_CODES, last, dtype, False, again)
    return y if pooled > 1 else y.squeeze(-2)


def _covered(input: Tensor, pooled: int, window: tuple[int, ...]) -> bool:
    """In three dimensions torch averages over kernels no larger than the input only."""
    return pooled < 3 or all(k <= n for k, n in zip(window[:3], input.shape[-3:], strict=True))


def _is_divisor(divisor: Any) -> bool:
    return divisor is None or (isinstance(divisor, int) and not isinstance(divisor, bool) and 0 < divisor < 2**31)


def _power_mean(pooled: int, input: Tensor, norm_type: Any, kernel_size: Any, stride: Any, ceil_mode: bool) -> Tensor:
    name = f"lp_pool{pooled}d"
    found = windows(input, pooled, kernel_size, stride, 0, 1, ceil_mode)
    reason = None if found and _covered(input, pooled, found.window) else route.INVALID
    if not isinstance(norm_type, int | float) or not 0 < norm_type < math.inf:
        reason = "a norm that is not a positive number"
    elif autocast.active(input):
        reason = "autocast has its rules for the parts that torch makes it of"
    if route.to_torch(name, input, unless=reason) or found is None:
        return TORCH[name](input, norm_type, kernel_size, stride, ceil_mode)
    x, axes, (size, window) = as_plane(input, pooled, found)
    kernel, step = window[:axes], window[axes : 2 * axes]
    again = (f"lp_pool{axes}d", norm_type, kernel, step, ceil_mode)
    last = channels_last(x, axes) and axes == 2
    y = apply(Pool, x, "power", size, window, float(norm_type), 0, False, NO_CODES, last, input.dtype, False, again)
    return y if pooled > 1 else y.squeeze(-2)


def avg_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Tensor:  # fmt: skip
    """[*, L] -> [*, outputs]. Same contract as :func:`torch.nn.functional.avg_pool1d`."""
    return _average(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """[*, H, W] -> [*, outputs]. Same contract as :func:`torch.nn.functional.avg_pool2d`."""
    return _average(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def avg_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Tensor:  # fmt: skip
    """[*, D, H, W] -> [*, outputs]. Same contract as :func:`torch.nn.functional.avg_pool3d`."""
    return _average(3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override)


def lp_pool1d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """[*, L] -> [*, outputs]. Same contract as :func:`torch.nn.functional.lp_pool1d`."""
    return _power_mean(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """[*, H, W] -> [*, outputs]. Same contract as :func:`torch.nn.functional.lp_pool2d`."""
    return _power_mean(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(input: Tensor, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Tensor:
    """[*, D, H, W] -> [*, outputs]. Same contract as :func:`torch.nn.functional.lp_pool3d`."""
    return _power_mean(3, input, norm_type, kernel_size, stride, ceil_mode)
