"""Targets given as class indices, one per line (lang/lines.py), as the losses over classes read them."""

import triton
import triton.language as tl

from trident.lang.tile import load


@triton.jit
def class_of(target, w, lines, exist, V, ignored):
    """Of each line: its class (int64), whether it counts (its class is not `ignored`), and its weight (0: not counted).

    A class outside 0 <= t < V is never used as an address. The CPU refuses it before the launch; on a GPU it stops the
    program (tl.device_assert, as torch does), or makes the loss NaN where asserts are compiled out.
    """
    t = tl.load(target + lines, mask=exist, other=0).to(tl.int64)
    counts = exist & (t != ignored)
    valid = counts & (t >= 0) & (t < V)
    tl.device_assert(valid == counts, "target is out of bounds")
    weight = tl.where(valid, 1.0, 0.0)
    if w is not None:
        weight = load(w + t, valid)
    return t, counts, tl.where(valid == counts, weight, float("nan"))
