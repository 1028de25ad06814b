"""Max pooling: y[i] = max of x over window(i), and where it lies. The kernels are `_pool.py`'s."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trident.ops._pool import INDICES, NO_CODES, NODES, PLACES, Pool, few_close, pool
from trident.ops._windows import Windows, adaptive_windows, as_plane, channels_last, kind, wants_gradient, windows
from trident.runtime import autocast, nodes, route
from trident.runtime.autograd import apply
from trident.runtime.crossover_tables import ALONE

F = torch.nn.functional
TORCH: dict[str, Callable[..., Any]] = {
    **{f"max_pool{n}d": getattr(F, f"max_pool{n}d") for n in (1, 2, 3)},
    **{f"adaptive_max_pool{n}d": getattr(F, f"adaptive_max_pool{n}d") for n in (1, 2, 3)},
}


def _maxima(name: str, input: Tensor, pooled: int, found: Windows, ceil_mode: bool, return_indices: bool) -> Any:
    """The kernel's result for windows that were found right."""
    # torch's operator that also returns indices has no autocast rule, but the adaptive ones always return them
    dtype = input.dtype if return_indices and found.window else autocast.output_dtype(name, input)
    wanted = wants_gradient(input)
    if name == "max_pool1d" and not (
        return_indices or wanted
    ):  # torch has another operator for it, of contiguous tensors
        input = input.contiguous()
    x, axes, found = as_plane(input, pooled, found)
    last = channels_last(x, axes) and not (axes == 3 and not found.window)  # adaptive in 3d: torch's is contiguous
    if found.window:
        again: tuple[Any, ...] = (f"max_pool{axes}d", *_by(axes, found.window), ceil_mode)
    else:
        again = (f"adaptive_max_pool{axes}d", found.size)
    codes, theirs = INDICES if return_indices else NO_CODES, False
    if wanted:
        theirs = dtype == x.dtype and route.gradient_to_torch(again[0], x)
        if not return_indices:
            codes = PLACES if few_close(found.window, axes) and not theirs else INDICES
    if theirs and nodes.possible(x):
        both = pool(x.detach(), "max", found.size, found.window, 1.0, 0, False, INDICES, last, dtype)
        result = nodes.torchs(*NODES[again[0]], both, x, *again[1:])
        result = result if return_indices else result[0]
    else:
        result = apply(
            Pool, x, "max", found.size, found.window, 1.0, 0, False, codes, last, dtype, return_indices, again, theirs
        )
    if pooled > 1:
        return result
    return tuple(t.squeeze(-2) for t in result) if return_indices else result.squeeze(-2)


def _by(axes: int, window: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Kernel, stride, padding and dilation."""
    return [window[i : i + axes] for i in range(0, len(window), axes)]


def _pool(
    pooled: int, input: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool,
    return_indices: bool,
) -> Any:  # fmt: skip
    name = f"max_pool{pooled}d"
    # for that torch has another operator
    alone = pooled == 1 and not return_indices and isinstance(input, Tensor) and not wants_gradient(input)
    if alone and route.always_torchs((name + ALONE,), input):  # windows, not yet looked at, take a third of its time
        return TORCH[name](input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    found = windows(input, pooled, kernel_size, stride, padding, dilation, ceil_mode)
    asked = kind(name, input, pooled, found)
    if alone and asked == name:
        asked += ALONE
    if route.to_torch(asked, input, unless=None if found else route.INVALID) or found is None:
        return TORCH[name](input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)
    return _maxima(name, input, pooled, found, ceil_mode, return_indices)


def _adaptive(pooled: int, input: Tensor, output_size: Any, return_indices: bool) -> Any:
    name = f"adaptive_max_pool{pooled}d"
    found = adaptive_windows(input, pooled, output_size)
    asked = kind(name, input, pooled, found)
    if route.to_torch(asked, input, unless=None if found else route.INVALID) or found is None:
        return TORCH[name](input, output_size, return_indices)
    return _maxima(name, input, pooled, found, False, return_indices)


def max_pool1d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """[*, L] -> [*, outputs], with return_indices also int64 indices. As :func:`torch.nn.functional.max_pool1d`."""
    return _pool(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """[*, H, W] -> [*, outputs], with return_indices also int64 indices. As :func:`torch.nn.functional.max_pool2d`."""
    return _pool(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """[*, D, H, W] -> [*, outputs], also int64 indices if asked. As :func:`torch.nn.functional.max_pool3d`."""
    return _pool(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def adaptive_max_pool1d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """[*, L] -> [*, output_size]. Same contract as :func:`torch.nn.functional.adaptive_max_pool1d`."""
    return _adaptive(1, input, output_size, return_indices)


def adaptive_max_pool2d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """[*, H, W] -> [*, *output_size]; None keeps an axis. As :func:`torch.nn.functional.adaptive_max_pool2d`."""
    return _adaptive(2, input, output_size, return_indices)


def adaptive_max_pool3d(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """[*, D, H, W] -> [*, *output_size]; None keeps an axis. As :func:`torch.nn.functional.adaptive_max_pool3d`."""
    return _adaptive(3, input, output_size, return_indices)
