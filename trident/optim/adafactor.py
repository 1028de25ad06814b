"""Adafactor: torch's class. Four launches step all matrices that are alike, two all vectors (factored.py)."""

import itertools
import struct
from array import array
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trident.optim import factored, lists
from trident.optim._options import reason
from trident.optim.adam import ONE
from trident.runtime import tuning
from trident.runtime.launch import launch

SMALLEST = 1024  # elements of a matrix that a program is worth, where a tensor is a stack of them


class Adafactor(torch.optim.Adafactor):
    __doc__ = torch.optim.Adafactor.__doc__

    def _init_group(
        self,
        group: dict[str, Any],
        params_with_grad: list[Tensor],
        grads: list[Tensor],
        row_vars: list[Any],
        col_vars: list[Any],
        variances: list[Any],
        state_steps: list[Tensor],
    ) -> bool:
        columns = (params_with_grad, grads, row_vars, col_vars, variances, state_steps)
        super()._init_group(group, *columns)
        why = reason("Adafactor", self, group, params_with_grad)
        left: list[tuple[Any, ...]] = []
        for which, of in itertools.groupby(sorted(zip(*columns, strict=True), key=_which), _which):
            each: tuple[list[Any], ...] = tuple(map(list, zip(*of, strict=True)))
            read = tuple(each[i] for i in range(5) if each[i][0] is not None)
            beside = tuple(column for column in each if not any(column is r for r in read))
            why_these = why or ("a stack of small matrices" if which == 2 else None)
            for rows, others in lists.take("Adafactor", why_these, read, beside, shards=False):
                steps = [other[-1] for other in others]
                torch._foreach_add_(steps, ONE, alpha=1.0)
                reached = [*map(Tensor.item, steps)]
                for t in {*reached}:
                    _step(group, [row for row, at in zip(rows, reached, strict=True) if at == t and row[0].numel()], t)
            left += zip(*each, strict=True)
        for i, column in enumerate(columns):
            column[:] = [row[i] for row in left]
        return False


def _which(row: tuple[Any, ...]) -> int:
    """0: a vector, 1: matrices, 2: too small ones."""
    p, _, row_var, *_ = row
    if row_var is None:
        return 0
    return 2 if p.dim() > 2 and 0 < p.shape[-1] * p.shape[-2] < SMALLEST and p.shape[:-2].numel() > 1 else 1


def _step(group: dict[str, Any], rows: Sequence[lists.Row], t: float) -> None:
    if not rows:
        return
    dtype = rows[0][0].dtype
    eps, least = group["eps"]
    eps = torch.finfo(dtype).eps if eps is None else float(eps)
    lr = float(group["lr"])
    rho = min(lr, 1 / t**0.5)
    sign = -1.0 if group["maximize"] else 1.0
    numbers = (
        t ** group["beta2_decay"], 1 - lr * group["weight_decay"], sign * rho, least, eps * eps, eps, group["d"], 0.0,
    )  # fmt: skip
    passes: tuple[Any, ...]
    if len(rows[0]) == 4:
        passes = (factored.moments, factored.columns_mean, factored.norms, factored.move)
    else:
        passes = (factored.vector_moments, factored.vector_move)
    s = struct.unpack("<8q", struct.pack("<8d", *numbers))
    _launch(passes, rows, s)


class _Shape(NamedTuple):
    """Of the parameters of a list, by their shapes: one cached computation for every step."""

    sizes: tuple[tuple[int, ...], ...]  # a matrix: factored.SIZES
    programs: int
    scratch: int  # sums by columns
    counts: tuple[tuple[int, int], ...]  # a matrix: programs by rows, by columns
    whole: bool  # every row is of whole vectors


@lru_cache(maxsize=64)
def _shape(shapes: tuple[torch.Size, ...], factors: bool, chunk: int, block_m: int, block_n: int) -> _Shape:
    sizes, counts, programs, scratch = [], [], 0, 0
    for shape in shapes:
        numel = shape.numel()
        M, N = shape[-2:] if factors else (numel, 1)
        rows = max(1, chunk // N // block_m) * block_m
        each = tuning.cdiv(M, rows)
        matrices = numel // (M * N)
        tensor, of_tensor = programs, each * matrices
        for _ in range(matrices):
            sizes.append((M, N, rows, numel, tensor, of_tensor, programs, each, scratch))
            counts.append((each, tuning.cdiv(N, block_n)))
            programs += each
            scratch += each * N if factors else 0
    whole = all(size[1] % 8 == 0 for size in sizes) and factors
    return _Shape(tuple(sizes), programs, scratch, tuple(counts), whole)


@lru_cache(maxsize=64)
def _chunks(shape: _Shape, by_column: bool, block: int, device: torch.device, stream: int) -> Tensor:
    content = array("q")
    for i, (size, count) in enumerate(zip(shape.sizes, shape.counts, strict=True)):
        for j in range(count[by_column]):
            content.extend((i, j * (block if by_column else size[2])))
    return torch.frombuffer(content, dtype=torch.int64).view(-1, 2).to(device)


def _launch(passes: Sequence[Any], rows: Sequence[lists.Row], s: tuple[int, ...]) -> None:
    first, factors = rows[0], len(rows[0]) == 4
    device = first[0].device
    plan = tuning.factors(device)
    meta = {name: value for name, value in plan.meta.items() if name != "CHUNK"}
    shape = _shape(tuple(row[0].shape for row in rows), factors, plan.meta["CHUNK"], meta["BLOCK_M"], meta["BLOCK_N"])
    compute = torch.float64 if first[0].dtype == torch.float64 else torch.float32
    sums = torch.empty(3, shape.programs, dtype=torch.float64, device=device)
    columns = torch.empty(shape.scratch, dtype=compute, device=device)
    absent = (None,) * (4 - len(first))
    if lists.sanitizing(device.type):
        matrices = [m for row in rows for m in (zip(*map(_matrices, row), strict=True) if factors else (row,))]
        for work in passes:
            by_column = work is factored.columns_mean
            for matrix, size, count in zip(matrices, shape.sizes, shape.counts, strict=True):
                launch(
                    factored.matrix_kernel, (count[by_column],), *matrix, *absent, *size, sums, columns, shape.programs,
                    *s, WORK=work, BY_COLUMN=by_column, **meta,
                )  # fmt: skip
        return
    table, aligned = _table(rows, shape, factors)
    stream = lists.current_stream(device)
    for work in passes:
        by_column = work is factored.columns_mean
        chunks = _chunks(shape, by_column, meta["BLOCK_N"], device, stream)
        launch(
            factored.list_kernel, (chunks.shape[0],), table, chunks, *first, *absent, sums, columns, shape.programs, *s,
            WORK=work, BY_COLUMN=by_column, ALIGNED=aligned, **meta,
        )  # fmt: skip


def _matrices(t: Tensor) -> Sequence[Tensor]:
    return t.reshape(-1, *t.shape[-2:]).unbind()


def _table(rows: Sequence[lists.Row], shape: _Shape, factors: bool) -> tuple[Tensor, bool]:
    """[matrices, 13], and whether all of it lies at whole vectors of 16 bytes."""
    device = rows[0][0].device
    content, matrix, aligned = array("q"), 0, device.type == "cuda" and shape.whole
    for row in rows:
        p = row[0]
        stack = p.shape[:-2].numel() if factors else 1
        addresses = [t.data_ptr() for t in row]
        aligned = aligned and not any(address % 16 for address in addresses)
        strides = [t.numel() // stack * t.element_size() for t in row]
        aligned = aligned and (stack == 1 or not any(stride % 16 for stride in strides))
        for i in range(stack):
            content.extend(address + i * stride for address, stride in zip(addresses, strides, strict=True))
            content.extend((0,) * (4 - len(row)))
            content.extend(shape.sizes[matrix])
            matrix += 1
    return lists.addresses(content.tobytes(), device, lists.current_stream(device)), aligned
