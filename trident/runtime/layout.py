"""How tensors lie in memory: pointwise kernels walk over storage, so operands must lie alike; others walk lines."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format

F = TypeVar("F", bound=Callable[..., Any])


def remembered(fn: F) -> F:
    """`functools.lru_cache` for what follows from sizes; of symbolic ones, which have no hash, found each time."""
    cached = functools.lru_cache(maxsize=4096)(fn)

    @functools.wraps(fn)
    def call(*args: Any) -> Any:
        try:
            return cached(*args)
        except TypeError:
            return fn(*args)

    return call  # type: ignore[return-value]


def lying_as(t: Tensor, model: Tensor) -> Tensor:
    """`t` itself if its strides are `model`'s, else a copy of it that lies as `model` does."""
    return lying(t, model.stride())


def lying(t: Tensor, strides: Sequence[int]) -> Tensor:
    """`t` itself if it has these strides, else a copy of it that does."""
    if t.stride() == tuple(strides):
        return t
    return torch.empty_strided(t.shape, strides, dtype=t.dtype, device=t.device).copy_(t)


def as_lines(x: Tensor, dim: int) -> tuple[int, int, int]:
    """outer, N, inner: a contiguous `x` seen as [outer, N, inner], N being its size along `dim`."""
    if x.dim() == 0:
        return 1, 1, 1
    dim %= x.dim()
    return math.prod(x.shape[:dim]), x.shape[dim], math.prod(x.shape[dim + 1 :])


def dense(t: Tensor) -> Tensor:
    """`t` itself if its elements fill its storage without gaps, in any order of axes, else a copy that does."""
    return t if t.is_contiguous() else lying(t, dense_strides(t))


def dense_strides(t: Tensor) -> tuple[int, ...]:
    """Of a tensor like `t` whose elements fill its storage without gaps, in any order of axes."""
    return t.stride() if t.is_contiguous() else torch.empty_like(t).stride()


def memory_format(x: Tensor) -> torch.memory_format:
    """channels_last or channels_last_3d if `x` lies so (by torch's own rule), else contiguous."""
    if x.dim() not in (4, 5) or x.stride(1) > x.stride(-1):  # the rule's first question: it takes 4 us to get to it
        return torch.contiguous_format
    if torch.compiler.is_dynamo_compiling() or x.layout != torch.strided:
        return suggest_memory_format(x)
    try:
        return _format(x.shape, x.stride())
    except TypeError:  # symbols have no hash
        return suggest_memory_format(x)


@functools.lru_cache(maxsize=4096)
def _format(shape: Sequence[int], strides: Sequence[int]) -> torch.memory_format:
    """torch's rule (c10/core/MemoryFormat.h) for plain numbers: torch's own in Python is for symbols, 10 us slower."""
    if strides[1] == 0:
        return torch.contiguous_format
    least = 0
    for d in (1, 3, 2, 0) if len(shape) == 4 else (1, 4, 3, 2, 0):
        if shape[d] == 0 or strides[d] < least or (d == 0 and least == strides[1]):
            return torch.contiguous_format
        least = strides[d] * shape[d]
    return torch.channels_last if len(shape) == 4 else torch.channels_last_3d


def measured_as(name: str, x: Tensor) -> str:
    """What `tuning` knows operator `name` by, where torch has another kernel for channels_last on CPUs."""
    if x.device.type != "cpu" or memory_format(x) == torch.contiguous_format:
        return name
    return f"{name} (channels_last)"
