"""Resampling: every element of y is a weighted sum of a few elements of x, its taps, on each axis by itself.

    y[o1, o2, ...] = sum over taps k1, k2, ... of w1 w2 ... x[i1, i2, ...]        i1, w1 = tap(o1, k1), ...

Padding has one tap without a weight, linear interpolation two, cubic four (lang/taps.py). The gradient is a resampling
too: the taps of an input are the outputs that it is a tap of. So forward and backward are one kernel, which gathers:
no atomics, each element written once.

Tensors are taken as they lie in memory, [planes, D, H, W, N]: up to three axes of rows, and columns N side by side,
which are the last axis that is resampled (contiguous) or the channels (channels_last).
"""

import math
import struct
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang import taps
from trident.lang.tile import accumulator, from_bits, load, multiple
from trident.ops import _adaptive_rows
from trident.runtime import exact, tuning
from trident.runtime.launch import launch
from trident.runtime.layout import memory_format
from trident.runtime.op import op


@triton.jit
def _tap(TAP: tl.constexpr, MOVED: tl.constexpr, at, k, n_in, n_out, a):
    if MOVED:
        i, w, found = TAP(at, k, n_in, n_out, a)
    else:
        i, w, found = at, tl.full((1, 1), 1.0, tl.float32), at < n_out
    return i, w, found


@triton.jit
def _resample_kernel(
    y, x, value, M, PLANE, ROWS, OD, OH, OW, ON, LD, LH, LW, LN, TD, TH, TW, TN, AD, AH, AW, AN,
    TAP: tl.constexpr, WEIGHTED: tl.constexpr, SINGLE: tl.constexpr,
    MOVED_D: tl.constexpr, MOVED_H: tl.constexpr, MOVED_W: tl.constexpr, MOVED_N: tl.constexpr,
    REPEAT: tl.constexpr, APART: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """y: M rows [planes, OD, OH, OW] of ON elements, ROWS a plane; x: planes of PLANE elements [LD, LH, LW, LN].

    T: the taps of an axis. SINGLE: one of each, without weights; where it does not exist y is `value` (bits). REPEAT:
    so many neighbours along N are the same element of x; LN is a multiple of APART.
    """
    ON = multiple(ON, ALIGN)
    LN, PLANE = multiple(LN, APART), multiple(PLANE, APART)
    tiles = tl.cdiv(ON, BLOCK_N)
    # a 64-bit division is slow: one for the tile, then 32-bit ones for its rows
    begin = tl.program_id(0) // tiles * tl.full((), BLOCK_M, tl.int64)
    plane = begin // ROWS
    at = (begin - plane * ROWS).to(tl.int32) + tl.arange(0, BLOCK_M)[:, None]
    rows, planes, at = begin + tl.arange(0, BLOCK_M)[:, None], plane + at // ROWS, at % ROWS
    d, h, w = at // (OH * OW), at // OW % OH, at % OW
    n = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    x += planes * PLANE
    y += rows * ON + n
    inside = (rows < M) & (n < ON)
    if SINGLE:
        i_d, _, in_d = _tap(TAP, MOVED_D, d, 0, LD, OD, AD)
        i_h, _, in_h = _tap(TAP, MOVED_H, h, 0, LH, OH, AH)
        i_w, _, in_w = _tap(TAP, MOVED_W, w, 0, LW, OW, AW)
        i_n, _, in_n = _tap(TAP, MOVED_N, n, 0, LN, ON, AN)
        row = ((i_d.to(tl.int64) * LH + i_h) * LW + i_w) * LN
        found = inside & (in_d & in_h & in_w) & in_n
        if REPEAT:
            first = tl.program_id(0) % tiles * (BLOCK_N // REPEAT) + tl.arange(0, BLOCK_N // REPEAT)[None, :]
            b_x = tl.load(x + row + first, (rows < M) & (in_d & in_h & in_w) & (first < LN))
            b_x = tl.broadcast_to(b_x[:, :, None], (BLOCK_M, BLOCK_N // REPEAT, REPEAT))
            b_x = tl.reshape(b_x, (BLOCK_M, BLOCK_N))
        elif value is None:
            b_x = tl.load(x + row + i_n, found)
        else:
            other = from_bits(value)
            if x.dtype.element_ty != tl.float64:
                other = other.to(tl.float32)
            b_x = tl.where(found, tl.load(x + row + i_n, found), other.to(x.dtype.element_ty))
        tl.store(y, b_x, inside)
    else:
        b_y = accumulator(x, BLOCK_M, BLOCK_N)
        zero = tl.full((), 0, tl.int32)  # makes tensors of Python's integers, which loops of the interpreter count by
        for k_n in range(TN):
            i_n, w_n, in_n = _tap(TAP, MOVED_N, n, zero + k_n, LN, ON, AN)
            in_n = inside & in_n
            for step in range(TD * TH * TW):
                k = zero + step
                i_d, w_d, in_d = _tap(TAP, MOVED_D, d, k // (TH * TW), LD, OD, AD)
                i_h, w_h, in_h = _tap(TAP, MOVED_H, h, k // TW % TH, LH, OH, AH)
                i_w, w_w, in_w = _tap(TAP, MOVED_W, w, k % TW, LW, OW, AW)
                row = ((i_d.to(tl.int64) * LH + i_h) * LW + i_w) * LN
                b_x = load(x + row + i_n, in_n & (in_d & in_h & in_w))
                if WEIGHTED:
                    b_y += b_x * (w_d * w_h * w_w).to(b_y.dtype) * w_n.to(b_y.dtype)
                else:
                    b_y += b_x
        tl.store(y, b_y, inside)


def _ratio(n_in: int, n_out: int) -> float:
    return n_in / n_out


def _aligned_step(n_in: int, n_out: int) -> float:
    # one element at either end: any step does, and this one counts every output among the taps of one input
    return (n_in - 1) / (n_out - 1) if min(n_in, n_out) > 1 else 1 / n_out


def float32(value: float) -> float:
    """The float32 next to `value`."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _within(radius: int) -> Callable[[int, int, int], int]:
    """How many outputs lie within `radius` inputs on either side: as many integers as an open interval can hold."""
    return lambda n_in, n_out, a: min(n_in, math.ceil(2 * radius / abs(exact.from_bits(a))))


def _nearest_taps(n_in: int, n_out: int, a: int) -> int:
    each = 1 / abs(exact.from_bits(a))
    # powers of two are exact; the rounding of others may give an input one output more
    return int(each) if math.frexp(each)[0] == 0.5 and each >= 1 else min(n_in, math.ceil(each) + 1)


class Way(NamedTuple):
    """How an axis is resampled. taps: their greatest number, where it has n_in elements, gets n_out, and is told a."""

    tap: Any
    taps: Callable[[int, int, int], int] = lambda n_in, n_out, a: 1
    weighted: bool = False
    step: Callable[[int, int], float] | None = None  # an interpolation's, from the sizes of its input and its output
    grad: bool = False
    sign: int = 1  # of the step (lang/taps.py)


WAYS: dict[str, Way] = {
    "constant": Way(taps.constant),
    "reflect": Way(taps.reflect),
    "reflect_grad": Way(taps.reflect_grad, lambda n_in, n_out, a: 3),
    "replicate": Way(taps.replicate),
    "replicate_grad": Way(taps.replicate_grad, lambda n_in, n_out, a: 1 + n_in - n_out),
    "circular": Way(taps.circular),
    "circular_grad": Way(taps.circular_grad, lambda n_in, n_out, a: 3),
}
for _name, _sign in (("nearest", 1), ("nearest-exact", -1)):
    WAYS[_name] = Way(taps.nearest, step=_ratio, sign=_sign)
    WAYS[f"{_name}_grad"] = Way(taps.nearest_grad, _nearest_taps, step=_ratio, sign=_sign, grad=True)
for _name, _tap_of, _grad_of, _radius in (
    ("linear", taps.linear, taps.linear_grad, 1),
    ("cubic", taps.cubic, taps.cubic_grad, 2),
):
    for _end, _step, _sign in (("", _ratio, 1), ("_aligned", _aligned_step, -1)):
        WAYS[f"{_name}{_end}"] = Way(_tap_of, lambda *_, n=2 * _radius: n, True, _step, sign=_sign)
        WAYS[f"{_name}{_end}_grad"] = Way(_grad_of, _within(_radius), True, _step, True, _sign)
WIDEST = (
    2**31 - 2**20
)  # elements: rows of a plane and columns are counted in 32 bits, and the last tile reaches further


class Axis(NamedTuple):
    n_in: int  # elements read
    n_out: int  # and written
    a: int  # the parameter of its taps
    moved: bool


def fold(axes: Sequence[Axis], constant: bool) -> tuple[int, list[Axis]]:
    """Planes, and the fewest axes that say the same. An axis that stays is one with the staying axis before it, and,
    where the value of what is outside is `constant`, with any axis before it."""
    folded: list[Axis] = []
    planes = 1
    for axis in axes:
        if not axis.moved and not folded:
            planes *= axis.n_out
        elif not axis.moved and (constant or not folded[-1].moved):
            n_in, n_out, a, moved = folded[-1]
            folded[-1] = Axis(n_in * axis.n_out, n_out * axis.n_out, a * axis.n_out, moved)
        else:
            folded.append(axis)
    return planes, folded or [Axis(1, 1, 0, False)]


def _axis(way: Way, n_in: int, n_out: int, a: float) -> Axis:
    """a: an interpolation's is its scale factor, or 0 if the sizes say it."""
    if way.step is None:
        return Axis(n_in, n_out, int(a), n_in != n_out or a != 0)
    step = 1 / a if a else (way.step(n_out, n_in) if way.grad else way.step(n_in, n_out))
    if way.tap in (taps.nearest, taps.nearest_grad):
        step = float32(step)
    moved = n_in != n_out or step != 1
    return Axis(n_in, n_out, exact.bits(way.sign * step) if moved else 0, moved)


def _repeats(way: Way, axis: Axis) -> int:
    """The power of two whose nearest neighbours these are: float32 is exact there, and each element is repeated. Or 0.
    (GPU: x is read in whole segments, where it was gathered.)"""
    factor, rest = divmod(axis.n_out, axis.n_in)
    exactly = not rest and factor in (2, 4, 8) and abs(exact.from_bits(axis.a)) == 1 / factor
    return factor if way.tap is taps.nearest and axis.moved and exactly else 0


@tuning.heuristic
def _geometry(how: str, dims: int, device: torch.device, *numbers: float) -> tuning.Plan:
    """numbers: the sizes of x, those of y, and the parameters, `dims` each, in the order of memory."""
    way = WAYS[how]
    sizes = [int(n) for n in numbers[: 2 * dims]]
    each_axis = zip(sizes[:dims], sizes[dims:], numbers[2 * dims :], strict=True)
    planes, axes = fold([_axis(way, *axis) for axis in each_axis], how == "constant")
    *rows, column = axes
    axes = [*[Axis(1, 1, 0, False)] * (3 - len(rows)), *rows, column]
    meta: dict[str, Any] = {"PLANE": math.prod(axis.n_in for axis in axes)}
    counts = []
    for name, axis in zip("DHWN", axes, strict=True):
        counts.append(way.taps(axis.n_in, axis.n_out, axis.a) if axis.moved else 1)
        meta |= {f"O{name}": axis.n_out, f"L{name}": axis.n_in, f"T{name}": counts[-1], f"A{name}": axis.a}
        meta[f"MOVED_{name}"] = axis.moved
    each = math.prod(axis.n_out for axis in axes[:3])
    plan = tuning.resampled(planes * each, column.n_out, device)
    single = not way.weighted and max(counts) == 1
    flags = {"M": planes * each, "ROWS": each, "TAP": way.tap, "WEIGHTED": way.weighted, "SINGLE": single}
    repeat = _repeats(way, column) if device.type == "cuda" else 0
    apart = tuning.aligned(column.n_in, device) if repeat or not column.moved else 1
    flags |= {"REPEAT": repeat, "APART": apart}
    return tuning.Plan(plan.grid, {**meta, **flags, **plan.meta})


BLOCKS = {
    **dict.fromkeys(("nearest", "nearest-exact"), _adaptive_rows.spread),
    **dict.fromkeys(("nearest_grad", "nearest-exact_grad"), _adaptive_rows.add),
}


@tuning.heuristic
def _blocks(grad: bool, device: torch.device, *numbers: float) -> tuning.Plan:
    """The launch where y [N, C, H, W] is nearest neighbours by a power of two in H and in W: an element of x is a block
    of y, or a block is summed for the gradient. Without a grid where it is not. (float32 is exact there: y is what taps
    say.) numbers: the sizes of x, those of y, and the scale factors."""
    x, y, a = (numbers[i : i + 4] for i in (0, 4, 8))
    (OH, OW), (H, W) = ([int(n) for n in of[2:]] for of in ((y, x) if grad else (x, y)))
    for few, many, factor in zip((OH, OW), (H, W), a[2:], strict=True):
        each = many // few
        if many % few or each & (each - 1) or factor not in (0, each):
            return _adaptive_rows.ELSEWHERE
    return _adaptive_rows.plan(grad, int(x[0] * x[1]) * H * W, 1, 1, H, OH, W, OW, device, False)


@op("resample")
def resample(
    x: Tensor, how: str, size: Sequence[int], a: Sequence[float], value: float, dtype: torch.dtype, keep: bool
) -> Tensor:
    """x -> y of shape `size` (none: that of x times a). a: of each axis the padding before it, or an interpolation's
    scale factor (0: the sizes say it). value: of what is outside. keep: y lies as x (channels_last or contiguous)."""
    if not size:  # torch.compile cannot hand products of symbolic sizes to a Function: they are made here
        size = [*x.shape[:2], *(torch.sym_int(n * f) for n, f in zip(x.shape[2:], a[2:], strict=True))]
    form = memory_format(x) if keep else torch.contiguous_format
    x = x.contiguous(memory_format=form)
    y = torch.empty(list(size), dtype=dtype, device=x.device, memory_format=form)
    last = form != torch.contiguous_format
    if how in BLOCKS and not last and y.dim() == 4:
        blocks = _blocks(how.endswith("_grad"), x.device, *x.shape, *size, *a)
        if blocks.grid:
            BLOCKS[how](y, x, blocks)
            return y

    def order(numbers: Sequence[float]) -> list[float]:
        return [numbers[0], *numbers[2:], numbers[1]] if last else list(numbers)

    plan = _geometry(how, y.dim(), x.device, *order(x.shape), *order(size), *order(a))
    bits = exact.bits(value) if how == "constant" else None
    launch(_resample_kernel, plan.grid, y, x, bits, **plan.meta)
    return y
