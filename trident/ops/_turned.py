"""Planes of numbers turned round on CPUs: y[n, s, r] = x[n, r, s], a copy.

torch's copy reads or writes element by element; here squares are turned round in registers.
"""

import triton
import triton.language as tl
from torch import Tensor

from trident.runtime import tuning_conv
from trident.runtime.launch import launch


@triton.jit
def _later(a, b):
    return b


@triton.jit
def _turn_kernel(y, x, R, S, BLOCK_R: tl.constexpr, BLOCK_S: tl.constexpr):
    """Grid: tiles of [S, R]; N. The scan changes nothing: for its sake trident_cpu lays the tile down in memory, and
    turns what was read along the other axis round on the way (emit/transpose.py), if elements have 32 bits."""
    tiles = tl.cdiv(R, BLOCK_R)
    n = tl.program_id(1).to(tl.int64) * R * S
    s = (tl.program_id(0) // tiles * BLOCK_S + tl.arange(0, BLOCK_S))[:, None]
    r = (tl.program_id(0) % tiles * BLOCK_R + tl.arange(0, BLOCK_R))[None, :]
    inside = (r < R) & (s < S)
    b_x = tl.load(x + n + r * S + s, inside, other=0.0).to(tl.float32)
    tl.store(y + n + s * R + r, tl.associative_scan(b_x, 1, _later), inside)


def turned(x: Tensor) -> Tensor:
    """x [N, R, S], contiguous -> [N, S, R]."""
    N, R, S = x.shape
    if not tuning_conv.turns(N, R, S, x.dtype, x.device):
        return x.transpose(1, 2).contiguous()
    y = x.new_empty([N, S, R])
    plan = tuning_conv.turned(R, S, x.device)
    launch(_turn_kernel, (*plan.grid, N), y, x, R, S, **plan.meta)
    return y
