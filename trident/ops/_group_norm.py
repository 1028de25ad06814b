"""Group normalization (Wu and He 2018, arXiv:1803.08494) of x [N, C, *spatial]; S = size of spatial.

A row is the D = C / groups * S elements of one group of one sample: R = N * groups rows, contiguous in memory. A plane
is the S elements of one channel of one sample: C / groups planes a row. E and Var run over a row, w and b are per
channel. Instance normalization (Ulyanov et al. 2016, arXiv:1607.08022) is groups of one channel.

forward     rstd   = 1 / sqrt(Var[x] + eps)
            x_hat  = (x - E[x]) * rstd
            y      = x_hat * w + b

backward    p, q   = sum of dy * x_hat, sum of dy, over each plane
            dx     = rstd * (dy * w - E[dy * w] - x_hat * E[dy * w * x_hat]),  the means being sums of w * q and w * p
            dw, db = sums of p and q over the samples

A row that fits into a tile is read once. Longer rows, or few, are split over several programs: one kernel takes partial
moments (or p and q), one merges them, one writes.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.lines import along, per_line
from trident.lang.moments import merged, moments
from trident.lang.tile import load, row_sum, row_tile
from trident.runtime import autocast, recompute, route, tuning
from trident.runtime.launch import launch
from trident.runtime.layout import memory_format
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype


@triton.jit
def _row(row, R, groups, K, S, BLOCK_K: tl.constexpr, BLOCK_S: tl.constexpr):
    """Of a row of K planes: the channels [BLOCK_K, 1], the offsets and the mask [BLOCK_K, BLOCK_S], the first plane."""
    k, s = tl.arange(0, BLOCK_K)[:, None], tl.arange(0, BLOCK_S)[None, :]
    inside = (k < K) & (s < S) & (row < R)
    return (row % groups) * K + k, (row * K + k) * S + s, inside, row * K + k


@triton.jit
def _forward_kernel(
    y, mean, rstd, x, w, b, R, groups, K, S, EPS: tl.constexpr, ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    for i in range(0, ROWS):
        row = tl.program_id(0) * tl.full((1, 1), ROWS, tl.int64) + i
        channel, at, inside, _planes = _row(row, R, groups, K, S, BLOCK_K, BLOCK_S)
        in_k = channel < (row % groups + 1) * K
        b_x = load(x + at, inside)
        b_mean = tl.sum(b_x) / (K * S)
        centered = tl.where(inside, b_x - b_mean, 0.0)
        b_rstd = 1 / tl.sqrt(tl.sum(centered * centered) / (K * S) + EPS)
        b_y = centered * b_rstd
        if w is not None:
            b_y *= load(w + channel, in_k)
        if b is not None:
            b_y += load(b + channel, in_k)
        tl.store(y + at, b_y, inside)
        tl.store(mean + row, b_mean, row < R)
        tl.store(rstd + row, b_rstd, row < R)


@triton.jit
def _moments_kernel(parts, x, R, D, STEP: tl.constexpr, BLOCK_N: tl.constexpr):
    """Mean and m2 of every STEP elements of a row: parts [2, R, programs of a row]."""
    rows = tl.program_id(0) + tl.zeros((1, 1), tl.int64)
    part, splits = tl.program_id(1), tl.num_programs(1)
    first = part * tl.full((), STEP, tl.int64)
    b_mean, m2 = moments(x, rows * D + first, tl.minimum(D - first, STEP), BLOCK_N)
    tl.store(parts + rows * splits + part, b_mean)
    tl.store(parts + (rows + R) * splits + part, m2)


@triton.jit
def _merge_kernel(mean, rstd, parts, R, D, splits, EPS: tl.constexpr, STEP: tl.constexpr, BLOCK_M: tl.constexpr):
    rows, _cols, in_m, _in_n = row_tile(tl.program_id(0), R, 1, BLOCK_M, 1)
    n, b_mean, m2 = (
        per_line(0.0, parts, 1, BLOCK_M),
        per_line(0.0, parts, 1, BLOCK_M),
        per_line(0.0, parts, 1, BLOCK_M),
    )
    for part in range(0, splits):
        size = tl.zeros_like(n) + tl.minimum(D - part * tl.full((), STEP, tl.int64), STEP)
        at = rows * splits + part
        n, b_mean, m2 = merged(
            n, b_mean, m2, size, load(parts + at, in_m), load(parts + R * tl.full((), 1, tl.int64) * splits + at, in_m)
        )
    tl.store(mean + rows, b_mean, in_m)
    tl.store(rstd + rows, 1 / tl.sqrt(m2 / n + EPS), in_m)


@triton.jit
def _apply_kernel(y, mean, rstd, x, w, b, P, S, C, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    planes, _cols, in_m, _in_n = row_tile(tl.program_id(0), P, S, BLOCK_M, BLOCK_N)
    s = along(tl.program_id(1), 1, BLOCK_N)
    at, inside = planes * S + s, in_m & (s < S)
    b_y = (load(x + at, inside) - load(mean + planes // K, in_m)) * load(rstd + planes // K, in_m)
    if w is not None:
        b_y *= load(w + planes % C, in_m)
    if b is not None:
        b_y += load(b + planes % C, in_m)
    tl.store(y + at, b_y, inside)


@triton.jit
def _backward_kernel(
    dx, sums, dy, x, w, mean, rstd, R, groups, K, S, ROWS: tl.constexpr,
    BLOCK_K: tl.constexpr, BLOCK_S: tl.constexpr,
):  # fmt: skip
    for i in range(0, ROWS):
        row = tl.program_id(0) * tl.full((1, 1), ROWS, tl.int64) + i
        channel, at, inside, planes = _row(row, R, groups, K, S, BLOCK_K, BLOCK_S)
        in_k = (channel < (row % groups + 1) * K) & (row < R)
        b_dy = load(dy + at, inside)
        b_rstd = load(rstd + row, row < R)
        x_hat = tl.where(inside, load(x + at, inside) - load(mean + row, row < R), 0.0) * b_rstd
        p, q = row_sum(b_dy * x_hat), row_sum(b_dy)
        if sums is not None:
            tl.store(sums + planes, p, in_k)
            tl.store(sums + R * tl.full((), K, tl.int64) + planes, q, in_k)
        b_w = 1.0
        if w is not None:
            b_w = load(w + channel, in_k)
        b_dx = b_dy * b_w - tl.sum(q * b_w) / (K * S) - x_hat * (tl.sum(p * b_w) / (K * S))
        tl.store(dx + at, b_rstd * b_dx, inside)


@triton.jit
def _sums_kernel(sums, dy, x, mean, rstd, P, S, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """p and q of planes, over every num_programs(1)-th chunk of them: sums [num_programs(1), 2, P]."""
    planes, _cols, in_m, _in_n = row_tile(tl.program_id(0), P, S, BLOCK_M, BLOCK_N)
    b_mean, b_rstd = load(mean + planes // K, in_m), load(rstd + planes // K, in_m)
    p = tl.zeros((BLOCK_M, BLOCK_N), mean.dtype.element_ty)
    q = tl.zeros((BLOCK_M, BLOCK_N), mean.dtype.element_ty)
    for chunk in range(tl.program_id(1), tl.cdiv(S, BLOCK_N), tl.num_programs(1)):
        s = along(chunk, 1, BLOCK_N)
        at, inside = planes * S + s, in_m & (s < S)
        b_dy = load(dy + at, inside)
        p += b_dy * (load(x + at, inside) - b_mean) * b_rstd
        q += b_dy
    out = sums + tl.program_id(1) * tl.full((), 2, tl.int64) * P + planes
    tl.store(out, row_sum(p), in_m)
    tl.store(out + P, row_sum(q), in_m)


@triton.jit
def _means_kernel(means, sums, w, R, groups, K, S, splits, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """E[dy * w * x_hat] and E[dy * w] of each row, from p and q: means [2, R]."""
    rows, _cols, in_m, _in_n = row_tile(tl.program_id(0), R, K, BLOCK_M, BLOCK_N)
    P = R * tl.full((), K, tl.int64)
    p, q = per_line(0.0, sums, 1, BLOCK_M), per_line(0.0, sums, 1, BLOCK_M)
    for chunk in range(0, tl.cdiv(K, BLOCK_N)):
        k = along(chunk, 1, BLOCK_N)
        inside = in_m & (k < K)
        for split in range(0, splits):
            at = sums + split * 2 * P + rows * K + k
            b_p, b_q = load(at, inside), load(at + P, inside)
            if w is not None:
                b_w = load(w + (rows % groups) * K + k, inside)
                b_p, b_q = b_p * b_w, b_q * b_w
            p += row_sum(b_p)
            q += row_sum(b_q)
    tl.store(means + rows, p / (K * S), in_m)
    tl.store(means + R + rows, q / (K * S), in_m)


@triton.jit
def _dx_kernel(dx, means, dy, x, w, mean, rstd, P, S, C, K, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    planes, _cols, in_m, _in_n = row_tile(tl.program_id(0), P, S, BLOCK_M, BLOCK_N)
    rows = planes // K
    s = along(tl.program_id(1), 1, BLOCK_N)
    at, inside = planes * S + s, in_m & (s < S)
    b_rstd = load(rstd + rows, in_m)
    x_hat = (load(x + at, inside) - load(mean + rows, in_m)) * b_rstd
    dx_hat = load(dy + at, inside)
    if w is not None:
        dx_hat *= load(w + planes % C, in_m)
    b_dx = dx_hat - load(means + P // K + rows, in_m) - x_hat * load(means + rows, in_m)
    tl.store(dx + at, b_rstd * b_dx, inside)


def _sizes(x: Tensor, groups: int) -> tuple[int, int, int, int]:
    """R rows, K planes a row, S elements a plane, C channels."""
    N, C = x.shape[:2]
    return N * groups, C // groups, math.prod(x.shape[2:]), C


@op("group_norm")
def _forward(
    x: Tensor, groups: int, w: Tensor | None, b: Tensor | None, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """y, contiguous, and the mean and rstd of each row."""
    x = x.contiguous()
    R, K, S, C = _sizes(x, groups)
    compute = compute_dtype(x)
    y = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    mean, rstd = (x.new_empty(R, dtype=compute) for _ in range(2))
    w, b = (None if t is None else t.contiguous() for t in (w, b))
    plan = tuning.plane_rows(R, K, S, x.device, tuning.registers(x.dtype, 2))
    if not plan.loops:
        launch(_forward_kernel, plan.grid, y, mean, rstd, x, w, b, R, groups, K, S, EPS=eps, **plan.meta)
        return y, mean, rstd
    plan = tuning.split_rows(R, K * S, x.device)
    splits, step = plan.grid[1], plan.meta["STEP"]
    parts = mean.new_empty(2, R, splits)
    launch(_moments_kernel, plan.grid, parts, x, R, K * S, **plan.meta)
    plan = tuning.rows(R, 1, x.device)
    launch(
        _merge_kernel, plan.grid, mean, rstd, parts, R, K * S, splits, EPS=eps, STEP=step, BLOCK_M=plan.meta["BLOCK_M"]
    )
    plan = tuning.planes(R * K, S, x.device, tuning.registers(x.dtype, 1))
    launch(_apply_kernel, plan.grid, y, mean, rstd, x, w, b, R * K, S, C, K, **plan.meta)
    return y, mean, rstd


@op("group_norm_backward")
def _backward(
    dy: Tensor, x: Tensor, groups: int, w: Tensor | None, mean: Tensor, rstd: Tensor, affine: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, contiguous; and, where affine, dw and db in the statistics' dtype (else empty)."""
    dy, x = dy.contiguous(), x.contiguous()
    R, K, S, C = _sizes(x, groups)
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    w = None if w is None else w.contiguous()
    plan = tuning.plane_rows(R, K, S, x.device, tuning.registers(x.dtype, 3))
    if not plan.loops:
        sums = mean.new_empty(1, 2, R * K) if affine else None
        launch(_backward_kernel, plan.grid, dx, sums, dy, x, w, mean, rstd, R, groups, K, S, **plan.meta)
    else:
        plan = tuning.bands(R * K, S, True, x.device)
        splits = plan.grid[1]
        sums = mean.new_empty(splits, 2, R * K)
        launch(_sums_kernel, plan.grid, sums, dy, x, mean, rstd, R * K, S, K, **plan.meta)
        means = mean.new_empty(2, R)
        plan = tuning.rows(R, min(K, 1024), x.device)
        launch(_means_kernel, plan.grid, means, sums, w, R, groups, K, S, splits, **plan.meta)
        plan = tuning.planes(R * K, S, x.device, tuning.registers(x.dtype, 3))
        launch(_dx_kernel, plan.grid, dx, means, dy, x, w, mean, rstd, R * K, S, C, K, **plan.meta)
    if sums is None or not affine:
        return dx, mean.new_empty(0), mean.new_empty(0)
    dw, db = sums.view(sums.shape[0], 2, -1, C).sum((0, 2)).unbind()
    return dx, dw, db.clone()  # results do not share memory


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, groups: int, w: Tensor | None, b: Tensor | None, eps: float, dtype: torch.dtype
    ) -> Tensor:
        y, mean, rstd = _forward(x, groups, w, b, eps, dtype)
        ctx.save_for_backward(x, w, b, mean, rstd)
        ctx.groups, ctx.eps = groups, eps
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, b, mean, rstd = ctx.saved_tensors
        if recompute.wanted():
            dx, dw, db = recompute.gradients(
                lambda x, w, b: torch.nn.functional.group_norm(x, ctx.groups, w, b, ctx.eps), (x, w, b), dy
            )
            return dx, None, dw, db, None, None
        _, _, needs_dw, needs_db, _, _ = ctx.needs_input_grad
        dx, dw, db = _backward(dy, x, ctx.groups, w, mean, rstd, needs_dw or needs_db)
        dw = dw.to(w.dtype) if needs_dw else None
        db = db.to(b.dtype) if needs_db else None
        return dx, None, dw, db, None, None


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Same contract as :func:`torch.nn.functional.group_norm`.

    Shapes: input [N, C, *], C a multiple of num_groups; weight and bias, if given, [C]; the result as input.
    """
    fits = input.dim() >= 2 and num_groups > 0 and input.shape[1] % num_groups == 0
    # torch refuses a single value per group
    fits = fits and input.numel() != num_groups
    fits = fits and all(t is None or t.shape == (input.shape[1],) for t in (weight, bias))
    if route.to_torch("group_norm", input, weight, bias, unless=None if fits else route.INVALID):
        return torch.nn.functional.group_norm(input, num_groups, weight, bias, eps)
    y = _GroupNorm.apply(input, num_groups, weight, bias, eps, autocast.output_dtype("group_norm", input))
    # torch keeps the memory format on CPUs only
    return y.contiguous(memory_format=memory_format(input)) if input.device.type == "cpu" else y


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Same contract as :func:`torch.nn.functional.instance_norm`; running statistics are torch's work.

    Shapes: input [N, C, *]; weight and bias, if given, [C]; the result as input.
    """
    reason = None
    if running_mean is not None or running_var is not None or not use_input_stats:
        reason = "running statistics"
    elif (
        input.dim() < 3
        or math.prod(input.shape[2:]) == 1
        or any(t is not None and t.shape != (input.shape[1],) for t in (weight, bias))
    ):
        reason = route.INVALID
    if route.to_torch("instance_norm", input, weight, bias, unless=reason):
        return torch.nn.functional.instance_norm(
            input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
        )
    return _GroupNorm.apply(input, input.shape[1], weight, bias, eps, autocast.output_dtype("instance_norm", input))
