"""Adaptive average pooling of planes whose rows are long: H first, then W. See `_adaptive_avg_pool` for the formulas.
Without the division it is nearest neighbours by whole factors (_resample.py), whose forward is `spread`.

forward     the rows of x under one row of windows are added, whole rows of memory; the sum of each window is then
            taken from that one row, by gathering. It lies in a cache, and is far shorter than x.
backward    a row of dy is spread along W, and what results is written to every row of dx under its windows. Where
            L >= O two neighbouring windows share at most one element, so no dx lies in more than two of each axis.

Adding windows from a row: b_s[j] = b[j] + ... + b[j + S - 1] first, so that a window of n elements is gathered as
n // S elements of b_s and n % S of b. Windows of 2^k elements that do not overlap are a reshape.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import INTERPRETED, accumulator, load
from trident.lang.windows import window_end, window_start
from trident.runtime import tuning, tuning_windows
from trident.runtime.launch import launch_planned


@triton.jit
def _over(n, d):
    """n // d of a tile, 0 <= n < 2^23: CPUs have no vector instruction that divides integers (3 us for 512)."""
    q = (n.to(tl.float32) / d.to(tl.float32)).to(tl.int32)
    r = n - q * d  # one off at most, where a device's division is not exact
    return q + (r >= d).to(tl.int32) - (r < 0).to(tl.int32)


@triton.jit
def _widths(outs, start, A, B):
    """Elements of windows `outs`, which begin at `start`."""
    return _over((outs + 1) * A + B - 1, B) - start


@triton.jit
def _share(x, width, BLOCK: tl.constexpr):
    """1 / width [BLOCK], in the type that elements of x are summed in: made once, where each row would divide."""
    return 1.0 / (width + tl.reshape(accumulator(x, 1, BLOCK), (BLOCK,)))


@triton.jit
def shifted(b, J: tl.constexpr, BLOCK: tl.constexpr):
    """b [BLOCK], J elements down; what the last J lanes hold is not told."""
    at = tl.arange(0, BLOCK) + J  # not cut off where nothing checks it: so it stays one vector load on CPUs
    return tl.gather(b, tl.minimum(at, BLOCK - 1) if INTERPRETED else at, 0)


@triton.jit
def _neighbours(b, N: tl.constexpr, S: tl.constexpr):
    """b [N S] -> [N]: sums of S neighbours. Few are shuffled apart: 512 to 256 takes 15 ns of a CPU, a sum took 50."""
    if S == 2:
        even, odd = tl.split(tl.reshape(b, (N, 2)))
        b_y = even + odd
    elif S == 4:
        even, odd = tl.split(tl.reshape(b, (2 * N, 2)))
        even, odd = tl.split(tl.reshape(even + odd, (N, 2)))
        b_y = even + odd
    else:
        b_y = tl.sum(tl.reshape(b, (N, S)), axis=1)
    return b_y


@triton.jit
def _spans(b, SPAN: tl.constexpr, BLOCK: tl.constexpr):
    """b [BLOCK] -> sums of SPAN neighbours from each element on, by doubling: log2(SPAN) to twice as many passes."""
    BITS: tl.constexpr = SPAN.bit_length()
    b_s = b
    for bit in tl.static_range(BITS - 2, -1, -1):
        b_s += shifted(b_s, SPAN >> (bit + 1), BLOCK)
        if (SPAN >> bit) % 2 == 1:
            b_s += shifted(b, (SPAN >> bit) - 1, BLOCK)
    return b_s


@triton.jit
def _add_rows_kernel(
    y, x, M, H: tl.int32, W: tl.int32, OH: tl.int32, OW: tl.int32,
    AH: tl.int32, BH: tl.int32, AW: tl.int32, BW: tl.int32, LEAST: tl.int32, MOST: tl.int32, ROWS: tl.int32,
    MEAN: tl.constexpr, SPAN: tl.constexpr, SPANS: tl.constexpr, MORE: tl.constexpr,
    SIDE_BY_SIDE: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """y [M, OW] = means (else sums) of x [planes, H, W] over windows; M = planes OH. A program makes ROWS rows.

    LEAST, MOST: how many of the SPANs that a window is gathered in every window has, and its most elements.
    SPANS: LEAST, if that is 1, else 0. MORE: elements after them, at most, up to 2 (for many).
    SIDE_BY_SIDE: the elements of each window, if those are a power of two, else 0.
    """
    begin = tl.program_id(0) * tl.full((), ROWS, tl.int64)
    lanes, outs = tl.arange(0, BLOCK_W), tl.arange(0, BLOCK_O)
    start = _over(outs * AW, BW)
    width = _widths(outs, start, AW, BW)
    share = _share(x, width, BLOCK_O)
    start = tl.minimum(start, BLOCK_W - 1)
    for m in range(begin, tl.minimum(begin + ROWS, M)):
        plane = m // OH
        o = (m - plane * OH).to(tl.int32)
        first, past = window_start(o, AH, BH, 0, True), window_end(o, AH, BH, 0, 0, True)
        row = x + plane * H * W + lanes
        b = load(row + first * W, lanes < W)
        for h in range(first + 1, past):
            b += load(row + h * W, lanes < W)
        if SIDE_BY_SIDE:
            b_y = _neighbours(b, BLOCK_O, SIDE_BY_SIDE)
        else:
            b_s = _spans(b, SPAN, BLOCK_W)
            b_y = tl.gather(b_s, start, 0)
            if SPANS != 1:
                for k in range(1, LEAST):
                    b_y += tl.gather(b_s, tl.minimum(start + k * SPAN, BLOCK_W - 1), 0)
            if MORE > 1:
                for k in range(SPAN * LEAST, MOST - 1):
                    b_y += tl.where(k < width, tl.gather(b, tl.minimum(start + k, BLOCK_W - 1), 0), 0.0)
            if MORE:
                b_y += tl.where(width >= MOST, tl.gather(b, tl.minimum(start + (MOST - 1), BLOCK_W - 1), 0), 0.0)
        if MEAN:
            b_y *= share * (1.0 / (past - first).to(b_y.dtype))
        tl.store(y + m * OW + outs, b_y, outs < OW)


@triton.jit
def _add_pairs_kernel(
    y, x, M, W: tl.int32, OW: tl.int32, ROWS: tl.int32, HIGH: tl.constexpr, MEAN: tl.constexpr, BLOCK_O: tl.constexpr
):  # fmt: skip
    """y [M, OW] = means (else sums) of x [M HIGH, W] over windows of HIGH rows and two columns: nothing is stored on
    the way, and no position divided."""
    begin, outs = tl.program_id(0) * tl.full((), ROWS, tl.int64), tl.arange(0, BLOCK_O)
    inside = outs < OW
    for m in range(begin, tl.minimum(begin + ROWS, M)):
        pairs = x + m * HIGH * W + 2 * outs
        b_y = load(pairs, inside) + load(pairs + 1, inside)
        for h in tl.static_range(1, HIGH):
            b_y += load(pairs + h * W, inside) + load(pairs + (h * W + 1), inside)
        if MEAN:
            b_y *= 1.0 / (2 * HIGH)
        tl.store(y + m * OW + outs, b_y, inside)


@triton.jit
def _spread_row(
    dy, m, OH, OW, AH, BH, window, shared, share, outs,
    MEAN: tl.constexpr, SIDE_BY_SIDE: tl.constexpr, BLOCK_W: tl.constexpr,
):  # fmt: skip
    """Row m of dy [M, OW], over its windows' sizes if these have means, spread along W: [BLOCK_W]."""
    b_dy = load(dy + m * OW + outs, outs < OW)
    if MEAN:
        o = (m % OH).to(tl.int32)
        height = window_end(o, AH, BH, 0, 0, True) - window_start(o, AH, BH, 0, True)
        b_dy = b_dy * (share * (1.0 / height.to(b_dy.dtype)))
    if SIDE_BY_SIDE == 2:  # CPUs shuffle two tiles into one
        b = tl.reshape(tl.join(b_dy, b_dy), (BLOCK_W,))
    elif SIDE_BY_SIDE:
        b = tl.reshape(tl.broadcast_to(b_dy[:, None], (BLOCK_W // SIDE_BY_SIDE, SIDE_BY_SIDE)), (BLOCK_W,))
    else:
        b = tl.gather(b_dy, window, 0) + tl.where(shared, tl.gather(b_dy, tl.maximum(window - 1, 0), 0), 0.0)
    return b


@triton.jit
def _spread_rows_kernel(
    dx, dy, M, H: tl.int32, W: tl.int32, OH: tl.int32, OW: tl.int32,
    AH: tl.int32, BH: tl.int32, AW: tl.int32, BW: tl.int32, ROWS: tl.int32,
    MEAN: tl.constexpr, SHARED: tl.constexpr, SIDE_BY_SIDE: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_O: tl.constexpr,
):  # fmt: skip
    """dx [planes, H, W] from dy [M, OW], M = planes OH; a program takes ROWS rows of dy. No window is short of x.

    SHARED: a row of x may lie in two rows of windows.
    """
    begin = tl.program_id(0) * tl.full((), ROWS, tl.int64)
    lanes, outs = tl.arange(0, BLOCK_W), tl.arange(0, BLOCK_O)
    share = _share(dy, _widths(outs, _over(outs * AW, BW), AW, BW), BLOCK_O)
    window = tl.minimum(_over((lanes + 1) * BW + AW - 1, AW) - 1, OW - 1)  # the last one that begins at or before
    shared = (window > 0) & (_over(window * AW + BW - 1, BW) > lanes)  # with the one before
    b = _spread_row(dy, begin, OH, OW, AH, BH, window, shared, share, outs, MEAN, SIDE_BY_SIDE, BLOCK_W)
    for m in range(begin, tl.minimum(begin + ROWS, M)):
        plane = m // OH
        o = (m - plane * OH).to(tl.int32)
        first, past = window_start(o, AH, BH, 0, True), window_end(o, AH, BH, 0, 0, True)
        row = dx + plane * H * W + lanes
        if SHARED:
            # rows that this row of windows shares with the one before are that one's to write, which has one such row
            first += ((o > 0) & (window_end(o - 1, AH, BH, 0, 0, True) > first)).to(tl.int32)
            both = ((o + 1 < OH) & (window_start(o + 1, AH, BH, 0, True) < past)).to(tl.int32)
            for h in range(first, past - both):
                tl.store(row + h * W, b, lanes < W)
            b_next = _spread_row(
                dy, tl.minimum(m + 1, M - 1), OH, OW, AH, BH, window, shared, share, outs, MEAN, SIDE_BY_SIDE, BLOCK_W
            )
            for h in range(past - both, past):
                tl.store(row + h * W, b + b_next, lanes < W)
            b = b_next
        else:
            b = _spread_row(dy, m, OH, OW, AH, BH, window, shared, share, outs, MEAN, SIDE_BY_SIDE, BLOCK_W)
            for h in range(first, past):
                tl.store(row + h * W, b, lanes < W)


WIDEST = 2**31 - 2**20  # positions that are counted in 32 bits
ELSEWHERE = tuning.Plan((), {})  # the plan of what these kernels do not do


@tuning.heuristic
def plan(
    forward: bool, numel: int, D: int, OD: int, H: int, OH: int, W: int, OW: int, device: torch.device,
    mean: bool = True,
) -> tuning.Plan:  # fmt: skip
    """The launch of either kernel for an x of numel elements, or ELSEWHERE. mean: else sums."""
    widest = max(H * (OH + 1), W * (OW + 1)) > WIDEST
    if D != 1 or OD != 1 or widest or not (forward or (OH <= H and OW <= W)):
        return ELSEWHERE
    AH, BH, AW, BW = (n // math.gcd(L, out) for L, out in ((H, OH), (W, OW)) for n in (L, out))
    M = numel // (H * W) * OH
    tiles = tuning_windows.pooled_rows(M, numel, W, OW, device)
    if not tiles.grid:
        return ELSEWHERE
    meta = {
        "MEAN": mean,
        "M": M,
        "H": H,
        "W": W,
        "OH": OH,
        "OW": OW,
        "AH": AH,
        "BH": BH,
        "AW": AW,
        "BW": BW,
        **tiles.meta,
    }
    meta["SIDE_BY_SIDE"] = AW if BW == 1 and tuning.power_of_2(AW) == AW else 0
    if meta["SIDE_BY_SIDE"]:
        block_w = max(meta["BLOCK_W"], AW)
        meta |= {"BLOCK_W": block_w, "BLOCK_O": block_w // AW}
    elif not forward and H == OH:  # a row of dx for each of dy: gathering it costs more than writing it
        return ELSEWHERE
    if not forward:
        meta["SHARED"] = BH != 1
    if forward and meta["SIDE_BY_SIDE"] == 2 and BH == 1 and AH <= 4:  # more rows are better added first
        names = "M", "W", "OW", "ROWS", "MEAN", "BLOCK_O"
        return tuning.Plan(tiles.grid, {**{name: meta[name] for name in names}, "HIGH": AH})
    if forward and meta["SIDE_BY_SIDE"]:
        meta |= {"SPAN": 1, "SPANS": 1, "MORE": 0, "LEAST": 1, "MOST": AW}
    elif forward:
        # windows have ceil(A / B) to ceil((A - 1) / B) + 1 elements, and both are found
        most = tuning.cdiv(AW - 1, BW) + 1
        least = most if (AW - 1) % BW == 0 else most - 1
        span = min(range(1, 33), key=lambda span: _cycles(span, W, OW, least, most))
        spans = least // span
        meta |= {"SPAN": span, "LEAST": spans, "MOST": most}
        # few kinds of code, as each is compiled: what is one is no loop
        meta |= {"SPANS": 1 if spans == 1 else 0, "MORE": min(2, most - spans * span)}
    return tuning.Plan(tiles.grid, meta)


def _cycles(span: int, W: int, OW: int, least: int, most: int) -> int:
    """Of 16 rows of windows (Zen 4): a pass of shifted sums takes 3 for 16 elements; for 16 outputs a gather takes 22,
    and picks from registers, where their windows begin within 64 elements, 9, within 128 elements 16."""
    if span > least:
        return 1 << 40
    passes = span.bit_length() - 1 + span.bit_count() - 1
    pick = 9 if 15 * W < 63 * OW else 16 if 15 * W < 127 * OW else 22
    return passes * W * 3 + (least // span + most - least // span * span) * OW * pick


def add(y: Tensor, x: Tensor, plan: tuning.Plan) -> None:
    """y [planes, OH, OW] = means, or sums, of x [planes, H, W] over its windows."""
    launch_planned(_add_pairs_kernel if "HIGH" in plan.meta else _add_rows_kernel, plan, y, x)


def spread(dx: Tensor, dy: Tensor, plan: tuning.Plan) -> None:
    """dx [planes, H, W] = sums of dy [planes, OH, OW], / window if it took means, over the windows that hold it."""
    launch_planned(_spread_rows_kernel, plan, dx, dy)
