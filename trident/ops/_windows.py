"""What pooling functions share before they launch: reading kernel_size, stride, padding and dilation as torch does."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trident.runtime.layout import memory_format

LARGEST_PLANE = 2**31 - 2**20  # elements that are counted in 32 bits; the last tile reaches past the end


class Windows(NamedTuple):
    """size: outputs of each pooled axis. window: kernel, stride, padding, dilation of each; empty if adaptive."""

    size: tuple[int, ...]
    window: tuple[int, ...]


def each_axis(value: Any, pooled: int) -> tuple[Any, ...] | None:
    """`value` for each pooled axis: a number, or a sequence of one or of all. None: torch must say what is wrong."""
    if isinstance(value, int | torch.SymInt) and not isinstance(value, bool):
        return (value,) * pooled
    if not isinstance(value, tuple | list) or not all(isinstance(n, int | torch.SymInt) for n in value):
        return None
    return tuple(value) * pooled if len(value) == 1 else tuple(value) if len(value) == pooled else None


def windows(
    input: Tensor, pooled: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any
) -> Windows | None:
    """The windows of a pooling call, or None if torch must say what is wrong with it (or make an empty result)."""
    kernel = each_axis(kernel_size, pooled)
    step = kernel if stride is None or stride == [] or stride == () else each_axis(stride, pooled)
    around, apart = each_axis(padding, pooled), each_axis(dilation, pooled)
    if kernel is None or step is None or around is None or apart is None or not _fits(input, pooled):
        return None
    if min(kernel) < 1 or min(step) < 1 or min(apart) < 1 or min(around) < 0 or not isinstance(ceil_mode, bool):
        return None
    if any(2 * p > k for p, k in zip(around, kernel, strict=True)):
        return None
    size = []
    for n, k, s, p, g in zip(input.shape[input.dim() - pooled :], kernel, step, around, apart, strict=True):
        free = n + 2 * p - g * (k - 1) - 1
        if free < 0 and not ceil_mode:
            return None
        outputs = (free + (s - 1 if ceil_mode else 0)) // s + 1
        if ceil_mode and (outputs - 1) * s >= n + p:  # the last window must begin inside, or in the padding before
            outputs -= 1
        size.append(outputs)
    if min(size) < 1:
        return None
    return Windows(tuple(size), (*kernel, *step, *around, *apart))


def adaptive_windows(input: Tensor, pooled: int, output_size: Any) -> Windows | None:
    """As `windows`, for a call that asks for a number of outputs. None keeps an axis, but in one dimension."""
    size = output_size
    if isinstance(size, int | torch.SymInt):
        size = (size,) * pooled
    if not isinstance(size, tuple | list) or len(size) != pooled or not _fits(input, pooled):
        return None
    if pooled == 1 and size[0] is None:
        return None
    sizes = tuple(n if o is None else o for o, n in zip(size, input.shape[input.dim() - pooled :], strict=True))
    if not all(isinstance(n, int | torch.SymInt) and n > 0 for n in sizes):
        return None
    return Windows(sizes, ())


def _fits(input: Tensor, pooled: int) -> bool:
    return input.dim() in (pooled + 1, pooled + 2) and math.prod(input.shape[-pooled:]) <= LARGEST_PLANE


def channels_last(x: Tensor, pooled: int) -> bool:
    """Does x [N, C, *] lie with its channels last? (Without a batch torch takes any x for contiguous.)"""
    if x.dim() != pooled + 2 or x.stride(1) > x.stride(-1):  # the first question of `memory_format`
        return False
    return memory_format(x) != torch.contiguous_format


def kind(name: str, x: Tensor, pooled: int, found: Windows | None) -> str:
    """What `tuning` knows the call by on a CPU, where torch has vector loops for channels_last only."""
    if found is None or x.device.type != "cpu":
        return name
    if pooled > 1 and channels_last(x, pooled):
        return f"{name} (channels_last)"
    if not found.window:
        return f"{name} (one window)" if math.prod(found.size) == 1 else name
    return f"{name} (far apart)" if found.window[2 * pooled - 1] > 2 else name


def as_plane(input: Tensor, pooled: int, found: Windows) -> tuple[Tensor, int, Windows]:
    """One dimension is pooled as two, as in torch, which decides what counts as channels_last."""
    if pooled > 1:
        return input, pooled, found
    window = [n for neutral, n in zip((1, 1, 0, 1), found.window, strict=False) for n in (neutral, n)]
    return input.unsqueeze(-2), 2, Windows((1, *found.size), tuple(window))


def wants_gradient(input: Tensor) -> bool:
    return input.requires_grad and torch.is_grad_enabled()
