"""Sampling at the places of a grid, in two and three dimensions.

    y[n, c, q] = sum over taps k of w_k(q) x[n, c, i_k(q)]                      i_k, w_k from grid[n, q]

One tap for "nearest", 2 an axis for "bilinear" (trilinear), 4 for "bicubic" (lang/sampling.py). A place is worked out
once for a block of channels.

    dx[n, c, i]     = sum over q, k with i_k(q) = i of w_k(q) dy[n, c, q]
    dgrid[n, q, a]  = slope_a(q) sum over c, k of dy[n, c, q] x[n, c, i_k(q)] dw_k(q) / dt_a        0 for "nearest"

t_a is the way from the first tap to the place on axis a, slope_a how that moves with the grid. Which q add to an i only
the grid knows. No atomics, which torch has on GPUs, and the same bits each time: on GPUs taps are sorted by i and added
as runs (`_segments.py`); on CPUs a program owns some channels of an image and adds tap after tap.
"""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.sampling import axis_slope, axis_source, axis_tap, slope
from trident.lang.tile import accumulator, load
from trident.ops._resample import WIDEST
from trident.ops._segments import sum_by_key
from trident.ops._turned import turned
from trident.runtime import autocast, recompute, route, tuning, tuning_conv
from trident.runtime.autograd import apply
from trident.runtime.crossover_tables import ALONE
from trident.runtime.exporting import surely
from trident.runtime.launch import launch
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype

MODES = ("bilinear", "nearest", "bicubic")  # in the order of torch's numbers for them
PADDINGS = ("zeros", "border", "reflection")
MOST_BATCHES = 65535  # programs along the second axis of a GPU's grid
TAPS = {"nearest": 1, "bilinear": 2, "bicubic": 4}


@triton.jit
def _places(
    grid, n, P, D, H, W,
    MODE: tl.constexpr, PADDING: tl.constexpr, ALIGNED: tl.constexpr, DEEP: tl.constexpr, BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """A block of places q [BLOCK_Q] of image n, which exist, and on each axis the first tap and the way on."""
    q = tl.program_id(0) * BLOCK_Q + tl.arange(0, BLOCK_Q)
    in_q = q < P
    grid += (n * P + q) * (3 if DEEP else 2)
    i_w, t_w = axis_source(load(grid, in_q), W, MODE, PADDING, ALIGNED)
    i_h, t_h = axis_source(load(grid + 1, in_q), H, MODE, PADDING, ALIGNED)
    i_d, t_d = i_w, t_w
    if DEEP:
        i_d, t_d = axis_source(load(grid + 2, in_q), D, MODE, PADDING, ALIGNED)
    return q, in_q, i_w, t_w, i_h, t_h, i_d, t_d


@triton.jit
def _tap(
    i_w, t_w, i_h, t_h, i_d, t_d, k, D, H, W,
    MODE: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGNED: tl.constexpr, DEEP: tl.constexpr,
):  # fmt: skip
    """Tap k: its element in the image, its weight on each axis (on D: 1 if there is none), and whether it exists."""
    zero = tl.full((), 0, tl.int32)
    at, w_w, found = axis_tap(i_w, t_w, zero + k % TAPS, W, MODE, PADDING, ALIGNED)
    h, w_h, in_h = axis_tap(i_h, t_h, zero + k // TAPS % TAPS, H, MODE, PADDING, ALIGNED)
    at, found, w_d = h * W + at, found & in_h, t_w * 0 + 1
    if DEEP:
        d, w_d, in_d = axis_tap(i_d, t_d, zero + k // (TAPS * TAPS), D, MODE, PADDING, ALIGNED)
        at, found = d * H * W + at, found & in_d
    return at, w_w, w_h, w_d, found


@triton.jit
def _lines(n, c, C, L, LAST: tl.constexpr):
    """Where channels c of image n begin, and how far apart their L elements are: [N, C, L], LAST: [N, L, C]."""
    if LAST:
        return n * C * L + c, C
    else:
        return (n * C + c) * L, 1


@triton.jit
def _sample_kernel(
    y, x, grid, P, C, D, H, W,
    MODE: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGNED: tl.constexpr, DEEP: tl.constexpr,
    LAST: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """y [N, C, P], x [N, C, D, H, W], LAST: [N, P, C] and so on; grid [N, P, 3 if DEEP else 2] as (w, h, d).
    Grid: blocks of P; N."""
    n = tl.program_id(1).to(tl.int64)
    q, in_q, i_w, t_w, i_h, t_h, i_d, t_d = _places(grid, n, P, D, H, W, MODE, PADDING, ALIGNED, DEEP, BLOCK_Q)
    for first in range(0, C, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)[None, :]
        there, step = _lines(n, c, C, D * H * W, LAST)
        b_y = accumulator(x, BLOCK_Q, BLOCK_C)
        for k in tl.static_range(TAPS * TAPS * (TAPS if DEEP else 1)):
            at, w_w, w_h, w_d, found = _tap(
                i_w, t_w, i_h, t_h, i_d, t_d, k, D, H, W, MODE, TAPS, PADDING, ALIGNED, DEEP
            )
            b_x = load(x + there + (at * step)[:, None], (in_q & found)[:, None] & (c < C))
            b_y += b_x * (w_w * w_h * w_d)[:, None]
        there, step = _lines(n, c, C, P, LAST)
        tl.store(y + there + (q * step)[:, None], b_y, in_q[:, None] & (c < C))


@triton.jit
def _grid_gradient_kernel(
    dgrid, dy, x, grid, P, C, D, H, W,
    MODE: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGNED: tl.constexpr, DEEP: tl.constexpr,
    LAST: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """As `_sample_kernel`."""
    n = tl.program_id(1).to(tl.int64)
    q, in_q, i_w, t_w, i_h, t_h, i_d, t_d = _places(grid, n, P, D, H, W, MODE, PADDING, ALIGNED, DEEP, BLOCK_Q)
    none = tl.reshape(accumulator(x, 1, BLOCK_Q), (BLOCK_Q,))
    b_w, b_h, b_d = none, none, none
    for first in range(0, C, BLOCK_C):
        c = first + tl.arange(0, BLOCK_C)[None, :]
        there, step = _lines(n, c, C, P, LAST)
        b_dy = load(dy + there + (q * step)[:, None], in_q[:, None] & (c < C))
        there, step = _lines(n, c, C, D * H * W, LAST)
        along_w = accumulator(x, BLOCK_Q, BLOCK_C)
        along_h, along_d = along_w, along_w
        for k in tl.static_range(TAPS * TAPS * (TAPS if DEEP else 1)):
            at, w_w, w_h, w_d, found = _tap(
                i_w, t_w, i_h, t_h, i_d, t_d, k, D, H, W, MODE, TAPS, PADDING, ALIGNED, DEEP
            )
            b_x = load(x + there + (at * step)[:, None], (in_q & found)[:, None] & (c < C))
            along_w += b_x * (axis_slope(t_w, k % TAPS, MODE) * w_h * w_d)[:, None]
            along_h += b_x * (axis_slope(t_h, k // TAPS % TAPS, MODE) * w_w * w_d)[:, None]
            if DEEP:
                along_d += b_x * (axis_slope(t_d, k // (TAPS * TAPS), MODE) * w_w * w_h)[:, None]
        b_w += tl.sum(along_w * b_dy, 1)
        b_h += tl.sum(along_h * b_dy, 1)
        if DEEP:
            b_d += tl.sum(along_d * b_dy, 1)
    there = (n * P + q) * (3 if DEEP else 2)
    s_w = slope(load(grid + there, in_q), W, MODE, PADDING, ALIGNED)
    s_h = slope(load(grid + there + 1, in_q), H, MODE, PADDING, ALIGNED)
    tl.store(dgrid + there, b_w * s_w, in_q)
    tl.store(dgrid + there + 1, b_h * s_h, in_q)
    if DEEP:
        s_d = slope(load(grid + there + 2, in_q), D, MODE, PADDING, ALIGNED)
        tl.store(dgrid + there + 2, b_d * s_d, in_q)


@triton.jit
def _keys_kernel(
    keys, weights, grid, N, P, D, H, W,
    MODE: tl.constexpr, TAPS: tl.constexpr, PADDING: tl.constexpr, ALIGNED: tl.constexpr, DEEP: tl.constexpr,
    BLOCK_Q: tl.constexpr,
):  # fmt: skip
    """Of each tap [N, taps, P] its element of all N images (N D H W: none), and its weight. Grid: blocks of P; N."""
    n = tl.program_id(1).to(tl.int64)
    L = tl.full((), D, tl.int64) * H * W
    q, in_q, i_w, t_w, i_h, t_h, i_d, t_d = _places(grid, n, P, D, H, W, MODE, PADDING, ALIGNED, DEEP, BLOCK_Q)
    NUMBER: tl.constexpr = TAPS * TAPS * (TAPS if DEEP else 1)
    for k in tl.static_range(NUMBER):
        at, w_w, w_h, w_d, found = _tap(i_w, t_w, i_h, t_h, i_d, t_d, k, D, H, W, MODE, TAPS, PADDING, ALIGNED, DEEP)
        there = (n * NUMBER + k) * P + q
        tl.store(keys + there, tl.where(found, n * L + at, N * L), in_q)
        tl.store(weights + there, w_w * w_h * w_d, in_q)


@triton.jit
def _add_kernel(dx, dy, keys, weights, P, C, V, TAPS: tl.constexpr, BLOCK_C: tl.constexpr):
    """dx [V, C], which is 0; dy [N, P, C]; keys, weights [N, TAPS, P]. Grid: N; blocks of C."""
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    for q in range(P):
        b_dy = load(dy + (n * P + q) * C + c, c < C)
        for k in tl.static_range(TAPS):
            tap = (n * TAPS + k) * P + q
            key = tl.load(keys + tap).to(tl.int64)
            if key < V:
                at = dx + key * C + c
                tl.store(at, tl.load(at, mask=c < C, other=0.0) + b_dy * tl.load(weights + tap), c < C)


def _lying(t: Tensor, last: bool) -> Tensor:
    """t [N, C, *], in memory as that or, with `last`, as [N, *, C]."""
    if not last:
        return t.contiguous()
    found = t.movedim(1, -1)
    if t.is_contiguous() and not found.is_contiguous():
        found = turned(t.flatten(2)).view(found.shape)
    return found.contiguous().movedim(-1, 1)


def _lies_last(t: Tensor) -> bool:
    return not t.is_contiguous() and t.movedim(1, -1).is_contiguous()


def _sizes(x: Tensor, grid: Tensor) -> tuple[int, ...]:
    """P, C, D, H, W of the kernels."""
    return math.prod(grid.shape[1:-1]), x.shape[1], x.shape[2] if x.dim() == 5 else 1, *x.shape[-2:]


def _plan(x: Tensor, grid: Tensor, mode: str, gradient: bool) -> tuning.Plan:
    P, C, D, H, W = _sizes(x, grid)
    return tuning_conv.sampled(P, C, D * H * W, TAPS[mode], gradient, x.device)


def _how(mode: str, padding: str, aligned: bool, deep: bool) -> dict[str, Any]:
    return {"MODE": mode, "TAPS": TAPS[mode], "PADDING": padding, "ALIGNED": aligned, "DEEP": deep}


@op("grid_sample")
def _sample(x: Tensor, grid: Tensor, mode: str, padding: str, aligned: bool) -> Tensor:
    """x [N, C, *L], grid [N, *Q, rank] -> [N, C, *Q]."""
    P, C, D, H, W = _sizes(x, grid)
    plan = _plan(x, grid, mode, False)
    last, places = plan.meta.get("LAST", False), grid.shape[1:-1]
    y = x.new_empty([x.shape[0], *places, C] if last else [x.shape[0], C, *places])
    launch(
        _sample_kernel, (*plan.grid, x.shape[0]), y, _lying(x, last), grid.contiguous(), P, C, D, H, W,
        **_how(mode, padding, aligned, x.dim() == 5), **plan.meta,
    )  # fmt: skip
    return y.movedim(-1, 1).contiguous() if last else y


@op("grid_sample_dgrid")
def _grid_gradient(dy: Tensor, x: Tensor, grid: Tensor, mode: str, padding: str, aligned: bool) -> Tensor:
    """dy [N, C, *Q], x [N, C, *L], grid [N, *Q, rank] -> as grid."""
    P, C, D, H, W = _sizes(x, grid)
    plan = _plan(x, grid, mode, True)
    last = plan.meta.get("LAST", False)
    dgrid = torch.empty_like(grid, memory_format=torch.contiguous_format)
    launch(
        _grid_gradient_kernel, (*plan.grid, x.shape[0]),
        dgrid, _lying(dy, last), _lying(x, last), grid.contiguous(), P, C, D, H, W,
        **_how(mode, padding, aligned, x.dim() == 5), **plan.meta,
    )  # fmt: skip
    return dgrid


def _tap_sums(dy: Tensor, grid: Tensor, sizes: Sequence[int], mode: str, padding: str, aligned: bool) -> Tensor:
    """dy [N, C, *Q], grid [N, *Q, rank] -> [N, *sizes, C]."""
    N, C, P, V = dy.shape[0], dy.shape[1], math.prod(grid.shape[1:-1]), dy.shape[0] * math.prod(sizes)
    taps = TAPS[mode] ** len(sizes)
    keys = grid.new_empty([N, taps, P], dtype=torch.int32 if V < 2**31 else torch.int64)
    weights = grid.new_empty([N, taps, P], dtype=compute_dtype(grid))
    plan = tuning_conv.sample_keys(P, TAPS[mode], grid.device)
    launch(
        _keys_kernel, (*plan.grid, N), keys, weights, grid.contiguous(), N, P, *[1] * (3 - len(sizes)), *sizes,
        **_how(mode, padding, aligned, len(sizes) == 3), **plan.meta,
    )  # fmt: skip
    rows = _lying(dy, True).movedim(1, -1).view(N * P, C)
    plan = tuning_conv.added_taps(N, C, grid.device)
    if plan.loops:
        dx = dy.new_zeros([V, C], dtype=compute_dtype(dy))
        launch(_add_kernel, plan.grid, dx, rows, keys, weights, P, C, V, TAPS=taps, **plan.meta)
    else:
        places = torch.arange(N * P, device=dy.device).view(N, 1, P).expand(N, taps, P).reshape(-1)
        dx = sum_by_key((V + 1, C), keys.view(-1), rows, V, rows=places, weights=weights.view(-1))[:V]
    return dx.view(N, *sizes, C)


@op("grid_sample_dx")
def _image_gradient(
    dy: Tensor, grid: Tensor, sizes: Sequence[int], mode: str, padding: str, aligned: bool, last: bool
) -> Tensor:
    """dy [N, C, *Q], grid [N, *Q, rank] -> [N, C, *sizes], in memory channels last if `last`."""
    N, C = dy.shape[:2]
    dx = dy.new_empty([N, *sizes, C]).movedim(-1, 1) if last else dy.new_empty([N, C, *sizes])
    if isinstance(N, torch.SymInt):  # of a fake: the loop would bind the graph to N
        return dx
    each = tuning_conv.images_at_once(N, C, math.prod(sizes), dy.device)
    for first in range(0, N, each):
        some = slice(first, first + each)
        dx[some] = _tap_sums(dy[some], grid[some], sizes, mode, padding, aligned).movedim(-1, 1)
    return dx


class _GridSample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor, mode: str, padding: str, aligned: bool, in_torch: bool) -> Tensor:
        ctx.save_for_backward(x, grid)
        ctx.how = mode, padding, aligned
        return _torchs(x, grid, *ctx.how) if in_torch else _sample(x, grid, *ctx.how)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, grid = ctx.saved_tensors
        if recompute.wanted():
            again = recompute.gradients(lambda x, grid: _torchs(x, grid, *ctx.how), (x, grid), dy)
            return *again, None, None, None, None
        mode, padding, aligned = ctx.how
        dx = dgrid = None
        if all(ctx.needs_input_grad[:2]) and not torch.compiler.is_compiling():  # else each would write it again
            dy = _lying(dy, _plan(x, grid, mode, True).meta.get("LAST", False))
        if ctx.needs_input_grad[0]:
            dx = _image_gradient(dy, grid, x.shape[2:], mode, padding, aligned, _lies_last(x))
        if ctx.needs_input_grad[1]:
            dgrid = torch.zeros_like(grid) if mode == "nearest" else _grid_gradient(dy, x, grid, *ctx.how)
        return dx, dgrid, None, None, None, None


def _torchs(x: Tensor, grid: Tensor, mode: str, padding: str, aligned: bool) -> Tensor:
    return torch.grid_sampler(x, grid, MODES.index(mode), PADDINGS.index(padding), aligned)


def _kind(x: Tensor, grid: Tensor, mode: str) -> str:
    """What `crossover` knows the call by."""
    if x.dim() == 5 and mode == "nearest":
        return "grid_sample (3d) (nearest)"
    if x.dim() == 5:
        trained = torch.is_grad_enabled() and (x.requires_grad or grid.requires_grad)
        return f"grid_sample (3d){'' if trained else ALONE}"
    wide, learns = x.shape[1] >= 16, x.requires_grad and torch.is_grad_enabled()
    if mode == "nearest":
        return "grid_sample"
    if x.dtype == torch.bfloat16 or (x.dtype == torch.float16 and wide):
        return "grid_sample (halves)"
    # torch gathers in vectors, for the forward and the gradient by the grid, but adds to dx one by one
    if learns and wide and (mode == "bicubic" or x.dtype == torch.float32):
        return f"grid_sample (learns) ({mode})"
    return "grid_sample"


def few_batches(t: Tensor) -> bool:
    return t.is_cpu or surely(t.shape[0] <= MOST_BATCHES)


def grid_sample(
    input: Tensor, grid: Tensor, mode: str = "bilinear", padding_mode: str = "zeros", align_corners: bool | None = None
) -> Tensor:
    """x [N, C, *L], grid [N, *Q, rank] -> [N, C, *Q]. Same contract as :func:`torch.nn.functional.grid_sample`.

    Gradients are the same bits each time, on GPUs too, where torch's by the input are not. A place that is NaN lies at
    0 under "border" and "reflection", as in torch, else outside, as in torch on GPUs; its own gradient is 0.
    """
    rank = input.dim() - 2
    fits = rank in (2, 3) and grid.dim() == input.dim() and grid.shape[-1] == rank and grid.shape[0] == input.shape[0]
    fits = fits and mode in MODES and padding_mode in PADDINGS and not (mode == "bicubic" and rank == 3)
    fits = (
        fits
        and grid.numel() > 0
        and few_batches(grid)
        and max(math.prod(input.shape[2:]), math.prod(grid.shape[1:-1])) <= WIDEST
    )
    reason = None if fits and input.dtype == grid.dtype else route.INVALID
    if fits and autocast.active(input):
        reason = "torch casts both to float32 under autocast"
    kind = _kind(input, grid, mode) if fits else "grid_sample"
    if route.to_torch(kind, input, grid, unless=reason):
        return torch.nn.functional.grid_sample(input, grid, mode, padding_mode, align_corners)
    warn_of_default("grid_sample", align_corners)
    in_torch = kind.startswith("grid_sample (learns)") and route.to_torch("grid_sample", input, grid)
    y: Tensor = apply(_GridSample, input, grid, mode, padding_mode, bool(align_corners), in_torch)
    return y


def warn_of_default(name: str, align_corners: bool | None) -> None:
    if align_corners is None:
        warnings.warn(
            f"{name}: align_corners is None, which has meant False since torch 1.3; pass it to be sure", stacklevel=4
        )
