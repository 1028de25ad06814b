"""Rows of a table: y[i] = w[index[i]], w [V, N], index of any shape.

backward    dw[v]  = sum of dy[i] over all i of index v         0 for padding_idx
            scale_grad_by_freq: / the number of those i

The gradient is `_segments.py`'s: no atomics, the same bits each time.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from trident.lang.tile import matrix_tile, multiple
from trident.ops._segments import sum_by_key
from trident.runtime import recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import asserting, launch
from trident.runtime.op import op

INDICES = frozenset({torch.int64, torch.int32})
DTYPES = route.HALF_TO_DOUBLE | INDICES


def check_indices(index: Tensor, V: int) -> None:
    """On a CPU: IndexError, as torch, if an index is outside 0 <= index < V. On a GPU the kernel checks."""
    if index.device.type != "cpu" or isinstance(index, FakeTensor) or index.numel() == 0:
        return
    least, most = torch.aminmax(index)
    if least < 0 or most >= V:
        raise IndexError("index out of range in self")


@triton.jit
def _gather_kernel(y, w, index, T, N, V, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    N = multiple(N, ALIGN)
    tiles = tl.cdiv(N, BLOCK_N)
    rows, cols, inside = matrix_tile(tl.program_id(0) // tiles, tl.program_id(0) % tiles, T, N, BLOCK_M, BLOCK_N)
    v = tl.load(index + rows, mask=rows < T, other=0).to(tl.int64)
    valid = (v >= 0) & (v < V)
    tl.device_assert(valid, "index out of range")
    tl.store(y + rows * N + cols, tl.load(w + tl.where(valid, v, 0) * N + cols, mask=inside), inside)


@op("embedding")
def _forward(w: Tensor, index: Tensor) -> Tensor:
    check_indices(index, w.shape[0])
    w, index = w.contiguous(), index.contiguous()
    (V, N), T = w.shape, index.numel()
    y = w.new_empty([*index.shape, N])
    plan = tuning.resampled(T, N, w.device)
    launch(_gather_kernel, plan.grid, y, w, index, T, N, V, **plan.meta, **asserting(w.device.type))
    return y


@op("embedding_backward")
def _backward(dy: Tensor, index: Tensor, V: int, padding: int, by_frequency: bool) -> Tensor:
    N = dy.shape[-1]
    return sum_by_key((V, N), index.contiguous().view(-1), dy.contiguous().view(-1, N), padding, by_frequency)


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, index: Tensor, padding: int, by_frequency: bool, in_torch: bool) -> Tensor:
        ctx.save_for_backward(w if any(ctx.needs_input_grad) else None, index)
        ctx.how = padding, by_frequency
        return torch.embedding(w, index) if in_torch else _forward(w, index)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        w, index = ctx.saved_tensors
        if recompute.wanted():
            (dw,) = recompute.gradients(lambda w: torch.embedding(w, index, *ctx.how), (w,), dy)
        else:
            dw = _backward(dy, index, w.shape[0], *ctx.how)
        return dw, None, None, None, None


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Same contract as :func:`torch.nn.functional.embedding`; sparse gradients are torch's.

    Shapes: input [*], int64 or int32; weight [V, N]; the result [*, N].
    Errors: IndexError for an index out of bounds on a CPU; on a GPU a device-side assert.
    """
    fits = weight.dim() == 2 and input.dtype in INDICES
    if fits and padding_idx is not None:
        fits = -weight.shape[0] <= padding_idx < weight.shape[0]
    reason = "sparse gradients" if sparse else None if fits and input.numel() else route.INVALID
    rows = weight.shape[-1] * input.numel() if fits else 0
    trained = weight.requires_grad and torch.is_grad_enabled()
    name = "embedding" if trained else "embedding (forward alone)"
    if route.to_torch(name, weight, input, unless=reason, mixed=True, dtypes=DTYPES, work=rows):
        how = (padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
        return torch.nn.functional.embedding(input, weight, *how)
    if max_norm is not None:  # in place, as torch
        with torch.no_grad():
            torch.embedding_renorm_(weight, input.contiguous(), max_norm, norm_type)
    padding = -1 if padding_idx is None else padding_idx % weight.shape[0]
    copied = trained and route.to_torch("embedding (forward alone)", weight, input, mixed=True, dtypes=DTYPES)
    return apply(_Embedding, weight, input, padding, scale_grad_by_freq, copied)
