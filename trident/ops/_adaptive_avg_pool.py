"""Adaptive average pooling (He et al. 2014, arXiv:1406.4729): a fixed number O of outputs from an axis of any length L.

window(i)   = [floor(i L / O), ceil((i + 1) L / O))          per axis; they overlap where O does not divide L
forward     y[i]  = sum of x over window(i) / |window(i)|
backward    dx[j] = sum of dy[i] / |window(i)| over the i whose window holds j

Where O divides L each x lies in one window, and the backward's kernel spreads dy. Elsewhere it goes along W first, and
then along D and H at once (`_pool.spread`), where each x lies in few windows and rows are whole rows of memory.

Every case is brought to [P, D, H, W, C] in memory, pooled along D, H and W (`_geometry`): C is 1 for contiguous tensors
and the channels for channels_last. A window is walked in steps of BLOCK_K columns by BLOCK_C channels, which lie side
by side in memory. Where outputs are too few to fill the device the steps of a window are shared out among several
programs (axis 1 of the grid), and `add_slices` adds what those found. On CPUs planes go row by row
(`_adaptive_rows.py`), where a window by itself would be short and far apart accesses.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import accumulator, load, matrix_tile, multiple
from trident.ops import _adaptive_rows
from trident.ops._pool import memory_format, spread
from trident.ops._slices import add_slices, new_slices
from trident.ops._windows import channels_last
from trident.runtime import autocast, recompute, route, tuning, tuning_windows
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype


@triton.jit
def _window(i, A, B):
    """First and past of window i, where A / B = L / O in lowest terms."""
    return i * A // B, ((i + 1) * A + B - 1) // B


@triton.jit
def _windows(at, AREA, OW, AD, BD, AH, BH, AW, BW):
    """Position `at` in a plane of outputs -> where its window begins, and its length, on each of the three axes."""
    d, past_d = _window(at // AREA, AD, BD)
    h, past_h = _window(at % AREA // OW, AH, BH)
    w, past_w = _window(at % OW, AW, BW)
    return d, h, w, past_d - d, past_h - h, past_w - w


@triton.jit
def _windows_kernel(
    y, x, count, n, C, H, W, PLANE, OUTS, AREA, OW, AD, BD, AH, BH, AW, BW, KD, KH, KW, STEPS,
    SPREAD: tl.constexpr, UNIFORM: tl.constexpr, WHOLE: tl.constexpr, CHANNELS_FIRST: tl.constexpr,
    WIDE: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_O: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_C: tl.constexpr, UNROLL: tl.constexpr,
):  # fmt: skip
    """y [n, C] = sums of x over windows, divided by count (None: by their own sizes). SPREAD: x = y / count over them.

    KD, KH, KW: the longest window. UNIFORM: all are as long; WHOLE: and BLOCK_K divides KW. STEPS: of each program of
    axis 1, which writes its own y. CHANNELS_FIRST: y is [planes, C, OUTS]. WIDE: a plane may pass 2^31 elements.
    """
    c_tiles = tl.cdiv(C, BLOCK_C)
    c_begin = tl.program_id(0) % c_tiles * BLOCK_C
    # a 64-bit division is slow: one for the tile, then 32-bit ones for its outputs
    begin = tl.program_id(0) // c_tiles * tl.full((), BLOCK_O, tl.int64)
    plane = begin // OUTS
    at = begin - plane * OUTS
    if not WIDE:
        at = at.to(tl.int32)
    at += tl.arange(0, BLOCK_O)[:, None]
    outputs, planes, at = begin + tl.arange(0, BLOCK_O)[:, None], plane + at // OUTS, at % OUTS
    d, h, w, kd, kh, kw = _windows(at, AREA, OW, AD, BD, AH, BH, AW, BW)

    lanes = tl.arange(0, BLOCK_K * BLOCK_C)[None, :]
    columns, channels = lanes // BLOCK_C, c_begin + (lanes % BLOCK_C if BLOCK_C > 1 else tl.zeros((1, 1), tl.int32))
    inside = (outputs < n) & (channels < C)
    first = planes * PLANE + ((d * H + h) * W + w) * C
    if BLOCK_O > 1:  # Triton makes scalars of [1, 1] tensors, and then trips over hints for two axes
        first = tl.multiple_of(first, (ALIGN, ALIGN))
    first = x + first + (columns * C + channels)
    b_y = accumulator(x, BLOCK_O, BLOCK_K * BLOCK_C)
    if SPREAD:
        b_y = load(y + (outputs * C + channels), inside) / count

    chunks = tl.cdiv(KW, BLOCK_K)
    step = tl.program_id(1) * STEPS
    for i in tl.range(step, tl.minimum(step + STEPS, KD * KH * chunks), loop_unroll_factor=UNROLL):
        i_row = i // chunks
        i_d, i_h, i_w = i_row // KH, i_row % KH, i % chunks * BLOCK_K
        b_x = first + tl.multiple_of(((i_d * H + i_h) * tl.full((), W, planes.dtype) + i_w) * C, ALIGN)
        if not UNIFORM:
            found = inside & (i_d < kd) & (i_h < kh) & (columns + i_w < kw)
        elif not WHOLE:
            found = inside & (columns + i_w < KW)
        else:
            found = inside
        if SPREAD:
            tl.store(b_x, b_y, found)
        else:
            b_y += load(b_x, found)

    if not SPREAD:
        if BLOCK_C == 1:
            b_y = tl.sum(b_y, axis=1, keep_dims=True)
        elif BLOCK_K > 1:
            b_y = tl.sum(tl.reshape(b_y, (BLOCK_O, BLOCK_K, BLOCK_C)), axis=1)
            channels = c_begin + tl.arange(0, BLOCK_C)[None, :]
        y += tl.program_id(1) * tl.full((), C, tl.int64) * n
        y_at = (planes * C + channels) * OUTS + at if CHANNELS_FIRST else outputs * C + channels
        total = kd.to(b_y.dtype) * kh * kw if count is None else count
        tl.store(y + y_at, b_y / total, (outputs < n) & (channels < C))


@triton.jit
def _expand_kernel(
    dx, dy, M, W, OW, A, B, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):  # fmt: skip
    """dx [M, W] = sums of dy [M, OW] / window over the windows that hold an element: window by window, no gathers."""
    W = multiple(W, ALIGN)
    tiles = tl.cdiv(W, BLOCK_N)
    rows, cols, inside = matrix_tile(tl.program_id(0) // tiles, tl.program_id(0) % tiles, M, W, BLOCK_M, BLOCK_N)
    b_dx = tl.broadcast_to(accumulator(dy, 1, 1), (BLOCK_M, BLOCK_N))
    for o in range(OW):
        first, past = _window(o, A, B)
        b_dy = load(dy + rows * OW + o, rows < M)
        b_dx += tl.where((cols >= first) & (cols < past), b_dy / (past - first), 0.0)
    tl.store(dx + rows * W + cols, b_dx, inside)


FEW_WINDOWS = 32  # of a row: so many comparisons cost less than two gathers of each x
Axes = tuple[tuple[int, int], ...]  # L and O of each
WIDEST = 2**31 - 2**20  # elements of a plane that are counted in 32 bits; the last tile reaches past the end


def _fold(axes: Axes, C: int, one_format: bool) -> tuple[Axes, int]:
    """The fewest axes to pool that say the same, and C. Axes that stand still become planes or channels (where input
    and output lie alike), and two neighbours that are pooled to 1 (or from 1) are one axis."""
    left = list(axes)
    while one_format and left and left[0][0] == left[0][1]:
        del left[0]
    while one_format and left and left[-1][0] == left[-1][1]:
        C *= left.pop()[0]
    folded: list[tuple[int, int]] = []
    for L, out in left:
        if folded and (folded[-1][1] == out == 1 or folded[-1][0] == L == 1):
            L, out = L * folded[-1][0], out * folded[-1][1]
            del folded[-1]
        folded.append((L, out))
    return ((1, 1),) * (3 - len(folded)) + tuple(folded), C


@tuning.heuristic
def _geometry(
    x_numel: int, C: int, D: int, OD: int, H: int, OH: int, W: int, OW: int, one_format: bool, device: torch.device
) -> tuning.Plan:
    """The launch of `_windows_kernel` on [planes, D, H, W, C] -> [planes, OD, OH, OW, C]: all its sizes and flags."""
    axes, C = _fold(((D, OD), (H, OH), (W, OW)), C, one_format)
    (D, OD), (H, OH), (W, OW) = axes
    plane, outs = D * H * W, OD * OH * OW
    n = x_numel // (plane * C) * outs
    ratios = [(L // math.gcd(L, out), out // math.gcd(L, out)) for L, out in axes]
    # windows have ceil(A / B) to ceil((A - 1) / B) + 1 elements, and both are found
    KD, KH, KW = (tuning.cdiv(A - 1, B) + 1 for A, B in ratios)
    uniform = all((A - 1) % B == 0 for A, B in ratios)
    (AD, BD), (AH, BH), (AW, BW) = ratios

    plan = tuning_windows.windows(n, C, KD, KH, KW, device)
    block_k = plan.meta["BLOCK_K"]
    strides = W * C, (AW if BW == 1 else 1) * C, (block_k if block_k < KW else 0) * C  # of rows, windows and steps
    most = max(plane * C, outs * C, OD * AD, OH * AH, OW * AW)
    return tuning.Plan(
        plan.grid,
        {
            **{"count": KD * KH * KW if uniform else None, "n": n, "C": C, "H": H, "W": W},
            **{"PLANE": plane * C, "OUTS": outs, "AREA": OH * OW, "OW": OW},
            **{"AD": AD, "BD": BD, "AH": AH, "BH": BH, "AW": AW, "BW": BW, "KD": KD, "KH": KH, "KW": KW},
            **{"UNIFORM": uniform, "WHOLE": uniform and KW % block_k == 0, "ALIGN": math.gcd(16, *strides)},
            "WIDE": most > WIDEST,
            **plan.meta,
        },
    )


def _add_windows(y: Tensor, x: Tensor, plan: tuning.Plan, channels_first: bool = False) -> None:
    """y = sums of the windows of x, in one pass or, where the plan has slices, in two."""
    slices = math.prod(plan.grid[1:])
    flags = {"SPREAD": False, "CHANNELS_FIRST": channels_first}
    if slices == 1:
        return launch(_windows_kernel, plan.grid, y, x, **plan.meta, **flags)
    found = new_slices(slices, y, x)
    launch(_windows_kernel, plan.grid, found, x, **plan.meta, **flags)
    add_slices(y, found)


def _axes(sizes: Sequence[int], size: Sequence[int]) -> list[int]:
    """D, OD, H, OH, W, OW: the pooled axes are the last len(size) of `sizes`."""
    if len(size) == 2:  # what is usual, quickly
        return [1, 1, sizes[-2], size[0], sizes[-1], size[1]]
    ones = [1] * (3 - len(size))
    pairs = zip([*ones, *sizes[len(sizes) - len(size) :]], [*ones, *size], strict=True)
    return [n for pair in pairs for n in pair]


@op("adaptive_avg_pool")
def _forward(x: Tensor, size: Sequence[int], last: bool, dtype: torch.dtype) -> Tensor:
    """x [*, L...] -> [*, *size]. As in torch channels_last stays so, and channels_last_3d becomes contiguous."""
    sizes = x.shape
    shape, axes = [*sizes[: len(sizes) - len(size)], *size], _axes(sizes, size)
    if not last:
        rows = _adaptive_rows.plan(True, x.numel(), *axes, x.device)
        if rows.grid:
            x, y = x.contiguous(), x.new_empty(shape, dtype=dtype)
            _adaptive_rows.add(y, x, rows)
            return y
    one_format = not last or len(size) < 3
    x = x.contiguous(memory_format=memory_format(last, x.dim()))
    y = torch.empty(shape, dtype=dtype, device=x.device, memory_format=memory_format(last and one_format, x.dim()))
    plan = _geometry(x.numel(), x.shape[1] if last else 1, *axes, one_format, x.device)
    _add_windows(y, x, plan, channels_first=not one_format)
    return y


@op("adaptive_avg_pool_backward")
def _backward(dy: Tensor, sizes: Sequence[int], pooled: int, channels_last: bool, dtype: torch.dtype) -> Tensor:
    """dy -> the gradient of an input of shape `sizes`, whose last `pooled` axes were pooled."""
    axes = _axes(sizes, dy.shape[dy.dim() - pooled :])
    if not channels_last:
        rows = _adaptive_rows.plan(False, math.prod(sizes), *axes, dy.device)
        if rows.grid:
            dx = dy.new_empty(sizes, dtype=dtype)
            _adaptive_rows.spread(dx, dy.contiguous(), rows)
            return dx
    form = memory_format(channels_last, dy.dim())
    dx = torch.empty(list(sizes), dtype=dtype, device=dy.device, memory_format=form)
    dy = dy.contiguous(memory_format=form)
    C = sizes[1] if channels_last else 1
    there = _geometry(dx.numel(), C, *axes, True, dy.device)
    if there.meta.get("BD") == there.meta.get("BH") == there.meta.get("BW") == 1:  # no window overlaps another
        launch(_windows_kernel, there.grid, dy, dx, **there.meta, SPREAD=True, CHANNELS_FIRST=False)
        return dx
    D, OD, H, OH, W, OW = axes
    planes = dx.numel() // (D * H * W * C)
    if OW != W:  # one axis after the other; W first, where dy is smallest
        across = dx if D == H == OD == OH == 1 else dy.new_empty(planes * OD * OH * W * C, dtype=compute_dtype(dy))
        _spread_rows(across, dy, planes * OD * OH, C, W, OW)
        dy = across
    if dy is not dx:
        spread(dx, dy, planes, W * C, (D, H, 1), (OD, OH, 1))
    return dx


def _spread_rows(dx: Tensor, dy: Tensor, M: int, C: int, W: int, OW: int) -> None:
    """dx [M, W, C] = sums of dy [M, OW, C] / window over the windows of W that hold an element."""
    if C > 1 or OW > FEW_WINDOWS:
        return spread(dx, dy, M, C, (1, 1, W), (1, 1, OW))
    plan, common = tuning_windows.window_tiles(M, W, dy.device, 1), math.gcd(W, OW)
    sizes, align = (M, W, OW, W // common, OW // common), tuning.aligned(W, dy.device)
    launch(_expand_kernel, plan.grid, dx, dy, *sizes, ALIGN=align, **plan.meta)


class _AdaptiveAvgPool(torch.autograd.Function):
    """Keeps nothing but the input's shape: the gradient does not depend on its values."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: tuple[int, ...], last: bool, dtype: torch.dtype) -> Tensor:
        ctx.like = x.shape, len(size), last, x.dtype
        return _forward(x, size, last, dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        sizes, pooled, channels_last, dtype = ctx.like
        if recompute.wanted():
            x = torch.zeros((), dtype=dtype, device=dy.device).expand(sizes).requires_grad_()
            size = tuple(dy.shape[dy.dim() - pooled :])
            return *recompute.gradients(lambda x: TORCH[pooled](x, size), (x,), dy), None, None, None
        return _backward(dy, sizes, pooled, channels_last, dtype), None, None, None


def _output_size(input: Tensor, size: Any, pooled: int) -> tuple[int, ...] | None:
    """`size` for each pooled axis, or None if torch must say what is wrong with it (or make an empty result)."""
    if type(size) is int and size > 0 and input.dim() in (pooled + 1, pooled + 2):  # what is usual, quickly
        return (size,) * pooled
    if isinstance(size, int | torch.SymInt):
        size = (size,) * pooled
    if not isinstance(size, tuple | list) or len(size) != pooled or input.dim() not in (pooled + 1, pooled + 2):
        return None
    if pooled == 1 and size[0] is None:  # None keeps an axis, but in one dimension torch wants a number
        return None
    sizes = tuple(n if o is None else o for o, n in zip(size, input.shape[input.dim() - pooled :], strict=True))
    return sizes if all(isinstance(n, int | torch.SymInt) and n > 0 for n in sizes) else None


TORCH: dict[int, Callable[..., Tensor]] = {
    1: torch.nn.functional.adaptive_avg_pool1d,
    2: torch.nn.functional.adaptive_avg_pool2d,
    3: torch.nn.functional.adaptive_avg_pool3d,
}


NAMES = {pooled: f"adaptive_avg_pool{pooled}d" for pooled in TORCH}


def _kind(name: str, input: Tensor, size: tuple[int, ...], last: bool) -> str:
    """What `crossover` knows the call by: planes go row by row there, unless they leave one value; others do not."""
    pooled = len(size)
    if not input.is_cpu:
        return name
    if size == ONE_WINDOW[pooled]:
        return f"{name} (one window)"
    if pooled == 2 and not last:
        return name
    lengths = input.shape[input.dim() - pooled :]
    even = all(n % o == 0 for n, o in zip(lengths, size, strict=True))
    form = " (channels_last)" if last and pooled == 2 else ""
    return f"{name}{form}" if even else f"{name}{form} (uneven)"


ONE_WINDOW = {pooled: (1,) * pooled for pooled in TORCH}


def _pool(input: Tensor, output_size: Any, pooled: int) -> Tensor:
    name = NAMES[pooled]
    size = _output_size(input, output_size, pooled)
    if size is None:
        route.to_torch(name, input, unless=route.INVALID)
        return TORCH[pooled](input, output_size)
    last = channels_last(input, pooled)
    if route.to_torch(_kind(name, input, size, last), input):
        return TORCH[pooled](input, output_size)
    dtype = autocast.output_dtype(name, input)
    if pooled == 1:  # as torch does, which decides what counts as channels_last
        input = input.unsqueeze(-2)
        return apply(_AdaptiveAvgPool, input, (1, *size), channels_last(input, 2), dtype).squeeze(-2)
    return apply(_AdaptiveAvgPool, input, size, last, dtype, unrecorded=_forward)


def adaptive_avg_pool1d(input: Tensor, output_size: int | Sequence[int]) -> Tensor:
    """[*, L] -> [*, output_size]. Same contract as :func:`torch.nn.functional.adaptive_avg_pool1d`."""
    return _pool(input, output_size, 1)


def adaptive_avg_pool2d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor:
    """[*, H, W] -> [*, *output_size]; None keeps an axis. As :func:`torch.nn.functional.adaptive_avg_pool2d`."""
    return _pool(input, output_size, 2)


def adaptive_avg_pool3d(input: Tensor, output_size: int | Sequence[int | None] | None) -> Tensor:
    """[*, D, H, W] -> [*, *output_size]; None keeps an axis. As :func:`torch.nn.functional.adaptive_avg_pool3d`."""
    return _pool(input, output_size, 3)
