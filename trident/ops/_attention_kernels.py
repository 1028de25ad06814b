"""The kernels of attention; ops/_attention.py has the formulas.

What they take beside q, k and v; a pointer may be None:

mask                  what is added to the logits, or booleans
slopes                ALiBi's, one a head: -slope |key - place of the query| is added to the logits
cu_q, cu_k, N         sequences that lie one after another, [N + 1] offsets of each; L and S are then of all of them
used                  how many keys there are, one a batch or sequence; the others are memory to come
CAUSAL, right         keys up to `right` after the place of the query are seen, else all
WINDOW, left          keys from `left` before it on are seen, else all
FROM_END              the last query has the place of the last key; else the first one that of the first
CAP                   logits are CAP tanh(logits / CAP), before anything is added; 0: as they are
seed, bound, keep     dropout
"""

import triton
import triton.language as tl

from trident.lang.attention import capped, dropout, head, key_blocks, logits, places, query_blocks, sequence, slope_of
from trident.lang.lines import finite
from trident.lang.tile import accumulator, load, matrix, nearest, row_sum

RUN_TIME = ("bound", "keep", "H", "GROUP", "L", "N", "left", "right")


@triton.jit
def _accumulated(
    b_y, top, total, b_q, k, v, mask, slope, seed, queries, block, this_head, E, V, L, S, from_q, from_k, shift,
    k_s, k_e, v_s, v_e, m_l, m_s, left, right, bound, keep, SCALE: tl.constexpr, CAP: tl.constexpr,
    CAUSAL: tl.constexpr, WINDOW: tl.constexpr, EDGE: tl.constexpr, PRECISION: tl.constexpr,
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
    z = logits(
        capped(x, SCALE, CAP), mask, slope, queries, keys[None, :], m_l, m_s, L, S, shift, left, right, CAUSAL, WINDOW,
        EDGE,
    )  # fmt: skip
    higher = tl.maximum(top, tl.max(z, axis=1, keep_dims=True))
    base = finite(higher)
    shrink, b_p = tl.exp2(top - base), tl.exp2(z - base)
    total = total * shrink + row_sum(b_p)
    if seed is not None:
        b_p *= dropout(b_p, seed, queries + from_q, keys[None, :] + from_k, this_head, bound, keep)
    b_v = matrix(v + keys[:, None].to(tl.int64) * v_s + d * v_e, in_v)
    b_y = tl.dot(b_p.to(b_v.dtype), b_v, b_y * shrink, input_precision=PRECISION, out_dtype=b_y.dtype)
    return b_y, higher, total


@triton.jit(do_not_specialize=RUN_TIME)
def forward_kernel(
    y, lse, q, k, v, mask, seed, slopes, cu_q, cu_k, used, N, H, GROUP, L, S, E, V, y_p, y_b, y_h, y_l, y_e,
    q_b, q_h, q_l, q_e, k_b, k_h, k_s, k_e, v_b, v_h, v_s, v_e, m_b, m_h, m_l, m_s, a_b, a_h, left, right, bound, keep,
    SCALE: tl.constexpr, CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr, FROM_END: tl.constexpr,
    STEPS: tl.constexpr, EVEN_S: tl.constexpr, PARTS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """A program: BLOCK_L queries (axis 0) of one head (axis 1). GROUP heads of q share one of k and v.

    PARTS: the keys are walked over in so many parts (axis 2), each with results of its own: y_p apart, and lse.
    """
    block, this_head = tl.program_id(0), tl.program_id(1)
    b, h = this_head // H, this_head % H
    q, y = head(q, b, h, q_b, q_h), head(y, b, h, y_b, y_h)
    k, v = head(k, b, h // GROUP, k_b, k_h), head(v, b, h // GROUP, v_b, v_h)
    if mask is not None:
        mask = head(mask, b, h, m_b, m_h)
    lse += this_head.to(tl.int64) * L
    if PARTS > 1:
        y += tl.program_id(2).to(tl.int64) * y_p
        lse += tl.program_id(2).to(tl.int64) * tl.num_programs(1) * L
    n, from_q, from_k = b, 0, 0
    if cu_q is not None:
        n, block = sequence(cu_q, N, block, BLOCK_L, STEPS)
        from_q, from_k = tl.load(cu_q + n).to(tl.int32), tl.load(cu_k + n).to(tl.int32)
        L, S = tl.load(cu_q + n + 1).to(tl.int32) - from_q, tl.load(cu_k + n + 1).to(tl.int32) - from_k
        q, y, lse = q + from_q.to(tl.int64) * q_l, y + from_q.to(tl.int64) * y_l, lse + from_q
        k, v = k + from_k.to(tl.int64) * k_s, v + from_k.to(tl.int64) * v_s
    if used is not None:
        S = tl.load(used + n).to(tl.int32)
    shift = S - L if FROM_END else 0
    slope = slope_of(slopes, b, h, a_b, a_h)
    first = block * BLOCK_L
    queries = places(block, BLOCK_L)[:, None]
    e, d = tl.arange(0, BLOCK_E)[None, :], tl.arange(0, BLOCK_V)[None, :]
    b_q = matrix(q + queries.to(tl.int64) * q_l + e * q_e, (queries < L) & (e < E))

    b_y = accumulator(q, BLOCK_L, BLOCK_V)
    total = accumulator(q, BLOCK_L, 1)
    top = total - float("inf")
    begin, whole, end = key_blocks(first, S, shift, left, right, CAUSAL, WINDOW, BLOCK_L, BLOCK_S)
    if cu_q is not None:  # a block too many
        whole, end = tl.where(first < L, whole, begin), tl.where(first < L, end, begin)
    if PARTS > 1:
        each = tl.cdiv(end - begin, PARTS)
        begin += tl.program_id(2) * each
        end = tl.minimum(begin + each, end)
        whole = tl.maximum(tl.minimum(whole, end), begin)
    if not WINDOW:  # where the first keys may be out of sight, too, all tiles are edges
        for block in range(begin, whole):
            b_y, top, total = _accumulated(
                b_y, top, total, b_q, k, v, mask, slope, seed, queries, block, this_head, E, V, L, S, from_q, from_k,
                shift, k_s, k_e, v_s, v_e, m_l, m_s, left, right, bound, keep, SCALE, CAP, CAUSAL, WINDOW, False,
                PRECISION, BLOCK_S, BLOCK_E, BLOCK_V,
            )  # fmt: skip
    if CAUSAL or WINDOW or not EVEN_S:
        for block in range(whole, end):
            b_y, top, total = _accumulated(
                b_y, top, total, b_q, k, v, mask, slope, seed, queries, block, this_head, E, V, L, S, from_q, from_k,
                shift, k_s, k_e, v_s, v_e, m_l, m_s, left, right, bound, keep, SCALE, CAP, CAUSAL, WINDOW, True,
                PRECISION, BLOCK_S, BLOCK_E, BLOCK_V,
            )  # fmt: skip

    nothing = total == 0
    b_y = nearest(b_y / tl.where(nothing, 1.0, total), y)  # the backward's δ is a sum over y as it is stored
    tl.store(y + queries.to(tl.int64) * y_l + d * y_e, b_y, (queries < L) & (d < V))
    # +inf: exp2(z - lse) is 0 where nothing is seen
    b_lse = tl.where(nothing, float("inf"), top + tl.log2(total))
    tl.store(lse + queries, b_lse, queries < L)


@triton.jit
def _part(lse, part, M, rows, in_rows):
    """log sum exp of a part; -inf where it saw nothing."""
    b_lse = tl.load(lse + part * M.to(tl.int64) + rows, mask=in_rows, other=float("inf"))
    return tl.where(b_lse == float("inf"), -float("inf"), b_lse)


@triton.jit(do_not_specialize=("H", "L"))
def join_kernel(
    y, lse, parts, lses, H, L, V, y_b, y_h, y_l, y_e, PARTS: tl.constexpr, BLOCK_L: tl.constexpr, BLOCK_V: tl.constexpr
):  # fmt: skip
    """y and lse from results over parts of the keys, `parts` [PARTS, B, H, L, V] and lses [PARTS, B, H, L]."""
    this_head = tl.program_id(1)
    M = tl.num_programs(1) * L
    queries, d = places(tl.program_id(0), BLOCK_L)[:, None], tl.arange(0, BLOCK_V)[None, :]
    rows, in_rows = this_head.to(tl.int64) * L + queries, queries < L
    inside = in_rows & (d < V)
    top = _part(lses, 0, M, rows, in_rows)
    for part in range(1, PARTS):
        top = tl.maximum(top, _part(lses, part, M, rows, in_rows))
    base = finite(top)
    b_y, total = accumulator(parts, BLOCK_L, BLOCK_V), accumulator(parts, BLOCK_L, 1)
    for part in range(PARTS):
        share = tl.exp2(_part(lses, part, M, rows, in_rows) - base)
        total += share
        b_y += share * load(parts + (part * M.to(tl.int64) + rows) * V + d, inside)
    nothing = total == 0
    b_y = nearest(b_y / tl.where(nothing, 1.0, total), y)
    tl.store(head(y, this_head // H, this_head % H, y_b, y_h) + queries.to(tl.int64) * y_l + d * y_e, b_y, inside)
    tl.store(lse + rows, tl.where(nothing, float("inf"), base + tl.log2(total)), in_rows)


@triton.jit
def delta_kernel(
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
    x, b_dp, mask, slope, seed, queries, keys, b_lse, b_delta, this_head, L, S, from_q, from_k, shift, m_l, m_s,
    left, right, bound, keep, SCALE: tl.constexpr, CAP: tl.constexpr, CAUSAL: tl.constexpr, WINDOW: tl.constexpr,
):  # fmt: skip
    """P D, dz and the gradient of scale x, of a tile, from x = q kᵀ and dy vᵀ."""
    z = capped(x, SCALE, CAP)
    b_z = logits(z, mask, slope, queries, keys, m_l, m_s, L, S, shift, left, right, CAUSAL, WINDOW, True)
    b_p = tl.exp2(b_z - b_lse)
    b_pd = b_p
    if seed is not None:
        b_d = dropout(b_p, seed, queries + from_q, keys + from_k, this_head, bound, keep)
        b_pd, b_dp = b_p * b_d, b_dp * b_d
    b_dz = b_p * (b_dp - b_delta)
    b_dx = b_dz
    if CAP > 0:
        t = z / CAP
        b_dx = b_dz * (1 - t * t)
    return b_pd, b_dz, b_dx


@triton.jit(do_not_specialize=RUN_TIME)
def keys_kernel(
    dk, dv, dq, dy, q, k, v, mask, seed, slopes, cu_q, cu_k, used, lse, delta, N, H, GROUP, L, S, E, V,
    dy_b, dy_h, dy_l, dy_e, q_b, q_h, q_l, q_e, k_b, k_h, k_s, k_e, v_b, v_h, v_s, v_e, m_b, m_h, m_l, m_s, a_b, a_h,
    left, right, bound, keep, SCALE: tl.constexpr, CAP: tl.constexpr, FACTOR: tl.constexpr, CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr, FROM_END: tl.constexpr, STEPS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """dk and dv [B, H / GROUP, S, ...]; blocks of keys by axis 0, heads of k and v by axis 1; tiles [keys, queries].

    dq: None, or zeros [B, H, L, E]: then axis 0 must have one program, or one a sequence.
    """
    key_head = tl.program_id(1)
    key_heads = H // GROUP
    b, key_h = key_head // key_heads, key_head % key_heads
    k, v = head(k, b, key_h, k_b, k_h), head(v, b, key_h, v_b, v_h)
    e, d = tl.arange(0, BLOCK_E), tl.arange(0, BLOCK_V)
    all_L, all_S, n, from_q, from_k = L, S, b, 0, 0
    first, last, every = tl.program_id(0), tl.cdiv(S, BLOCK_S), tl.num_programs(0)
    if cu_q is not None:
        if dq is None:
            n, first = sequence(cu_k, N, first, BLOCK_S, STEPS)
        else:
            n, first = first, first * 0
        from_q, from_k = tl.load(cu_q + n).to(tl.int32), tl.load(cu_k + n).to(tl.int32)
        L, S = tl.load(cu_q + n + 1).to(tl.int32) - from_q, tl.load(cu_k + n + 1).to(tl.int32) - from_k
        last, every = tl.cdiv(S, BLOCK_S), 1
        if dq is None:
            last = tl.minimum(last, first + 1)
        k, v = k + from_k.to(tl.int64) * k_s, v + from_k.to(tl.int64) * v_s
    room = S
    if used is not None:
        S = tl.load(used + n).to(tl.int32)
    shift = S - L if FROM_END else 0
    for block in range(first, last, every):
        keys = places(block, BLOCK_S)[:, None]
        in_k, in_v = (keys < S) & (e[None, :] < E), (keys < S) & (d[None, :] < V)
        b_k = matrix(k + keys.to(tl.int64) * k_s + e[None, :] * k_e, in_k)
        b_v = matrix(v + keys.to(tl.int64) * v_s + d[None, :] * v_e, in_v)
        b_dk, b_dv = accumulator(k, BLOCK_S, BLOCK_E), accumulator(k, BLOCK_S, BLOCK_V)
        begin, steps = query_blocks(block * BLOCK_S, L, shift, left, right, CAUSAL, WINDOW, BLOCK_L, BLOCK_S)
        for step in range(0, GROUP * steps):
            h = key_h * GROUP + step // steps
            this_head = b * H + h
            queries = places(begin + step % steps, BLOCK_L)
            rows, in_rows = queries.to(tl.int64) + from_q, queries < L
            mask_of_head = mask
            if mask is not None:
                mask_of_head = head(mask, b, h, m_b, m_h)
            at_q = head(q, b, h, q_b, q_h) + rows[:, None] * q_l + e[None, :] * q_e
            at_dy = head(dy, b, h, dy_b, dy_h) + rows[:, None] * dy_l + d[None, :] * dy_e
            b_q = matrix(at_q, in_rows[:, None] & (e[None, :] < E))
            b_dy = matrix(at_dy, in_rows[:, None] & (d[None, :] < V))
            line = this_head.to(tl.int64) * all_L + rows
            b_lse = tl.load(lse + line, mask=in_rows, other=float("inf"))[None, :]
            b_delta = tl.load(delta + line, mask=in_rows, other=0.0)[None, :]

            x = tl.dot(b_k, tl.trans(b_q), input_precision=PRECISION, out_dtype=b_dk.dtype)
            b_dp = tl.dot(b_v, tl.trans(b_dy), input_precision=PRECISION, out_dtype=b_dk.dtype)
            b_pd, _b_dz, b_dx = _tile_gradients(
                x, b_dp, mask_of_head, slope_of(slopes, b, h, a_b, a_h), seed, queries[None, :], keys, b_lse, b_delta,
                this_head, L, S, from_q, from_k, shift, m_l, m_s, left, right, bound, keep, SCALE, CAP, CAUSAL, WINDOW,
            )  # fmt: skip
            b_dv = tl.dot(b_pd.to(b_dy.dtype), b_dy, b_dv, input_precision=PRECISION, out_dtype=b_dv.dtype)
            b_dx = b_dx.to(b_q.dtype)
            b_dk = tl.dot(b_dx, b_q, b_dk, input_precision=PRECISION, out_dtype=b_dk.dtype)
            if dq is not None:
                at_dq = dq + (this_head.to(tl.int64) * all_L + rows[:, None]) * E + e[None, :]
                in_q = in_rows[:, None] & (e[None, :] < E)
                b_dq = tl.dot(tl.trans(b_dx), b_k, input_precision=PRECISION, out_dtype=b_dk.dtype)
                tl.store(at_dq, tl.load(at_dq, mask=in_q, other=0.0) + b_dq * FACTOR, in_q)
        row, there = key_head.to(tl.int64) * all_S + from_k + keys, keys < room
        tl.store(dk + row * E + e[None, :], b_dk * FACTOR, there & (e[None, :] < E))
        tl.store(dv + row * V + d[None, :], b_dv, there & (d[None, :] < V))


@triton.jit(do_not_specialize=RUN_TIME)
def queries_kernel(
    dq, dz, dy, q, k, v, mask, seed, slopes, cu_q, cu_k, used, lse, delta, N, H, GROUP, L, S, E, V,
    dy_b, dy_h, dy_l, dy_e, q_b, q_h, q_l, q_e, k_b, k_h, k_s, k_e, v_b, v_h, v_s, v_e, m_b, m_h, m_l, m_s, a_b, a_h,
    left, right, bound, keep, SCALE: tl.constexpr, CAP: tl.constexpr, FACTOR: tl.constexpr, CAUSAL: tl.constexpr,
    WINDOW: tl.constexpr, FROM_END: tl.constexpr, STEPS: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_V: tl.constexpr,
):  # fmt: skip
    """dq [B, H, L, E], and dz [B, H, L, S] (zeros where tiles are out of sight) if it is not None; programs as in
    `forward_kernel`."""
    block, this_head = tl.program_id(0), tl.program_id(1)
    b, h = this_head // H, this_head % H
    q, dy = head(q, b, h, q_b, q_h), head(dy, b, h, dy_b, dy_h)
    k, v = head(k, b, h // GROUP, k_b, k_h), head(v, b, h // GROUP, v_b, v_h)
    if mask is not None:
        mask = head(mask, b, h, m_b, m_h)
    all_L, all_S, n, from_q, from_k = L, S, b, 0, 0
    if cu_q is not None:
        n, block = sequence(cu_q, N, block, BLOCK_L, STEPS)
        from_q, from_k = tl.load(cu_q + n).to(tl.int32), tl.load(cu_k + n).to(tl.int32)
        L, S = tl.load(cu_q + n + 1).to(tl.int32) - from_q, tl.load(cu_k + n + 1).to(tl.int32) - from_k
        k, v = k + from_k.to(tl.int64) * k_s, v + from_k.to(tl.int64) * v_s
    if used is not None:
        S = tl.load(used + n).to(tl.int32)
    shift = S - L if FROM_END else 0
    slope = slope_of(slopes, b, h, a_b, a_h)
    queries = places(block, BLOCK_L)[:, None]
    rows, in_rows = queries.to(tl.int64) + from_q, queries < L
    line = this_head.to(tl.int64) * all_L + rows
    e, d = tl.arange(0, BLOCK_E)[None, :], tl.arange(0, BLOCK_V)[None, :]
    in_q = in_rows & (e < E)
    b_q = matrix(q + rows * q_l + e * q_e, in_q)
    b_dy = matrix(dy + rows * dy_l + d * dy_e, in_rows & (d < V))
    b_lse = tl.load(lse + line, mask=in_rows, other=float("inf"))
    b_delta = tl.load(delta + line, mask=in_rows, other=0.0)

    b_dq = accumulator(q, BLOCK_L, BLOCK_E)
    begin, _whole, end = key_blocks(block * BLOCK_L, S, shift, left, right, CAUSAL, WINDOW, BLOCK_L, BLOCK_S)
    if cu_q is not None:  # a block too many
        end = tl.where(block * BLOCK_L < L, end, begin)
    for step in range(begin, end):
        keys = places(step, BLOCK_S)
        in_s = (keys < S)[:, None]
        b_k = matrix(k + keys[:, None].to(tl.int64) * k_s + e * k_e, in_s & (e < E))
        b_v = matrix(v + keys[:, None].to(tl.int64) * v_s + d * v_e, in_s & (d < V))
        x = tl.dot(b_q, tl.trans(b_k), input_precision=PRECISION, out_dtype=b_dq.dtype)
        b_dp = tl.dot(b_dy, tl.trans(b_v), input_precision=PRECISION, out_dtype=b_dq.dtype)
        _b_pd, b_dz, b_dx = _tile_gradients(
            x, b_dp, mask, slope, seed, queries, keys[None, :], b_lse, b_delta, this_head, L, S, from_q, from_k, shift,
            m_l, m_s, left, right, bound, keep, SCALE, CAP, CAUSAL, WINDOW,
        )  # fmt: skip
        if dz is not None:
            tl.store(dz + line * all_S + keys[None, :], b_dz, in_rows & (keys < S)[None, :])
        b_dq = tl.dot(b_dx.to(b_k.dtype), b_k, b_dq, input_precision=PRECISION, out_dtype=b_dq.dtype)
    tl.store(dq + line * E + e, b_dq * FACTOR, in_q)


@triton.jit(do_not_specialize=RUN_TIME)
def kept_kernel(y, seed, L, S, bound, keep, BLOCK_L: tl.constexpr, BLOCK_S: tl.constexpr):
    queries, keys = places(tl.program_id(0), BLOCK_L)[:, None], places(tl.program_id(1), BLOCK_S)[None, :]
    this_head = tl.program_id(2)
    b_y = dropout(accumulator(y, BLOCK_L, BLOCK_S), seed, queries, keys, this_head, bound, keep)
    at = (this_head.to(tl.int64) * L + queries) * S + keys
    tl.store(y + at, b_y, (queries < L) & (keys < S))
