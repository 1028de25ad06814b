"""Bags of rows of a table: bag b holds the positions from offsets[b] up to the next bag's, w [V, N], index [T].

forward     y[b]   = sum of s[i] w[index[i]] over the bag's positions i         s: 1, or per_sample_weights
                     mean: / size of the bag;  max: the largest of each column
            Positions of padding_idx count for nothing; an empty bag is 0.

backward    dw[v]  = sum of s[i] dy[bag of i] over all i of index v             mean: / size of the bag
                     max: only in the columns where i was the largest
            ds[i]  = sum of dy[bag of i] * w[index[i]]

The gradient of the table is `_segments.py`'s: no atomics, the same bits each time.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from trident.lang.tile import load, multiple, row_sum, row_tile
from trident.ops._embedding import DTYPES, INDICES, check_indices
from trident.ops._segments import sum_by_key
from trident.runtime import recompute, route, tuning_tables
from trident.runtime.autograd import apply
from trident.runtime.launch import asserting, launch
from trident.runtime.op import op

MODES = ("sum", "mean", "max")


@triton.jit
def _forward_kernel(
    y, sizes, places, w, index, offsets, s, B, T, N, V, ENDS, ignored, EACH,
    MEAN: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """EACH bags a program, in blocks of columns. ENDS: offsets of ends there are (B of B, or B - 1: the last is T).

    sizes: [B], how many positions of each bag count. places: [B, N], of max, the position of each largest one.
    """
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = cols < N
    first = tl.program_id(0) * tl.full((), EACH, tl.int64)
    for bag in range(first, tl.minimum(first + EACH, B)):
        begin = tl.load(offsets + bag).to(tl.int64)
        end = tl.load(offsets + bag + 1, mask=bag < ENDS, other=T).to(tl.int64)
        end = tl.minimum(end, T)
        total = tl.zeros((BLOCK_N,), tl.float64 if y.dtype.element_ty == tl.float64 else tl.float32)
        place = tl.zeros((BLOCK_N,), tl.int64) - 1
        size = tl.full((), 0, tl.int64)
        for i in range(begin, end):
            v = tl.load(index + i).to(tl.int64)
            valid = (v >= 0) & (v < V)
            tl.device_assert(valid, "index out of range")
            if valid & (v != ignored):
                x = load(w + v * N + cols, inside)
                if s is not None:
                    x *= tl.load(s + i).to(x.dtype)
                if places is not None:
                    larger = (x > total) | (size == 0)
                    total, place = tl.where(larger, x, total), tl.where(larger, i, place)
                else:
                    total += x
                size += 1
        if MEAN:
            total = total / tl.maximum(size, 1).to(total.dtype)
        tl.store(y + bag * N + cols, total, inside)
        if places is not None:
            tl.store(places + bag * N + cols, place, inside)
        tl.store(sizes + bag, size)


@triton.jit
def _samples_kernel(
    ds, dy, w, index, bags, T, N, B, ignored, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    """ds of BLOCK_M positions, in blocks of columns."""
    N = multiple(N, ALIGN)
    rows, _, in_m, _ = row_tile(tl.program_id(0), T, N, BLOCK_M, BLOCK_N)
    v = tl.load(index + rows, mask=in_m, other=0).to(tl.int64)
    bag = tl.load(bags + rows, mask=in_m, other=B)
    in_m &= (v != ignored) & (bag < B)
    total = tl.zeros((BLOCK_M, 1), tl.float64 if w.dtype.element_ty == tl.float64 else tl.float32)
    for block in range(0, tl.cdiv(N, BLOCK_N)):
        cols = block * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
        inside = in_m & (cols < N)
        total += row_sum(load(w + v * N + cols, inside) * load(dy + bag * N + cols, inside))
    tl.store(ds + rows, total, rows < T)


def _check(index: Tensor, offsets: Tensor, V: int) -> None:
    """On a CPU: RuntimeError, as torch, if an index or an offset is out of bounds. A GPU kernel checks indices."""
    if index.device.type != "cpu" or isinstance(index, FakeTensor):
        return
    try:
        check_indices(index, V)
    except IndexError as error:
        raise RuntimeError(f"embedding_bag: {error}") from None
    if offsets[0] != 0:
        raise RuntimeError(f"offsets[0] has to be 0, i.e., the first bag begins at 0. However, got {int(offsets[0])}")
    if offsets[-1] > index.numel():
        raise RuntimeError(f"offsets[-1] is {int(offsets[-1])}, but input has {index.numel()} elements")


@op("embedding_bag")
def _forward(
    w: Tensor, index: Tensor, offsets: Tensor, s: Tensor | None, mode: str, padding: int, last: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """y [B, N]; the sizes of the bags [B]; of max, where each element came from [B, N] (else empty)."""
    _check(index, offsets, w.shape[0])
    w, index, offsets = w.contiguous(), index.contiguous(), offsets.contiguous()
    s = None if s is None else s.contiguous()
    (V, N), T, B = w.shape, index.numel(), offsets.numel() - int(last)
    y = w.new_empty(B, N)
    sizes = index.new_empty(B, dtype=torch.int64)
    places = index.new_empty(B, N, dtype=torch.int64) if mode == "max" else None
    plan = tuning_tables.bags(B, T, N, w.device)
    ends = B if last else B - 1
    launch(
        _forward_kernel, plan.grid, y, sizes, places, w, index, offsets, s, B, T, N, V, ends, ignored=padding,
        MEAN=mode == "mean", **plan.meta, **asserting(w.device.type),
    )  # fmt: skip
    return y, sizes, index.new_empty(0, dtype=torch.int64) if places is None else places


def _bags(offsets: Tensor, T: int) -> Tensor:
    """The bag of each of T positions, [T]; the number of offsets for those behind the last bag."""
    positions = torch.arange(T, dtype=offsets.dtype, device=offsets.device)
    return torch.searchsorted(offsets, positions, right=True) - 1


@op("embedding_bag_backward")
def _backward(
    dy: Tensor, w: Tensor, index: Tensor, offsets: Tensor, s: Tensor | None, sizes: Tensor, places: Tensor,
    mode: str, padding: int, wants_dw: bool, wants_ds: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """dw and ds, each empty if not wanted."""
    dy, w, index, offsets = dy.contiguous(), w.contiguous(), index.contiguous(), offsets.contiguous()
    (V, N), T, B = w.shape, index.numel(), dy.shape[0]
    bags = _bags(offsets, T)
    dw, ds = w.new_empty(0), w.new_empty(0)
    if wants_dw:
        dw = sum_by_key(
            (V, N), index, dy, padding, rows=bags, weights=None if s is None else s.contiguous(),
            sizes=sizes if mode == "mean" else None, places=places if mode == "max" else None,
        )  # fmt: skip
    if wants_ds:
        ds = w.new_empty(T)
        plan = tuning_tables.row_dots(T, N, w.device)
        launch(_samples_kernel, plan.grid, ds, dy, w, index, bags, T, N, B, ignored=padding, **plan.meta)
    return dw, ds


class _EmbeddingBag(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, w: Tensor, s: Tensor | None, index: Tensor, offsets: Tensor, mode: str, padding: int, last: bool,
    ) -> Tensor:  # fmt: skip
        y, sizes, places = _forward(w, index, offsets, s, mode, padding, last)
        ctx.save_for_backward(w, s, index, offsets, sizes, places)
        ctx.how = mode, padding, last
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        w, s, index, offsets, sizes, places = ctx.saved_tensors
        mode, padding, last = ctx.how
        wants_dw, wants_ds = ctx.needs_input_grad[:2]
        if recompute.wanted():

            def reference(w: Tensor, s: Tensor | None) -> Tensor:
                how = (False, MODES.index(mode), False, s, last, padding)
                y: Tensor = torch.embedding_bag(w, index, offsets, *how)[0]
                return y

            dw, ds = recompute.gradients(reference, (w, s), dy)
        else:
            how = (mode, padding, wants_dw, wants_ds)
            found = _backward(dy, w, index, offsets, s, sizes, places, *how)
            dw, ds = (t if wanted else None for t, wanted in zip(found, (wants_dw, wants_ds), strict=True))
        return dw, ds, None, None, None, None, None


def _fits(input: Tensor, weight: Tensor, offsets: Tensor | None, s: Tensor | None, mode: str) -> bool:
    if weight.dim() != 2 or input.dtype not in INDICES or input.numel() == 0 or mode not in MODES:
        return False
    if s is not None and (s.shape != input.shape or mode != "sum"):
        return False
    if input.dim() == 1:
        return offsets is not None and offsets.dim() == 1 and offsets.numel() > 0 and offsets.dtype == input.dtype
    return input.dim() == 2 and offsets is None


def embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Same contract as :func:`torch.nn.functional.embedding_bag`; sparse gradients are torch's.

    Shapes: input [T] with offsets [B] (int64 or int32), or [B, T / B] without; weight [V, N]; per_sample_weights as
    input; the result [B, N].
    Errors: RuntimeError for an index or an offset out of bounds on a CPU; on a GPU a device-side assert.
    """
    s = per_sample_weights
    reason = "sparse gradients" if sparse else None if _fits(input, weight, offsets, s, mode) else route.INVALID
    if reason is None and padding_idx is not None and not -weight.shape[0] <= padding_idx < weight.shape[0]:
        reason = route.INVALID
    if reason is None and scale_grad_by_freq:
        reason = "scale_grad_by_freq: what torch divides by differs between its devices"
    if reason is None and s is not None and s.dtype != weight.dtype:
        reason = route.INVALID
    work = input.numel() * weight.shape[-1] if reason is None else 0
    tensors = (weight, input, offsets, s)
    name = f"embedding_bag ({mode})" if s is None else "embedding_bag (weighted)"
    if route.to_torch(name, *tensors, unless=reason, mixed=True, dtypes=DTYPES, work=work):
        return torch.nn.functional.embedding_bag(
            input, weight, offsets, max_norm, norm_type, scale_grad_by_freq, mode, sparse, s, include_last_offset,
            padding_idx,
        )  # fmt: skip
    if max_norm is not None:  # in place, as torch
        with torch.no_grad():
            torch.embedding_renorm_(weight, input.contiguous(), max_norm, norm_type)
    if offsets is None:
        offsets = torch.arange(0, input.numel(), input.shape[1], dtype=input.dtype, device=input.device)
        input, s, include_last_offset = input.reshape(-1), None if s is None else s.reshape(-1), False
    padding = -1 if padding_idx is None else padding_idx % weight.shape[0]
    return apply(_EmbeddingBag, weight, s, input, offsets, mode, padding, include_last_offset)
