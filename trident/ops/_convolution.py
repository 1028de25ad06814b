"""Convolutions and transposed convolutions in one, two and three dimensions, with an activation in the same kernel.

    conv              z = x * w + b, y = f(z)         dx = dz * w transposed, dw = dz x correlated
    conv_transpose    the same with * and its transpose in each other's place, and x and dz too

The kernels are in _conv.py. As in _linear.py the backward keeps y where f' is a function of y, else z. What torch was
measured to do faster (cuDNN, oneDNN) goes there: the forward, the gradients, or both.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from trident.ops._activation import ACTIVATIONS, FUSED, _activate
from trident.ops._activation import _backward as activation_backward
from trident.ops._activation import _forward as activation_forward
from trident.ops._conv import convolved, correlated
from trident.ops._resample import WIDEST
from trident.ops._windows import each_axis
from trident.runtime import autocast, recompute, route
from trident.runtime.autograd import apply
from trident.runtime.layout import memory_format

Size = int | Sequence[int]
PARTS = frozenset({"forward", "dx", "dw"})  # each is torch's where that was measured to be faster
MOST_PROGRAMS = 65535  # along the second and third axis of a GPU's grid


class Shape(NamedTuple):
    """What a call says beside its tensors. padding: before each axis. behind: what torch would pad there, too."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    behind: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    output_padding: tuple[int, ...]
    transposed: bool
    last: bool


class _Convolution(torch.autograd.Function):
    """again: torch's function of the call, of x, w and b. in_torch: the parts of the call that torch does."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, shape: Shape, activation: str | None, again: Any,
        in_torch: frozenset[str],
    ) -> Tensor:  # fmt: skip
        of_y = activation is None or ACTIVATIONS[activation].differentiable_grad is not None
        keep = not of_y and any(ctx.needs_input_grad)
        if "forward" in in_torch:
            z = again(x, w, b)
            y = z if activation is None else activation_forward(z, activation, 0.0, 0.0, z.dtype)
        else:
            y, z = convolved(
                x, w, b, shape.size, shape.stride, shape.padding, shape.dilation, shape.groups, shape.transposed,
                shape.last, activation, keep,
            )  # fmt: skip
        ctx.save_for_backward(x, w, b, None if activation is None else y if of_y else z)
        ctx.shape, ctx.activation, ctx.again, ctx.in_torch = shape, activation, again, in_torch
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, b, s = ctx.saved_tensors
        if recompute.wanted():
            again = recompute.gradients(lambda *t: _activated(ctx.again(*t), ctx.activation), (x, w, b), dy)
            return *again, *[None] * 4
        dz = dy if s is None else activation_backward(dy, s, ctx.activation, 0.0, 0.0, dy.dtype)
        return *_gradients(dz, x, w, ctx.shape, list(ctx.needs_input_grad[:3]), ctx.in_torch), *[None] * 4


def _gradients(
    dz: Tensor, x: Tensor, w: Tensor, shape: Shape, needed: list[bool], in_torch: frozenset[str]
) -> tuple[Tensor | None, ...]:
    theirs = [needed[0] and "dx" in in_torch, needed[1] and "dw" in in_torch, False]
    if all(theirs[:2]):
        theirs[2] = needed[2]
    dx = dw = db = None
    if any(theirs):
        dx, dw, db = torch.ops.aten.convolution_backward(
            dz, x, w, [dz.shape[1]], shape.stride, shape.padding, shape.dilation, shape.transposed,
            shape.output_padding, shape.groups, theirs,
        )  # fmt: skip
    how = shape.stride, shape.padding, shape.dilation, shape.groups
    if needed[0] and not theirs[0]:
        dx, _ = convolved(dz, w, None, x.shape[2:], *how, not shape.transposed, shape.last, None, False)
    if needed[1] and not theirs[1]:
        small, large = (x, dz) if shape.transposed else (dz, x)
        dw = correlated(small, large, w.shape[2:], *how, shape.last)
    if needed[2] and not theirs[2]:
        db = dz.sum((0, *range(2, dz.dim())))
    return dx, dw, db


def _activated(z: Tensor, activation: str | None) -> Tensor:
    return z if activation is None else ACTIVATIONS[activation].torch(z)


def _padding(
    padding: Any, n: int, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Before and behind each axis. None: torch must say what is wrong."""
    if padding == "valid":
        return (0,) * n, (0,) * n
    if padding == "same":
        if any(s != 1 for s in stride):
            return None
        both = [g * (k - 1) for k, g in zip(kernel, dilation, strict=True)]
        return tuple(t // 2 for t in both), tuple(t - t // 2 for t in both)
    around = each_axis(padding, n)
    return None if around is None or min(around) < 0 else (around, around)


def _shape(
    n: int, x: Tensor, w: Tensor, b: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: Any,
    output_padding: Any, transposed: bool,
) -> Shape | None:  # fmt: skip
    """The call's numbers; None: torch must say what is wrong with it, or do it."""
    if w.dim() != n + 2 or x.dim() not in (n + 1, n + 2) or type(groups) is not int or groups < 1:
        return None
    kernel, channels = w.shape[2:], x.shape[x.dim() - n - 1]
    step, apart, more = each_axis(stride, n), each_axis(dilation, n), each_axis(output_padding, n)
    if step is None or apart is None or more is None or min(step) < 1 or min(apart) < 1 or min(more) < 0:
        return None
    if (
        w.numel() == 0
        or w.shape[0] % groups
        or channels != w.shape[0 if transposed else 1] * (1 if transposed else groups)
    ):
        return None
    if b is not None and (b.dim() != 1 or b.shape[0] != (w.shape[1] * groups if transposed else w.shape[0])):
        return None
    sides = _padding(padding, n, kernel, step, apart)
    if sides is None or len({t.dtype for t in (x, w, b) if t is not None}) != 1:
        return None
    size = []
    axes = zip(x.shape[x.dim() - n :], kernel, step, apart, more, *sides, strict=True)
    for length, k, s, g, o, before, behind in axes:
        if transposed and o >= max(s, g):
            return None
        reach = g * (k - 1) + 1
        ends = before + behind
        size.append((length - 1) * s + reach - ends + o if transposed else (length + ends - reach) // s + 1)
    longest = max(math.prod(x.shape[x.dim() - n - 1 :]), math.prod(size) * max(w.shape[0], w.shape[1] * groups))
    if min(size) < 1 or max(longest, w.numel()) > WIDEST or max(groups, math.prod(step)) > MOST_PROGRAMS:
        return None
    last = n > 1 and any(memory_format(t) != torch.contiguous_format for t in (x, w) if t.dim() == n + 2)
    return Shape(tuple(size), step, *sides, apart, groups, more, transposed, last)


def _kind(name: str, n: int, x: Tensor, w: Tensor, stride: Any, groups: Any) -> str:
    """What `crossover` knows the call by; asked before anything is known to be right with it."""
    if groups == 1 or w.dim() != n + 2 or w.shape[1] != 1 or w.shape[0] != groups or x.dim() == 0:
        return name
    taps, step = math.prod(w.shape[2:]), each_axis(stride, n)
    wide = taps < MANY_TAPS and step is not None and step[-1] == 1 and x.shape[-1] >= WIDE
    name += " (depthwise)" + (" (many taps)" if taps >= MANY_TAPS else " (wide)" if wide else "")
    last = n > 1 and memory_format(x) != torch.contiguous_format
    return f"{name} (channels_last)" if last else name


MANY_TAPS, WIDE = 25, 56  # from which on kernels of depthwise convolutions were measured apart


def _convolve(
    name: str, n: int, input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any,
    groups: Any, output_padding: Any, activation: str | None,
) -> Tensor:  # fmt: skip
    if activation is not None and activation not in FUSED:
        raise ValueError(f"{name}: activation is {activation!r}; expected one of {', '.join(sorted(FUSED))}")
    transposed = name.startswith("conv_transpose")
    function = getattr(torch.nn.functional, name)
    rest = (stride, padding, output_padding, groups, dilation) if transposed else (stride, padding, dilation, groups)

    def again(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        found: Tensor = function(x, w, b, *rest)
        return found

    in_torch = _in_torch(_kind(name, n, input, weight, stride, groups), activation, input, weight)
    if "forward" in in_torch and (len(in_torch) == len(PARTS) or not _gradients_to_come(input, weight)):
        return _in_pieces(again(input, weight, bias), activation)
    x, w, b = cast(tuple[Tensor, Tensor, Tensor | None], autocast.lowered(name, input, weight, bias))
    shape = _shape(n, x, w, b, stride, padding, dilation, groups, output_padding, transposed)
    unless = route.INVALID if shape is None else None
    if route.to_torch(name, input, weight, bias, unless=unless) or shape is None:
        return _in_pieces(again(input, weight, bias), activation)
    if shape.padding != shape.behind:  # "same" that differs before and behind: torch pads a copy
        in_torch -= {"dx", "dw"}
    unbatched = x.dim() == n + 1
    x = x.unsqueeze(0) if unbatched else x
    y = apply(_Convolution, x, w, b, shape, activation, again, in_torch)
    return y.squeeze(0) if unbatched else y


def _in_pieces(z: Tensor, activation: str | None) -> Tensor:
    return z if activation is None else _activate(activation, z)


def _in_torch(kind: str, activation: str | None, x: Tensor, w: Tensor) -> frozenset[str]:
    """The parts of the call that torch does faster."""
    names = {part: f"{kind} ({part})" for part in PARTS}
    if activation is not None:
        names["forward"] = f"{kind} (activation)"
    if route.always_torchs((*names.values(),), x):
        return PARTS
    return frozenset(part for part, name in names.items() if route.to_torch(name, x, w))


def _gradients_to_come(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def conv1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: str | Size = 0,
    dilation: Size = 1, groups: int = 1, *, activation: str | None = None,
) -> Tensor:  # fmt: skip
    """x [N, C, L] or [C, L], w [O, C / groups, K]. As :func:`torch.nn.functional.conv1d`, then the activation of that
    name (one of `FUSED`, else ValueError), if any, in the same kernel."""
    return _convolve("conv1d", 1, input, weight, bias, stride, padding, dilation, groups, 0, activation)


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: str | Size = 0,
    dilation: Size = 1, groups: int = 1, *, activation: str | None = None,
) -> Tensor:  # fmt: skip
    """x [N, C, H, W] or [C, H, W]. As :func:`torch.nn.functional.conv2d`; activation: see :func:`conv1d`."""
    return _convolve("conv2d", 2, input, weight, bias, stride, padding, dilation, groups, 0, activation)


def conv3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: str | Size = 0,
    dilation: Size = 1, groups: int = 1, *, activation: str | None = None,
) -> Tensor:  # fmt: skip
    """x [N, C, D, H, W] or [C, D, H, W]. As :func:`torch.nn.functional.conv3d`; activation: see :func:`conv1d`."""
    return _convolve("conv3d", 3, input, weight, bias, stride, padding, dilation, groups, 0, activation)


def conv_transpose1d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1, *, activation: str | None = None,
) -> Tensor:  # fmt: skip
    """x [N, C, L] or [C, L], w [C, O / groups, K]. As :func:`torch.nn.functional.conv_transpose1d`; activation: see
    :func:`conv1d`."""
    return _convolve(
        "conv_transpose1d", 1, input, weight, bias, stride, padding, dilation, groups, output_padding, activation
    )


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1, *, activation: str | None = None,
) -> Tensor:  # fmt: skip
    """x [N, C, H, W] or [C, H, W]. As :func:`torch.nn.functional.conv_transpose2d`; activation: see :func:`conv1d`."""
    return _convolve(
        "conv_transpose2d", 2, input, weight, bias, stride, padding, dilation, groups, output_padding, activation
    )


def conv_transpose3d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Size = 1, padding: Size = 0,
    output_padding: Size = 0, groups: int = 1, dilation: Size = 1, *, activation: str | None = None,
) -> Tensor:  # fmt: skip
    """x [N, C, D, H, W] or [C, D, H, W]. As :func:`torch.nn.functional.conv_transpose3d`; activation: see
    :func:`conv1d`."""
    return _convolve(
        "conv_transpose3d", 3, input, weight, bias, stride, padding, dilation, groups, output_padding, activation
    )


def conv_tbc(input: Tensor, weight: Tensor, bias: Tensor, pad: int = 0) -> Tensor:
    """x [T, B, C], w [K, C, O], b [O] -> [T', B, O]: :func:`conv1d` of tensors whose time is their first axis. As
    :func:`torch.nn.functional.conv_tbc`."""
    x, w, b = cast(tuple[Tensor, Tensor, Tensor], autocast.lowered("conv_tbc", input, weight, bias))
    fits = input.dim() == 3 and weight.dim() == 3 and bias.dim() == 1 and type(pad) is int and pad >= 0
    fits = fits and input.shape[2] == weight.shape[1] and bias.shape[0] == weight.shape[2] and weight.numel() > 0
    fits = fits and input.shape[0] + 2 * pad >= weight.shape[0] and len({t.dtype for t in (x, w, b)}) == 1
    if route.to_torch("conv_tbc", input, weight, bias, unless=None if fits else route.INVALID):
        return torch.conv_tbc(input, weight, bias, pad)
    return conv1d(x.permute(1, 2, 0), w.permute(2, 1, 0), b, padding=pad).permute(2, 0, 1).contiguous()
