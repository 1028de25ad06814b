"""Sums of rows by key, what the gradient of a table needs: dw[v] = sum of rows x[i] over the positions i of key v.

No atomics, and the same order of adding each time. Two ways:

sorted      Positions are sorted by key once, so that equal keys are a run. Programs walk over chunks of S sorted
            positions and add up runs. A run inside of one chunk is written at once; of one that chunks share each
            leaves its part, and a second kernel adds the parts. So no program walks over more than about the root of
            all positions.
in turns    On CPUs a program walks over all positions and adds those of its range of keys to the table, which sums in
            float32. That spares the sort, and reads the rows in the order in which they lie.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import load
from trident.runtime import tuning_tables
from trident.runtime.launch import launch
from trident.runtime.precision import compute_dtype


@triton.jit
def _term(dy, position, rows, weights, sizes, places, cols, inside, N, R):
    """What a position adds: see `sum_by_key`."""
    row = position
    if rows is not None:
        row = tl.load(rows + position)
        inside = cols < tl.where(row < R, N, 0)
    x = load(dy + row * N + cols, inside)
    if weights is not None:
        x *= tl.load(weights + position).to(x.dtype)
    if sizes is not None:
        x = x / tl.load(sizes + row, mask=row < R, other=1).to(x.dtype)
    if places is not None:
        x = tl.where(tl.load(places + row * N + cols, mask=inside, other=-1) == position, x, 0.0)
    return x


@triton.jit
def _put(dw, total, key, counts, ignored, cols, inside, N):
    """Row `key` of dw, divided by the count of that key if there are counts; none for the ignored key."""
    if key != ignored:
        if counts is not None:
            total = total / tl.load(counts + key).to(total.dtype)
        tl.store(dw + key * N + cols, total, inside)


@triton.jit
def _runs_kernel(
    dw, parts, keys, order, counts, dy, rows, weights, sizes, places, T, N, R, S, ignored, BLOCK_N: tl.constexpr
):  # fmt: skip
    """parts: [2, chunks, N], of the run that an earlier chunk began, and of the one that a later chunk goes on with."""
    chunk = tl.program_id(0)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = cols < N
    first = chunk * tl.full((), S, tl.int64)
    last = tl.minimum(first + S, T)
    key = tl.load(keys + first).to(tl.int64)
    begun = tl.load(keys + first - 1, mask=first > 0, other=-1) == key
    total = tl.zeros((BLOCK_N,), parts.dtype.element_ty)
    for i in range(first, last):
        total += _term(dy, tl.load(order + i), rows, weights, sizes, places, cols, inside, N, R)
        following = tl.load(keys + i + 1, mask=i + 1 < T, other=-1).to(tl.int64)
        if (following != key) | (i + 1 == last):
            if begun | (following == key):
                slot = tl.where(begun, 0, tl.num_programs(0))
                tl.store(parts + (slot + chunk).to(tl.int64) * N + cols, total, inside)
            else:
                _put(dw, total, key, counts, ignored, cols, inside, N)
            key, begun = following, False
            total = tl.zeros((BLOCK_N,), parts.dtype.element_ty)


@triton.jit
def _join_kernel(dw, parts, keys, counts, T, N, S, ignored, BLOCK_N: tl.constexpr):
    """The run that begins in a chunk and ends in a later one, if there is one."""
    chunk, chunks = tl.program_id(0), tl.num_programs(0)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = cols < N
    first = chunk * tl.full((), S, tl.int64)
    last = first + S
    key = tl.load(keys + tl.minimum(last, T) - 1).to(tl.int64)
    goes_on = tl.load(keys + last, mask=last < T, other=-1) == key
    begun = (tl.load(keys + first) == key) & (tl.load(keys + first - 1, mask=first > 0, other=-1) == key)
    if goes_on & (begun == 0):
        total = tl.load(parts + (chunks + chunk).to(tl.int64) * N + cols, mask=inside, other=0.0)
        at = chunk + tl.full((), 1, tl.int64)
        while tl.load(keys + at * S, mask=at < chunks, other=-1) == key:
            total += tl.load(parts + at * N + cols, mask=inside, other=0.0)
            at += 1
        _put(dw, total, key, counts, ignored, cols, inside, N)


@triton.jit
def _turns_kernel(sums, keys, counts, dy, rows, weights, sizes, places, T, N, R, RANGE, ignored, BLOCK_N: tl.constexpr):
    """Add to sums [V, N] what belongs to keys from RANGE * program_id(0) on."""
    low = tl.program_id(0) * tl.full((), RANGE, tl.int64)
    cols = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    inside = cols < N
    for i in range(0, T):
        key = tl.load(keys + i).to(tl.int64)
        if (key >= low) & (key < low + RANGE) & (key != ignored):
            position = i * tl.full((), 1, tl.int64)
            x = _term(dy, position, rows, weights, sizes, places, cols, inside, N, R)
            if counts is not None:
                x = x / tl.load(counts + key).to(x.dtype)
            there = sums + key * N + cols
            tl.store(there, tl.load(there, mask=inside, other=0.0) + x, inside)


def sum_by_key(
    shape: tuple[int, int],
    keys: Tensor,
    dy: Tensor,
    ignored: int,
    by_frequency: bool = False,
    rows: Tensor | None = None,
    weights: Tensor | None = None,
    sizes: Tensor | None = None,
    places: Tensor | None = None,
) -> Tensor:
    """dw of shape [V, N]: the sums of dy [R, N] by keys [T], 0 <= key < V; all contiguous.

    ignored: a key whose row stays 0 (-1: none). by_frequency: each sum is divided by the count of its key.
    Position i stands for row i of dy or, if given, rows[i] (none from R on), times weights[i], over sizes[row], and
    only in the columns where places[row] is i.
    """
    (V, N), (T,), R = shape, keys.shape, dy.shape[0]
    counts = None
    if by_frequency:
        counts = torch.zeros(V, dtype=torch.int64, device=dy.device)
        counts.scatter_add_(0, keys.long(), torch.ones_like(keys, dtype=torch.int64))
    read, compute = (dy, rows, weights, sizes, places), compute_dtype(dy)
    threads = torch.get_num_threads() if dy.device.type == "cpu" else 0
    plan = tuning_tables.key_turns(V, T, N, dy.dtype, threads, dy.device)
    if plan.loops:
        sums = dy.new_zeros(V, N, dtype=compute)
        launch(_turns_kernel, plan.grid, sums, keys, counts, *read, T, N, R, ignored=ignored, **plan.meta)
        return sums.to(dy.dtype)
    dw = dy.new_zeros(V, N)
    plan = tuning_tables.key_runs(T, N, dy.device)
    found, order = torch.sort(keys, stable=True)
    parts = torch.empty((2, plan.grid[0], N), dtype=compute, device=dy.device)
    launch(_runs_kernel, plan.grid, dw, parts, found, order, counts, *read, T, N, R, ignored=ignored, **plan.meta)
    launch(_join_kernel, plan.grid, dw, parts, found, counts, T, N, ignored=ignored, **plan.meta)
    return dw
