"""The forward of pooling where windows are wide: the lanes of a tile lie along a window, and are reduced at the end.

Each lane keeps what it found, as a window of its own; of lanes that are equal the first place counts, as in torch, and
of NaNs the last one.
"""

import triton
import triton.language as tl

from trident.lang.pooling import add_element, finished
from trident.lang.tile import accumulator
from trident.lang.windows import plane_rows, skipped, window_count, window_end, window_start


@triton.jit
def wide_forward_kernel(
    y, code, x, count, M, D, H, W, OD, OH, OW, AD, AH, AW, BD, BH, BW, PD, PH, PW, KD, KH, KW, GD, GH, GW,
    PITCH_D, PITCH_H,
    KIND: tl.constexpr, P: tl.constexpr, PADDED: tl.constexpr, INDICES: tl.constexpr, UNEVEN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """As `_pool._forward_kernel`, of contiguous tensors; a step is BLOCK_N elements of one row of the window."""
    rows, plane, od, oh, ow = plane_rows(tl.program_id(0), OD * OH * OW, OH * OW, OW, BLOCK_M)
    lanes, in_m = tl.arange(0, BLOCK_N)[None, :], rows < M
    d0 = window_start(od, AD, BD, PD, UNEVEN)
    h0 = window_start(oh, AH, BH, PH, UNEVEN)
    w0 = window_start(ow, AW, BW, PW, UNEVEN)
    d_end = tl.minimum(window_end(od, AD, BD, PD, (KD - 1) * GD + 1, UNEVEN), D)
    h_end = tl.minimum(window_end(oh, AH, BH, PH, (KH - 1) * GH + 1, UNEVEN), H)
    w_end = tl.minimum(window_end(ow, AW, BW, PW, (KW - 1) * GW + 1, UNEVEN), W)
    base = x + ((plane * D + d0) * H + h0) * W + w0

    best = tl.broadcast_to(accumulator(x, 1, 1), (BLOCK_M, BLOCK_N))
    b_code = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    if KIND == "max":
        best -= float("inf")
    chunks = tl.cdiv(KW, BLOCK_N)
    for i in range(KD * KH * chunks):
        line = i // chunks
        kd, kh, k = line // KH * GD, line % KH * GH, i % chunks * BLOCK_N * GW
        d, h = d0 + kd, h0 + kh
        in_rows = in_m & (d >= 0) & (d < d_end) & (h >= 0) & (h < h_end)
        # bounds on the lanes themselves, see `_pool._in_width`
        found = in_rows & (lanes * GW >= 0 - w0 - k) & (lanes * GW < w_end - w0 - k)
        start, this = base + (kd * H + kh) * tl.full((), W, tl.int64) + k, kd * PITCH_D + kh * PITCH_H + k
        best, b_code = add_element(best, b_code, start + lanes * GW, found, this + lanes * GW, KIND, P)

    if KIND == "max":
        top = tl.max(best, axis=1, keep_dims=True)
        last_nan = tl.max(tl.where(best != best, b_code, -1), axis=1, keep_dims=True)
        place = tl.min(tl.where(best == top, b_code, 0x7FFFFFFF), axis=1, keep_dims=True)
        # nothing but -inf, or nothing at all: the first element
        first = skipped(d0, GD) * PITCH_D + skipped(h0, GH) * PITCH_H + skipped(w0, GW)
        place = tl.where(last_nan >= 0, last_nan, tl.where(top == -float("inf"), first, place))
        top = tl.where(last_nan >= 0, float("nan"), top)
        if code is not None:
            if INDICES:
                tl.store(code + rows, place.to(tl.int64) + ((d0 * H + h0).to(tl.int64) * W + w0), in_m)
            else:
                tl.store(code + rows, place, in_m)
    else:
        top = tl.sum(best, axis=1, keep_dims=True)
        if count is None:
            b_count = window_count(od, D, AD, BD, PD, KD, UNEVEN, PADDED)
            b_count *= window_count(oh, H, AH, BH, PH, KH, UNEVEN, PADDED)
            top /= (b_count * window_count(ow, W, AW, BW, PW, KW, UNEVEN, PADDED)).to(top.dtype)
        else:
            top /= count
        top = finished(top, KD * KH * KW, KIND, P)
    tl.store(y + rows, top, in_m)
