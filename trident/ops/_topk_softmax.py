"""The k largest of a softmax and their places: routing of tokens to experts. x seen as [M, N], i_j the j-th place.

forward     p  = softmax(x);  w_j = p[i_j]
            renormalized      w_j = p[i_j] / sum of p[i]
backward    dx = p (dp - sum of w dw),  dp[i_j] = dw_j, else 0
            renormalized      the same with w in the place of p: 0 where nothing was chosen

CPUs, where exponentials take longer than memory does, keep p for the backward, as torch does; there dx is written
without the chosen, which are put in their places then. On GPUs that would need a barrier: each row looks for them.

The places are int64, the largest first; of equal numbers the first comes first, NaN is the largest of all.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import accumulator, load, row_sum, row_tile
from trident.runtime import autocast, recompute, route, tuning, tuning_llm
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op

LONGEST = 4096  # numbers of a row that the kernels hold
MOST_STEPS = (
    4096  # over the numbers of a row, k times: beyond it torch's topk, which sorts, was measured faster on CPUs
)


@triton.jit
def _exponentials(b_x, inside):
    """exp(x - max x), 0 outside, and their sum."""
    top = tl.max(b_x, axis=1, keep_dims=True)
    b_e = tl.where(inside, tl.exp(b_x - top), 0.0)
    return b_e, row_sum(b_e)


@triton.jit
def _forward_kernel(
    w, places, p, x, M, N, K, RENORMALIZED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    rows, cols, in_m, left = row_tile(tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
    left = in_m & left
    b_x = load(x + rows * N + cols, left, -float("inf"))
    b_x = tl.where(b_x != b_x, float("inf"), b_x)  # NaN: first of all, and inf - inf makes its row NaN
    k = tl.arange(0, BLOCK_K)[None, :]
    if not RENORMALIZED:
        b_e, total = _exponentials(b_x, left)
        if p is not None:
            tl.store(p + rows * N + cols, b_e / total, left)
    b_top, b_places = tl.full((BLOCK_M, BLOCK_K), -float("inf"), b_x.dtype), tl.zeros((BLOCK_M, BLOCK_K), tl.int32)
    for j in range(K):
        best = tl.max(tl.where(left, b_x, -float("inf")), axis=1, keep_dims=True)
        at = tl.min(tl.where(left & (b_x == best), cols, BLOCK_N), axis=1, keep_dims=True)
        b_top, b_places = tl.where(k == j, best, b_top), tl.where(k == j, at, b_places)
        left = left & (cols != at)
    b_w = tl.exp(b_top - tl.max(b_top, axis=1, keep_dims=True))  # only k of them, and the first is the row's maximum
    if RENORMALIZED:
        total = row_sum(b_w)
    tl.store(w + rows * K + k, b_w / total, in_m & (k < K))
    tl.store(places + rows * K + k, b_places.to(tl.int64), in_m & (k < K))


@triton.jit
def _backward_kernel(
    dx, dw, w, places, p, x, M, N, K, RENORMALIZED: tl.constexpr, SCATTERED: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    rows, cols, in_m, in_n = row_tile(tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
    if RENORMALIZED:
        b_p = accumulator(x, BLOCK_M, BLOCK_N)
    elif p is not None:
        b_p = load(p + rows * N + cols, in_m & in_n)
    else:
        b_p, total = _exponentials(load(x + rows * N + cols, in_m & in_n, -float("inf")), in_m & in_n)
        b_p = b_p / total
    if SCATTERED:
        k = tl.arange(0, BLOCK_K)[None, :]
        in_k = in_m & (k < K)
        b_w, b_dw = load(w + rows * K + k, in_k), load(dw + rows * K + k, in_k)
        mean = row_sum(b_w * b_dw)
        tl.store(dx + rows * N + cols, b_p * (0 - mean), in_m & in_n)
        chosen = tl.load(places + rows * K + k, mask=in_k, other=0)
        tl.store(dx + rows * N + chosen, b_w * (b_dw - mean), in_k)
    else:
        b_dp, mean = accumulator(x, BLOCK_M, BLOCK_N), accumulator(x, BLOCK_M, 1)
        for j in range(K):
            chosen = cols == tl.load(places + rows * K + j, mask=in_m, other=0).to(tl.int32)
            b_w, b_dw = load(w + rows * K + j, in_m), load(dw + rows * K + j, in_m)
            b_dp = tl.where(chosen, b_dw, b_dp)
            if RENORMALIZED:
                b_p = tl.where(chosen, b_w, b_p)
            mean += b_w * b_dw
        tl.store(dx + rows * N + cols, b_p * (b_dp - mean), in_m & in_n)


@op("topk_softmax")
def _forward(x: Tensor, k: int, renormalized: bool, dtype: torch.dtype, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """w, the places, and p (empty, unless it is to be kept)."""
    x = x.contiguous()
    w, places = x.new_empty(*x.shape[:-1], k, dtype=dtype), x.new_empty(*x.shape[:-1], k, dtype=torch.int64)
    p = torch.empty_like(x, dtype=dtype) if keep else x.new_empty(0)
    M, N = x.numel() // x.shape[-1], x.shape[-1]
    plan = tuning_llm.choices(M, N, x.dtype, x.device)
    more = {"RENORMALIZED": renormalized, "BLOCK_K": tuning.power_of_2(k)}
    launch(_forward_kernel, plan.grid, w, places, p if keep else None, x, M, N, k, **more, **plan.meta)
    return w, places, p


@op("topk_softmax_backward")
def _backward(dw: Tensor, w: Tensor, places: Tensor, p: Tensor | None, x: Tensor, renormalized: bool) -> Tensor:
    dw, x = dw.contiguous(), x.contiguous()
    dx = torch.empty_like(x)
    M, N = x.numel() // x.shape[-1], x.shape[-1]
    plan = tuning_llm.choices(M, N, x.dtype, x.device)
    k, scattered = w.shape[-1], tuning_llm.scatters_choices(x.device)
    more = {"RENORMALIZED": renormalized, "SCATTERED": scattered, "BLOCK_K": tuning.power_of_2(k)}
    launch(_backward_kernel, plan.grid, dx, dw, w, places, p, x, M, N, k, **more, **plan.meta)
    return dx


def _chosen(p: Tensor, places: Tensor, renormalized: bool) -> Tensor:
    w = p.gather(-1, places)
    return w / w.sum(-1, keepdim=True) if renormalized else w


class _TopkSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, k: int, renormalized: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        keep = ctx.needs_input_grad[0] and not renormalized and tuning_llm.scatters_choices(x.device)
        w, places, p = _forward(x, k, renormalized, dtype, keep)
        ctx.save_for_backward(x, w, places, p if keep else None)
        ctx.renormalized = renormalized
        ctx.mark_non_differentiable(places)
        return w, places

    @staticmethod
    def backward(ctx: Any, dw: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, w, places, p = ctx.saved_tensors
        if recompute.wanted():
            dx = recompute.gradients(lambda x: _chosen(x.softmax(-1), places, ctx.renormalized), (x,), dw)[0]
            return dx, None, None, None
        return _backward(dw, w, places, p, x, ctx.renormalized), None, None, None


def topk_softmax(input: Tensor, k: int, *, renormalize: bool = False) -> tuple[Tensor, Tensor]:
    """The k largest of softmax(input, -1), the largest first, and their places; as topk(softmax(input, -1), k).

    renormalize: they are divided by their sum, as in Mixtral and Qwen's mixtures of experts.
    Shapes: input [*, N], the results [*, k], int64 the second. RuntimeError: k outside [1, N], or no dimension.
    Dtypes: float16, bfloat16, float32, float64; float32 inside (float64 for float64).
    """
    if input.dim() == 0 or not 1 <= k <= input.shape[-1]:
        raise RuntimeError(f"topk_softmax: k is {k}, input {list(input.shape)}; expected 1 <= k <= the last size")
    reason = None if input.shape[-1] <= LONGEST else f"rows of more than {LONGEST}"
    name = "topk_softmax" if k * input.shape[-1] <= MOST_STEPS else "topk_softmax (many chosen)"
    if route.to_torch(name, input, unless=reason):
        p = input.softmax(-1)
        places = p.topk(k, -1).indices
        return _chosen(p, places, renormalize), places
    dtype = autocast.output_dtype("softmax", input)
    w, places = apply(_TopkSoftmax, input, k, renormalize, dtype)
    return w, places
