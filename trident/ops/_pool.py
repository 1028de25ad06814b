"""Pooling over windows: one forward and one backward kernel for max, average and power mean, regular and adaptive.

max      y = max of x over the window         code = where in the window it lies
mean     y = sum of x / count                 of the window's elements, see lang/windows.py
power    y = (K mean of x^p)^(1/p)            K the size of a whole window

backward dx[j] = sum over the windows i that hold j of
max        dy[i] where code[i] is j's place in window i
mean       dy[i] / count(i)
power      dy[i] y[i]^(1 - p) K / count(i),  times x[j]^(p - 1)

Each dx looks at the few windows that may hold it: no atomics, the same sums in the same order every time.

Everything is brought to planes of [D, H, W, C]: C is 1 for contiguous tensors and the channels for channels_last. A
tile is rows times columns. The columns lie side by side in memory: neighbours along W, or, with LAST, the channels.
What a row needs to know (its windows, its masks) is worked out once for all its columns. A code is the distance from
the window's first element, in a box that holds the window; torch's index is one in the plane.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.pooling import add_element, finished, power
from trident.lang.tile import accumulator, load, multiple
from trident.lang.windows import last_window, plane_rows, skipped, window_count, window_end, window_start
from trident.ops._scatter import scatter
from trident.ops._wide_pool import wide_forward_kernel
from trident.runtime import recompute, tuning, tuning_windows
from trident.runtime.launch import launch
from trident.runtime.op import op


@triton.jit
def _in_width(cols, w0, w_end, kw, W, AW, PW, UNEVEN: tl.constexpr, LAST: tl.constexpr):
    """Which windows have an element kw behind their first: of rows, or of columns."""
    if UNEVEN:
        return w0 + kw < w_end
    elif LAST:
        return (w0 + kw >= 0) & (w0 + kw < W)
    else:  # bounds on the columns themselves, within which trident_cpu reads whole vectors without masks
        return (cols >= (PW - kw + AW - 1) // AW) & (cols < (W + PW - kw + AW - 1) // AW)


@triton.jit
def _count(
    od, oh, ow, D, H, W, AD, AH, AW, BD, BH, BW, PD, PH, PW, KD, KH, KW, PADDED: tl.constexpr, UNEVEN: tl.constexpr
):
    """How many elements the windows average over."""
    count = window_count(od, D, AD, BD, PD, KD, UNEVEN, PADDED) * window_count(oh, H, AH, BH, PH, KH, UNEVEN, PADDED)
    return count * window_count(ow, W, AW, BW, PW, KW, UNEVEN, PADDED)


@triton.jit
def _forward_kernel(
    y, code, x, count, M, N, C, D, H, W, OD, OH, OW, AD, AH, AW, BD, BH, BW, PD, PH, PW, KD, KH, KW, GD, GH, GW,
    PITCH_D, PITCH_H,
    KIND: tl.constexpr, P: tl.constexpr, PADDED: tl.constexpr, INDICES: tl.constexpr,
    UNEVEN: tl.constexpr, LAST: tl.constexpr, STRIDE: tl.constexpr, WIDTH: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """y, code [M, N] from x [planes, D, H, W, C]. count: what every window is divided by; None: its own elements.

    STRIDE: AW where it is known at compile time; WIDTH: KW where the loop over it is unrolled.
    """
    N = multiple(N, ALIGN)
    if LAST:
        C = N
    tiles = tl.cdiv(N, BLOCK_N)
    line = OW if LAST else 1
    rows, plane, od, oh, ow = plane_rows(tl.program_id(0) // tiles, OD * OH * line, OH * line, line, BLOCK_M)
    cols = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    in_m, in_n = rows < M, cols < N
    if not LAST:
        ow = cols
    d0 = window_start(od, AD, BD, PD, UNEVEN)
    h0 = window_start(oh, AH, BH, PH, UNEVEN)
    w0 = window_start(ow, STRIDE if STRIDE else AW, BW, PW, UNEVEN)
    d_end, h_end, w_end = d0, h0, w0
    if UNEVEN:
        d_end = window_end(od, AD, BD, PD, KD, UNEVEN)
        h_end = window_end(oh, AH, BH, PH, KH, UNEVEN)
        w_end = window_end(ow, AW, BW, PW, KW, UNEVEN)
    # rows and columns apart, so that an address is one per row, and an offset from it
    base = x + ((plane * D + d0) * H + h0) * W * C + (w0 * C if LAST else 0)
    across = cols if LAST else w0

    best = tl.broadcast_to(accumulator(x, 1, 1), (BLOCK_M, BLOCK_N))
    b_code = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    if KIND == "max":
        best -= float("inf")
        b_code += skipped(d0, GD) * PITCH_D + skipped(h0, GH) * PITCH_H + skipped(w0, GW)
    for i in range(KD * KH):
        kd, kh = i // KH * GD, i % KH * GH
        d, h = d0 + kd, h0 + kh
        in_rows = in_m & (d >= 0) & (d < D) & (h >= 0) & (h < H)
        if UNEVEN:
            in_rows &= (d < d_end) & (h < h_end)
        start, this = base + (kd * H + kh) * tl.full((), W, tl.int64) * C, kd * PITCH_D + kh * PITCH_H
        if WIDTH:
            for k in tl.static_range(WIDTH):
                found = in_rows & _in_width(cols, w0, w_end, k * GW, W, AW, PW, UNEVEN, LAST) & in_n
                best, b_code = add_element(best, b_code, start + k * GW * C + across, found, this + k * GW, KIND, P)
        else:
            for k in range(KW):
                found = in_rows & _in_width(cols, w0, w_end, k * GW, W, AW, PW, UNEVEN, LAST) & in_n
                best, b_code = add_element(best, b_code, start + k * GW * C + across, found, this + k * GW, KIND, P)

    inside, at = in_m & in_n, rows * N + cols
    if code is not None:
        if INDICES:
            b_code = b_code.to(tl.int64) + ((d0 * H + h0).to(tl.int64) * W + w0)
        tl.store(code + at, b_code, inside)
    if KIND != "max":
        if count is None:
            b_count = _count(
                od, oh, ow, D, H, W, AD, AH, AW, BD, BH, BW, PD, PH, PW, KD, KH, KW, PADDED, UNEVEN
            )  # fmt: skip
            best /= b_count.to(best.dtype)
        else:
            best /= count
        best = finished(best, KD * KH * KW, KIND, P)
    tl.store(y + at, best, inside)


@triton.jit
def _take(
    b_dx, b_odd, dy, y, code, count, line, cols, j, residue, expected, in_rows, in_n, last, w,
    od, oh, OW, C, D, H, W, AD, AH, AW, BD, BH, BW, PD, PH, PW, KD, KH, KW, GW,
    KIND: tl.constexpr, P: tl.constexpr, PADDED: tl.constexpr, INDICES: tl.constexpr,
    UNEVEN: tl.constexpr, LAST: tl.constexpr, PAIR: tl.constexpr, SHIFTED: tl.constexpr,
):  # fmt: skip
    """Add what the j-th last window that may hold an element of dx gives to it."""
    ow = last - j
    if UNEVEN or LAST:
        kw = w - window_start(ow, AW, BW, PW, UNEVEN)
        in_width = (ow >= 0) & (ow < OW) & (w < window_end(ow, AW, BW, PW, (KW - 1) * GW + 1, UNEVEN)) & in_n
    elif SHIFTED:
        kw = 2 * j - 1
        in_width = (ow >= 0) & (ow < OW)
    else:  # columns past the last one are of no element
        kw = residue + j * AW
        in_width = (cols >= j) & (cols < OW + j)
    found = in_rows & in_width
    at = (line + ow) * C + cols if LAST else line + ow
    b_dy = load(dy + at, found)
    if KIND == "max":
        b_code = tl.load(code + at, mask=found, other=-1)
        place = (expected + (w if INDICES else kw)).to(b_code.dtype)
        taken = b_code == place
        if SHIFTED:  # before a row of a window is, in codes, another of its rows
            taken &= kw >= 0
        b_dx += tl.where(taken, b_dy, 0.0)
        if PAIR:
            b_odd += tl.where(b_code == place + 1, b_dy, 0.0)
    else:
        if KIND == "power":  # torch: no gradient where the sum is 0
            b_y = load(y + at, found)
            b_dy = tl.where(b_y == 0, 0.0, b_dy * power(b_y, 1 - P))
        if count is None:
            b_count = _count(
                od, oh, ow, D, H, W, AD, AH, AW, BD, BH, BW, PD, PH, PW, KD, KH, KW, PADDED, UNEVEN
            )  # fmt: skip
            b_dy /= tl.maximum(b_count, 1).to(b_dy.dtype)  # windows that do not exist may count nothing
        if UNEVEN or LAST:
            b_dx += b_dy
        else:
            b_dx += tl.where((kw >= 0) & (kw < KW) if SHIFTED else kw < KW, b_dy, 0.0)
            if PAIR:
                b_odd += tl.where(kw + 1 < KW, b_dy, 0.0)
    return b_dx, b_odd


@triton.jit
def _backward_kernel(
    dx, dy, x, y, code, count, M, N, C, D, H, W, OD, OH, OW, AD, AH, AW, BD, BH, BW, PD, PH, PW, KD, KH, KW, GD, GH, GW,
    PITCH_D, PITCH_H, TD, TH, TW,
    KIND: tl.constexpr, P: tl.constexpr, PADDED: tl.constexpr, INDICES: tl.constexpr,
    UNEVEN: tl.constexpr, LAST: tl.constexpr, SHIFTED: tl.constexpr, STRIDE: tl.constexpr, WIDTH: tl.constexpr,
    ALIGN: tl.constexpr, ALIGN_O: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dx [planes, D, H, W, C] from dy. TD, TH, TW: how many windows may hold an element; WIDTH: TW if unrolled.

    Columns along W go by windows: column q stands for the AW elements from q AW - PW on, of which one (axis 1 of the
    grid: the residue) or, for a stride of two, both are this program's. So dy and code are read side by side. SHIFTED:
    those of a stride of two are 2 q and 2 q + 1, of odd PW and windows, so that pairs of dx begin where segments do.
    """
    PAIR: tl.constexpr = STRIDE == 2
    if LAST:
        N = multiple(N, ALIGN)
        C = N
    else:
        W, OW = multiple(W, ALIGN), multiple(OW, ALIGN_O)
    tiles = tl.cdiv(N, BLOCK_N)
    line = W if LAST else 1
    rows, plane, d, h, w = plane_rows(tl.program_id(0) // tiles, D * H * line, H * line, line, BLOCK_M)
    cols = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    in_m, in_n = rows < M, cols < N
    residue = tl.program_id(1)
    last = cols
    if UNEVEN or LAST:
        w = w if LAST else cols
        last = last_window(w, AW, BW, PW, UNEVEN)
    else:
        w = cols * (STRIDE if STRIDE else AW) + residue - (0 if SHIFTED else PW)
        if SHIFTED:
            last = cols + (PW + 1) // 2
    last_d, last_h = last_window(d, AD, BD, PD, UNEVEN), last_window(h, AH, BH, PH, UNEVEN)

    b_dx = tl.broadcast_to(accumulator(dy, 1, 1), (BLOCK_M, BLOCK_N))
    b_odd = b_dx
    for i in range(TD * TH):
        od, oh = last_d - i // TH, last_h - i % TH
        kd = d - window_start(od, AD, BD, PD, UNEVEN)
        kh = h - window_start(oh, AH, BH, PH, UNEVEN)
        in_rows = in_m & (od >= 0) & (od < OD) & (oh >= 0) & (oh < OH)
        in_rows &= d < window_end(od, AD, BD, PD, (KD - 1) * GD + 1, UNEVEN)
        in_rows &= h < window_end(oh, AH, BH, PH, (KH - 1) * GH + 1, UNEVEN)
        out = ((plane * OD + od) * OH + oh) * OW
        expected = (d * H + h).to(tl.int64) * W if INDICES else kd * PITCH_D + kh * PITCH_H
        if WIDTH:
            for j in tl.static_range(WIDTH):
                b_dx, b_odd = _take(
                    b_dx, b_odd, dy, y, code, count, out, cols, j, residue, expected, in_rows, in_n, last, w,
                    od, oh, OW, C, D, H, W, AD, AH, AW, BD, BH, BW, PD, PH, PW, KD, KH, KW, GW,
                    KIND, P, PADDED, INDICES, UNEVEN, LAST, PAIR, SHIFTED,
                )  # fmt: skip
        else:
            for j in range(TW):
                b_dx, b_odd = _take(
                    b_dx, b_odd, dy, y, code, count, out, cols, j, residue, expected, in_rows, in_n, last, w,
                    od, oh, OW, C, D, H, W, AD, AH, AW, BD, BH, BW, PD, PH, PW, KD, KH, KW, GW,
                    KIND, P, PADDED, INDICES, UNEVEN, LAST, PAIR, SHIFTED,
                )  # fmt: skip

    if PAIR:
        b_dx = tl.interleave(b_dx, b_odd)
        w = tl.program_id(0) % tiles * (2 * BLOCK_N) + tl.arange(0, 2 * BLOCK_N)[None, :]
        w -= 0 if SHIFTED else PW
    if LAST:
        inside, at = in_m & in_n, rows * N + cols
    else:
        inside, at = in_m & (w >= 0) & (w < W), rows * W + w
    if KIND != "max" and count is not None:
        b_dx /= count
    if KIND == "power":
        b_dx *= power(load(x + at, inside), P - 1) * (KD * KH * KW)
    tl.store(dx + at, b_dx, inside)


WIDE = 8  # elements in a row of a window, from which on lanes lie along it
UNROLLED = 8  # windows up to so wide are unrolled: what is found stays in registers from element to element
MOST_CLASSES = 8  # of windows that overlap, each of which is one launch: beyond it every dx looks for its windows
LARGEST_SOUGHT = 27  # elements of a window in whose places every x looks for itself
aten = torch.ops.aten
GRADIENTS: dict[str, Any] = {  # of torch, by the name of the function
    "max_pool2d": aten.max_pool2d_with_indices_backward.default,
    "max_pool3d": aten.max_pool3d_with_indices_backward.default,
    "adaptive_max_pool2d": aten.adaptive_max_pool2d_backward.default,
    "adaptive_max_pool3d": aten.adaptive_max_pool3d_backward.default,
}
NODES: dict[str, tuple[Any, Any]] = {  # torch's operator of the same maxima, in Python and below autograd
    "max_pool2d": (torch._C._nn.max_pool2d_with_indices, aten.max_pool2d_with_indices.default),
    "max_pool3d": (torch._C._nn.max_pool3d_with_indices, aten.max_pool3d_with_indices.default),
    "adaptive_max_pool2d": (torch._C._nn.adaptive_max_pool2d, aten.adaptive_max_pool2d.default),
    "adaptive_max_pool3d": (torch._C._nn.adaptive_max_pool3d, aten.adaptive_max_pool3d.default),
}
NO_CODES, PLACES, INDICES = range(3)  # of a maximum: nothing, its place in the window, torch's index in the plane


@tuning.heuristic
def _plan(
    backward: bool, planes: int, C: int, last: bool, padded: bool, live: int, device: torch.device, *sizes: int
) -> tuning.Plan:
    """The launch of a kernel: all its sizes and flags. live: registers an element; sizes: see `_sizes`."""
    L, out, window = sizes[:3], sizes[3:6], sizes[6:]
    if window:
        K, A, P, G = (window[i : i + 3] for i in (0, 3, 6, 9))
        B: tuple[int, ...] = (1, 1, 1)
    else:
        common = [math.gcd(n, o) for n, o in zip(L, out, strict=True)]
        A, B = (tuple(n // g for n, g in zip(of, common, strict=True)) for of in (L, out))
        # windows have ceil(A / B) to ceil((A - 1) / B) + 1 elements, and both are found
        K, P, G = tuple(tuning.cdiv(a - 1, b) + 1 for a, b in zip(A, B, strict=True)), (0, 0, 0), (1, 1, 1)
    # the backward of far apart windows would write here and there, each residue of a stride in its own program
    uneven = max(B) > 1 or (backward and not window and A[2] > 2)
    reach = [(k - 1) * g + 1 for k, g in zip(K, G, strict=True)]
    box = _box_width(reach[2], 1 if uneven else A[2])
    # of windows: how many may hold one element
    T = [tuning.cdiv(b - 1, a) + 1 if uneven else tuning.cdiv(r, a) for a, b, r in zip(A, B, reach, strict=True)]
    ends = [(o - 1) * a - p + k for o, a, p, k in zip(out, A, P, K, strict=True)]
    limits = [n + p if padded else n for n, p in zip(L, P, strict=True)]
    alike = not uneven and (padded or max(P) == 0) and all(e <= n for e, n in zip(ends, limits, strict=True))

    axes = {"": L, "O": out, "A": A, "B": B, "P": P, "K": K, "G": G, **({"T": T} if backward else {})}
    meta: dict[str, Any] = {letter + axis: n for letter, of in axes.items() for axis, n in zip("DHW", of, strict=True)}
    meta |= {"PITCH_D": reach[1] * box, "PITCH_H": box, "count": math.prod(K) if alike else None, "UNEVEN": uneven}

    by_windows = backward and not (last or uneven)
    if backward:
        # GPU: whole segments are written. Pairs of even windows would lie in one window more
        shifted = device.type == "cuda" and by_windows and A[2] == 2 and P[2] % 2 == reach[2] % 2 == 1
        meta["SHIFTED"] = shifted
        columns = tuning.cdiv(L[2], 2) if shifted else (L[2] - 1 + P[2]) // A[2] + 1 if by_windows else L[2]
        rows, residues, width = math.prod(L[:2]), A[2] if by_windows and A[2] > 2 else 1, T[2]
    else:
        rows, columns, residues, width = math.prod(out[:2]), out[2], 1, K[2]
    wide = not backward and not last and K[2] >= WIDE
    if wide:
        tiles = tuning_windows.wide_windows(planes * rows * columns, K[2], device, live)
        return tuning.Plan(tiles.grid, {"M": planes * rows * columns, **meta, **tiles.meta}, loops=True)
    M, N = (planes * rows * columns, C) if last else (planes * rows, columns)
    tiles = tuning_windows.window_tiles(M, N, device, live)
    meta |= {"M": M, "N": N, "C": C, "LAST": last, "WIDTH": width if width <= UNROLLED else 0}
    meta |= {"STRIDE": A[2] if A[2] <= UNROLLED and not (last or uneven) else 0}
    meta |= {"ALIGN": tuning.aligned(C if last else L[2] if backward else N, device)}
    if backward:
        meta |= {"ALIGN_O": tuning.aligned(out[2], device)}
    return tuning.Plan((tiles.grid[0], residues), {**meta, **tiles.meta})


def _sizes(sizes: Sequence[int], size: Sequence[int], window: Sequence[int]) -> list[int]:
    """Of D, H and W: L, then outputs, then, unless windows are adaptive, K, stride, padding, dilation."""
    ones = [1] * (3 - len(size))
    found = [*ones, *sizes[len(sizes) - len(size) :], *ones, *size]
    for i, neutral in zip(range(0, len(window), len(size)), (1, 1, 0, 1), strict=False):
        found += [*[neutral] * len(ones), *window[i : i + len(size)]]
    return found


def _folded(numbers: list[int]) -> list[int]:
    """Rows that one adaptive window takes whole are one longer row."""
    if len(numbers) == 6 and all(isinstance(n, int) for n in numbers):
        (D, H, W), (OD, OH, OW) = numbers[:3], numbers[3:]
        if OH == OW == 1:
            D, H, W = (1, 1, D * H * W) if OD == 1 else (D, 1, H * W)
            return [D, H, W, OD, OH, OW]
    return numbers


def memory_format(channels_last: bool, dim: int) -> torch.memory_format:
    if not channels_last:
        return torch.contiguous_format
    return torch.channels_last if dim == 4 else torch.channels_last_3d


def few_close(window: Sequence[int], pooled: int) -> bool:
    """Small windows, close together: every x looks at those that hold it. From others dy is scattered."""
    return len(window) > 0 and window[2 * pooled - 1] <= 2 and math.prod(window[:pooled]) <= LARGEST_SOUGHT


def _box_width(reach: int, stride: int) -> int:
    """The width of a box for places: whole strides, since the backward asks for each element of each stride."""
    return tuning.cdiv(reach, stride) * stride


def _place_dtype(window: Sequence[int], pooled: int) -> torch.dtype:
    """The smallest type for places in a window."""
    if not window:
        return torch.int32
    kernel, stride, dilation = (window[i * pooled : (i + 1) * pooled] for i in (0, 1, 3))
    reach = [(k - 1) * g + 1 for k, g in zip(kernel, dilation, strict=True)]
    places = math.prod(reach[:-1]) * _box_width(reach[-1], stride[-1])
    return torch.int8 if places <= 127 else torch.int16 if places <= 32767 else torch.int32


@op("pool")
def pool(
    x: Tensor, kind: str, size: Sequence[int], window: Sequence[int], norm: float, divisor: int, padded: bool,
    codes: int, last: bool, dtype: torch.dtype,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """x [*, L...] -> y [*, *size]; of a maximum its codes (else empty). divisor: 0 for each window's own count."""
    form = memory_format(last, x.dim())
    x = x.contiguous(memory_format=form)
    shape = [*x.shape[: x.dim() - len(size)], *size]
    y = torch.empty(shape, dtype=dtype, device=x.device, memory_format=form)
    code_dtype = torch.int64 if codes == INDICES else _place_dtype(window, len(size))
    code = torch.empty(shape, dtype=code_dtype, device=x.device, memory_format=form) if codes else y.new_empty(0)
    C = x.shape[1] if last else 1
    planes = math.prod(x.shape[: x.dim() - len(size)]) // C
    numbers = _sizes(x.shape, size, window)
    live = tuning.registers(x.dtype, 1)
    plan = _plan(False, planes, C, last, padded, live, x.device, *(numbers if codes == PLACES else _folded(numbers)))
    count = divisor or plan.meta.get("count")
    meta = {**plan.meta, "count": None if kind == "max" else count}
    if codes == INDICES and "W" in meta:
        meta |= {"PITCH_D": meta["H"] * meta["W"], "PITCH_H": meta["W"]}
    flags = {"KIND": kind, "P": norm, "PADDED": padded, "INDICES": codes == INDICES}
    kernel = wide_forward_kernel if plan.loops else _forward_kernel
    launch(kernel, plan.grid[:1], y, code if codes else None, x, **meta, **flags)
    return y, code


@op("pool_backward")
def _backward(
    dy: Tensor, x: Tensor | None, y: Tensor | None, code: Tensor | None, kind: str, sizes: Sequence[int],
    window: Sequence[int], pooled: int, norm: float, divisor: int, padded: bool, codes: int, last: bool,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    """The gradient of an x of shape `sizes`. x, y: for power means; code: for maxima."""
    form = memory_format(last, dy.dim())
    dy = dy.contiguous(memory_format=form)
    x, y, code = (None if t is None else t.contiguous(memory_format=form) for t in (x, y, code))
    C = sizes[1] if last else 1
    planes = math.prod(sizes[: dy.dim() - pooled]) // C
    size = dy.shape[dy.dim() - pooled :]
    numbers = _sizes(sizes, size, window)
    plan = _plan(True, planes, C, last, padded, tuning.registers(dy.dtype, 1), dy.device, *numbers)
    if code is not None and codes == INDICES and not few_close(window, pooled):
        T = [plan.meta.get("T" + axis, 1) for axis in "DHW"]
        if math.prod(T) <= MOST_CLASSES:
            dx = torch.empty(list(sizes), dtype=dtype, device=dy.device, memory_format=form).zero_()
            scatter(dx, dy, code, (planes, C), math.prod(numbers[:3]), numbers[3:6], T, last)
            return dx
    dx = torch.empty(list(sizes), dtype=dtype, device=dy.device, memory_format=form)
    count = divisor or plan.meta.get("count")
    meta = {**plan.meta, "count": None if kind == "max" else count}
    flags = {"KIND": kind, "P": norm, "PADDED": padded, "INDICES": codes == INDICES}
    launch(_backward_kernel, plan.grid, dx, dy, x, y, code, **meta, **flags)
    return dx


def spread(dx: Tensor, dy: Tensor, planes: int, C: int, L: Sequence[int], outputs: Sequence[int]) -> None:
    """dx [planes, *L, C] = sums of dy [planes, *outputs, C] / window over the adaptive windows that hold an element."""
    plan = _plan(True, planes, C, C > 1, False, tuning.registers(dy.dtype, 1), dy.device, *L, *outputs)
    flags = {"KIND": "mean", "P": 1.0, "PADDED": False, "INDICES": False}
    launch(_backward_kernel, plan.grid, dx, dy, None, None, None, **plan.meta, **flags)


def _of_torch(again: tuple[Any, ...], dy: Tensor, x: Tensor, index: Tensor) -> Tensor:
    """torch's gradient of the maxima that its function again[0] takes with the arguments again[1:]."""
    name, *args = again
    if name.startswith("adaptive"):
        return GRADIENTS[name](dy, x, index)
    return GRADIENTS[name](dy, x, *args, index)


class Pool(torch.autograd.Function):
    """kind: "max", "mean" or "power". both: return codes, too. again: torch's function and its arguments after x.
    theirs: the gradient of a maximum is torch's, from its indices."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kind: str, size: tuple[int, ...], window: tuple[int, ...], norm: float, divisor: int,
        padded: bool, codes: int, last: bool, dtype: torch.dtype, both: bool, again: tuple[Any, ...],
        theirs: bool = False,
    ) -> Any:  # fmt: skip
        y, code = pool(x, kind, size, window, norm, divisor, padded, codes, last, dtype)
        ctx.save_for_backward(
            x if theirs or kind == "power" else None,
            y if kind == "power" else None,
            code if kind == "max" and codes else None,
        )
        ctx.how = kind, window, len(size), norm, divisor, padded, codes, last
        ctx.like, ctx.again, ctx.theirs = (x.shape, x.dtype), again, theirs
        if both:
            ctx.mark_non_differentiable(code)
            return y, code
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor, *rest: Any) -> tuple[Tensor | None, ...]:
        x, y, code = ctx.saved_tensors
        shape, dtype = ctx.like
        kind, window, pooled, norm, divisor, padded, codes, last = ctx.how
        if recompute.wanted():
            name, *args = ctx.again
            if x is None:
                x = torch.zeros((), dtype=dtype, device=dy.device).expand(shape).requires_grad_()
            (dx,) = recompute.gradients(lambda x: getattr(torch.nn.functional, name)(x, *args), (x,), dy)
        elif ctx.theirs:
            dx = _of_torch(ctx.again, dy, x, code)
        else:
            dx = _backward(
                dy, x, y, code, kind, shape, window, pooled, norm, divisor, padded, codes, last, dtype
            )  # fmt: skip
        return dx, *[None] * 12
