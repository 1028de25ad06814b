"""Attention: q [L, E], k [S, E], v [S, V] of each head; s = scale.

forward     x  = q kᵀ
            z  = s x + mask                     -inf where a query may not see a key
            P  = exp(z - lse)                   lse = log sum exp(z), over the keys
            y  = (P D) v                        D: dropout, 1 / (1 - p) with probability 1 - p, else 0

backward    δ  = sum(dy y) = sum(P dP)          over the keys
            dP = (dy vᵀ) D
            dz = P (dP - δ)                     also the mask's gradient
            dv = (P D)ᵀ dy
            dk = s dzᵀ q
            dq = s dz k

No [L, S] matrix is stored (Dao et al. 2022, arXiv:2205.14135): the forward walks over the keys with a running maximum,
the backward computes P again from lse. Exponentials are of base 2, with log2 e in the scale; so is the stored lse. A
query that sees no key has y = 0, as in torch.

One program of `_keys_kernel` sums dk and dv of a block of keys over all queries. dq is summed over the keys by
`_queries_kernel`; where one program can walk over whole heads (CPUs) `_keys_kernel` adds to dq as well, and the logits
are computed once instead of twice. Nothing is added atomically.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.attention import dropout, head, logits, places
from trident.lang.lines import finite
from trident.lang.tile import accumulator, load, matrix, nearest, row_sum
from trident.ops._dropout import _run_time, seed_for
from trident.runtime import autocast, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype

NAME = "scaled_dot_product_attention"
WITH_BOOL = route.HALF_TO_DOUBLE | {torch.bool}
RUN_TIME = ("bound", "keep", "H", "GROUP", "L")


@triton.jit
def _accumulated(
    b_y, top, total, b_q, k, v, mask, seed, queries, block, this_head, E, V, L, S, k_s, k_e, v_s, v_e, m_l, m_s,
    bound, keep, SCALE: tl.constexpr, CAUSAL: tl.constexpr, EDGE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """One block of keys more: b_y = sum exp2(z - top) D v, total = sum exp2(z - top), top = max z."""
    keys = places(block, BLOCK_S)
    e, d = tl.arange(0, BLOCK_E)[:, None], tl.arange(0, BLOCK_V)[None, :]
    in_k, in_v = e < E, d < V
    if EDGE:
        in_k, in_v = in_k & (keys[None, :] < S), in_v & (keys[:, None] < S)
    b_k = matrix(k + keys[None, :].to(tl.int64) * k_s + e * k_e, in_k)
    x = tl.dot(b_q, b_k, input_precision=PRECISION, out_dtype=b_y.dtype)
    z = logits(x, mask, queries, keys[None, :], m_l, m_s, L, S, SCALE, CAUSAL, EDGE)
    higher = tl.maximum(top, tl.max(z, axis=1, keep_dims=True))
    base = finite(higher)
    shrink, b_p = tl.exp2(top - base), tl.exp2(z - base)
    total = total * shrink + row_sum(b_p)
    if seed is not None:
        b_p *= dropout(b_p, seed, queries, keys[None, :], this_head, bound, keep)
    b_v = matrix(v + keys[:, None].to(tl.int64) * v_s + d * v_e, in_v)
    b_y = tl.dot(b_p.to(b_v.dtype), b_v, b_y * shrink, input_precision=PRECISION, out_dtype=b_y.dtype)
    return b_y, higher, total


@triton.jit(do_not_specialize=RUN_TIME)
def _forward_kernel(
    y, lse, q, k, v, mask, seed, H, GROUP, L, S, E, V,
    y_b, y_h, y_l, y_e, q_b, q_h, q_l, q_e, k_b, k_h, k_s, k_e, v_b, v_h, v_s, v_e, m_b, m_h, m_l, m_s, bound, keep,
    SCALE: tl.constexpr, CAUSAL: tl.constexpr, EVEN_S: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """A program: BLOCK_L queries (axis 0) of one head (axis 1). GROUP heads of q share one of k and v."""
    first, this_head = tl.program_id(0) * BLOCK_L, tl.program_id(1)
    b, h = this_head // H, this_head % H
    q, y = head(q, b, h, q_b, q_h), head(y, b, h, y_b, y_h)
    k, v = head(k, b, h // GROUP, k_b, k_h), head(v, b, h // GROUP, v_b, v_h)
    if mask is not None:
        mask = head(mask, b, h, m_b, m_h)
    queries = places(tl.program_id(0), BLOCK_L)[:, None]
    e, d = tl.arange(0, BLOCK_E)[None, :], tl.arange(0, BLOCK_V)[None, :]
    b_q = matrix(q + queries.to(tl.int64) * q_l + e * q_e, (queries < L) & (e < E))

    b_y = accumulator(q, BLOCK_L, BLOCK_V)
    total = accumulator(q, BLOCK_L, 1)
    top = total - float("inf")
    whole, blocks = S // BLOCK_S, tl.cdiv(S, BLOCK_S)
    if CAUSAL:
        whole, blocks = tl.minimum(whole, (first + 1) // BLOCK_S), tl.minimum(blocks, tl.cdiv(first + BLOCK_L, BLOCK_S))
    for block in range(0, whole):
        b_y, top, total = _accumulated(
            b_y, top, total, b_q, k, v, mask, seed, queries, block, this_head, E, V, L, S, k_s, k_e, v_s, v_e,
            m_l, m_s, bound, keep, SCALE, CAUSAL, False, PRECISION, BLOCK_S, BLOCK_E, BLOCK_V,
        )  # fmt: skip
    if CAUSAL or not EVEN_S:
        for block in range(whole, blocks):
            b_y, top, total = _accumulated(
                b_y, top, total, b_q, k, v, mask, seed, queries, block, this_head, E, V, L, S, k_s, k_e, v_s, v_e,
                m_l, m_s, bound, keep, SCALE, CAUSAL, True, PRECISION, BLOCK_S, BLOCK_E, BLOCK_V,
            )  # fmt: skip

    nothing = total == 0
    b_y = nearest(b_y / tl.where(nothing, 1.0, total), y)  # the backward's δ is a sum over y as it is stored
    tl.store(y + queries.to(tl.int64) * y_l + d * y_e, b_y, (queries < L) & (d < V))
    # +inf: exp2(z - lse) is 0 where nothing is seen
    b_lse = tl.where(nothing, float("inf"), top + tl.log2(total))
    tl.store(lse + this_head.to(tl.int64) * L + queries, b_lse, queries < L)


@triton.jit
def _delta_kernel(
    delta, dy, y, H, L, V, dy_b, dy_h, dy_l, dy_e, y_b, y_h, y_l, y_e, BLOCK_L: tl.constexpr, BLOCK_V: tl.constexpr
):  # fmt: skip
    this_head = tl.program_id(1)
    b, h = this_head // H, this_head % H
    queries, d = places(tl.program_id(0), BLOCK_L)[:, None], tl.arange(0, BLOCK_V)[None, :]
    inside = (queries < L) & (d < V)
    b_dy = load(head(dy, b, h, dy_b, dy_h) + queries.to(tl.int64) * dy_l + d * dy_e, inside)
    b_y = load(head(y, b, h, y_b, y_h) + queries.to(tl.int64) * y_l + d * y_e, inside)
    tl.store(delta + this_head.to(tl.int64) * L + queries, row_sum(b_dy * b_y), queries < L)


@triton.jit
def _tile_gradients(
    x, b_dp, mask, seed, queries, keys, b_lse, b_delta, this_head, L, S, m_l, m_s, bound, keep,
    SCALE: tl.constexpr, CAUSAL: tl.constexpr,
):  # fmt: skip
    """P D and dz of a tile from x = q kᵀ and dy vᵀ."""
    b_p = tl.exp2(logits(x, mask, queries, keys, m_l, m_s, L, S, SCALE, CAUSAL, True) - b_lse)
    b_pd = b_p
    if seed is not None:
        b_d = dropout(b_p, seed, queries, keys, this_head, bound, keep)
        b_pd, b_dp = b_p * b_d, b_dp * b_d
    return b_pd, b_p * (b_dp - b_delta)


@triton.jit(do_not_specialize=RUN_TIME)
def _keys_kernel(
    dk, dv, dq, dy, q, k, v, mask, seed, lse, delta, H, GROUP, L, S, E, V,
    dy_b, dy_h, dy_l, dy_e, q_b, q_h, q_l, q_e, k_b, k_h, k_s, k_e, v_b, v_h, v_s, v_e, m_b, m_h, m_l, m_s, bound, keep,
    SCALE: tl.constexpr, FACTOR: tl.constexpr, CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """dk and dv [B, H / GROUP, S, ...]; blocks of keys by axis 0, heads of k and v by axis 1; tiles [keys, queries].

    dq: None, or zeros [B, H, L, E]: then axis 0 must have one program.
    """
    key_head = tl.program_id(1)
    key_heads = H // GROUP
    b, key_h = key_head // key_heads, key_head % key_heads
    k, v = head(k, b, key_h, k_b, k_h), head(v, b, key_h, v_b, v_h)
    e, d = tl.arange(0, BLOCK_E), tl.arange(0, BLOCK_V)
    for block in range(tl.program_id(0), tl.cdiv(S, BLOCK_S), tl.num_programs(0)):
        keys = places(block, BLOCK_S)[:, None]
        in_k, in_v = (keys < S) & (e[None, :] < E), (keys < S) & (d[None, :] < V)
        b_k = matrix(k + keys.to(tl.int64) * k_s + e[None, :] * k_e, in_k)
        b_v = matrix(v + keys.to(tl.int64) * v_s + d[None, :] * v_e, in_v)
        b_dk, b_dv = accumulator(k, BLOCK_S, BLOCK_E), accumulator(k, BLOCK_S, BLOCK_V)
        first = block * BLOCK_S // BLOCK_L if CAUSAL else 0
        # not negative: with more keys than queries the last keys are seen by none
        steps = tl.maximum(tl.cdiv(L, BLOCK_L) - first, 0)
        for step in range(0, GROUP * steps):
            h = key_h * GROUP + step // steps
            this_head = b * H + h
            queries = places(first + step % steps, BLOCK_L)
            rows, in_rows = queries.to(tl.int64), queries < L
            mask_of_head = mask
            if mask is not None:
                mask_of_head = head(mask, b, h, m_b, m_h)
            at_q = head(q, b, h, q_b, q_h) + rows[:, None] * q_l + e[None, :] * q_e
            at_dy = head(dy, b, h, dy_b, dy_h) + rows[:, None] * dy_l + d[None, :] * dy_e
            b_q = matrix(at_q, in_rows[:, None] & (e[None, :] < E))
            b_dy = matrix(at_dy, in_rows[:, None] & (d[None, :] < V))
            line = this_head.to(tl.int64) * L + queries
            b_lse = tl.load(lse + line, mask=in_rows, other=float("inf"))[None, :]
            b_delta = tl.load(delta + line, mask=in_rows, other=0.0)[None, :]

            x = tl.dot(b_k, tl.trans(b_q), input_precision=PRECISION, out_dtype=b_dk.dtype)
            b_dp = tl.dot(b_v, tl.trans(b_dy), input_precision=PRECISION, out_dtype=b_dk.dtype)
            b_pd, b_dz = _tile_gradients(
                x, b_dp, mask_of_head, seed, queries[None, :], keys, b_lse, b_delta, this_head, L, S, m_l, m_s,
                bound, keep, SCALE, CAUSAL,
            )  # fmt: skip
            b_dv = tl.dot(b_pd.to(b_dy.dtype), b_dy, b_dv, input_precision=PRECISION, out_dtype=b_dv.dtype)
            b_dz = b_dz.to(b_q.dtype)
            b_dk = tl.dot(b_dz, b_q, b_dk, input_precision=PRECISION, out_dtype=b_dk.dtype)
            if dq is not None:
                at_dq = dq + (this_head.to(tl.int64) * L + rows[:, None]) * E + e[None, :]
                in_q = in_rows[:, None] & (e[None, :] < E)
                b_dq = tl.dot(tl.trans(b_dz), b_k, input_precision=PRECISION, out_dtype=b_dk.dtype)
                tl.store(at_dq, tl.load(at_dq, mask=in_q, other=0.0) + b_dq * FACTOR, in_q)
        row = key_head.to(tl.int64) * S + keys
        tl.store(dk + row * E + e[None, :], b_dk * FACTOR, in_k)
        tl.store(dv + row * V + d[None, :], b_dv, in_v)


@triton.jit(do_not_specialize=RUN_TIME)
def _queries_kernel(
    dq, dz, dy, q, k, v, mask, seed, lse, delta, H, GROUP, L, S, E, V,
    dy_b, dy_h, dy_l, dy_e, q_b, q_h, q_l, q_e, k_b, k_h, k_s, k_e, v_b, v_h, v_s, v_e, m_b, m_h, m_l, m_s, bound, keep,
    SCALE: tl.constexpr, FACTOR: tl.constexpr, CAUSAL: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """dq [B, H, L, E], and dz [B, H, L, S] if it is not None; programs as in `_forward_kernel`."""
    this_head = tl.program_id(1)
    b, h = this_head // H, this_head % H
    q, dy = head(q, b, h, q_b, q_h), head(dy, b, h, dy_b, dy_h)
    k, v = head(k, b, h // GROUP, k_b, k_h), head(v, b, h // GROUP, v_b, v_h)
    if mask is not None:
        mask = head(mask, b, h, m_b, m_h)
    queries = places(tl.program_id(0), BLOCK_L)[:, None]
    row = this_head.to(tl.int64) * L + queries
    e, d = tl.arange(0, BLOCK_E)[None, :], tl.arange(0, BLOCK_V)[None, :]
    in_q = (queries < L) & (e < E)
    b_q = matrix(q + queries.to(tl.int64) * q_l + e * q_e, in_q)
    b_dy = matrix(dy + queries.to(tl.int64) * dy_l + d * dy_e, (queries < L) & (d < V))
    b_lse = tl.load(lse + row, mask=queries < L, other=float("inf"))
    b_delta = tl.load(delta + row, mask=queries < L, other=0.0)

    b_dq = accumulator(q, BLOCK_L, BLOCK_E)
    blocks = tl.cdiv(S, BLOCK_S)
    if CAUSAL:
        blocks = tl.minimum(blocks, tl.cdiv((tl.program_id(0) + 1) * BLOCK_L, BLOCK_S))
    for block in range(0, blocks):
        keys = places(block, BLOCK_S)
        in_s = (keys < S)[:, None]
        b_k = matrix(k + keys[:, None].to(tl.int64) * k_s + e * k_e, in_s & (e < E))
        b_v = matrix(v + keys[:, None].to(tl.int64) * v_s + d * v_e, in_s & (d < V))
        x = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION, out_dtype=b_dq.dtype)
        b_dp = tl.dot(b_dy, tl.trans(b_v), input_precision=PRECISION, out_dtype=b_dq.dtype)
        _, b_dz = _tile_gradients(
            x, b_dp, mask, seed, queries, keys[None, :], b_lse, b_delta, this_head, L, S, m_l, m_s,
            bound, keep, SCALE, CAUSAL,
        )  # fmt: skip
        if dz is not None:
            tl.store(dz + row * S + keys[None, :], b_dz, (queries < L) & (keys < S)[None, :])
        b_dq = tl.dot(b_dz.to(b_k.dtype), b_k, b_dq, input_precision=PRECISION, out_dtype=b_dq.dtype)
    tl.store(dq + row * E + e, b_dq * FACTOR, in_q)


@triton.jit(do_not_specialize=RUN_TIME)
def _kept_kernel(y, seed, L, S, bound, keep, BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr):
    queries, keys = places(tl.program_id(0), BLOCK_L)[:, None], places(tl.program_id(1), BLOCK_S)[None, :]
    this_head = tl.program_id(2)
    b_y = dropout(accumulator(y, BLOCK_L, BLOCK_S), seed, queries, keys, this_head, bound, keep)
    at = (this_head.to(tl.int64) * L + queries) * S + keys
    tl.store(y + at, b_y, (queries < L) & (keys < S))


def _four(t: Tensor) -> Tensor:
    """[..., L, E] as [B, H, L, E]; without a copy up to 4 dimensions."""
    return t.flatten(0, -4) if t.dim() > 3 else t[(None,) * (4 - t.dim())]


def _of_mask(mask: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0, 0) if mask is None else mask.stride()


def _chances(seed: Tensor | None, p: float) -> tuple[int, ...]:
    """The kernels' arguments RUN_TIME."""
    return (0, 0) if seed is None else _run_time(p, (1 / (1 - p),))


def _factor(scale: float | None, E: int) -> float:
    return 1 / math.sqrt(E) if scale is None else scale


@op("attention")
def _forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, seed: Tensor | None, p: float, causal: bool,
    scale: float | None, as_query: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y [B, H, L, V], lying in memory as q if `as_query`, and lse [B, H, L]."""
    (B, H, L, E), (S, V) = q.shape, v.shape[-2:]
    y = torch.empty_like(q) if as_query else q.new_empty(B, H, L, V)
    lse = q.new_empty(B, H, L, dtype=compute_dtype(q))
    plan = tuning.attention(B * H, L, S, E, V, q.dtype, tuning.tf32(q), q.device)
    launch(
        _forward_kernel,
        plan.grid,
        *(y, lse, q, k, v, mask, seed, H, H // k.shape[1], L, S, E, V),
        *(*y.stride(), *q.stride(), *k.stride(), *v.stride(), *_of_mask(mask), *_chances(seed, p)),
        SCALE=_factor(scale, E) * math.log2(math.e),
        CAUSAL=causal,
        **plan.meta,
    )
    return y, lse


@op("attention_backward")
def _backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, seed: Tensor | None, y: Tensor, lse: Tensor,
    p: float, causal: bool, scale: float | None, mask_learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv, and the gradient of the mask [B, H, L, S] (empty unless it learns); all contiguous."""
    (B, H, L, E), (_, K, S, V) = q.shape, v.shape
    dtype = compute_dtype(q)
    delta = torch.empty_like(lse)
    plan = tuning.attention_delta(B * H, L, V, q.device)
    launch(_delta_kernel, plan.grid, delta, dy, y, H, L, V, *dy.stride(), *y.stride(), **plan.meta)

    by_keys = tuning.attention_keys(B * K, L, S, E, V, q.dtype, tuning.tf32(q), q.device)
    whole = by_keys.loops and not mask_learns
    dq = q.new_zeros(B, H, L, E, dtype=dtype) if whole else q.new_empty(B, H, L, E)
    dk, dv = k.new_empty(B, K, S, E), v.new_empty(B, K, S, V)
    dz = q.new_empty((B, H, L, S) if mask_learns else 0, dtype=q.dtype if mask is None else mask.dtype)
    given = (dy, q, k, v, mask, seed, lse, delta, H, H // K, L, S, E, V, *dy.stride(), *q.stride())
    given += (*k.stride(), *v.stride(), *_of_mask(mask), *_chances(seed, p))
    factor = _factor(scale, E)
    meta = {"SCALE": factor * math.log2(math.e), "FACTOR": factor, "CAUSAL": causal}
    launch(_keys_kernel, by_keys.grid, dk, dv, dq if whole else None, *given, **meta, **by_keys.meta)
    if not whole:
        plan = tuning.attention_queries(B * H, L, S, E, V, q.dtype, tuning.tf32(q), q.device)
        launch(_queries_kernel, plan.grid, dq, dz if mask_learns else None, *given, **meta, **plan.meta)
    return dq.to(q.dtype), dk, dv, dz


@op("attention_dropout")
def _kept(q: Tensor, k: Tensor, seed: Tensor, p: float) -> Tensor:
    """D [B, H, L, S]."""
    (B, H, L, _), S = q.shape, k.shape[-2]
    y = q.new_empty(B, H, L, S)
    plan = tuning.attention_dropout(B * H, L, S, q.device)
    launch(_kept_kernel, plan.grid, y, seed, L, S, *_chances(seed, p), **plan.meta)
    return y


def _in_torch(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, kept: Tensor | None, causal: bool, scale: float | None
) -> Tensor:
    """The formula in torch's operators, [B, H, L, E] each; `kept` is D. What gradients of gradients are taken of."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    z = q @ k.mT * _factor(scale, q.shape[-1])
    if causal:
        z = z.masked_fill(torch.ones_like(z, dtype=torch.bool).triu(1), -math.inf)
    if mask is not None:
        z = z.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else z + mask
    P = torch._safe_softmax(z, -1, dtype=q.dtype)
    return (P if kept is None else P * kept) @ v


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, seed: Tensor | None, p: float, causal: bool,
        scale: float | None, as_query: bool,
    ) -> Tensor:  # fmt: skip
        y, lse = _forward(q, k, v, mask, seed, p, causal, scale, as_query)
        ctx.save_for_backward(q, k, v, mask, seed, y, lse)
        ctx.p, ctx.causal, ctx.scale = p, causal, scale
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, seed, y, lse = ctx.saved_tensors
        if recompute.wanted():
            kept = None if seed is None else _kept(q, k, seed, ctx.p)

            def again(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
                return _in_torch(q, k, v, mask, kept, ctx.causal, ctx.scale)

            return *recompute.gradients(again, (q, k, v, mask), dy), *(None,) * 5
        learns = ctx.needs_input_grad[3]
        dq, dk, dv, dz = _backward(dy, q, k, v, mask, seed, y, lse, ctx.p, ctx.causal, ctx.scale, learns)
        return dq, dk, dv, dz if learns else None, *(None,) * 5


def _unfit(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float, causal: bool, gqa: bool
) -> str | None:  # fmt: skip
    """Why the kernels do not take these operands, or None."""
    if not q.dim() == k.dim() == v.dim() or q.dim() < 2:
        return "operands of several ranks"
    if not q.dtype == k.dtype == v.dtype or q.dtype not in route.HALF_TO_DOUBLE:
        return route.INVALID
    if 0 in (q.numel(), k.numel(), v.numel()):
        return "no elements"
    if q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2] or not 0 <= p <= 1:
        return route.INVALID
    if k.shape[:-2] != v.shape[:-2] or k.shape[:-3] != q.shape[:-3]:
        return "operands that are broadcast"
    if q.dim() > 2 and k.shape[-3] != q.shape[-3] and not (gqa and q.shape[-3] % k.shape[-3] == 0):
        return "heads that are broadcast"
    longest = tuning.longest_head(q.dtype, q.device)
    if max(q.shape[-1], v.shape[-1]) > longest:
        return f"heads of more than {longest} elements"
    if p == 1:
        return "nothing is drawn"
    if mask is None:
        return None
    if causal:
        return "a mask and is_causal"
    whole = (*q.shape[:-1], k.shape[-2])
    fits = 2 <= mask.dim() <= q.dim() and mask.dtype in (torch.bool, torch.float32, q.dtype)
    fits = fits and all(n in (1, m) for n, m in zip(reversed(mask.shape), reversed(whole), strict=False))
    return None if fits else route.INVALID


def _lowered(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """What autocast makes of them; a mask of booleans stays."""
    floats = mask is not None and mask.is_floating_point()
    cast: Any = autocast.lowered(NAME, query, key, value, mask if floats else None)
    return cast[0], cast[1], cast[2], cast[3] if floats else mask


def _fused_in_torch(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, p: float) -> bool:
    """Has torch a fused kernel for it? Its result then lies in memory as q does."""
    simple = q.dim() == 4 and p == 0 and q.shape[-1] == v.shape[-1] and (mask is None or not mask.requires_grad)
    return simple and q.stride(-1) == k.stride(-1) == v.stride(-1) == 1


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(scale query keyᵀ + attn_mask) value. Same contract as torch.nn.functional.scaled_dot_product_attention.

    Shapes: query [..., H, L, E], key [..., H, S, E], value [..., H, S, V]; the result [..., H, L, V]. attn_mask: any
    strides, broadcast to [..., H, L, S]; booleans are True where a query may see a key.
    """
    q, k, v, mask = _lowered(query, key, value, attn_mask)
    fused = _fused_in_torch(q, k, v, mask, dropout_p)
    reason = _unfit(q, k, v, mask, dropout_p, is_causal, enable_gqa)
    name = NAME if reason else tuning.attention_kind(q.shape[-2], v.shape[-2], q.shape[-1], v.shape[-1], fused)
    if route.to_torch(name, query, key, value, attn_mask, unless=reason, mixed=attn_mask is not None, dtypes=WITH_BOOL):
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if mask is not None:
        mask = _four(mask.expand(*q.shape[:-1], k.shape[-2]))
    seed = seed_for(q) if dropout_p > 0 else None
    y = apply(_Attention, _four(q), _four(k), _four(v), mask, seed, dropout_p, is_causal, scale, fused)
    return y if q.dim() == 4 else y.reshape(*q.shape[:-1], v.shape[-1])
