"""Root mean square normalization (Zhang and Sennrich 2019, arXiv:1910.07467) on x seen as [M, N].

forward     rstd   = 1 / sqrt(E[x^2] + eps)                                E over the first K = ceil(p N) elements
            x_hat  = x * rstd
            y      = x_hat * w + b

backward    dx_hat = dy * w
            dx     = rstd * (dx_hat - x_hat * sum over N of dx_hat * x_hat / K)      the last term in the first K only
            dw, db = sums over M of dy * x_hat, dy

torch's has p = 1 and no b. The kernels are layer_norm's, not centered.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trident.ops._layer_norm import How, RowNorm, apart, fits, learns
from trident.runtime import autocast, route
from trident.runtime.autograd import apply
from trident.runtime.exporting import surely
from trident.runtime.layout import memory_format
from trident.runtime.precision import compute_dtype

FEW_ROWS = 16  # that a backward has not enough of: dw of each is a partial sum, and rows are long


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    eps: float | None = None,
    *,
    bias: Tensor | None = None,
    p: float = 1.0,
    residual: Tensor | None = None,
) -> Any:
    """As :func:`torch.nn.functional.rms_norm`: eps None is that of float32 (float64 for float64); and more.

    bias: added in the end. p: the share of a row that the mean is over (pRMSNorm), 0 < p <= 1, else ValueError.
    residual: normalizes input + residual, and returns this sum too.

    Shapes: input [*, *normalized_shape]; weight and bias, if given, normalized_shape; residual and the results as
    input.
    Dtypes: float16, bfloat16, float32, float64; float32 inside (float64 for float64).
    """
    if not 0 < p <= 1:
        raise ValueError(f"rms_norm: p is {p}; expected 0 < p <= 1")
    shape = tuple(normalized_shape)
    K = None if p == 1 else math.ceil(p * math.prod(shape))

    def reference(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
        return _in_torch(x, shape, w, eps, b, K)

    reason = None if fits(input, shape, weight, bias) else route.INVALID
    if residual is not None:
        reason = reason or ("a residual that is not alike and contiguous" if apart(input, residual) else None)
    name = "rms_norm" if residual is None else "rms_norm (residual)"
    if reason is None and surely(input.numel() <= math.prod(shape)):
        name = "rms_norm (one row)"
    elif reason is None and surely(input.numel() < FEW_ROWS * math.prod(shape)) and learns(input, weight, bias):
        name = "rms_norm (few rows)"
    if not route.to_torch(name, input, weight, bias, residual, unless=reason):
        exact = torch.finfo(compute_dtype(input)).eps if eps is None else eps
        how = How(shape, K, exact, False, autocast.output_dtype("rms_norm", input), reference)
        found = apply(RowNorm, input, residual, weight, bias, how)
        return found if residual is not None else found.contiguous(memory_format=memory_format(input))
    if residual is None:
        return reference(input, weight, bias)
    s = input + residual
    return rms_norm(s, shape, weight, eps, bias=bias, p=p), s


def _in_torch(
    x: Tensor, shape: tuple[int, ...], w: Tensor | None, eps: float | None, b: Tensor | None, K: int | None
) -> Tensor:
    if K is None:
        y = torch.nn.functional.rms_norm(x, shape, w, eps)
        return y if b is None else y + b
    wide = x.to(compute_dtype(x))
    exact = torch.finfo(wide.dtype).eps if eps is None else eps
    mean = wide.flatten(-len(shape))[..., :K].square().mean(-1)
    y = wide * torch.rsqrt(mean + exact)[(..., *(None,) * len(shape))]
    y = y if w is None else y * w
    return (y if b is None else y + b).to(x.dtype)
