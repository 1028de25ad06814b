"""Shuffles: the same elements in another order (Shi et al., arXiv:1609.05158; Zhang et al., arXiv:1707.01083).

    pixel_shuffle      y[n, c, h r + i, w r + j] = x[n, (c r + i) r + j, h, w]
    pixel_unshuffle    the inverse
    channel_shuffle    y[n, k g + i, *] = x[n, i c + k, *], with c g channels

Each is a permutation of axes: y, seen as [planes, A, B, C | D, E] with rows of D E elements, is x with the strides of
those axes. The gradient is the inverse permutation.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import multiple
from trident.ops._resample import WIDEST
from trident.runtime import recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.exporting import surely
from trident.runtime.launch import launch_planned
from trident.runtime.layout import measured_as, memory_format
from trident.runtime.op import op


@triton.jit
def _permute_kernel(
    y, x, M, N, ROWS, B, C, D, E, SP, SA, SB, SC, SD, SE,
    SPLIT: tl.constexpr, BACK: tl.constexpr, APART: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """y: M rows [planes, A, B, C], ROWS a plane, of N elements [D, E]; S: the strides of these axes in x.

    SPLIT: E, where D lies side by side in x: a tile is read as it lies there, and turned in registers. BACK: y and x
    change places, and a tile is written as it lies in x. APART: what divides D and the strides of other axes.
    """
    N = multiple(N, ALIGN)
    tiles = tl.cdiv(N, BLOCK_N)
    # a 64-bit division is slow: one for the tile, then 32-bit ones for its rows
    begin = tl.program_id(0) // tiles * tl.full((), BLOCK_M, tl.int64)
    plane = begin // ROWS
    at = (begin - plane * ROWS).to(tl.int32) + tl.arange(0, BLOCK_M)[:, None]
    rows, planes, at = begin + tl.arange(0, BLOCK_M)[:, None], plane + at // ROWS, at % ROWS
    n = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    inside = (rows < M) & (n < N)
    SP, SA, SB, SC = multiple(SP, APART), multiple(SA, APART), multiple(SB, APART), multiple(SC, APART)
    row = planes * SP + at // (B * C) * tl.full((), SA, tl.int64) + at // C % B * SB + at % C * SC
    if SPLIT:
        d = tl.program_id(0) % tiles * (BLOCK_N // SPLIT) + tl.arange(0, BLOCK_N // SPLIT)[None, None, :]
        there = row[:, :, None] + (d + tl.arange(0, SPLIT)[None, :, None] * multiple(SE, APART))
        in_d = (rows < M)[:, :, None] & (d < multiple(D, APART))
        if BACK:
            b_x = tl.reshape(tl.load(x + rows * N + n, inside), (BLOCK_M, BLOCK_N // SPLIT, SPLIT))
            tl.store(y + there, tl.permute(b_x, (0, 2, 1)), in_d)
        else:
            b_x = tl.permute(tl.load(x + there, in_d), (0, 2, 1))
            tl.store(y + rows * N + n, tl.reshape(b_x, (BLOCK_M, BLOCK_N)), inside)
    else:
        tl.store(y + rows * N + n, tl.load(x + row + (n // E * SD + n % E * SE), inside), inside)


def _axes(kind: str, C: int, H: int, W: int, r: int, last: bool) -> list[tuple[int, int]]:
    """The axes of y without its planes, in the order of memory: (size, stride in x)."""
    if kind == "channels":  # y's channels are [C / r, r]
        c, S = C // r, H * W
        return [(S, C), (c, 1), (r, c)] if last else [(c, S), (r, c * S), (S, 1)]
    if kind == "pixels":
        c, S = C // (r * r), H * W
        contiguous = [(c, r * r * S), (H, W), (r, r * S), (W, 1), (r, S)]
        return [(H, W * C), (r, r), (W, C), (r, 1), (c, r * r)] if last else contiguous
    h, w = H // r, W // r
    contiguous = [(C, H * W), (r, W), (r, 1), (h, r * W), (w, r)]
    return [(h, r * W * C), (w, r * C), (C, 1), (r, W * C), (r, C)] if last else contiguous


@tuning.heuristic
def _geometry(kind: str, numel: int, C: int, H: int, W: int, r: int, last: bool, device: torch.device) -> tuning.Plan:
    """x [*, C, H, W] (channel_shuffle: [*, C, H W, 1]), lying contiguously or with its channels last.

    Columns are the last two axes of y if the last is short, else the last; the others, three at most, are rows.
    """
    if kind == "unpixels" and device.type == "cuda":
        plan = _geometry("pixels", numel, C * r * r, H // r, W // r, r, last, device)
        if plan.meta["SPLIT"]:
            return plan._replace(meta={**plan.meta, "BACK": True})
    axes = _axes(kind, C, H, W, r, last)
    short = (axes[-1][0] < 64 and len(axes) > 2) or len(axes) > 4
    columns = axes[-2:] if short else [(1, 0), axes[-1]]
    rows = axes[: -2 if short else -1]
    rows = [(1, 0)] * (3 - len(rows)) + rows
    plane = C * H * W
    (D, side_by_side), (E, _) = columns
    N, each = D * E, math.prod(size for size, _ in rows)
    M = numel // plane * each
    plan = tuning.resampled(M, N, device)
    meta = {"M": M, "N": N, "ROWS": each, "B": rows[1][0], "C": rows[2][0], "D": D, "E": E, "SP": plane}
    strides = zip("ABCDE", [*rows, *columns], strict=True)
    meta |= {f"S{name}": stride for name, (_, stride) in strides}
    # GPU: whole segments of either side, where x was gathered; CPUs gather faster than they turn tiles
    splits = device.type == "cuda" and side_by_side == 1 and D >= 16 and E in (2, 4, 8)
    apart = math.gcd(D, plane, columns[1][1], *(stride for _, stride in rows)) if splits else 1
    flags = {"SPLIT": E if splits else 0, "BACK": False, "APART": tuning.aligned(apart, device)}
    return tuning.Plan(plan.grid, {**meta, **flags, **plan.meta})


INVERSE = {"pixels": "unpixels", "unpixels": "pixels", "channels": "channels"}
TORCH = {
    "pixels": torch.nn.functional.pixel_shuffle,
    "unpixels": torch.nn.functional.pixel_unshuffle,
    "channels": torch.nn.functional.channel_shuffle,
}


@op("shuffle")
def _shuffle(x: Tensor, kind: str, r: int) -> Tensor:
    """r: the factor of a pixel shuffle, or the groups of channels."""
    form = memory_format(x)
    x = x.contiguous(memory_format=form)
    if kind == "channels":
        C, H, W = x.shape[1], math.prod(x.shape[2:]), 1
        shape = list(x.shape)
    else:
        *lead, C, H, W = x.shape
        shape = [*lead, C // (r * r), H * r, W * r] if kind == "pixels" else [*lead, C * r * r, H // r, W // r]
    y = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=form)
    plan = _geometry(kind, x.numel(), C, H, W, r, form != torch.contiguous_format, x.device)
    launch_planned(_permute_kernel, plan, y, x)
    return y


class _Shuffle(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, kind: str, r: int) -> Tensor:
        ctx.kind, ctx.back = kind, x.shape[1] // r if kind == "channels" else r
        return _shuffle(x, kind, r)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        way = TORCH[INVERSE[ctx.kind]] if recompute.wanted() else lambda dy, r: _shuffle(dy, INVERSE[ctx.kind], r)
        return way(dy, ctx.back), None, None


def _called(name: str, kind: str, input: Tensor, r: Any) -> Tensor:
    if route.to_torch(measured_as(name, input), input, unless=_reason(kind, input, r)):
        return TORCH[kind](input, r)
    return apply(_Shuffle, input, kind, r, unrecorded=_shuffle)


def _reason(kind: str, x: Tensor, r: Any) -> str | None:
    """Why torch must do it, or None."""
    if not isinstance(r, int) or isinstance(r, bool) or r <= 0 or x.dim() < 3:
        return route.INVALID
    if not surely(x.numel() <= WIDEST):
        return "2^31 elements"
    if x.dim() == 5 and memory_format(x) != torch.contiguous_format:
        return "no kernel for channels_last_3d"
    if kind == "channels":
        fits = x.shape[1] % r == 0
    elif kind == "pixels":
        fits = x.shape[-3] % (r * r) == 0
    else:
        fits = x.shape[-1] % r == 0 and x.shape[-2] % r == 0
    return None if fits else route.INVALID


def pixel_shuffle(input: Tensor, upscale_factor: int) -> Tensor:
    """[*, C r r, H, W] -> [*, C, H r, W r]. Same contract as :func:`torch.nn.functional.pixel_shuffle`."""
    return _called("pixel_shuffle", "pixels", input, upscale_factor)


def pixel_unshuffle(input: Tensor, downscale_factor: int) -> Tensor:
    """[*, C, H r, W r] -> [*, C r r, H, W]. Same contract as :func:`torch.nn.functional.pixel_unshuffle`."""
    return _called("pixel_unshuffle", "unpixels", input, downscale_factor)


def channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """[N, C, *] -> [N, C, *]. Same contract as :func:`torch.nn.functional.channel_shuffle`."""
    return _called("channel_shuffle", "channels", input, groups)


def native_channel_shuffle(input: Tensor, groups: int) -> Tensor:
    """As :func:`torch.nn.functional.native_channel_shuffle`, with a gradient, which torch's has not."""
    return _called("channel_shuffle", "channels", input, groups)
