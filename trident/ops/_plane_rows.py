"""Kernels for statistics that are each one program's work (see _planes.py), and what all kernels on planes share.

`keep` kernels hold all planes of a statistic in a tile: x is read once. `walk` kernels walk over them twice, in tiles:
where they fit into a cache memory is read once still.
"""

import triton
import triton.language as tl

from trident.lang.lines import along, per_line
from trident.lang.moments import HEAD, merged, shifted_moments
from trident.lang.tile import load, multiple, row_sum


@triton.jit
def parameters(w, b, channel, exist):
    """w and b of each channel. Kernels load what is one for a plane before whole tiles: CPUs keep these then."""
    b_w = load(w + channel, exist) if w is not None else 1.0
    b_b = load(b + channel, exist) if b is not None else 0.0
    return b_w, b_b


@triton.jit
def affine(x_hat, b_w, b_b, residual, at, inside):
    """z"""
    z = x_hat * b_w + b_b
    if residual is not None:
        z += load(residual + at, inside)
    return z


@triton.jit
def dz_of(dy, x_hat, y, b_w, b_b, residual, at, inside, GRAD: tl.constexpr):
    """f'(z) dy, from y where it is given, else from z, which is taken again."""
    b_dy = load(dy + at, inside)
    if GRAD is not None:
        s = load(y + at, inside) if y is not None else affine(x_hat, b_w, b_b, residual, at, inside)
        b_dy = tl.where(inside, GRAD(b_dy, s, 0.0, 0.0), 0.0)
    return b_dy


@triton.jit
def rstd_of(var, at, exist, EPS: tl.constexpr):
    return 1 / tl.sqrt(load(var + at, exist, 1.0) + EPS)


@triton.jit
def _planes(row, jt, st, R, J, S, row_step, plane_step, BLOCK_J: tl.constexpr, BLOCK_S: tl.constexpr):
    """Tile (jt, st) of the planes of a statistic: their numbers and which exist [BLOCK_J, 1], and of their elements
    [BLOCK_J, BLOCK_S] the offsets and the mask."""
    j = jt * BLOCK_J + tl.arange(0, BLOCK_J)[:, None]
    s = along(st, 1, BLOCK_S)
    planes, exist = row * row_step + j * plane_step, (j < J) & (row < R)
    return planes, exist, planes * S + s, exist & (s < S)


@triton.jit
def keep_forward_kernel(
    y, mean, var, x, w, b, residual, R, J, S, C, row_step, plane_step,
    EPS: tl.constexpr, F: tl.constexpr, ALIGN: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    S = multiple(S, ALIGN)
    row = tl.program_id(0) + tl.zeros((1, 1), tl.int64)
    planes, exist, at, inside = _planes(row, 0, 0, R, J, S, row_step, plane_step, BLOCK_J, BLOCK_S)
    b_w, b_b = parameters(w, b, planes % C, exist)
    b_x = load(x + at, inside)
    b_mean = tl.sum(b_x) / (J * S)
    centered = tl.where(inside, b_x - b_mean, 0.0)
    b_var = tl.sum(centered * centered) / (J * S)
    b_y = affine(centered * (1 / tl.sqrt(b_var + EPS)), b_w, b_b, residual, at, inside)
    tl.store(y + at, b_y if F is None else F(b_y, 0.0, 0.0), inside)
    tl.store(mean + row, b_mean)
    tl.store(var + row, b_var)


@triton.jit
def keep_backward_kernel(
    dx, dz, sums, dy, x, y, w, b, residual, mean, var, R, J, S, C, P, row_step, plane_step,
    EPS: tl.constexpr, GRAD: tl.constexpr, ALIGN: tl.constexpr, BLOCK_J: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    S = multiple(S, ALIGN)
    row = tl.program_id(0) + tl.zeros((1, 1), tl.int64)
    planes, exist, at, inside = _planes(row, 0, 0, R, J, S, row_step, plane_step, BLOCK_J, BLOCK_S)
    b_mean, b_rstd = load(mean + row, row < R), rstd_of(var, row, row < R, EPS)
    b_w, b_b = parameters(w, b, planes % C, exist)
    x_hat = tl.where(inside, load(x + at, inside) - b_mean, 0.0) * b_rstd
    b_dz = dz_of(dy, x_hat, y, b_w, b_b, residual, at, inside, GRAD)
    p, q = row_sum(b_dz * x_hat), row_sum(b_dz)
    if sums is not None:
        tl.store(sums + planes, p, exist)
        tl.store(sums + P + planes, q, exist)
    if dz is not None:
        tl.store(dz + at, b_dz, inside)
    b_dx = b_dz * b_w - tl.sum(q * b_w) / (J * S) - x_hat * (tl.sum(p * b_w) / (J * S))
    tl.store(dx + at, b_rstd * b_dx, inside)


@triton.jit
def walk_forward_kernel(
    y, mean, var, x, w, b, residual, R, J, S, C, row_step, plane_step,
    EPS: tl.constexpr, F: tl.constexpr, ROWS: tl.constexpr, CACHE: tl.constexpr, BLOCK_J: tl.constexpr,
    BLOCK_S: tl.constexpr,
):  # fmt: skip
    for i in range(0, ROWS):
        row = tl.program_id(0) * tl.full((1, 1), ROWS, tl.int64) + i
        n, b_mean, m2 = per_line(0.0, mean, 1, 1), per_line(0.0, mean, 1, 1), per_line(0.0, mean, 1, 1)
        for jt in range(0, tl.cdiv(J, BLOCK_J)):
            count = per_line(0.0, mean, 1, 1) + tl.minimum(J - jt * BLOCK_J, BLOCK_J)
            for st in range(0, tl.cdiv(S, BLOCK_S)):
                planes, exist, at, inside = _planes(row, jt, st, R, J, S, row_step, plane_step, BLOCK_J, BLOCK_S)
                size = per_line(0.0, mean, 1, 1) + tl.minimum(S - st * tl.full((), BLOCK_S, tl.int64), BLOCK_S)
                head = st * tl.full((), BLOCK_S, tl.int64) + along(0, 1, HEAD)
                near = row_sum(load(x + planes * S + head, exist & (head < S))) / tl.minimum(size, HEAD)
                of_plane, m2_of_plane = shifted_moments(load(x + at, inside), inside, size, near, 1)
                of_tile = tl.sum(of_plane) / count
                off = tl.where(exist, of_plane - of_tile, 0.0)
                m2_of_tile = tl.sum(m2_of_plane + size * off * off)
                n, b_mean, m2 = merged(n, b_mean, m2, size * count, of_tile, m2_of_tile)
        b_var = m2 / n
        tl.store(mean + row, b_mean, row < R)
        tl.store(var + row, b_var, row < R)
        b_rstd = 1 / tl.sqrt(b_var + EPS)
        for jt in range(0, tl.cdiv(J, BLOCK_J)):
            for st in range(0, tl.cdiv(S, BLOCK_S)):
                planes, exist, at, inside = _planes(row, jt, st, R, J, S, row_step, plane_step, BLOCK_J, BLOCK_S)
                b_w, b_b = parameters(w, b, planes % C, exist)
                b_y = affine(load(x + at, inside) - b_mean, b_rstd * b_w, b_b, residual, at, inside)
                tl.store(y + at, b_y if F is None else F(b_y, 0.0, 0.0), inside, cache_modifier=CACHE)


@triton.jit
def walk_backward_kernel(
    dx, dz, sums, dy, x, y, w, b, residual, mean, var, R, J, S, C, P, row_step, plane_step,
    EPS: tl.constexpr, GRAD: tl.constexpr, ROWS: tl.constexpr, CACHE: tl.constexpr, BLOCK_J: tl.constexpr,
    BLOCK_S: tl.constexpr,
):  # fmt: skip
    for i in range(0, ROWS):
        row = tl.program_id(0) * tl.full((1, 1), ROWS, tl.int64) + i
        b_mean, b_rstd = load(mean + row, row < R), rstd_of(var, row, row < R, EPS)
        all_p, all_q = tl.zeros_like(b_mean), tl.zeros_like(b_mean)
        for jt in range(0, tl.cdiv(J, BLOCK_J)):
            planes, exist, _at, _inside = _planes(row, jt, 0, R, J, S, row_step, plane_step, BLOCK_J, BLOCK_S)
            b_w, b_b = parameters(w, b, planes % C, exist)
            p, q = per_line(0.0, dx, 1, BLOCK_J), per_line(0.0, dx, 1, BLOCK_J)
            for st in range(0, tl.cdiv(S, BLOCK_S)):
                _j, _e, at, inside = _planes(row, jt, st, R, J, S, row_step, plane_step, BLOCK_J, BLOCK_S)
                centered = tl.where(inside, load(x + at, inside) - b_mean, 0.0)
                b_dz = dz_of(dy, centered, y, b_rstd * b_w, b_b, residual, at, inside, GRAD)
                if dz is not None:
                    tl.store(dz + at, b_dz, inside)
                p += row_sum(b_dz * centered)
                q += row_sum(b_dz)
            p *= b_rstd
            if sums is not None:
                tl.store(sums + planes, p, exist)
                tl.store(sums + P + planes, q, exist)
            all_p += tl.sum(p * b_w)
            all_q += tl.sum(q * b_w)
        mean_p, mean_q = all_p / (J * S) * b_rstd * b_rstd, all_q / (J * S) * b_rstd
        for jt in range(0, tl.cdiv(J, BLOCK_J)):
            for st in range(0, tl.cdiv(S, BLOCK_S)):
                planes, exist, at, inside = _planes(row, jt, st, R, J, S, row_step, plane_step, BLOCK_J, BLOCK_S)
                b_w, b_b = parameters(w, b, planes % C, exist)
                scale = b_rstd * b_w
                centered = load(x + at, inside) - b_mean
                b_dx = dz_of(dy, centered, y, scale, b_b, residual, at, inside, GRAD) * scale
                tl.store(dx + at, b_dx - mean_q - centered * mean_p, inside, cache_modifier=CACHE)
