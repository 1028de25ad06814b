"""The partial inverse of max pooling: y is 0 but for y[plane, index[i]] = x[i]; its gradient is dx[i] = dy[index[i]].

As in torch, one of several values for one place stays: which one is not said. Max pooling gives them all the same.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from trident.ops._pool import memory_format
from trident.ops._scatter import gather, scatter
from trident.ops._windows import LARGEST_PLANE, channels_last, each_axis
from trident.runtime import autocast, recompute, route
from trident.runtime.autograd import apply
from trident.runtime.op import op

F = torch.nn.functional
TORCH: dict[int, Callable[..., Tensor]] = {n: getattr(F, f"max_unpool{n}d") for n in (1, 2, 3)}
DTYPES = route.HALF_TO_DOUBLE | {torch.int64}


def _check_places(index: Tensor, L: int) -> None:
    """On a CPU: RuntimeError, as torch, if a place is outside 0 <= place < L. On a GPU the kernel checks."""
    if index.device.type != "cpu" or isinstance(index, FakeTensor):
        return
    least, most = torch.aminmax(index)
    if least < 0 or most >= L:
        wrong = int(least if least < 0 else most)
        raise RuntimeError(f"max_unpool: found an invalid max index: {wrong} (a plane has {L} elements)")


def _lie(x: Tensor, pooled: int, last: bool) -> tuple[tuple[int, int], list[int]]:
    """(planes, channels that lie side by side), and the outputs of the pooling that x came from: one long axis, as what
    windows there were is no matter."""
    C = x.shape[1] if last else 1
    planes = math.prod(x.shape[: x.dim() - pooled]) // C
    return (planes, C), [1, 1, math.prod(x.shape[x.dim() - pooled :])]


@op("max_unpool")
def _forward(x: Tensor, index: Tensor, size: Sequence[int], last: bool, dtype: torch.dtype) -> Tensor:
    """x, index [*, outputs] -> y [*, *size]."""
    form, pooled, L = memory_format(last, x.dim()), len(size), math.prod(size)
    _check_places(index, L)
    x, index = x.contiguous(memory_format=form), index.contiguous(memory_format=form)
    shape = [*x.shape[: x.dim() - pooled], *size]
    y = torch.empty(shape, dtype=dtype, device=x.device, memory_format=form).zero_()
    planes, outputs = _lie(x, pooled, last)
    scatter(y, x, index, planes, L, outputs, (1, 1, 1), last)
    return y


@op("max_unpool_backward")
def _backward(dy: Tensor, index: Tensor, pooled: int, last: bool, dtype: torch.dtype) -> Tensor:
    form = memory_format(last, dy.dim())
    dy, index = dy.contiguous(memory_format=form), index.contiguous(memory_format=form)
    dx = torch.empty(index.shape, dtype=dtype, device=dy.device, memory_format=form)
    planes, outputs = _lie(dx, pooled, last)
    gather(dx, dy, index, planes, math.prod(dy.shape[dy.dim() - pooled :]), outputs, last)
    return dx


class _MaxUnpool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, index: Tensor, size: tuple[int, ...], last: bool, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(index)
        ctx.how = len(size), last, x.dtype
        return _forward(x, index, size, last, dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (index,) = ctx.saved_tensors
        pooled, last, dtype = ctx.how
        if recompute.wanted():  # linear in dy: torch's gather can be differentiated again
            dx = dy.flatten(-pooled).gather(-1, index.flatten(-pooled)).view_as(index).to(dtype)
        else:
            dx = _backward(dy, index, pooled, last, dtype)
        return dx, None, None, None, None


def _size(
    input: Tensor, indices: Any, pooled: int, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> tuple[int, ...] | None:
    """The size of the pooled axes of the result, or None if torch must say what is wrong."""
    kernel, around = each_axis(kernel_size, pooled), each_axis(padding, pooled)
    step = kernel if stride is None else each_axis(stride, pooled)
    if not isinstance(indices, Tensor) or indices.dtype != torch.int64 or indices.shape != input.shape:
        return None
    if kernel is None or step is None or around is None or input.dim() not in (pooled + 1, pooled + 2):
        return None
    if not input.is_floating_point() or (pooled == 3 and min(step) < 1):
        return None
    axes = input.shape[input.dim() - pooled :]
    size = tuple((n - 1) * s + k - 2 * p for n, k, s, p in zip(axes, kernel, step, around, strict=True))
    if output_size is not None:
        asked = tuple(output_size)
        asked = asked[2:] if len(asked) == pooled + 2 else asked
        near = len(asked) == pooled and all(
            isinstance(n, int | torch.SymInt) and m - s < n < m + s for n, m, s in zip(asked, size, step, strict=True)
        )
        if not near:
            return None
        size = asked
    return size if min(size) > 0 and math.prod(size) <= LARGEST_PLANE else None


def _unpool(
    pooled: int, input: Tensor, indices: Tensor, kernel_size: Any, stride: Any, padding: Any, output_size: Any
) -> Tensor:
    name = f"max_unpool{pooled}d"
    size = _size(input, indices, pooled, kernel_size, stride, padding, output_size)
    reason = None if size else route.INVALID
    if route.to_torch(name, input, indices, unless=reason, mixed=True, dtypes=DTYPES) or size is None:
        return TORCH[pooled](input, indices, kernel_size, stride, padding, output_size)
    dtype = autocast.output_dtype(name, input)
    if pooled > 1:
        last = channels_last(input, 2) and pooled < 3  # in 3d torch's is contiguous
        return apply(_MaxUnpool, input, indices, size, last, dtype)
    last = channels_last(input.unsqueeze(-1), 2)  # torch makes planes of it, one element wide
    return apply(_MaxUnpool, input.unsqueeze(-2), indices.unsqueeze(-2), (1, *size), last, dtype).squeeze(-2)


def max_unpool1d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """[*, outputs] -> [*, L]. Same contract as :func:`torch.nn.functional.max_unpool1d`."""
    return _unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """[*, outputs] -> [*, H, W]. Same contract as :func:`torch.nn.functional.max_unpool2d`."""
    return _unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(
    input: Tensor, indices: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, output_size: Any = None
) -> Tensor:
    """[*, outputs] -> [*, D, H, W]. Same contract as :func:`torch.nn.functional.max_unpool3d`."""
    return _unpool(3, input, indices, kernel_size, stride, padding, output_size)
