"""Layer normalization (Ba et al. 2016, arXiv:1607.06450) on x seen as [M, N]. E and Var run over N.

forward     rstd   = 1 / sqrt(Var[x] + eps)
            x_hat  = (x - E[x]) * rstd
            y      = x_hat * w + b

backward    dx_hat = dy * w
            dx     = rstd * (dx_hat - E[dx_hat] - x_hat * E[dx_hat * x_hat])
            dw     = sum over M of dy * x_hat
            db     = sum over M of dy

Not centered (_rms_norm.py): the same with 0 for E[x] and E[dx_hat]; E[x^2] may be over the first K elements of a row
only, and so is then what it does to dx. With a residual x is the sum of input and residual, written beside y. Rows that
do not fit into a tile are walked twice in chunks; their dw and db are the work of a second kernel.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.lines import along
from trident.lang.moments import moments, squares
from trident.lang.tile import col_sum, load, multiple, row_mean, row_tile
from trident.runtime import autocast, nodes, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch, launch_planned
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype


@triton.jit
def _affine(x_hat, w, b, cols, in_n):
    if w is not None:
        x_hat *= load(w + cols, in_n)
    if b is not None:
        x_hat += load(b + cols, in_n)
    return x_hat


@triton.jit
def _leading(x, cols, K):
    """x, and 0 in place of what comes after the first K elements of a row, if that is not None."""
    return x if K is None else tl.where(cols < K, x, 0.0)


@triton.jit
def _forward_kernel(
    y, s, mean, rstd, x, residual, w, b, M, N, K, EPS: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    N = multiple(N, ALIGN)
    rows, cols, in_m, in_n = row_tile(tl.program_id(0), M, N, BLOCK_M, BLOCK_N)
    at, inside = rows * N + cols, in_m & in_n

    centered = load(x + at, inside)
    if residual is not None:
        stored = (centered + load(residual + at, inside)).to(s.dtype.element_ty)
        tl.store(s + at, stored, inside)
        centered = stored.to(rstd.dtype.element_ty)  # as the backward will read it
    if mean is not None:
        b_mean = row_mean(centered, N)
        tl.store(mean + rows, b_mean, in_m)
        centered = tl.where(inside, centered - b_mean, 0.0)
    b_rstd = 1 / tl.sqrt(row_mean(_leading(centered * centered, cols, K), N if K is None else K) + EPS)
    tl.store(rstd + rows, b_rstd, in_m)
    tl.store(y + at, _affine(centered * b_rstd, w, b, cols, in_n), inside)


@triton.jit
def _forward_long_kernel(
    y, mean, rstd, x, w, b, M, N, K, EPS: tl.constexpr, ALIGN: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    N = multiple(N, ALIGN)
    rows, _first, _in_m, _in_n = row_tile(tl.program_id(0), M, N, 1, BLOCK_N)
    first = rows * N
    if mean is not None:
        b_mean, m2 = moments(x, first, N, BLOCK_N)
        tl.store(mean + rows, b_mean)
    else:
        m2 = squares(x, first, N if K is None else K, BLOCK_N)
    b_rstd = 1 / tl.sqrt(m2 / (N if K is None else K) + EPS)
    tl.store(rstd + rows, b_rstd)
    for chunk in range(0, tl.cdiv(N, BLOCK_N)):
        cols = along(chunk, 1, BLOCK_N)
        in_n = cols < N
        centered = load(x + first + cols, in_n)
        if mean is not None:
            centered -= b_mean
        tl.store(y + first + cols, _affine(centered * b_rstd, w, b, cols, in_n), in_n)


@triton.jit
def _hats(dy, x, w, mean, rstd, rows, cols, N, in_m, in_n):
    """dy, x_hat and dx_hat of a tile; 0 outside."""
    at, inside = rows * N + cols, in_m & in_n
    b_dy, x_hat = load(dy + at, inside), load(x + at, inside)
    if mean is not None:
        x_hat = tl.where(inside, x_hat - load(mean + rows, in_m), 0.0)
    dx_hat = b_dy
    if w is not None:
        dx_hat = b_dy * load(w + cols, in_n)
    return b_dy, x_hat * load(rstd + rows, in_m), dx_hat


@triton.jit
def _store_dx(dx, b_dx, ds, at, inside):
    """ds: the gradient of the sum of input and residual by other ways than the norm, if it has any."""
    if ds is not None:
        b_dx += load(ds + at, inside)
    tl.store(dx + at, b_dx, inside)


@triton.jit
def _backward_kernel(
    dx, dw, db, dy, ds, x, w, mean, rstd, M, N, K, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    N = multiple(N, ALIGN)
    pid = tl.program_id(0)
    b_dw = tl.zeros((1, BLOCK_N), rstd.dtype.element_ty)
    b_db = tl.zeros((1, BLOCK_N), rstd.dtype.element_ty)
    for tile in range(pid, tl.cdiv(M, BLOCK_M), tl.num_programs(0)):
        rows, cols, in_m, in_n = row_tile(tile, M, N, BLOCK_M, BLOCK_N)
        b_dy, x_hat, dx_hat = _hats(dy, x, w, mean, rstd, rows, cols, N, in_m, in_n)
        mean_product = row_mean(dx_hat * x_hat, N if K is None else K)
        if mean is not None:
            mean_dx_hat = row_mean(dx_hat, N)
        if dw is not None:  # before dx, which needs no dy: fewer tiles in registers at a time
            b_dw += col_sum(b_dy * x_hat)
        if db is not None:
            b_db += col_sum(b_dy)
        b_dx = dx_hat - _leading(x_hat, cols, K) * mean_product
        if mean is not None:
            b_dx -= mean_dx_hat
        _store_dx(dx, load(rstd + rows, in_m) * b_dx, ds, rows * N + cols, in_m & in_n)

    rows, cols, _, in_n = row_tile(pid, M, N, 1, BLOCK_N)
    if dw is not None:
        tl.store(dw + rows * N + cols, b_dw, in_n)
    if db is not None:
        tl.store(db + rows * N + cols, b_db, in_n)


@triton.jit
def _backward_long_kernel(dx, dy, ds, x, w, mean, rstd, M, N, K, ALIGN: tl.constexpr, BLOCK_N: tl.constexpr):
    N = multiple(N, ALIGN)
    rows, _first, in_m, _in_n = row_tile(tl.program_id(0), M, N, 1, BLOCK_N)
    c1 = tl.zeros((1, BLOCK_N), rstd.dtype.element_ty)  # summed lane by lane, and over the lanes in the end
    c2 = tl.zeros((1, BLOCK_N), rstd.dtype.element_ty)
    for chunk in range(0, tl.cdiv(N, BLOCK_N)):
        cols = along(chunk, 1, BLOCK_N)
        _dy, x_hat, dx_hat = _hats(dy, x, w, mean, rstd, rows, cols, N, in_m, cols < N)
        c1 += dx_hat
        c2 += dx_hat * x_hat
    mean_dx_hat, mean_product, b_rstd = row_mean(c1, N), row_mean(c2, N if K is None else K), load(rstd + rows, in_m)
    for chunk in range(0, tl.cdiv(N, BLOCK_N)):
        cols = along(chunk, 1, BLOCK_N)
        _dy, x_hat, dx_hat = _hats(dy, x, w, mean, rstd, rows, cols, N, in_m, cols < N)
        b_dx = dx_hat - _leading(x_hat, cols, K) * mean_product
        if mean is not None:
            b_dx -= mean_dx_hat
        _store_dx(dx, b_rstd * b_dx, ds, rows * N + cols, cols < N)


@triton.jit
def _weight_kernel(
    dw, db, dy, x, mean, rstd, M, N, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """dw and db of the columns of program_id(0), over every num_programs(1)-th tile of rows: for rows that are long."""
    N = multiple(N, ALIGN)
    cols = along(tl.program_id(0), 1, BLOCK_N)
    in_n = cols < N
    b_dw = tl.zeros((BLOCK_M, BLOCK_N), rstd.dtype.element_ty)
    b_db = tl.zeros((BLOCK_M, BLOCK_N), rstd.dtype.element_ty)
    for tile in range(tl.program_id(1), tl.cdiv(M, BLOCK_M), tl.num_programs(1)):
        rows, _first, in_m, _in_n = row_tile(tile, M, N, BLOCK_M, BLOCK_N)
        b_dy, x_hat, _dx_hat = _hats(dy, x, None, mean, rstd, rows, cols, N, in_m, in_n)
        b_dw += b_dy * x_hat
        b_db += b_dy
    at = tl.program_id(1) * tl.full((), N, tl.int64) + cols
    tl.store(dw + at, col_sum(b_dw), in_n)
    if db is not None:
        tl.store(db + at, col_sum(b_db), in_n)


@tuning.heuristic
def _forward_plan(M: int, N: int, K: int | None, eps: float, dtype: torch.dtype, device: torch.device) -> tuning.Plan:
    plan = tuning.rows(M, N, device, tuning.registers(dtype, 2))
    return plan._replace(meta={"M": M, "N": N, "K": K, "EPS": eps, **plan.meta})


@op("layer_norm")
def _forward(
    x: Tensor,
    residual: Tensor | None,
    N: int,
    K: int | None,
    w: Tensor | None,
    b: Tensor | None,
    eps: float,
    centered: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """y; x + residual (empty without residual); mean, rstd. All contiguous.

    Not centered: root mean squares, over K elements of a row if that is not None, take the place of deviations, and
    mean is empty.
    """
    x = x.contiguous()
    M = x.numel() // N
    y = torch.empty_like(x, dtype=dtype, memory_format=torch.contiguous_format)
    mean = x.new_empty(M if centered else 0, dtype=compute_dtype(x))
    rstd = x.new_empty(M, dtype=compute_dtype(x))
    w, b, residual = (None if t is None else t.contiguous() for t in (w, b, residual))
    some_mean = mean if centered else None
    plan = _forward_plan(M, N, K, eps, x.dtype, x.device)
    if plan.loops:
        s = x if residual is None else x + residual
        launch_planned(_forward_long_kernel, plan, y, some_mean, rstd, s, w, b)
        return y, x.new_empty(0) if residual is None else s, mean, rstd
    s = x.new_empty(0) if residual is None else torch.empty_like(x, memory_format=torch.contiguous_format)
    launch_planned(_forward_kernel, plan, y, s, some_mean, rstd, x, residual, w, b)
    return y, s, mean, rstd


@op("layer_norm_backward")
def _backward(
    dy: Tensor,
    ds: Tensor | None,
    x: Tensor,
    N: int,
    K: int | None,
    w: Tensor | None,
    mean: Tensor,
    rstd: Tensor,
    centered: bool,
    needs_dw: bool,
    needs_db: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, to which ds is added; dw and db where needed, in the statistics' dtype, of shape [N] (else empty)."""
    dy, x = dy.contiguous(), x.contiguous()
    M = x.numel() // N
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    w, ds = (None if t is None else t.contiguous() for t in (w, ds))
    some_mean = mean if centered else None
    wants = (needs_dw or needs_db, needs_db)
    plan = tuning.row_groups(M, N, x.device, tuning.registers(x.dtype, 2 + sum(wants)))
    if not plan.loops:
        dw, db = (rstd.new_empty(plan.grid[0], N) if wanted else None for wanted in wants)
        launch(_backward_kernel, plan.grid, dx, dw, db, dy, ds, x, w, some_mean, rstd, M, N, K, **plan.meta)
    else:
        launch(_backward_long_kernel, plan.grid, dx, dy, ds, x, w, some_mean, rstd, M, N, K, **plan.meta)
        plan = tuning.column_groups(M, N, x.device)
        dw, db = (rstd.new_empty(plan.grid[1], N) if wanted else None for wanted in wants)
        if dw is not None:
            launch(_weight_kernel, plan.grid, dw, db, dy, x, some_mean, rstd, M, N, **plan.meta)
    dw, db = (rstd.new_empty(0) if t is None else t.sum(0) for t in (dw, db))
    return dx, dw, db


class How(NamedTuple):
    """What a row norm is, beside its tensors. K: see above. reference: (x, w, b) -> y in torch's operators."""

    shape: tuple[int, ...]
    K: int | None
    eps: float
    centered: bool
    dtype: torch.dtype
    reference: Callable[..., Tensor]


class RowNorm(torch.autograd.Function):
    """y, or with a residual y and x + residual."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor | None, w: Tensor | None, b: Tensor | None, how: How) -> Any:
        N = math.prod(how.shape)
        y, s, mean, rstd = _forward(x, residual, N, how.K, w, b, how.eps, how.centered, how.dtype)
        ctx.save_for_backward(x if residual is None else s, w, b, mean, rstd)
        ctx.how, ctx.N = how, N
        ctx.set_materialize_grads(False)
        return y if residual is None else (y, s)

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, ds: Tensor | None = None) -> tuple[Tensor | None, ...]:
        if dy is None:  # nobody uses the norm
            return ds, ds, None, None, None
        x, w, b, mean, rstd = ctx.saved_tensors
        _, needs_dr, needs_dw, needs_db, _ = ctx.needs_input_grad
        if recompute.wanted():
            dx, dw, db = recompute.gradients(lambda x, w, b: ctx.how.reference(x, w, b), (x, w, b), dy)
            dx = dx if ds is None or dx is None else dx + ds
            return dx, dx if needs_dr else None, dw, db, None
        dx, dw, db = _backward(dy, ds, x, ctx.N, ctx.how.K, w, mean, rstd, ctx.how.centered, needs_dw, needs_db)
        dw = dw.to(w.dtype).view_as(w) if needs_dw else None
        db = db.to(b.dtype).view_as(b) if needs_db else None
        return dx, dx if needs_dr else None, dw, db, None


LAYER_NORM = torch.ops.aten.native_layer_norm.default


def fits(input: Tensor, shape: tuple[int, ...], *parameters: Tensor | None) -> bool:
    """Are these sizes that torch accepts?"""
    rows = 0 < len(shape) <= input.dim() and tuple(input.shape[input.dim() - len(shape) :]) == shape
    return rows and all(t is None or tuple(t.shape) == shape for t in parameters)


def apart(input: Tensor, residual: Tensor) -> bool:
    """Must input + residual be torch's? The kernels add what is alike and contiguous."""
    alike = residual.shape == input.shape and residual.dtype == input.dtype
    return not (alike and input.is_contiguous() and residual.is_contiguous())


def learns(*tensors: Tensor | None) -> bool:
    """Is a gradient of any of these to come?"""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _kind(input: Tensor, weight: Tensor | None, bias: Tensor | None, residual: Tensor | None) -> str:
    """What `crossover` knows the call by: sums over rows for weights are what torch does better."""
    if residual is not None:
        return "layer_norm (residual)"
    if not learns(input, weight, bias):
        return "layer_norm (forward alone)"
    return "layer_norm (plain)" if weight is None and bias is None else "layer_norm"


def _recorded(x: Tensor, shape: tuple[int, ...], eps: float) -> Tensor:
    """The kernel's result with torch's node."""
    y, _, mean, rstd = _forward(x.detach(), None, math.prod(shape), None, None, None, eps, True, x.dtype)
    lines = [*x.shape[: x.dim() - len(shape)], *[1] * len(shape)]
    result = y, mean.view(lines), rstd.view(lines)
    found: Tensor = nodes.torchs(torch.native_layer_norm, LAYER_NORM, result, x, shape, None, None, eps)[0]
    return found


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    residual: Tensor | None = None,
) -> Any:
    """As :func:`torch.nn.functional.layer_norm`; with a residual that of input + residual, and returns this sum too.

    Shapes: input [*, *normalized_shape]; weight and bias, if given, normalized_shape; residual and the results as
    input, contiguous. Dtypes: float16, bfloat16, float32, float64; float32 inside (float64 for float64).
    """
    name = _kind(input, weight, bias, residual)
    shape = tuple(normalized_shape)
    reason = None if fits(input, shape, weight, bias) else route.INVALID
    if residual is not None:
        reason = reason or ("a residual that is not alike and contiguous" if apart(input, residual) else None)
    if not route.to_torch(name, input, weight, bias, residual, unless=reason):

        def reference(x: Tensor, w: Tensor | None, b: Tensor | None) -> Tensor:
            return torch.nn.functional.layer_norm(x, shape, w, b, eps)

        # torch keeps the statistics in the dtype that all have
        alike = name == "layer_norm (plain)" and compute_dtype(input) == input.dtype
        if alike and nodes.possible(input) and route.gradient_to_torch(name, input):
            return _recorded(input, shape, eps)
        how = How(shape, None, eps, True, autocast.output_dtype("layer_norm", input), reference)
        return apply(RowNorm, input, residual, weight, bias, how)
    if residual is None:
        return torch.nn.functional.layer_norm(input, shape, weight, bias, eps)
    s = input + residual
    return layer_norm(s, shape, weight, bias, eps), s
