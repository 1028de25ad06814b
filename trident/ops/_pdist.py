"""Distances of all pairs of rows: y of (i, j), i < j, is the norm of order p of x[i] - x[j], x [N, M].

y is a flat triangle: row i begins at i (2N - i - 1) / 2. A program compares row i with blocks of rows j: with those
after it in the forward, with all others in the backward, where it so owns dx[i] and needs no atomics.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.reduction import norm, power
from trident.lang.tile import col_sum, load, row_sum
from trident.runtime import recompute, route, tuning_tables
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op

DTYPES = frozenset({torch.float32, torch.float64})  # torch has no others


@triton.jit
def _pair(i, j, N):
    """The place of the pair of rows i and j."""
    low, high = tl.minimum(i, j), tl.maximum(i, j)
    return low * (2 * N - low - 1) // 2 + high - low - 1


@triton.jit
def _forward_kernel(
    y, x, N, M, EACH, P: tl.constexpr, INF: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_M: tl.constexpr
):  # fmt: skip
    first = tl.program_id(0) * tl.full((), EACH, tl.int64)
    for i in range(first, tl.minimum(first + EACH, N - 1)):
        for block in range(0, tl.cdiv(N - 1 - i, BLOCK_J)):
            j = i + 1 + block * BLOCK_J + tl.arange(0, BLOCK_J)[:, None]
            total = tl.zeros((BLOCK_J, 1), x.dtype.element_ty)
            for part in range(0, tl.cdiv(M, BLOCK_M)):
                m = part * BLOCK_M + tl.arange(0, BLOCK_M)[None, :]
                inside = (j < N) & (m < M)
                d = tl.where(inside, load(x + i * M + m, m < M) - load(x + j * M + m, inside), 0.0)
                if INF:
                    top = tl.max(tl.where(d == d, tl.abs(d), float("inf")), axis=1, keep_dims=True)
                    wrong = tl.max((d != d).to(tl.int32), axis=1, keep_dims=True) > 0
                    total = tl.where(wrong | (total != total), float("nan"), tl.maximum(total, top))
                else:
                    terms = power(d, P)
                    if P == 0:
                        terms = tl.where(d == d, terms, d)
                    total += row_sum(terms)
            if not INF:
                total = norm((total,), M, P, 0.0)[0]
            tl.store(y + _pair(i, j, N), total, j < N)


@triton.jit
def _slope(d, r, P: tl.constexpr, INF: tl.constexpr):
    """The derivative of a distance r by a difference d. 0 where either is 0."""
    sign = (d > 0).to(d.dtype) - (d < 0).to(d.dtype)
    if INF:
        return tl.where(tl.abs(d) == r, sign, 0.0)
    elif P == 0:
        return tl.zeros_like(d)
    elif P == 1:
        return sign
    elif P == 2:
        return tl.where(r == 0, 0.0, d / tl.where(r == 0, 1.0, r))
    else:
        return tl.where((d == 0) | (r == 0), 0.0, sign * power(d / tl.where(r == 0, 1.0, r), P - 1))


@triton.jit
def _backward_kernel(
    dx, dy, x, y, N, M, EACH, P: tl.constexpr, INF: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_M: tl.constexpr
):  # fmt: skip
    first = tl.program_id(0) * tl.full((), EACH, tl.int64)
    m = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)[None, :]
    for i in range(first, tl.minimum(first + EACH, N)):
        row = load(x + i * M + m, m < M)
        total = tl.zeros((1, BLOCK_M), x.dtype.element_ty)
        for block in range(0, tl.cdiv(N, BLOCK_J)):
            j = block * tl.full((), BLOCK_J, tl.int64) + tl.arange(0, BLOCK_J)[:, None]
            others = (j < N) & (j != i)
            pair = _pair(i, j, N)
            inside = others & (m < M)
            slope = _slope(row - load(x + j * M + m, inside), load(y + pair, others), P, INF)
            total += col_sum(tl.where(inside, load(dy + pair, others) * slope, 0.0))
        tl.store(dx + i * M + m, total, m < M)


def _order(p: float) -> dict[str, Any]:
    return {"P": 0.0 if p == math.inf else p, "INF": p == math.inf}


@op("pdist")
def _forward(x: Tensor, p: float) -> Tensor:
    x = x.contiguous()
    N, M = x.shape
    y = x.new_empty(N * (N - 1) // 2)
    plan = tuning_tables.pairs(N, M, x.device)
    launch(_forward_kernel, (plan.grid[0],), y, x, N, M, **_order(p), **plan.meta)
    return y


@op("pdist_backward")
def _backward(dy: Tensor, x: Tensor, y: Tensor, p: float) -> Tensor:
    dy, x = dy.contiguous(), x.contiguous()
    N, M = x.shape
    dx = torch.empty_like(x)
    plan = tuning_tables.pairs(N, M, x.device)
    launch(_backward_kernel, plan.grid, dx, dy, x, y, N, M, **_order(p), **plan.meta)
    return dx


class _Pdist(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        y = _forward(x, p)
        ctx.save_for_backward(x, y)
        ctx.p = p
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, y = ctx.saved_tensors
        if recompute.wanted():
            return *recompute.gradients(lambda x: torch.nn.functional.pdist(x, ctx.p), (x,), dy), None
        return _backward(dy, x, y, ctx.p), None


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """[N, M] -> [N (N - 1) / 2]. Same contract as :func:`torch.nn.functional.pdist`."""
    fits = input.dim() == 2 and isinstance(p, int | float) and p >= 0
    if fits and input.numel() == 0 and input.requires_grad:  # torch 2.13 crashes in the backward of no elements
        return input.sum().expand(input.shape[0] * (input.shape[0] - 1) // 2).clone()
    fits = fits and input.shape[0] > 1
    work = input.shape[0] * input.numel() // 2 if fits else 0
    name = "pdist" if p in (0, 1, 2) else "pdist (greatest)" if p == math.inf else "pdist (power)"
    if route.to_torch(name, input, unless=None if fits else route.INVALID, dtypes=DTYPES, work=work):
        return torch.nn.functional.pdist(input, p)
    y: Tensor = apply(_Pdist, input, float(p))
    return y
