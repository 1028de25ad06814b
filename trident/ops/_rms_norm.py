"""Root mean square normalization (Zhang and Sennrich 2019, arXiv:1910.07467) on x seen as [M, N]. E runs over N.

forward     rstd   = 1 / sqrt(E[x^2] + eps)
            x_hat  = x * rstd
            y      = x_hat * w

backward    dx_hat = dy * w
            dx     = rstd * (dx_hat - x_hat * E[dx_hat * x_hat])
            dw     = sum over M of dy * x_hat

The kernels are layer_norm's, not centered.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trident.ops._layer_norm import _backward, _forward
from trident.runtime import autocast, recompute, route
from trident.runtime.layout import memory_format
from trident.runtime.precision import compute_dtype


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, shape: tuple[int, ...], w: Tensor | None, eps: float | None, dtype: torch.dtype
    ) -> Tensor:
        N = math.prod(shape)
        y, _, rstd = _forward(x, N, w, None, torch.finfo(compute_dtype(x)).eps if eps is None else eps, False, dtype)
        ctx.save_for_backward(x, w, rstd)
        ctx.shape, ctx.eps, ctx.N = shape, eps, N
        return y.contiguous(memory_format=memory_format(x))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, rstd = ctx.saved_tensors
        if recompute.wanted():
            dx, dw = recompute.gradients(
                lambda x, w: torch.nn.functional.rms_norm(x, ctx.shape, w, ctx.eps), (x, w), dy
            )
            return dx, None, dw, None, None
        needs_dw = ctx.needs_input_grad[2]
        dx, dw, _ = _backward(dy, x, ctx.N, w, rstd, rstd, False, needs_dw)
        return dx, None, dw.to(w.dtype).view_as(w) if needs_dw else None, None, None


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Same contract as :func:`torch.nn.functional.rms_norm`: eps None is that of float32 (float64 for float64).

    Shapes: input [*, *normalized_shape]; weight, if given, normalized_shape; the result as input.
    Dtypes: float16, bfloat16, float32, float64; float32 inside (float64 for float64).
    """
    shape = tuple(normalized_shape)
    fits = 0 < len(shape) <= input.dim() and tuple(input.shape[input.dim() - len(shape) :]) == shape
    fits = fits and (weight is None or tuple(weight.shape) == shape)
    if route.to_torch("rms_norm", input, weight, unless=None if fits else route.INVALID):
        return torch.nn.functional.rms_norm(input, normalized_shape, weight, eps)
    return _RMSNorm.apply(input, shape, weight, eps, autocast.output_dtype("rms_norm", input))
