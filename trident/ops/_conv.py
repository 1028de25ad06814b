"""Convolutions as products of gathered tiles: x [N, G C, *L], w [G O, C, *K], y [N, G O, *Q]; G groups.

forward      y[n, o, q] = sum over c, k of w[o, c, k] x[n, c, q S - P + k D]           then + b[o], then f
input        dx[n, c, i] = sum over o, k of w[o, c, k] dy[n, o, (i + P - k D) / S]     where S divides that
weight       dw[o, c, k] = sum over n, q of dy[n, o, q] x[n, c, q S - P + k D]

A transposed convolution's forward is the second line, its gradients are the first and the third with x and dy in each
other's place. So all of it is two kernels: `convolved` (lines one and two), `correlated` (line three), in one, two and
three dimensions (missing ones have one element). Of the second line each class of outputs (lang/conv.py) is a program's
own, and no tap is multiplied by zeros.

A tile of x is gathered as it is multiplied, never stored: positions times channels of one tap or, where channels are
few (FLAT), times pairs of a tap and a channel. Tensors lie channels last (LAST) or with positions side by side, and so
do tiles. dw sums over positions, often many while [O, C K] is small: slices are summed by several programs, and their
results added in a fixed order.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.conv import axis_of_class, hinted, positions, tap_and_channel, walk_steps
from trident.lang.tile import accumulator, load, matrix
from trident.ops._activation import ACTIVATIONS
from trident.ops._conv_depthwise import depthwise_kernel, depthwise_weight_kernel
from trident.ops._slices import add_slices, new_slices
from trident.runtime import tuning, tuning_conv, tuning_windows
from trident.runtime.launch import launch
from trident.runtime.op import op

# The names of `shape_numbers`, in its order. Only scalars are worked out of them: a variant of the kernel for each that
# is 1 would buy nothing
NUMBERS = [letter + axis for letter in ("", *"OKSPG") for axis in "DHW"]


@triton.jit(do_not_specialize=[*NUMBERS, "ED", "EH", "EW", "N"])
def _conv_kernel(
    y, z, x, w, bias, N, C, CO, PLANE, D, H, W, OD, OH, OW, KD, KH, KW, SD, SH, SW, PD, PH, PW, GD, GH, GW, ED, EH, EW,
    F: tl.constexpr, PRECISION: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr, TRANSPOSED: tl.constexpr,
    POINT: tl.constexpr, FLAT: tl.constexpr, DOWN: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """z = the first line, or the second if TRANSPOSED, plus bias; y = F(z). bias, z and F may be None.

    C channels of x and CO of y in a group; x [N, *, D, H, W], y [N, *, OD, OH, OW], PLANE = OD OH OW; w [groups, taps,
    CO, C], or LAST [groups, taps, C, CO]. POINT: an output reads x where it lies itself. DOWN: positions lie along a
    tile's axis 0, else along axis 1. Grid: tiles of positions and channels; groups; classes.
    """
    C, CO, PLANE = hinted(C, CO, PLANE, LAST, ALIGN)
    P_AXIS: tl.constexpr = 0 if DOWN else 1
    group, cls = tl.program_id(1), tl.program_id(2)
    d_0, n_d, x_d, step_d, next_d, tap_d, apart_d, taps_d = axis_of_class(
        cls // (SH * SW) if TRANSPOSED else 0, OD, KD, SD, PD, GD, ED, TRANSPOSED
    )
    h_0, n_h, x_h, step_h, next_h, tap_h, apart_h, taps_h = axis_of_class(
        cls // SW % SH if TRANSPOSED else 0, OH, KH, SH, PH, GH, EH, TRANSPOSED
    )
    w_0, n_w, x_w, step_w, next_w, tap_w, apart_w, taps_w = axis_of_class(
        cls % SW if TRANSPOSED else 0, OW, KW, SW, PW, GW, EW, TRANSPOSED
    )
    among = PLANE
    if TRANSPOSED:  # a class may have fewer outputs than the grid has room for, or none
        n_d, n_h, n_w = tl.maximum(n_d, 1), tl.maximum(n_h, 1), tl.maximum(n_w, 1)
        among = n_d * n_h * n_w
    tiles = tl.cdiv(CO, BLOCK_O)
    begin = tl.program_id(0) // tiles * tl.full((), BLOCK_P, tl.int64)
    n, place, d, h, q = positions(begin, among, n_h * n_w, n_w, BLOCK_P, P_AXIS)
    in_p = n < N
    y_place = place
    if TRANSPOSED:
        out_d, out_h, out_w = d_0 + d * SD, h_0 + h * SH, w_0 + q * SW
        in_p = in_p & (out_d < OD) & (out_h < OH) & (out_w < OW)
        y_place = (out_d * OH + out_h) * OW + out_w
    out = tl.program_id(0) % tiles * BLOCK_O + tl.arange(0, BLOCK_O)
    out = out[None, :] if DOWN else out[:, None]
    in_o = out < CO

    k = tl.arange(0, BLOCK_K)
    k_x, k_w = (k[None, :], k[:, None]) if DOWN else (k[:, None], k[None, :])
    IN = PLANE if POINT else D * H * W
    taps = taps_d * taps_h * taps_w
    x_c, x_p, y_c, y_p = (1, C * tl.num_programs(1), 1, CO * tl.num_programs(1)) if LAST else (IN, 1, PLANE, 1)
    w_c, w_o = (CO, 1) if LAST else (1, C)
    x += n * tl.full((), IN, tl.int64) * C * tl.num_programs(1) + group * C * x_c
    w += group * (KD * KH * KW) * C * CO + out * w_o
    d, h, q = x_d + d * step_d, x_h + h * step_h, x_w + q * step_w
    b_z = accumulator(x, BLOCK_P, BLOCK_O) if DOWN else accumulator(x, BLOCK_O, BLOCK_P)
    zero = tl.full((), 0, tl.int32)
    for step in range(walk_steps(C, taps, BLOCK_K, FLAT)):
        tap, c, in_c = tap_and_channel(zero + step, k_x, C, taps, BLOCK_K, FLAT)
        x_place, inside = place, in_p
        if not POINT:
            i_d = d + tap // (taps_h * taps_w) * next_d
            i_h = h + tap // taps_w % taps_h * next_h
            i_w = q + tap % taps_w * next_w
            inside = in_p & (i_d >= 0) & (i_d < D) & (i_h >= 0) & (i_h < H) & (i_w >= 0) & (i_w < W)
            x_place = (i_d * H + i_h) * W + i_w
        b_x = matrix(x + x_place * x_p + c * x_c, inside & in_c)
        tap, c, in_c = tap_and_channel(zero + step, k_w, C, taps, BLOCK_K, FLAT)
        if TRANSPOSED:
            k_d = tap_d + tap // (taps_h * taps_w) * apart_d
            k_h = tap_h + tap // taps_w % taps_h * apart_h
            tap = (k_d * KH + k_h) * KW + tap_w + tap % taps_w * apart_w
        b_w = matrix(w + (tap * (C * CO) + c * w_c), in_o & in_c)
        if DOWN:
            b_z = tl.dot(b_x, b_w, b_z, input_precision=PRECISION, out_dtype=b_z.dtype)
        else:
            b_z = tl.dot(b_w, b_x, b_z, input_precision=PRECISION, out_dtype=b_z.dtype)

    out += group * CO
    if bias is not None:
        b_z += load(bias + out, in_o)
    at = n * tl.full((), PLANE, tl.int64) * CO * tl.num_programs(1) + y_place * y_p + out * y_c
    if z is not None:
        tl.store(z + at, b_z, in_p & in_o)
    tl.store(y + at, b_z if F is None else F(b_z, 0.0, 0.0), in_p & in_o)


@triton.jit(do_not_specialize=[*NUMBERS, "N", "STEPS"])
def _weight_kernel(
    dw, dy, x, N, C, CO, PLANE, D, H, W, OD, OH, OW, KD, KH, KW, SD, SH, SW, PD, PH, PW, GD, GH, GW, STEPS,
    PRECISION: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr, POINT: tl.constexpr, FLAT: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """dw [groups CO, C, taps], the third line. Grid: tiles of it; groups; slices, STEPS blocks of positions each."""
    C, CO, PLANE = hinted(C, CO, PLANE, LAST, ALIGN)
    TAPS = 1 if POINT else KD * KH * KW
    IN = PLANE if POINT else D * H * W
    x_c, x_p, y_c, y_p = (1, C * tl.num_programs(1), 1, CO * tl.num_programs(1)) if LAST else (IN, 1, PLANE, 1)
    walk = walk_steps(C, TAPS, BLOCK_K, FLAT)
    group = tl.program_id(1)
    out = tl.program_id(0) // walk * BLOCK_O + tl.arange(0, BLOCK_O)[:, None]
    tap, c, in_c = tap_and_channel(tl.program_id(0) % walk, tl.arange(0, BLOCK_K)[None, :], C, TAPS, BLOCK_K, FLAT)
    in_o = out < CO
    k_d, k_h, k_w = tap // (KH * KW) * GD - PD, tap // KW % KH * GH - PH, tap % KW * GW - PW
    of_x = (group * C + c) * x_c
    of_dy = (group * CO + out) * y_c
    each_x = tl.full((), IN, tl.int64) * C * tl.num_programs(1)
    each_y = tl.full((), PLANE, tl.int64) * CO * tl.num_programs(1)

    b_dw = accumulator(x, BLOCK_O, BLOCK_K)
    first = tl.program_id(2) * STEPS
    last = tl.cdiv(N * tl.full((), PLANE, tl.int64), BLOCK_P).to(tl.int32)
    begin = first * tl.full((), BLOCK_P, tl.int64)
    for _ in range(first, tl.minimum(first + STEPS, last)):
        n, place, _, _, _ = positions(begin, PLANE, OH * OW, OW, BLOCK_P, 1)
        b_dy = matrix(dy + n * each_y + (place * y_p + of_dy), in_o & (n < N))
        n, place, d, h, q = positions(begin, PLANE, OH * OW, OW, BLOCK_P, 0)
        inside = (n < N) & in_c
        if not POINT:
            i_d, i_h, i_w = d * SD + k_d, h * SH + k_h, q * SW + k_w
            inside = inside & (i_d >= 0) & (i_d < D) & (i_h >= 0) & (i_h < H) & (i_w >= 0) & (i_w < W)
            place = (i_d * H + i_h) * W + i_w
        b_x = matrix(x + n * each_x + (place * x_p + of_x), inside)
        b_dw = tl.dot(b_dy, b_x, b_dw, input_precision=PRECISION, out_dtype=b_dw.dtype)
        begin += BLOCK_P  # carried: computed from the step it would spill registers

    at = (tl.program_id(2) * tl.num_programs(1) + group) * tl.full((), CO, tl.int64) * C * TAPS
    at += out * C + c if POINT else (out * C + c) * TAPS + tap
    tl.store(dw + at, b_dw, in_o & in_c)


def shape_numbers(
    x: Sequence[int], y: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int],
) -> tuple[int, ...]:  # fmt: skip
    """All by axes D, H, W: the sizes of x and y, kernel, stride, padding, dilation. Missing axes have one element."""
    found: list[int] = []
    for numbers, neutral in ((x, 1), (y, 1), (kernel, 1), (stride, 1), (padding, 0), (dilation, 1)):
        found += [*[neutral] * (3 - len(numbers)), *numbers]
    return tuple(found)


def _named(numbers: Sequence[int]) -> dict[str, int]:
    return dict(zip(NUMBERS, numbers, strict=True))


def _point(numbers: Sequence[int]) -> bool:
    """One tap, which an output's place is the place of."""
    sizes, outputs = numbers[:3], numbers[3:6]
    return sizes == outputs and numbers[6:] == shape_numbers((), (), (), (), (), ())[6:]


@tuning.heuristic
def _plan(
    way: str, N: int, C: int, CO: int, groups: int, last: bool, dtype: torch.dtype, tf32: bool, device: torch.device,
    *numbers: int,
) -> tuning.Plan:  # fmt: skip
    """way: "forward", "transposed" or "weight"; C, CO: channels of x and y in a group; numbers: `shape_numbers`."""
    outputs, kernel, stride = (numbers[i : i + 3] for i in (3, 6, 9))
    if C == CO == 1:
        return _depthwise(way, N, groups, last, tuning.registers(dtype, 1), device, *numbers)
    plane = math.prod(outputs)
    meta: dict[str, Any] = {"N": N, "C": C, "CO": CO, "PLANE": plane, **_named(numbers), "LAST": last}
    meta |= {"POINT": _point(numbers), "ALIGN": tuning.all_aligned(device, C, CO if last else plane)}
    if way == "weight":
        plan = tuning_conv.conv_weight(N * plane, CO, C, math.prod(kernel), groups, dtype, tf32, device)
        return tuning.Plan(plan.grid, {**meta, **plan.meta})
    common, largest, taps = _classes(way, numbers)
    meta |= {"E" + axis: e for axis, e in zip("DHW", common, strict=True)}
    plan = tuning_conv.conv(N * math.prod(largest), CO, C, math.prod(taps), last, dtype, tf32, device)
    meta |= {"TRANSPOSED": way == "transposed", **plan.meta}
    return tuning.Plan((*plan.grid, groups, math.prod(stride) if way == "transposed" else 1), meta)


def _classes(way: str, numbers: Sequence[int]) -> tuple[list[int], list[int], list[int]]:
    """Of each axis: gcd of stride and dilation, and the outputs and taps of the largest class (lang/conv.py)."""
    outputs, kernel, stride, dilation = (numbers[i : i + 3] for i in (3, 6, 9, 15))
    if way == "forward":
        return [1, 1, 1], list(outputs), list(kernel)
    common = [math.gcd(s, g) for s, g in zip(stride, dilation, strict=True)]
    largest = [tuning.cdiv(o, s) for o, s in zip(outputs, stride, strict=True)]
    return common, largest, [tuning.cdiv(k * e, s) for k, e, s in zip(kernel, common, stride, strict=True)]


@tuning.heuristic
def _depthwise(way: str, N: int, C: int, last: bool, live: int, device: torch.device, *numbers: int) -> tuning.Plan:
    """`loops`: the kernels of _conv_depthwise.py, which hold `live` registers an element."""
    outputs, kernel, stride = (numbers[i : i + 3] for i in (3, 6, 9))
    step = 1 if way == "transposed" else stride[2]
    meta: dict[str, Any] = {"C": C, **_named(numbers), "LAST": last, "STEP": step if step <= 4 and not last else 0}
    meta["ALIGN"] = tuning.aligned(C if last else outputs[2], device)
    if way == "weight":
        lines = N * math.prod(outputs if last else outputs[:2])
        width = C if last else outputs[2]
        plan = tuning_conv.depthwise_weight(lines, width, C, last, math.prod(kernel), device, live)
        return tuning.Plan(plan.grid, {"N": N, **meta, **plan.meta}, loops=True)
    common, largest, taps = _classes(way, numbers)
    rows, columns = (N * math.prod(largest), C) if last else (N * C * largest[0] * largest[1], largest[2])
    plan = tuning_windows.window_tiles(rows, columns, device, live)
    meta |= {"E" + axis: e for axis, e in zip("DHW", common, strict=True)}
    meta |= {"N" + axis: n for axis, n in zip("DHW", largest, strict=True)}
    meta |= {"M": rows, "N": columns, "TRANSPOSED": way == "transposed", **plan.meta}
    meta["WIDTH"] = taps[2] if taps[2] <= MOST_UNROLLED else 0
    return tuning.Plan((*plan.grid, math.prod(stride) if way == "transposed" else 1), meta, loops=True)


MOST_UNROLLED = 8  # taps along W


def _tf32(x: Tensor) -> bool:
    """May float32 convolutions be rounded to tf32? Read where a kernel is launched, as torch does."""
    return x.dtype == torch.float32 and x.device.type == "cuda" and torch.backends.cudnn.allow_tf32


def _format(last: bool, dim: int) -> torch.memory_format:
    if not last:
        return torch.contiguous_format
    return torch.channels_last if dim == 4 else torch.channels_last_3d


def _packed(w: Tensor, groups: int, swapped: bool, last: bool) -> Tensor:
    """w [groups, taps, x's channels, y's], with the axis that a tile's rows lie along in front of memory (depthwise:
    [channels, taps, 1, 1]). swapped: w's second axis is y's channels."""
    w = w.reshape(groups, w.shape[0] // groups, w.shape[1], -1)
    if w.shape[1:3] == (1, 1):  # depthwise
        return w.permute(3, 1, 2, 0).contiguous().permute(3, 0, 1, 2) if last else w.permute(0, 3, 1, 2).contiguous()
    w = w.permute(0, 3, 1, 2) if swapped else w.permute(0, 3, 2, 1)
    return w.contiguous() if last else w.mT.contiguous().mT


@op("convolved")
def convolved(
    x: Tensor, w: Tensor, b: Tensor | None, size: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], groups: int, transposed: bool, last: bool, activation: str | None, keep: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """x [N, channels, *L] -> y [N, channels, *size], and z like y if `keep` (else empty). w [G CO, C, *K] or,
    transposed, [G C, CO, *K]. padding: before each axis; what is behind follows from the sizes."""
    form = _format(last, x.dim())
    CO = w.shape[1] if transposed else w.shape[0] // groups
    y = torch.empty([x.shape[0], CO * groups, *size], dtype=x.dtype, device=x.device, memory_format=form)
    z = torch.empty_like(y) if keep else None
    x = x.contiguous(memory_format=form)
    way = "transposed" if transposed else "forward"
    if transposed and all(s == 1 for s in stride):  # one class of outputs: a plain convolution of what is turned around
        way, w = "forward", w.flip([*range(2, w.dim())]) if w[0, 0].numel() > 1 else w
        padding = [g * (k - 1) - p for g, k, p in zip(dilation, w.shape[2:], padding, strict=True)]
    packed = _packed(w, groups, transposed, last)
    numbers = shape_numbers(x.shape[2:], size, w.shape[2:], stride, padding, dilation)
    tf32 = _tf32(x)
    plan = _plan(way, x.shape[0], x.shape[1] // groups, CO, groups, last, x.dtype, tf32, x.device, *numbers)
    tensors = y, z, x, packed, None if b is None else b.contiguous()
    f = None if activation is None else ACTIVATIONS[activation].f
    if plan.loops:
        launch(depthwise_kernel, plan.grid, *tensors, w_c=packed.stride(0), w_k=packed.stride(1), F=f, **plan.meta)
    else:
        launch(_conv_kernel, plan.grid, *tensors, F=f, PRECISION="tf32" if tf32 else "ieee", **plan.meta)
    return y, x.new_empty(0) if z is None else z


@op("correlated")
def correlated(
    dy: Tensor, x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], groups: int, last: bool,
) -> Tensor:  # fmt: skip
    """dw [channels of dy, channels of x / groups, *kernel]: how x, read through each tap, goes with dy."""
    form = _format(last, x.dim())
    dy, x = dy.contiguous(memory_format=form), x.contiguous(memory_format=form)
    C, CO = x.shape[1] // groups, dy.shape[1] // groups
    dw = torch.empty([dy.shape[1], C, *kernel], dtype=x.dtype, device=x.device)
    numbers = shape_numbers(x.shape[2:], dy.shape[2:], kernel, stride, padding, dilation)
    tf32 = _tf32(x)
    plan = _plan("weight", x.shape[0], C, CO, groups, last, x.dtype, tf32, x.device, *numbers)
    slices = plan.grid[-1] if len(plan.grid) > 1 else 1
    found = dw if slices == 1 else new_slices(slices, dw, x)
    if plan.loops:
        launch(depthwise_weight_kernel, plan.grid, found, dy, x, **plan.meta)
    else:
        launch(_weight_kernel, plan.grid, found, dy, x, PRECISION="tf32" if tf32 else "ieee", **plan.meta)
    if slices > 1:
        add_slices(dw, found)
    return dw
