"""Kernels of batch_norm, group_norm and instance_norm (_plane_norm.py). x [N, C, *spatial]; S = size of spatial.

A plane is the S elements of one channel of one sample: P = N * C planes, plane n * C + c. A statistic, a mean and a
variance, is taken over J planes:

    groups of channels   plane // K, K = C / groups; J = K                 (group_norm; instance_norm has K = 1)
    channels             plane % C; J = N; here K is None                  (batch_norm)

forward     x_hat  = (x - mean) / sqrt(var + eps)
            z      = x_hat * w + b + residual
            y      = f(z)                                                  f: a row of the table of activations, or none

backward    dz     = f'(z) dy                                              f' from y where it is a function of y
            p, q   = sums of dz * x_hat and dz over each plane
            dx     = (dz * w - E[dz * w] - x_hat * E[dz * w * x_hat]) / sqrt(var + eps)
            dw, db = sums of p and q over the samples;  d residual = dz
            where mean and var were given, not taken from x: dx without its two means

A statistic whose planes fit into a tile is the work of one program: x is read once. Else one kernel takes moments (or p
and q) of parts of planes, one merges them, one writes, backwards. These see planes as lines (lang/lines.py), so that
channels_last memory, whose planes interleave, is read as it lies. CPUs take groups in it sample by sample
(_plane_samples.py).
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.lines import along, line_sum, line_tile, per_line, segments
from trident.lang.moments import line_moments
from trident.lang.tile import load
from trident.ops import _plane_rows, _plane_samples
from trident.ops._activation import ACTIVATIONS
from trident.ops._plane_rows import affine, dz_of, parameters, rstd_of
from trident.runtime import tuning, tuning_planes
from trident.runtime.launch import launch, launch_planned
from trident.runtime.layout import memory_format
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype


@triton.jit
def _lines(
    tile, P, S, C, K, inner, splits,
    FOLD: tl.constexpr, AXIS: tl.constexpr, SPAN: tl.constexpr, BLOCK_M: tl.constexpr,
):  # fmt: skip
    """Of the lines of a tile: where each starts, and which exist; the statistic and the channel of each; and where its
    part 0 lies in the table of parts, [splits, lines] (K is None) or [P, FOLD, splits].

    FOLD lines lie in the place of each where rows of channels are folded.
    """
    lines, start, exist = line_tile(tile, P, S, inner, AXIS, SPAN, BLOCK_M)
    if AXIS == 0 and not SPAN:  # the columns of one sample's rows, in 32 bits: CPUs divide vectors of those
        tiles = tl.cdiv(inner, BLOCK_M)
        column = (tile % tiles * BLOCK_M + tl.arange(0, BLOCK_M))[None, :]
        channel = column % C if FOLD > 1 else column
        at_fold = column // C if FOLD > 1 else 0
        statistic = channel if K is None else tile // tiles * tl.full((), 1, tl.int64) * (C // K) + channel // K
        plane = tile // tiles * tl.full((), 1, tl.int64) * C + channel
    else:
        channel = lines % C
        plane = lines if FOLD == 1 else lines // (C * FOLD) * C + channel
        at_fold = lines // C % FOLD
        statistic = channel if K is None else plane // K
    return start, exist, statistic, channel, lines if K is None else (plane * FOLD + at_fold) * splits


@triton.jit
def _backwards():
    """The chunk of a program that writes: of what was read just before, for sums, the end still lies in a cache."""
    return tl.num_programs(1) - 1 - tl.program_id(1)


@triton.jit
def _moments_kernel(
    parts, x, P, S, C, inner, K, STEP, FOLD: tl.constexpr, ALIGN: tl.constexpr,
    AXIS: tl.constexpr, SPAN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """How many elements, mean and m2 of each part, STEP chunks, of each line: parts [3, table of parts].

    P, S: lines and their elements, here and below, where channels are folded.
    """
    S, inner = segments(S, inner, ALIGN, AXIS)
    first, splits = tl.program_id(1) * STEP, tl.num_programs(1)
    start, exist, _row, _channel, at = _lines(tl.program_id(0), P, S, C, K, inner, splits, FOLD, AXIS, SPAN, BLOCK_M)
    past = tl.minimum(first + STEP, tl.cdiv(S, BLOCK_N))
    n, mean, m2 = line_moments(x, start, exist, first, past, S, inner, AXIS, BLOCK_M, BLOCK_N)
    entries = P * tl.full((), 1, tl.int64) * splits
    at += parts + tl.program_id(1) * (P if K is None else 1)
    tl.store(at, n, exist)
    tl.store(at + entries, mean, exist)
    tl.store(at + 2 * entries, m2, exist)


@triton.jit
def _merge_kernel(
    mean, var, parts, R, J, inner, n,
    AXIS: tl.constexpr, SPAN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """mean and var [R] from parts [3, R lines of J]: two walks over means, so that they cannot cancel."""
    rows, start, exist = line_tile(tl.program_id(0), R, J, inner, AXIS, SPAN, BLOCK_M)
    entries = R * tl.full((), 1, tl.int64) * J
    total = per_line(0.0, parts, AXIS, BLOCK_M)
    for chunk in range(0, tl.cdiv(J, BLOCK_N)):
        j = along(chunk, AXIS, BLOCK_N)
        at, inside = parts + start + j * inner, exist & (j < J)
        total += line_sum(load(at, inside) * load(at + entries, inside), AXIS)
    b_mean = total / n
    m2 = per_line(0.0, parts, AXIS, BLOCK_M)
    for chunk in range(0, tl.cdiv(J, BLOCK_N)):
        j = along(chunk, AXIS, BLOCK_N)
        at, inside = parts + start + j * inner, exist & (j < J)
        delta = load(at + entries, inside) - b_mean
        m2 += line_sum(load(at + 2 * entries, inside) + load(at, inside) * delta * delta, AXIS)
    tl.store(mean + rows, b_mean, exist)
    tl.store(var + rows, m2 / n, exist)


@triton.jit
def _apply_kernel(
    y, mean, var, x, w, b, residual, P, S, C, K, inner,
    FOLD: tl.constexpr, ALIGN: tl.constexpr, EPS: tl.constexpr, F: tl.constexpr, CACHE: tl.constexpr,
    AXIS: tl.constexpr, SPAN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    S, inner = segments(S, inner, ALIGN, AXIS)
    start, exist, row, channel, _part = _lines(tl.program_id(0), P, S, C, K, inner, 1, FOLD, AXIS, SPAN, BLOCK_M)
    s = along(_backwards(), AXIS, BLOCK_N)
    at, inside = start + s * inner, exist & (s < S)
    b_mean, b_rstd = load(mean + row, exist), rstd_of(var, row, exist, EPS)
    b_w, b_b = parameters(w, b, channel, exist)
    b_y = affine(load(x + at, inside) - b_mean, b_rstd * b_w, b_b, residual, at, inside)
    tl.store(y + at, b_y if F is None else F(b_y, 0.0, 0.0), inside, cache_modifier=CACHE)


@triton.jit
def _sums_kernel(
    sums, dz, dy, x, y, w, b, residual, mean, var, P, S, C, K, inner, STEP,
    FOLD: tl.constexpr, ALIGN: tl.constexpr, EPS: tl.constexpr, GRAD: tl.constexpr,
    AXIS: tl.constexpr, SPAN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """p and q of each part, STEP chunks, of each plane: sums [2, table of parts]; and dz, unless it is None."""
    S, inner = segments(S, inner, ALIGN, AXIS)
    first, splits = tl.program_id(1) * STEP, tl.num_programs(1)
    start, exist, row, channel, part = _lines(tl.program_id(0), P, S, C, K, inner, splits, FOLD, AXIS, SPAN, BLOCK_M)
    b_mean, b_rstd = load(mean + row, exist), rstd_of(var, row, exist, EPS)
    b_w, b_b = parameters(w, b, channel, exist)
    p, q = per_line(0.0, sums, AXIS, BLOCK_M), per_line(0.0, sums, AXIS, BLOCK_M)
    for chunk in range(first, tl.minimum(first + STEP, tl.cdiv(S, BLOCK_N))):
        s = along(chunk, AXIS, BLOCK_N)
        at, inside = start + s * inner, exist & (s < S)
        centered = tl.where(inside, load(x + at, inside) - b_mean, 0.0)
        b_dz = dz_of(dy, centered, y, b_rstd * b_w, b_b, residual, at, inside, GRAD)
        if dz is not None:
            tl.store(dz + at, b_dz, inside)
        p += line_sum(b_dz * centered, AXIS)
        q += line_sum(b_dz, AXIS)
    at = sums + part + tl.program_id(1) * (P if K is None else 1)
    tl.store(at, p * b_rstd, exist)
    tl.store(at + P * tl.full((), 1, tl.int64) * splits, q, exist)


@triton.jit
def _means_kernel(
    sums, means, dw, db, w, R, J, inner, n, splits, C, K,
    AXIS: tl.constexpr, SPAN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """E[dz * w * x_hat] and E[dz * w] of each statistic from sums [2, R lines of J]: means [2, R].

    Where a statistic is a channel (K is None) the sums without w are dw and db.
    """
    rows, start, exist = line_tile(tl.program_id(0), R, J, inner, AXIS, SPAN, BLOCK_M)
    entries = R * tl.full((), 1, tl.int64) * J
    p, q = per_line(0.0, sums, AXIS, BLOCK_M), per_line(0.0, sums, AXIS, BLOCK_M)
    for chunk in range(0, tl.cdiv(J, BLOCK_N)):
        j = along(chunk, AXIS, BLOCK_N)
        at, inside = sums + start + j * inner, exist & (j < J)
        b_p, b_q = load(at, inside), load(at + entries, inside)
        if w is not None and K is not None:
            b_w = load(w + (rows * K + j // splits) % C, inside)
            b_p, b_q = b_p * b_w, b_q * b_w
        p += line_sum(b_p, AXIS)
        q += line_sum(b_q, AXIS)
    if dw is not None:
        tl.store(dw + rows, p, exist)
        tl.store(db + rows, q, exist)
    if w is not None and K is None:
        b_w = load(w + rows, exist)
        p, q = p * b_w, q * b_w
    if means is not None:
        tl.store(means + rows, p / n, exist)
        tl.store(means + R + rows, q / n, exist)


@triton.jit
def _dx_kernel(
    dx, means, dy, x, y, w, b, residual, mean, var, P, S, C, K, R, inner,
    FOLD: tl.constexpr, ALIGN: tl.constexpr, EPS: tl.constexpr, GRAD: tl.constexpr, CACHE: tl.constexpr,
    AXIS: tl.constexpr, SPAN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    S, inner = segments(S, inner, ALIGN, AXIS)
    start, exist, row, channel, _part = _lines(tl.program_id(0), P, S, C, K, inner, 1, FOLD, AXIS, SPAN, BLOCK_M)
    s = along(_backwards(), AXIS, BLOCK_N)
    at, inside = start + s * inner, exist & (s < S)
    b_mean, b_rstd = load(mean + row, exist), rstd_of(var, row, exist, EPS)
    b_w, b_b = parameters(w, b, channel, exist)
    if means is not None:
        p, q = load(means + row, exist) * b_rstd * b_rstd, load(means + R + row, exist) * b_rstd
    scale = b_rstd * b_w
    centered = load(x + at, inside) - b_mean
    b_dx = dz_of(dx if dy is None else dy, centered, y, scale, b_b, residual, at, inside, GRAD) * scale
    if means is not None:
        b_dx -= q + centered * p
    tl.store(dx + at, b_dx, inside, cache_modifier=CACHE)


def _contiguous(form: torch.memory_format, *tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.contiguous(memory_format=form) for t in tensors]


def _small(*tensors: Tensor | None) -> list[Tensor | None]:
    """Tensors with one element a channel."""
    return [None if t is None else t.contiguous() for t in tensors]


@op("plane_norm")
def forward(
    x: Tensor,
    groups: int,
    w: Tensor | None,
    b: Tensor | None,
    residual: Tensor | None,
    mean: Tensor | None,
    var: Tensor | None,
    eps: float,
    activation: str | None,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, in x's memory format, and mean and (biased) variance of each statistic, [R]; empty where they were given."""
    v = tuning_planes.seen(groups, x.shape, memory_format(x), x.device)
    x, residual = _contiguous(v.form, x, residual)  # type: ignore[assignment]
    w, b, mean, var = _small(w, b, mean, var)
    y = torch.empty_like(x, dtype=dtype, memory_format=v.form)
    R, found = 0 if mean is not None else v.R, compute_dtype(x)
    found_mean, found_var = x.new_empty(R, dtype=found), x.new_empty(R, dtype=found)
    asked = mean is not None, residual is not None, x.dtype, eps, activation
    kernel, plan = v.planned.get(asked) or v.planned.setdefault(asked, _forward_plan(v, *asked))
    if mean is None and kernel is _apply_kernel:
        _take_moments(found_mean, found_var, x, v)
    out = (found_mean, found_var) if mean is None else (mean, var)
    table = (found_mean.new_empty(2, v.P * v.fold),) if kernel is _plane_samples.forward_kernel else ()
    launch_planned(kernel, plan, y, *out, *table, x, w, b, residual)
    return y, found_mean, found_var


def _forward_plan(
    v: tuning_planes.Planes, given: bool, residual: bool, dtype: torch.dtype, eps: float, activation: str | None
) -> tuple[Any, tuning.Plan]:
    """The kernel that writes y and how it is launched: all of its arguments but the tensors."""
    constants = {"EPS": eps, "F": None if activation is None else ACTIVATIONS[activation].f}
    if not given and v.last and v.K is not None and not (plan := v.samples()).loops:
        sizes = {"S": v.S // v.fold, "C": v.C, "K": v.K, "CACHE": v.cache}
        return _plane_samples.forward_kernel, tuning.Plan(plan.grid, {**sizes, **constants, **plan.meta}, ready={})
    if not given and not v.last and not (plan := v.rows(tuning.registers(dtype, 2 + residual))).loops:
        kernel = _plane_rows.walk_forward_kernel if "ROWS" in plan.meta else _plane_rows.keep_forward_kernel
        steps = {"row_step": v.steps[0], "plane_step": v.steps[1]}
        sizes = {"R": v.R, "J": v.J, "S": v.S, "C": v.C, **steps}
        return kernel, tuning.Plan(plan.grid, {**sizes, **constants, **plan.meta}, ready={})
    plan = tuning_planes.plane_tiles(*v.lines, v.device, tuning.registers(dtype, 1 + residual))
    P, S, C = v.sizes
    sizes = {"P": P, "S": S, "C": C, "K": v.K, "inner": v.lines[2], "FOLD": v.fold, "CACHE": v.cache}
    return _apply_kernel, tuning.Plan(plan.grid, {**sizes, **constants, **plan.meta}, ready={})


def _take_moments(mean: Tensor, var: Tensor, x: Tensor, v: tuning_planes.Planes) -> None:
    plan = tuning_planes.line_parts(*v.lines, v.device, tuning.registers(x.dtype, 2))
    splits = plan.grid[-1]
    parts = mean.new_empty(3, splits * v.P * v.fold)
    launch(_moments_kernel, plan.grid, parts, x, *v.sizes, v.lines[2], v.K, FOLD=v.fold, **plan.meta)
    outer, J, inner = v.parts(splits)
    plan = tuning_planes.part_lines(outer, J, inner, v.device, 3)
    launch(_merge_kernel, plan.grid, mean, var, parts, v.R, J, inner, v.J * v.S, **plan.meta)


@op("plane_norm_backward")
def backward(
    dy: Tensor,
    x: Tensor,
    groups: int,
    w: Tensor | None,
    b: Tensor | None,
    y: Tensor | None,
    residual: Tensor | None,
    mean: Tensor,
    var: Tensor,
    eps: float,
    activation: str | None,
    given: bool,
    affine: bool,
    keep: torch.dtype | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """dx, dz of dtype `keep` in x's memory format, dw and db [C] in the dtype of sums; empty: dz without `keep`, dw and
    db unless `affine`. given: mean and var do not depend on x. f' is taken from y, where given, else from the rest."""
    v = tuning_planes.seen(groups, x.shape, memory_format(x), x.device)
    dy, x, y, residual = _contiguous(v.form, dy, x, y, residual)  # type: ignore[assignment]
    w, b, mean, var = _small(w, b, mean, var)  # type: ignore[assignment]
    dx = torch.empty_like(x, memory_format=v.form)
    dz = None if keep is None else torch.empty_like(x, dtype=keep, memory_format=v.form)
    C, found = v.C if affine else 0, compute_dtype(x)
    dw, db = x.new_empty(C, dtype=found), x.new_empty(C, dtype=found)
    grad = None if activation is None else ACTIVATIONS[activation].grad
    live = tuning.registers(x.dtype, 3 + (grad is not None) + (residual is not None))
    saved: tuple[Tensor | None, ...] = dy, x, y, w, b, residual, mean, var
    if not (v.last or given or (plan := v.rows(live)).loops):
        sums = dw.new_empty(2, v.P) if affine else None
        args = dx, dz, sums, *saved, v.R, v.J, v.S, v.C, v.P, *v.steps
        kernel = _plane_rows.walk_backward_kernel if "ROWS" in plan.meta else _plane_rows.keep_backward_kernel
        launch(kernel, plan.grid, *args, EPS=eps, GRAD=grad, **plan.meta)
        if sums is not None:
            _over_samples(dw, db, sums, v)
        return dx, _some(dz, x), dw, db
    means = None if given else dw.new_empty(2, v.R)
    again = dz is None and y is None  # f' is of x
    keeps = again and activation is not None and tuning_planes.keeps_gradient(activation, x.dtype, v.device)
    if v.last and v.K is not None and not given and not (samples := v.samples()).loops:
        sums = dw.new_empty(2, v.P * v.fold)
        of_x = v.S // v.fold, v.C, v.K
        constants = {"EPS": eps, "GRAD": grad, "KEEP": keeps, "CACHE": "" if keeps else v.cache, **samples.meta}
        launch(_plane_samples.backward_kernel, samples.grid, dx, dz, sums, means, *saved, *of_x, **constants)
        if affine:
            _over_rows(dw, db, sums, v.C)
        return dx, _some(dz, x), dw, db
    if means is not None or affine or dz is not None:
        kept = dx if keeps else dz
        _take_sums(means, dw if affine else None, db if affine else None, kept, saved, v, eps, grad, live)
        if kept is not None:  # it takes the place of dy, and holds f'; in the kernel, where that is dx
            saved, grad = (dz, x, None, w, b, None, mean, var), None
    plan = tuning_planes.plane_tiles(*v.lines, v.device, live)
    rest, hints = (*v.sizes, v.K, v.R, v.lines[2]), {"FOLD": v.fold, "CACHE": v.cache}
    launch(_dx_kernel, plan.grid, dx, means, *saved, *rest, EPS=eps, GRAD=grad, **hints, **plan.meta)
    return dx, _some(dz, x), dw, db


def _some(t: Tensor | None, x: Tensor) -> Tensor:
    return x.new_empty(0) if t is None else t


def _take_sums(
    means: Tensor | None,
    dw: Tensor | None,
    db: Tensor | None,
    dz: Tensor | None,
    saved: tuple[Tensor | None, ...],
    v: tuning_planes.Planes,
    eps: float,
    grad: Any,
    live: int,
) -> None:
    """Write dz, and the sums that follow from it: means [2, R], dw and db [C], each unless it is None."""
    x, w = saved[1], saved[3]
    assert x is not None
    plan = tuning_planes.line_parts(*v.lines, v.device, live)
    splits = plan.grid[-1]
    sums = x.new_empty(2, splits * v.P * v.fold, dtype=compute_dtype(x))
    args = sums, dz, *saved, *v.sizes, v.K, v.lines[2]
    launch(_sums_kernel, plan.grid, *args, FOLD=v.fold, EPS=eps, GRAD=grad, **plan.meta)
    if means is not None or v.K is None:
        outer, J, inner = v.parts(splits)
        plan = tuning_planes.part_lines(outer, J, inner, v.device, 2)
        direct = (None, None) if v.K is not None else (dw, db)
        args = sums, means, *direct, w, v.R, J, inner, v.J * v.S, splits * v.fold, v.C, v.K
        launch(_means_kernel, plan.grid, *args, **plan.meta)
    if dw is not None and db is not None and v.K is not None:
        _over_samples(dw, db, sums, v)


def _over_samples(dw: Tensor, db: Tensor, sums: Tensor, v: tuning_planes.Planes) -> None:
    """dw and db [C] from sums [2, N, C, splits] of p and q (statistics of channels: [2, splits, N, C])."""
    if v.K is None:
        return _over_rows(dw, db, sums, v.C)
    for out, part in zip((dw, db), sums.view(2, v.P // v.C, v.C, -1), strict=True):
        torch.sum(part, (0, 2), out=out)


def _over_rows(dw: Tensor, db: Tensor, sums: Tensor, C: int) -> None:
    """dw and db [C] from sums [2, rows, C] of p and q."""
    for out, part in zip((dw, db), sums.view(2, -1, C), strict=True):
        torch.sum(part, 0, out=out)
