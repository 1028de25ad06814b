"""`clip_grad_norm_`: one launch sums the squares of all gradients, another one scales them. The host waits for nothing.

    norm = sqrt(sum of g²)    g = g min(max_norm / (norm + 1e-6), 1)

Each program leaves one partial sum, and those are summed in one order: the same norm in every run.
"""

import functools
import types
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.lists import address, chunk, piece, whole_blocks
from trident.lang.tile import load, nearest
from trident.optim import lists
from trident.optim._options import slower
from trident.runtime import tuning
from trident.runtime.launch import launch

NAME = "clip_grad_norm_"


@triton.jit
def _squares(partial, g, start, stop, BLOCK: tl.constexpr):
    DTYPE: tl.constexpr = tl.float64 if g.dtype.element_ty == tl.float64 else tl.float32
    sums = tl.zeros((BLOCK,), DTYPE)
    whole = whole_blocks(start, stop, BLOCK)
    for i in range(start, whole, BLOCK):
        b_g = load(g + (i + tl.arange(0, BLOCK)), tl.full((BLOCK,), True, tl.int1))
        sums += b_g * b_g
    at = whole + tl.arange(0, BLOCK)
    b_g = load(g + at, at < stop)
    tl.store(partial + tl.program_id(0), tl.sum(sums + b_g * b_g, 0).to(tl.float64))


@triton.jit
def _scale(factor, g, start, stop, BLOCK: tl.constexpr):
    b_factor = tl.load(factor).to(tl.float64 if g.dtype.element_ty == tl.float64 else tl.float32)
    if b_factor != 1:  # NaN too
        whole = whole_blocks(start, stop, BLOCK)
        for i in range(start, whole, BLOCK):
            at = i + tl.arange(0, BLOCK)
            full = tl.full((BLOCK,), True, tl.int1)
            tl.store(g + at, nearest(load(g + at, full) * b_factor, g), full)
        at = whole + tl.arange(0, BLOCK)
        tl.store(g + at, nearest(load(g + at, at < stop) * b_factor, g), at < stop)


@triton.jit
def list_kernel(
    number,  # squares: [programs] float64, written; scale: the factor
    table,
    chunks,
    g,
    WORK: tl.constexpr,
    ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, start, stop = chunk(table, chunks, 2, CHUNK)
    WORK(number, address(row, 0, g, ALIGNED), start, stop, BLOCK)


@triton.jit
def tensor_kernel(number, g, N, WORK: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr):
    start, stop = piece(N, CHUNK)
    WORK(number, g, start, stop, BLOCK)


def _squares_of(rows: Sequence[lists.Row], meta: dict[str, Any]) -> Tensor:
    """[programs], float64: partial sums."""
    device = rows[0][0].device
    counts = [tuning.cdiv(g.numel(), meta["CHUNK"]) for (g,) in rows]
    partial = torch.empty(sum(counts), dtype=torch.float64, device=device)
    if lists.sanitizing(device.type):
        for (g,), part in zip(rows, partial.split(counts), strict=True):
            launch(tensor_kernel, (len(part),), part, g, g.numel(), WORK=_squares, **meta)
        return partial
    table = lists.table(rows, 1, meta["CHUNK"])
    launch(
        list_kernel, (len(partial),), partial, table.addresses, table.chunks, rows[0][0],
        WORK=_squares, ALIGNED=table.aligned, **meta,
    )  # fmt: skip
    return partial


def _scale_by(factor: Tensor, rows: Sequence[lists.Row], meta: dict[str, Any]) -> None:
    device = rows[0][0].device
    if lists.sanitizing(device.type):
        for (g,) in rows:
            grid = (tuning.cdiv(g.numel(), meta["CHUNK"]),)
            launch(tensor_kernel, grid, factor, g, g.numel(), WORK=_scale, **meta)
        return
    table = lists.table(rows, 1, meta["CHUNK"])
    launch(
        list_kernel, (table.chunks.shape[0],), factor, table.addresses, table.chunks, rows[0][0],
        WORK=_scale, ALIGNED=table.aligned, **meta,
    )  # fmt: skip


def _reason(grads: list[Tensor], norm_type: float, foreach: bool | None) -> str | None:
    if float(norm_type) != 2.0:
        return f"no kernel for norm_type={norm_type}"
    if foreach is not None:
        return f"foreach={foreach} names one of torch's implementations"
    for g in grads:
        if type(g) not in lists.PLAIN_TYPES:  # a shard's norm is not the tensor's
            return f"{type(g).__name__} is not a plain tensor"
        if g.device != grads[0].device:
            return "gradients on several devices"
    return slower(NAME, grads)


@torch.no_grad()
def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """torch.nn.utils.clip_grad_norm_: scale the gradients, in place, so that together they have at most this norm.

    Returns the norm that they had. Raises RuntimeError if `error_if_nonfinite` and it is not finite.
    """
    params = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    grads = [p.grad for p in params if p.grad is not None]
    left = grads.copy()
    taken = [*lists.take(NAME, _reason(grads, norm_type, foreach), (left,))]
    if left or not grads:  # one that no kernel takes, and all of them are torch's: the norm is of all
        emptied = isinstance(parameters, types.GeneratorType) and not params
        given = parameters if emptied else params  # torch warns of a generator that gives nothing
        return torch.nn.utils.clip_grad_norm_(given, max_norm, norm_type, error_if_nonfinite, foreach)
    meta = tuning.lists(grads[0].device).meta
    partial = torch.cat([_squares_of(rows, meta) for rows, _ in taken])
    dtype = functools.reduce(torch.promote_types, {g.dtype for g in grads})
    norm = partial.sum().sqrt().to(dtype)
    if error_if_nonfinite and not norm.isfinite():
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it cannot be "
            "clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    factor = (float(max_norm) / (norm + 1e-6)).clamp(max=1.0)
    for rows, _ in taken:
        _scale_by(factor, rows, meta)
    return norm
