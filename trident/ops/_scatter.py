"""Values to places in planes, and back: index[i] says where in its plane of L elements value i belongs.

scatter     y[plane, index[i]] = x[i], 0 elsewhere          or, where windows overlap, the sum of what goes there
gather      y[i] = x[plane, index[i]]

Values of one launch must go to different places, so that nothing depends on their order. Where windows overlap, window
o and window o + T of an axis do not: one launch for each of the T classes of windows adds to what those before it left.

A tile is rows times columns as in `_pool.py`: columns are outputs along W, or, with LAST, channels.
"""

import itertools
from collections.abc import Iterator, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import load, multiple
from trident.lang.windows import plane_rows
from trident.runtime import tuning, tuning_windows
from trident.runtime.launch import asserting, launch


@triton.jit
def _values(
    M,
    N,
    C,
    ND,
    NH,
    NW,
    OD,
    OH,
    OW,
    FD,
    FH,
    FW,
    TD,
    TH,
    TW,
    LAST: tl.constexpr,
    ALIGN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """The offsets of a tile of values, their planes and channels, and which exist.

    The values are those of outputs FD + TD i of ND along D, and so on, of all OD OH OW outputs of a plane.
    """
    N = multiple(N, ALIGN)
    if LAST:
        C = N
    else:
        OW = multiple(OW, ALIGN)
    tiles = tl.cdiv(N, BLOCK_N)
    line = NW if LAST else 1
    rows, plane, d, h, w = plane_rows(tl.program_id(0) // tiles, ND * NH * line, NH * line, line, BLOCK_M)
    cols = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    first = ((plane * OD + FD + d * TD) * OH + FH + h * TH) * OW + FW
    at = (first + w * TW) * C + cols if LAST else first + cols * TW
    return at, plane, cols if LAST else 0, (rows < M) & (cols < N)


@triton.jit
def _scatter_kernel(
    y, x, index, M, N, C, L, ND, NH, NW, OD, OH, OW, FD, FH, FW, TD, TH, TW,
    ADD: tl.constexpr, LAST: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    at, plane, channel, inside = _values(
        M, N, C, ND, NH, NW, OD, OH, OW, FD, FH, FW, TD, TH, TW, LAST, ALIGN, BLOCK_M, BLOCK_N
    )  # fmt: skip
    place = tl.load(index + at, mask=inside, other=0).to(tl.int64)
    b_x = load(x + at, inside)
    tl.device_assert((place >= 0) & (place < L), "index out of bounds")
    inside &= (place >= 0) & (place < L)
    there = y + (plane * L + place) * C + channel
    if ADD:
        b_x += load(there, inside)
    tl.store(there, b_x, inside)


@triton.jit
def _gather_kernel(
    y, x, index, M, N, C, L, ND, NH, NW, OD, OH, OW, FD, FH, FW, TD, TH, TW,
    LAST: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    at, plane, channel, inside = _values(
        M, N, C, ND, NH, NW, OD, OH, OW, FD, FH, FW, TD, TH, TW, LAST, ALIGN, BLOCK_M, BLOCK_N
    )  # fmt: skip
    place = tl.load(index + at, mask=inside, other=0).to(tl.int64)
    there = inside & (place >= 0) & (place < L)
    tl.store(y + at, load(x + (plane * L + place) * C + channel, there), inside)


def _classes(
    planes: tuple[int, int], outputs: Sequence[int], T: Sequence[int], last: bool, device: torch.device
) -> Iterator[tuple[tuple[int, ...], dict[str, int]]]:
    """The launch of each class of windows: its grid, and all sizes but L."""
    for first in itertools.product(*(range(min(t, o)) for t, o in zip(T, outputs, strict=True))):
        count = [tuning.cdiv(o - f, t) for o, f, t in zip(outputs, first, T, strict=True)]
        rows, C = planes[0] * count[0] * count[1], planes[1]
        M, N = (rows * count[2], C) if last else (rows, count[2])
        plan = tuning_windows.window_tiles(M, N, device, 1)
        numbers = {"N": count, "O": outputs, "F": first, "T": T}
        sizes = {key + axis: n for key, of in numbers.items() for axis, n in zip("DHW", of, strict=True)}
        align = tuning.aligned(C if last else N, device) if last or T[2] == 1 else 1  # T 1: N is OW
        yield plan.grid, {"M": M, "N": N, "C": C, "LAST": last, "ALIGN": align, **sizes, **plan.meta}


def scatter(
    y: Tensor, x: Tensor, index: Tensor, planes: tuple[int, int], L: int, outputs: Sequence[int], T: Sequence[int],
    last: bool,
) -> None:  # fmt: skip
    """Write x into y, which is 0, at the places `index`. planes: P, C. y is [P, L, C], x and index [P, *outputs, C]."""
    for nth, (grid, meta) in enumerate(_classes(planes, outputs, T, last, y.device)):
        launch(_scatter_kernel, grid, y, x, index, L=L, ADD=nth > 0, **meta, **asserting(y.device.type))


def gather(
    y: Tensor, x: Tensor, index: Tensor, planes: tuple[int, int], L: int, outputs: Sequence[int], last: bool
) -> None:
    """y = x at the places `index`: the way back of `scatter`."""
    for grid, meta in _classes(planes, outputs, (1, 1, 1), last, y.device):
        launch(_gather_kernel, grid, y, x, index, L=L, **meta)
