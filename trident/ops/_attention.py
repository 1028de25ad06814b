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

One program of `keys_kernel` sums dk and dv of a block of keys over all queries. dq is summed over the keys by
`queries_kernel`; where one program can walk over whole heads (CPUs) `keys_kernel` adds to dq as well, and the logits
are computed once instead of twice. Nothing is added atomically. Few queries of many keys are walked over in parts,
which `join_kernel` joins. The kernels are in ops/_attention_kernels.py; ops/_flash_attention.py asks more of them:

with a cap  z  = c tanh(s x / c) + mask,   and dz is multiplied by 1 - tanh² on its way to dk and dq
ALiBi       z  = s x - slope |key - place of the query|
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trident.ops._attention_kernels import (
    delta_kernel,
    forward_kernel,
    join_kernel,
    kept_kernel,
    keys_kernel,
    queries_kernel,
)
from trident.ops._dropout import _run_time, seed_for
from trident.runtime import autocast, recompute, route, tuning_llm, tuning_products
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype

NAME = "scaled_dot_product_attention"
WITH_BOOL = route.HALF_TO_DOUBLE | {torch.bool}


class How(NamedTuple):
    """p: of dropout. left, right: how many keys before and after its place a query sees, -1: all. from_end: the last
    query has the place of the last key, else the first of the first. cap: of the logits, 0: none."""

    p: float = 0.0
    left: int = -1
    right: int = -1
    from_end: bool = False
    cap: float = 0.0
    scale: float | None = None


class Also(NamedTuple):
    """slopes: ALiBi's, [B or 1, H]. cu_q, cu_k [N + 1]: sequences one after another in L and S. used: how many of the
    keys there are, [N] or [B]."""

    slopes: Tensor | None = None
    cu_q: Tensor | None = None
    cu_k: Tensor | None = None
    used: Tensor | None = None


ALONE = Also()


def _four(t: Tensor) -> Tensor:
    """[..., L, E] as [B, H, L, E]; without a copy up to 4 dimensions."""
    return t.flatten(0, -4) if t.dim() > 3 else t[(None,) * (4 - t.dim())]


def _of_mask(mask: Tensor | None) -> tuple[int, ...]:
    return (0, 0, 0, 0) if mask is None else mask.stride()


def _chances(seed: Tensor | None, p: float) -> tuple[int, ...]:
    """The kernels' arguments bound and keep."""
    return (0, 0) if seed is None else _run_time(p, (1 / (1 - p),))


def _factor(scale: float | None, E: int) -> float:
    return 1 / math.sqrt(E or 1) if scale is None else scale


def _sequences(cu: Tensor | None) -> int:
    return 0 if cu is None else cu.shape[0] - 1


def _last_arguments(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, seed: Tensor | None, slopes: Tensor | None, p: float,
    left: int, right: int,
) -> tuple[int, ...]:  # fmt: skip
    """Those that all kernels have after the strides of what they read or write themselves."""
    of_slopes = (0, 0) if slopes is None else (0 if slopes.shape[0] == 1 else slopes.stride(0), slopes.stride(1))
    strides = (*q.stride(), *k.stride(), *v.stride(), *_of_mask(mask), *of_slopes)
    return (*strides, left, right, *_chances(seed, p))


def _constants(
    E: int, sequences: int, left: int, right: int, from_end: bool, cap: float, scale: float | None
) -> dict[str, Any]:
    factor, of_2 = _factor(scale, E), math.log2(math.e)
    scales = {"SCALE": factor / cap, "CAP": cap * of_2} if cap else {"SCALE": factor * of_2, "CAP": 0.0}
    sight = {"CAUSAL": right >= 0, "WINDOW": left >= 0, "FROM_END": from_end}
    return {**scales, **sight, "STEPS": int(sequences).bit_length()}


@op("attention")
def _forward(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, seed: Tensor | None, slopes: Tensor | None,
    cu_q: Tensor | None, cu_k: Tensor | None, used: Tensor | None, p: float, left: int, right: int, from_end: bool,
    cap: float, scale: float | None, as_query: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y [B, H, L, V], lying in memory as q if `as_query`, and lse [B, H, L]."""
    (B, H, L, E), (S, V) = q.shape, v.shape[-2:]
    y = torch.empty_like(q) if as_query else q.new_empty(B, H, L, V)
    if cu_q is not None:
        y.zero_()  # what no sequence holds
    lse = q.new_empty(B, H, L, dtype=compute_dtype(q))
    N = _sequences(cu_q)
    plan = tuning_llm.attention(B * H, L, S, E, V, N, q.dtype, tuning_products.tf32(q), q.device)
    parts = plan.meta.get("PARTS", 1)
    part, of_part = (y, lse), 0
    if parts > 1:
        part = lse.new_empty(parts, B, H, L, V), lse.new_empty(parts, B, H, L)
        of_part = part[0].stride(0)
    launch(
        forward_kernel,
        plan.grid,
        *(*part, q, k, v, mask, seed, slopes, cu_q, cu_k, used, N, H, H // k.shape[1], L, S, E, V),
        *(of_part, *part[0].stride()[-4:], *_last_arguments(q, k, v, mask, seed, slopes, p, left, right)),
        **_constants(E, N, left, right, from_end, cap, scale),
        **plan.meta | ({"EVEN_S": False} if cu_q is not None or used is not None else {}),
    )
    if parts > 1:
        plan = tuning_llm.attention_delta(B * H, L, V, q.device)
        launch(join_kernel, plan.grid, y, lse, *part, H, L, V, *y.stride(), PARTS=parts, **plan.meta)
    return y, lse


@op("attention_backward")
def _backward(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, seed: Tensor | None, slopes: Tensor | None,
    cu_q: Tensor | None, cu_k: Tensor | None, used: Tensor | None, y: Tensor, lse: Tensor, p: float, left: int,
    right: int, from_end: bool, cap: float, scale: float | None, mask_learns: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """dq, dk, dv, and the gradient of the mask [B, H, L, S] (empty unless it learns); all contiguous."""
    (B, H, L, E), (_, K, S, V) = q.shape, v.shape
    dtype = compute_dtype(q)
    delta = torch.empty_like(lse)
    plan = tuning_llm.attention_delta(B * H, L, V, q.device)
    launch(delta_kernel, plan.grid, delta, dy, y, H, L, V, *dy.stride(), *y.stride(), **plan.meta)

    N = _sequences(cu_q)
    by_keys = tuning_llm.attention_keys(B * K, L, S, E, V, N, q.dtype, tuning_products.tf32(q), q.device)
    whole = by_keys.loops and not mask_learns
    new = q.new_empty if cu_q is None else q.new_zeros  # zeros: of what no sequence holds
    dq = q.new_zeros(B, H, L, E, dtype=dtype) if whole else new(B, H, L, E)
    dk, dv = new(B, K, S, E, dtype=k.dtype), new(B, K, S, V, dtype=v.dtype)
    partial = left >= 0 or right >= 0 or used is not None  # zeros: tiles out of sight
    dz = (q.new_zeros if partial else q.new_empty)(
        (B, H, L, S) if mask_learns else 0, dtype=q.dtype if mask is None else mask.dtype
    )
    given: tuple[Any, ...] = (dy, q, k, v, mask, seed, slopes, cu_q, cu_k, used, lse, delta, N, H, H // K, L, S, E, V)
    given += (*dy.stride(), *_last_arguments(q, k, v, mask, seed, slopes, p, left, right))
    meta = _constants(E, N, left, right, from_end, cap, scale) | {"FACTOR": _factor(scale, E)}
    launch(keys_kernel, by_keys.grid, dk, dv, dq if whole else None, *given, **meta, **by_keys.meta)
    if not whole:
        plan = tuning_llm.attention_queries(B * H, L, S, E, V, N, q.dtype, tuning_products.tf32(q), q.device)
        launch(queries_kernel, plan.grid, dq, dz if mask_learns else None, *given, **meta, **plan.meta)
    return dq.to(q.dtype), dk, dv, dz


@op("attention_dropout")
def _kept(q: Tensor, k: Tensor, seed: Tensor, p: float) -> Tensor:
    """D [B, H, L, S]."""
    (B, H, L, _), S = q.shape, k.shape[-2]
    y = q.new_empty(B, H, L, S)
    plan = tuning_llm.attention_dropout(B * H, L, S, q.device)
    launch(kept_kernel, plan.grid, y, seed, L, S, *_chances(seed, p), **plan.meta)
    return y


def _distances(q: Tensor, k: Tensor, how: How, also: Also) -> tuple[Tensor, Tensor]:
    """Key minus place of the query, and whether both are of one sequence, each to be broadcast to [B, H, L, S]."""
    queries, keys = (torch.arange(t.shape[-2], device=q.device) for t in (q, k))
    there, lengths = keys >= 0, torch.full((1, 1), q.shape[-2], device=q.device)
    counts = torch.full_like(lengths, k.shape[-2]) if also.used is None else also.used[:, None]
    if also.cu_q is not None and also.cu_k is not None:
        of_query, of_key = (
            torch.searchsorted(cu, at.to(cu.dtype), right=True) - 1
            for cu, at in ((also.cu_q, queries), (also.cu_k, keys))
        )
        N = _sequences(also.cu_q)
        there = (of_query[:, None] == of_key) & (of_key < N)
        lengths, counts = also.cu_q.diff(), also.cu_k.diff() if also.used is None else also.used
        lengths, counts = (torch.cat((t, t.new_zeros(1)))[of_query][None] for t in (lengths, counts))
        queries, keys = queries - also.cu_q[of_query], keys - also.cu_k[of_key]
    there = there & (keys < counts[..., None])
    places = queries + (counts - lengths if how.from_end else 0)
    distances = keys - places[..., None]
    return (t[:, None] if t.dim() == 3 else t for t in (distances, there))  # type: ignore[return-value]


def _in_torch(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, kept: Tensor | None, how: How, also: Also = ALONE
) -> Tensor:
    """The formula in torch's operators, [B, H, L, E] each; `kept` is D. What gradients of gradients are taken of."""
    k, v = (t.repeat_interleave(q.shape[1] // (t.shape[1] or 1), 1) for t in (k, v))
    z = q @ k.mT * _factor(how.scale, q.shape[-1])
    if how.cap:
        z = how.cap * torch.tanh(z / how.cap)
    distances, there = _distances(q, k, how, also)
    if also.slopes is not None:
        z = (z - distances.abs() * also.slopes[..., None, None]).to(q.dtype)
    if how.right >= 0:
        there = there & (distances <= how.right)
    if how.left >= 0:
        there = there & (distances >= -how.left)
    z = z.masked_fill(~there, -math.inf)
    if mask is not None:
        z = z.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else z + mask
    P = torch._safe_softmax(z, -1, dtype=q.dtype)
    return (P if kept is None else P * kept) @ v


class Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, seed: Tensor | None, how: How, also: Also,
        as_query: bool,
    ) -> Tensor:  # fmt: skip
        given = (q, k, v, mask, seed, *also, *how, as_query)
        y, lse = _forward(*given)
        ctx.save_for_backward(q, k, v, mask, seed, y, lse, *also)
        ctx.how = how
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, mask, seed, y, lse, *rest = ctx.saved_tensors
        how, also = ctx.how, Also(*rest)
        if recompute.wanted():
            kept = None if seed is None else _kept(q, k, seed, how.p)
            found = recompute.gradients(
                lambda q, k, v, mask: _in_torch(q, k, v, mask, kept, how, also), (q, k, v, mask), dy
            )
            return *found, *(None,) * 4
        learns = ctx.needs_input_grad[3]
        given = (dy, q, k, v, mask, seed, *also, y, lse, *how, learns)
        dq, dk, dv, dz = _backward(*given)
        return dq, dk, dv, dz if learns else None, *(None,) * 4


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
    longest = tuning_llm.longest_head(q.dtype, q.device)
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
    if reason is not None:
        name = NAME
    elif mask is not None and mask.requires_grad and torch.is_grad_enabled():
        name = f"{NAME} (mask learns)"
    else:
        name = tuning_llm.attention_kind(q.shape[-2], v.shape[-2], q.shape[-1], v.shape[-1], fused, is_causal)
    if route.to_torch(name, query, key, value, attn_mask, unless=reason, mixed=attn_mask is not None, dtypes=WITH_BOOL):
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
    if mask is not None:
        mask = _four(mask.expand(*q.shape[:-1], k.shape[-2]))
    seed = seed_for(q) if dropout_p > 0 else None
    how = How(dropout_p, right=0 if is_causal else -1, scale=scale)
    y = apply(Attention, _four(q), _four(k), _four(v), mask, seed, how, ALONE, fused)
    return y if q.dim() == 4 else y.reshape(*q.shape[:-1], v.shape[-1])
