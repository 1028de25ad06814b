"""Kernels for groups of channels in channels_last memory, on CPUs: a sample is one program's work (see _planes.py).

x [N, S, columns], columns = FOLD rows of C channels. A program walks over its sample twice, the second time backwards:
what was read last lies in the L2 cache still, and the rest in the L3. Between the walks the columns of each group are
added, in memory that belongs to the program: tables of columns [2, N, columns] and of groups [2, N, C // K].
"""

import triton
import triton.language as tl

from trident.lang.lines import line_sum, per_line
from trident.lang.moments import line_moments
from trident.lang.tile import load, row_sum
from trident.ops._plane_rows import affine, dz_of, parameters, rstd_of


@triton.jit
def _columns(tile, C, FOLD: tl.constexpr, BLOCK_M: tl.constexpr):
    """A tile's columns [1, BLOCK_M], which exist, and the channel of each."""
    columns = (tile * BLOCK_M + tl.arange(0, BLOCK_M))[None, :]
    return columns, columns < C * FOLD, columns % C if FOLD > 1 else columns


@triton.jit
def _rows(chunk, S, BLOCK_N: tl.constexpr):
    """The rows of a chunk [BLOCK_N, 1], and which exist."""
    rows = (chunk * tl.full((1,), BLOCK_N, tl.int64) + tl.arange(0, BLOCK_N))[:, None]
    return rows, rows < S


@triton.jit
def _groups(C, K, FOLD: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_J: tl.constexpr):
    """Groups [BLOCK_G, 1], which exist; the K * FOLD columns of each [BLOCK_G, BLOCK_J], which exist; channels."""
    groups, j = tl.arange(0, BLOCK_G)[:, None], tl.arange(0, BLOCK_J)[None, :]
    channels, exist = groups * K + j % K, groups < C // K
    return groups, exist, j // K * C + channels, exist & (j < K * FOLD), channels


@triton.jit
def _statistics(
    mean, var, means, m2, S, C, K, FOLD: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_J: tl.constexpr
):  # fmt: skip
    """mean and var of each group from means and m2 of its columns, which have S elements."""
    groups, exist, columns, inside, _channels = _groups(C, K, FOLD, BLOCK_G, BLOCK_J)
    of_column = load(means + columns, inside)
    of_group = row_sum(of_column) / (K * FOLD)
    off = tl.where(inside, of_column - of_group, 0.0)
    tl.store(mean + groups, of_group, exist)
    tl.store(var + groups, row_sum(load(m2 + columns, inside) / S + off * off) / (K * FOLD), exist)


@triton.jit
def _mean_of_group(
    mean, sums, w, S, C, K, FOLD: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_J: tl.constexpr
):  # fmt: skip
    """What elements of each group come to on average, from sums over its columns, times w."""
    groups, exist, columns, inside, channels = _groups(C, K, FOLD, BLOCK_G, BLOCK_J)
    b_sums = load(sums + columns, inside)
    if w is not None:
        b_sums *= load(w + channels, inside)
    tl.store(mean + groups, row_sum(b_sums / S) / (K * FOLD), exist)


@triton.jit
def forward_kernel(
    y, mean, var, table, x, w, b, residual, S, C, K, FOLD: tl.constexpr, EPS: tl.constexpr, F: tl.constexpr,
    CACHE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    """table of columns: their means and m2."""
    sample, inner, chunks = tl.program_id(0).to(tl.int64), C * FOLD, tl.cdiv(S, BLOCK_N)
    first, means = sample * S * inner, table + sample * inner
    m2s, mean, var = means + tl.num_programs(0) * inner, mean + sample * (C // K), var + sample * (C // K)
    for tile in range(0, tl.cdiv(inner, BLOCK_M)):
        columns, exist, _channel = _columns(tile, C, FOLD, BLOCK_M)
        _n, b_mean, m2 = line_moments(x, first + columns, exist, 0, chunks, S, inner, 0, BLOCK_M, BLOCK_N)
        tl.store(means + columns, b_mean, exist)
        tl.store(m2s + columns, m2, exist)
    _statistics(mean, var, means, m2s, S, C, K, FOLD, BLOCK_G, BLOCK_J)
    for tile in range(0, tl.cdiv(inner, BLOCK_M)):
        columns, exist, channel = _columns(tile, C, FOLD, BLOCK_M)
        b_mean, b_rstd = load(mean + channel // K, exist), rstd_of(var, channel // K, exist, EPS)
        b_w, b_b = parameters(w, b, channel, exist)
        for back in range(0, chunks):
            rows, within = _rows(chunks - 1 - back, S, BLOCK_N)
            at, inside = first + columns + rows * inner, exist & within
            b_y = affine(load(x + at, inside) - b_mean, b_rstd * b_w, b_b, residual, at, inside)
            tl.store(y + at, b_y if F is None else F(b_y, 0.0, 0.0), inside, cache_modifier=CACHE)


@triton.jit
def backward_kernel(
    dx, dz, sums, means, dy, x, y, w, b, residual, mean, var, S, C, K,
    FOLD: tl.constexpr, EPS: tl.constexpr, GRAD: tl.constexpr, KEEP: tl.constexpr,
    CACHE: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_G: tl.constexpr, BLOCK_J: tl.constexpr,
):  # fmt: skip
    """sums: of columns, p and q; means: of groups, of dz * w * x_hat and dz * w.

    The second walk reads f'(z) dy from dz, if given, or with KEEP from dx, where the first has left it. Else again.
    """
    kept = dx if KEEP else dz
    sample, inner, chunks = tl.program_id(0).to(tl.int64), C * FOLD, tl.cdiv(S, BLOCK_N)
    first, G, samples = sample * S * inner, C // K, tl.num_programs(0)
    ps, mean_p, mean, var = sums + sample * inner, means + sample * G, mean + sample * G, var + sample * G
    qs, mean_q = ps + samples * inner, mean_p + samples * G
    for tile in range(0, tl.cdiv(inner, BLOCK_M)):
        columns, exist, channel = _columns(tile, C, FOLD, BLOCK_M)
        b_mean, b_rstd = load(mean + channel // K, exist), rstd_of(var, channel // K, exist, EPS)
        b_w, b_b = parameters(w, b, channel, exist)
        p, q = per_line(0.0, sums, 0, BLOCK_M), per_line(0.0, sums, 0, BLOCK_M)
        for chunk in range(0, chunks):
            rows, within = _rows(chunk, S, BLOCK_N)
            at, inside = first + columns + rows * inner, exist & within
            centered = tl.where(inside, load(x + at, inside) - b_mean, 0.0)
            b_dz = dz_of(dy, centered, y, b_rstd * b_w, b_b, residual, at, inside, GRAD)
            if kept is not None:
                tl.store(kept + at, b_dz, inside)
            p += line_sum(b_dz * centered, 0)
            q += line_sum(b_dz, 0)
        tl.store(ps + columns, p * b_rstd, exist)
        tl.store(qs + columns, q, exist)
    _mean_of_group(mean_p, ps, w, S, C, K, FOLD, BLOCK_G, BLOCK_J)
    _mean_of_group(mean_q, qs, w, S, C, K, FOLD, BLOCK_G, BLOCK_J)
    for tile in range(0, tl.cdiv(inner, BLOCK_M)):
        columns, exist, channel = _columns(tile, C, FOLD, BLOCK_M)
        b_mean, b_rstd = load(mean + channel // K, exist), rstd_of(var, channel // K, exist, EPS)
        b_w, b_b = parameters(w, b, channel, exist)
        p = load(mean_p + channel // K, exist) * b_rstd * b_rstd
        q, scale = load(mean_q + channel // K, exist) * b_rstd, b_rstd * b_w
        for back in range(0, chunks):
            rows, within = _rows(chunks - 1 - back, S, BLOCK_N)
            at, inside = first + columns + rows * inner, exist & within
            centered = load(x + at, inside) - b_mean
            if kept is not None:
                b_dz = load(kept + at, inside)
            else:
                b_dz = dz_of(dy, centered, y, scale, b_b, residual, at, inside, GRAD)
            tl.store(dx + at, b_dz * scale - (q + centered * p), inside, cache_modifier=CACHE)
