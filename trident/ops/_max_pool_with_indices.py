"""Max pooling by the names that always return the indices too; `return_indices` says nothing, as in torch."""

from typing import Any

from torch import Tensor

from trident.ops import _max_pool as max_pool


def max_pool1d_with_indices(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """As :func:`torch.nn.functional.max_pool1d_with_indices`."""
    return max_pool.max_pool1d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool2d_with_indices(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """As :func:`torch.nn.functional.max_pool2d_with_indices`."""
    return max_pool.max_pool2d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


def max_pool3d_with_indices(
    input: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:  # fmt: skip
    """As :func:`torch.nn.functional.max_pool3d_with_indices`."""
    return max_pool.max_pool3d(input, kernel_size, stride, padding, dilation, ceil_mode, True)


def adaptive_max_pool1d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """As :func:`torch.nn.functional.adaptive_max_pool1d_with_indices`."""
    return max_pool.adaptive_max_pool1d(input, output_size, True)


def adaptive_max_pool2d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """As :func:`torch.nn.functional.adaptive_max_pool2d_with_indices`."""
    return max_pool.adaptive_max_pool2d(input, output_size, True)


def adaptive_max_pool3d_with_indices(input: Tensor, output_size: Any, return_indices: bool = False) -> Any:
    """As :func:`torch.nn.functional.adaptive_max_pool3d_with_indices`."""
    return max_pool.adaptive_max_pool3d(input, output_size, True)
