"""Depthwise convolutions: every channel by itself, x [N, C, *L], w [C, 1, *K], y [N, C, *Q] (formulas: _conv.py).

Nothing is multiplied as matrices: memory sets the pace. A tile is rows times columns, the columns side by side in
memory: outputs along W (rows then are those of [N, C, D, H]) or, with LAST, channels (rows are positions). What a row
needs to know is worked out once for its columns; few taps along W are unrolled, so that sums stay in registers. Outputs
of a transposed convolution are computed by classes, as in _conv.py.
"""

import triton
import triton.language as tl

from trident.lang.conv import axis_of_class
from trident.lang.tile import accumulator, load, multiple
from trident.lang.windows import plane_rows


@triton.jit
def _tap(x_row, in_rows, first, cols, in_cols, W, C, STEP: tl.constexpr, step, LAST: tl.constexpr):
    """What one tap reads. x_row: where a row of x begins; first: the place in it that output 0 reads (LAST: each)."""
    if LAST:
        return load(x_row + first * tl.full((), C, tl.int64) + cols, in_rows & (first >= 0) & (first < W) & in_cols)
    else:  # bounds on the columns themselves, within which trident_cpu reads whole vectors without masks
        apart = STEP if STEP else step
        inside = in_cols & (cols >= (apart - 1 - first) // apart) & (cols < (W - first + apart - 1) // apart)
        return load(x_row + first + cols * apart, in_rows & inside)


@triton.jit
def _row_of_taps(
    b_z, x_row, in_rows, w_row, in_w, first, next, between, taps, cols, in_cols, W, C, STEP: tl.constexpr, step,
    WIDTH: tl.constexpr, LAST: tl.constexpr, ALL: tl.constexpr,
):  # fmt: skip
    """b_z plus taps along W, `next` apart in x and `between` in w."""
    if WIDTH:
        for j in tl.static_range(WIDTH):
            of_x, of_w = in_rows, in_w
            if not ALL:
                exists = tl.full((1, 1), j, tl.int32) < taps  # scalar booleans are integers to the interpreter
                of_x, of_w = in_rows & exists, in_w & exists
            b_x = _tap(x_row, of_x, first + j * next, cols, in_cols, W, C, STEP, step, LAST)
            b_z += b_x * load(w_row + j * between, of_w)
    else:
        for j in range(taps):
            b_x = _tap(x_row, in_rows, first + j * next, cols, in_cols, W, C, STEP, step, LAST)
            b_z += b_x * load(w_row + j * between, in_w)
    return b_z


# numbers that only scalars are worked out of: a variant of the kernel for each that is 1 would buy nothing
SCALARS = ["OD", "KD", "SD", "PD", "GD", "ED", "PH", "PW", "EH", "EW"]


@triton.jit(do_not_specialize=SCALARS)
def depthwise_kernel(
    y, z, x, w, bias, M, N, C, D, H, W, OD, OH, OW, KD, KH, KW, SD, SH, SW, PD, PH, PW, GD, GH, GW, ED, EH, EW,
    ND, NH, NW, w_c, w_k,
    F: tl.constexpr, TRANSPOSED: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr, STEP: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """y [.., OD, OH, OW] = F(z), z = x convolved with w, plus bias; bias, z and F may be None.

    M rows and N columns of the largest class, which has [ND, NH, NW] outputs of a plane. w_c, w_k: from channel to
    channel and from tap to tap. STEP: the distance in x of neighbouring outputs along W, WIDTH: the most taps that a
    class has along W, each 0 where only known at run time. ALIGN divides OW or, with LAST, C. Grid: tiles; classes.
    """
    if LAST:
        C = multiple(C, ALIGN)
    else:
        OW = multiple(OW, ALIGN)
    if LAST or not TRANSPOSED:  # then N is the one or the other
        N = multiple(N, ALIGN)
    cls = tl.program_id(1)
    d_0, _, x_d, step_d, next_d, tap_d, apart_d, taps_d = axis_of_class(
        cls // (SH * SW) if TRANSPOSED else 0, OD, KD, SD, PD, GD, ED, TRANSPOSED
    )
    h_0, _, x_h, step_h, next_h, tap_h, apart_h, taps_h = axis_of_class(
        cls // SW % SH if TRANSPOSED else 0, OH, KH, SH, PH, GH, EH, TRANSPOSED
    )
    w_0, _, x_w, step_w, next_w, tap_w, apart_w, taps_w = axis_of_class(
        cls % SW if TRANSPOSED else 0, OW, KW, SW, PW, GW, EW, TRANSPOSED
    )
    tiles = tl.cdiv(N, BLOCK_N)
    line = NW if LAST else 1
    rows, plane, d, h, q = plane_rows(tl.program_id(0) // tiles, ND * NH * line, NH * line, line, BLOCK_M)
    cols = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    out_d, out_h, out_w = d, h, q if LAST else cols
    if TRANSPOSED:
        out_d, out_h, out_w = d_0 + d * SD, h_0 + h * SH, w_0 + out_w * SW
    in_m, in_n = (rows < M) & (out_d < OD) & (out_h < OH), cols < N
    width = C if LAST else 1
    x += plane * D * H * tl.full((), W, tl.int64) * width
    d, h, first = x_d + d * step_d, x_h + h * step_h, x_w + q * step_w if LAST else x_w
    channel = cols if LAST else (plane % C).to(tl.int32)
    in_w = in_n if LAST else in_m
    w += channel * w_c + ((tap_d * KH + tap_h) * KW + tap_w) * w_k

    b_z = tl.broadcast_to(accumulator(x, 1, 1), (BLOCK_M, BLOCK_N))
    zero = tl.full((), 0, tl.int32)
    # not unrolled: rows of taps 3 times unrolled took 3 times as long on a CPU, where their masks leave no registers
    for i in range(taps_d * taps_h):
        j_d, j_h = (zero + i) // taps_h, (zero + i) % taps_h
        i_d, i_h = d + j_d * next_d, h + j_h * next_h
        in_rows = in_m & (i_d >= 0) & (i_d < D) & (i_h >= 0) & (i_h < H)
        b_z = _row_of_taps(
            b_z, x + (i_d * H + i_h) * tl.full((), W, tl.int64) * width, in_rows,
            w + (j_d * apart_d * KH + j_h * apart_h) * KW * w_k, in_w, first, next_w, apart_w * w_k,
            taps_w, cols, in_n, W, C, STEP, step_w, WIDTH, LAST, not TRANSPOSED,
        )  # fmt: skip

    if bias is not None:
        b_z += load(bias + channel, in_w)
    inside = in_m & in_n & (out_w < OW)
    at = ((plane * OD + out_d) * OH + out_h) * OW * width
    at += out_w * width + cols if LAST else out_w
    if z is not None:
        tl.store(z + at, b_z, inside)
    tl.store(y + at, b_z if F is None else F(b_z, 0.0, 0.0), inside)


@triton.jit(do_not_specialize=[*SCALARS[:5], "PH", "PW", "STEPS", "N"])
def depthwise_weight_kernel(
    dw, dy, x, N, C, D, H, W, OD, OH, OW, KD, KH, KW, SD, SH, SW, PD, PH, PW, GD, GH, GW, STEPS,
    LAST: tl.constexpr, ALIGN: tl.constexpr, STEP: tl.constexpr, TAPS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dw [C, KD KH KW] = sum of dy x over N and outputs. Grid: channels (LAST: BLOCK_N of them); slices, STEPS tiles of
    rows (and of columns along W) each. TAPS: a power of two that has room for the taps. ALIGN: as above.
    """
    if LAST:
        C = multiple(C, ALIGN)
    else:
        OW = multiple(OW, ALIGN)
    CHANNELS: tl.constexpr = BLOCK_N if LAST else 1
    line = OW if LAST else 1
    count = N * tl.full((), OD * OH * line, tl.int64)
    across = 1 if LAST else tl.cdiv(OW, BLOCK_N)
    first_channel = tl.program_id(0) * CHANNELS
    channels = first_channel + tl.arange(0, CHANNELS)[None, :]
    width = C if LAST else 1
    numbers = tl.arange(0, TAPS)[:, None]
    b_dw = tl.broadcast_to(accumulator(x, 1, 1), (TAPS, CHANNELS))
    zero = tl.full((), 0, tl.int32)
    begin = tl.program_id(1) * STEPS
    end = tl.minimum(begin + STEPS, tl.cdiv(count, BLOCK_M).to(tl.int32) * across)
    for step in range(begin, end):
        rows, n, d, h, q = plane_rows((zero + step) // across, OD * OH * line, OH * line, line, BLOCK_M)
        cols = (zero + step) % across * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
        in_n = cols < OW
        plane = n * C + first_channel
        if LAST:
            cols, plane, in_n = channels, n, channels < C
        in_m = rows < count
        at = ((plane * OD + d) * OH + h) * OW * width
        b_dy = load(dy + at + (q * width + cols if LAST else cols), in_m & in_n)
        there = x + plane * D * H * tl.full((), W, tl.int64) * width
        for i in range(KD * KH):
            i_d, i_h = d * SD - PD + (zero + i) // KH * GD, h * SH - PH + (zero + i) % KH * GH
            in_rows = in_m & (i_d >= 0) & (i_d < D) & (i_h >= 0) & (i_h < H)
            x_row = there + (i_d * H + i_h) * tl.full((), W, tl.int64) * width
            for j in range(KW):
                first = (q * SW if LAST else zero) - PW + (zero + j) * GW
                b = tl.sum(b_dy * _tap(x_row, in_rows, first, cols, in_n, W, C, STEP, SW, LAST), axis=0, keep_dims=True)
                if not LAST:  # the short sum last: across lanes
                    b = tl.sum(b, axis=1, keep_dims=True)
                b_dw += tl.where(numbers == (zero + i) * KW + j, b, 0.0)

    taps = KD * KH * KW
    at = (tl.program_id(1) * tl.full((), C, tl.int64) + channels) * taps + numbers
    tl.store(dw + at, b_dw, (numbers < taps) & (channels < C))
