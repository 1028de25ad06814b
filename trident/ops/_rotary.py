"""Rotary position embedding (Su et al. 2021, arXiv:2104.09864): pairs of elements of a head turned by their position.

forward     (a, b) -> (a cos_a - b sin_a, b cos_b + a sin_b)
backward    (a, b) -> (a cos_a + b sin_b, b cos_b - a sin_a)       the transposed matrix: with sin_a = sin_b, by -angle

The first R elements of a head are turned, the others stay. The pair of i is (i, i + R / 2) as in Llama and GPT-NeoX, or
(2 i, 2 i + 1) as in GPT-J. A table of width R has a number for each element, one of width R / 2 for each pair. Where
positions are scaled (linear, NTK, YaRN, Llama 3) the tables are, and nothing here changes.

A program turns a block of positions of several heads, of q and then of k, and reads the tables once.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import load
from trident.runtime import recompute, route, tuning_llm
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op


@triton.jit
def _pairs(ptr, of_col, R, in_rows, INTERLEAVED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr):
    """a, b [BLOCK_M, BLOCK_R] of rows that start at ptr [BLOCK_M, 1]."""
    if INTERLEAVED:
        cols = tl.arange(0, 2 * BLOCK_R)[None, :]
        both = load(ptr + cols * of_col, in_rows & (cols < R))
        a, b = tl.split(tl.reshape(both, (BLOCK_M, BLOCK_R, 2)))
    else:
        cols = tl.arange(0, BLOCK_R)[None, :]
        inside = in_rows & (cols < R // 2)
        a, b = load(ptr + cols * of_col, inside), load(ptr + (cols + R // 2) * of_col, inside)
    return a, b


@triton.jit
def _table(ptr, of_col, R, in_rows, EACH, INTERLEAVED: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr):
    """The numbers of a and of b. EACH: one for each element, else one for the pair."""
    if EACH:
        of_a, of_b = _pairs(ptr, of_col, R, in_rows, INTERLEAVED, BLOCK_M, BLOCK_R)
    else:
        cols = tl.arange(0, BLOCK_R)[None, :]
        of_a = load(ptr + cols * of_col, in_rows & (cols < R // 2))
        of_b = of_a
    return of_a, of_b


@triton.jit
def _turn(
    y, x, y_e, x_e, cos_a, cos_b, sin_a, sin_b, R, E, in_rows, INTERLEAVED: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_REST: tl.constexpr,
):  # fmt: skip
    """y and x: starts of rows [BLOCK_M, 1]."""
    a, b = _pairs(x, x_e, R, in_rows, INTERLEAVED, BLOCK_M, BLOCK_R)
    y_a, y_b = a * cos_a - b * sin_a, b * cos_b + a * sin_b
    if INTERLEAVED:
        cols = tl.arange(0, 2 * BLOCK_R)[None, :]
        tl.store(y + cols * y_e, tl.interleave(y_a, y_b), in_rows & (cols < R))
    else:
        cols = tl.arange(0, BLOCK_R)[None, :]
        inside = in_rows & (cols < R // 2)
        tl.store(y + cols * y_e, y_a, inside)
        tl.store(y + (cols + R // 2) * y_e, y_b, inside)
    if BLOCK_REST > 0:
        rest = R + tl.arange(0, BLOCK_REST)[None, :]
        tl.store(y + rest * y_e, tl.load(x + rest * x_e, mask=in_rows & (rest < E)), in_rows & (rest < E))


@triton.jit
def _rotate_kernel(
    q_y, k_y, q, k, cos, sin, H, K, L, R, E, y_b, y_h, y_l, y_e, z_b, z_h, z_l, z_e, q_b, q_h, q_l, q_e,
    k_b, k_h, k_l, k_e, c_b, c_l, c_e, s_b, s_l, s_e, EACH: tl.constexpr, INTERLEAVED: tl.constexpr, BACK: tl.constexpr,
    HEADS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_REST: tl.constexpr,
):  # fmt: skip
    """BLOCK_M positions (axis 0) of HEADS of the H heads of q and K of k (axis 1) of a batch (axis 2). Strides: y of
    q_y, z of k_y. BACK: by the transposed matrix."""
    rows = (tl.program_id(0) * tl.full((1,), BLOCK_M, tl.int64) + tl.arange(0, BLOCK_M))[:, None]
    in_rows = rows < L
    batch = tl.program_id(2).to(tl.int64)
    cos_a, cos_b = _table(cos + batch * c_b + rows * c_l, c_e, R, in_rows, EACH, INTERLEAVED, BLOCK_M, BLOCK_R)
    sin_a, sin_b = _table(sin + batch * s_b + rows * s_l, s_e, R, in_rows, EACH, INTERLEAVED, BLOCK_M, BLOCK_R)
    if BACK:
        sin_a, sin_b = -sin_b, -sin_a
    first = tl.program_id(1) * HEADS
    last = tl.minimum(first + HEADS, H + K)
    for head in range(first, tl.minimum(last, H)):
        at = head * tl.full((), 1, tl.int64)
        _turn(
            q_y + batch * y_b + at * y_h + rows * y_l, q + batch * q_b + at * q_h + rows * q_l, y_e, q_e,
            cos_a, cos_b, sin_a, sin_b, R, E, in_rows, INTERLEAVED, BLOCK_M, BLOCK_R, BLOCK_REST,
        )  # fmt: skip
    if k is not None:
        for head in range(tl.maximum(first, H), last):
            at = (head - H) * tl.full((), 1, tl.int64)
            _turn(
                k_y + batch * z_b + at * z_h + rows * z_l, k + batch * k_b + at * k_h + rows * k_l, z_e, k_e,
                cos_a, cos_b, sin_a, sin_b, R, E, in_rows, INTERLEAVED, BLOCK_M, BLOCK_R, BLOCK_REST,
            )  # fmt: skip


def _strides(t: Tensor, sequence: int) -> tuple[int, ...]:
    """Of batch, heads, positions, elements of t [B, H, L, E], or [B, L, H, E] for sequence -3."""
    b, h, n, e = t.stride()
    return (b, h, n, e) if sequence == -2 else (b, n, h, e)


@op("rotary_embedding")
def _rotate(
    q: Tensor, k: Tensor | None, cos: Tensor, sin: Tensor, R: int, interleaved: bool, sequence: int, back: bool
) -> tuple[Tensor, Tensor]:
    """q and k [B, H, L, E], turned (empty for a k of None). cos and sin: [B or 1, L, R or R / 2]."""
    q_y, k_y = torch.empty_like(q), q.new_empty(0) if k is None else torch.empty_like(k)
    B, E, L, H = q.shape[0], q.shape[-1], q.shape[sequence], q.shape[-5 - sequence]
    K = 0 if k is None else k.shape[-5 - sequence]
    nothing = (0, 0, 0, 0)
    strides = (*_strides(q_y, sequence), *(nothing if k is None else _strides(k_y, sequence)))
    strides += (*_strides(q, sequence), *(nothing if k is None else _strides(k, sequence)))
    for t in (cos, sin):
        strides += (0 if t.shape[0] == 1 else t.stride(0), *t.stride()[1:])
    plan = tuning_llm.rotary(B, H + K, L, R, E, q.device)
    launch(
        _rotate_kernel, plan.grid, q_y, k_y, q, k, cos, sin, H, K, L, R, E, *strides, EACH=cos.shape[-1] == R,
        INTERLEAVED=interleaved, BACK=back, **plan.meta,
    )  # fmt: skip
    return q_y, k_y


class _Rotary(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor | None, cos: Tensor, sin: Tensor, R: int, interleaved: bool, sequence: int,
        back: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        ctx.save_for_backward(cos, sin)
        ctx.how, ctx.back, ctx.alone = (R, interleaved, sequence), back, k is None
        return _rotate(q, k, cos, sin, R, interleaved, sequence, back)

    @staticmethod
    def backward(ctx: Any, dq: Tensor, dk: Tensor) -> tuple[Tensor | None, ...]:
        """Linear in its input, so that gradients of gradients are the same function again."""
        given = (dq, None if ctx.alone else dk, *ctx.saved_tensors, *ctx.how, not ctx.back)
        dq, dk = apply(_Rotary, *given) if recompute.wanted() else _rotate(*given)
        return dq, None if ctx.alone else dk, *(None,) * 6


def _in_torch(x: Tensor, cos: Tensor, sin: Tensor, R: int, interleaved: bool, sequence: int) -> Tensor:
    """The formula in torch's operators; cos and sin [B or 1, L, R or R / 2]."""
    if cos.shape[-1] != R:
        cos, sin = (t.repeat_interleave(2, -1) if interleaved else torch.cat((t, t), -1) for t in (cos, sin))
    cos, sin = cos.unsqueeze(-5 - sequence), sin.unsqueeze(-5 - sequence)
    turned = x[..., :R]
    if interleaved:
        other = torch.stack((-turned[..., 1::2], turned[..., ::2]), -1).flatten(-2)
    else:
        other = torch.cat((-turned[..., R // 2 :], turned[..., : R // 2]), -1)
    y = (turned * cos + other * sin).to(x.dtype)
    return y if x.shape[-1] == R else torch.cat((y, x[..., R:]), -1)


def _checked(q: Tensor, k: Tensor | None, cos: Tensor, sin: Tensor, rotary: int | None, sequence: int) -> int:
    """R, or a ValueError that names what is wrong."""
    if sequence not in (-2, -3):
        raise ValueError(
            f"rotary_embedding: sequence_dim is {sequence}; expected -2 ([B, H, L, E]) or -3 ([B, L, H, E])"
        )
    if q.dim() not in (3, 4):
        raise ValueError(f"rotary_embedding: query is {list(q.shape)}; expected 3 or 4 dimensions")
    R = cos.shape[-1] if rotary is None else rotary
    if R % 2 or not 0 <= R <= q.shape[-1] or cos.shape[-1] not in (R, R // 2):
        raise ValueError(
            f"rotary_embedding: rotary_dim is {R} (None: the width of cos), cos {list(cos.shape)}; expected an even "
            f"number of at most {q.shape[-1]}, and a table as wide or half as wide"
        )
    L, B = q.shape[sequence], q.shape[0] if q.dim() == 4 else 1
    for name, t in (("cos", cos), ("sin", sin)):
        if (
            t.shape != cos.shape
            or t.dim() not in (2, 3)
            or t.shape[-2] != L
            or (t.dim() == 3 and t.shape[0] not in (1, B))
        ):
            raise ValueError(
                f"rotary_embedding: {name} is {list(t.shape)}; expected [{L}, D] or [{B} or 1, {L}, D], both alike"
            )
    if k is not None:
        heads = -5 - sequence
        if k.dim() != q.dim() or any(k.shape[i] != q.shape[i] for i in range(-q.dim(), 0) if i != heads):
            raise ValueError(
                f"rotary_embedding: key is {list(k.shape)}; expected query's {list(q.shape)} apart from dim {heads}"
            )
    return R


def rotary_embedding(
    query: Tensor,
    key: Tensor | None,
    cos: Tensor,
    sin: Tensor,
    *,
    interleaved: bool = False,
    rotary_dim: int | None = None,
    sequence_dim: int = -2,
) -> tuple[Tensor, Tensor | None]:
    """query and key turned by the angles of their positions: x cos + rotate(x) sin, both in one launch.

    Shapes: query [B, H, L, E] and key [B, K, L, E], or for `sequence_dim=-3` [B, L, H, E] and [B, L, K, E]; B may be
    missing, and key None. cos and sin [L, D], [1, L, D] or [B, L, D] with D = rotary_dim, or rotary_dim / 2 for one
    angle a pair. rotary_dim: the first elements of a head that are turned, by default D; the others stay.
    interleaved: pairs are neighbours (GPT-J, GPT-NeoX's and Llama's are half of rotary_dim apart).
    Dtypes: float16, bfloat16, float32, float64, the tables of any of these; the results as query and key; float32
    inside (float64 for float64).
    ValueError: other shapes.
    """
    R = _checked(query, key, cos, sin, rotary_dim, sequence_dim)
    cos, sin = (t if t.dim() == 3 else t.unsqueeze(0) for t in (cos, sin))
    q, k = (t if t is None or t.dim() == 4 else t.unsqueeze(0) for t in (query, key))
    assert q is not None  # for mypy
    reason = None
    if torch.is_grad_enabled() and (cos.requires_grad or sin.requires_grad):
        reason = "the gradient of the tables"
    elif R == 0 or (k is not None and k.numel() == 0):
        reason = "no elements"
    elif k is not None and k.dtype != q.dtype:
        reason = "operands of several dtypes"
    work = q.numel() + (0 if k is None else k.numel())
    if route.to_torch("rotary_embedding", q, k, cos, sin, unless=reason, mixed=True, work=work):
        y, z = (None if t is None else _in_torch(t, cos, sin, R, interleaved, sequence_dim) for t in (q, k))
    else:
        y, z = apply(_Rotary, q, k, cos, sin, R, interleaved, sequence_dim, False)
    if query.dim() == 3:
        y, z = (t if t is None or t.dim() == 1 else t.squeeze(0) for t in (y, z))
    assert y is not None  # for mypy
    return y, None if k is None else z
