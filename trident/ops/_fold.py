"""Patches of images as columns, and back: x [N, C, H, W], patches [N, C KH KW, L], L = OH OW places of a window.

unfold      y[n, (c, k), q] = x[n, c, q S - P + k D]              0 outside
fold        y[n, c, i] = sum over k of x[n, (c, k), (i + P - k D) / S]    where S divides that and it is a place

Each is the gradient of the other. Both gather: every element is written once, and fold adds in the order of k. Pixels
of one residue mod S read the same taps: each class (lang/conv.py) is a program's own.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.conv import axis_of_class
from trident.lang.tile import accumulator, load
from trident.lang.windows import plane_rows
from trident.ops._resample import WIDEST
from trident.runtime import recompute, route, tuning, tuning_windows
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op

Pair = tuple[int, int]
Size = int | tuple[int, ...]  # as torch types it; two numbers at run time


@triton.jit(do_not_specialize=["PH", "PW", "M"])
def _unfold_kernel(
    y, x, M, OW, H, W, OH, KH, KW, SH, SW, PH, PW, GH, GW,
    STEP: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """y: M rows [N C, KH, KW, OH] of OW elements. STEP: SW where it is small."""
    tiles = tl.cdiv(OW, BLOCK_N)
    rows, plane, kh, kw, oh = plane_rows(tl.program_id(0) // tiles, KH * KW * OH, KW * OH, OH, BLOCK_M)
    cols = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    inside = (rows < M) & (cols < OW)
    h, first, step = oh * SH - PH + kh * GH, kw * GW - PW, STEP if STEP else SW
    w = first + cols * step
    found = inside & (h >= 0) & (h < H) & (w >= 0) & (w < W)
    b_x = tl.load(x + (plane * H + h) * W + first + cols * step, found, other=0)
    tl.store(y + rows * OW + cols, b_x, inside)


@triton.jit(do_not_specialize=["PH", "PW", "EH", "EW", "M"])
def _fold_kernel(
    y, x, M, N, H, W, OH, OW, KH, KW, SH, SW, PH, PW, GH, GW, EH, EW, NH,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """y [N C, H, W]. M rows [N C, NH] of N columns of the largest class; E: gcd(S, G). Grid: tiles; classes."""
    cls = tl.program_id(1)
    h_0, _, start_h, _, next_h, tap_h, apart_h, taps_h = axis_of_class(cls // SW, H, KH, SH, PH, GH, EH, True)
    w_0, _, start_w, _, next_w, tap_w, apart_w, taps_w = axis_of_class(cls % SW, W, KW, SW, PW, GW, EW, True)
    tiles = tl.cdiv(N, BLOCK_N)
    rows, plane, _, h, _ = plane_rows(tl.program_id(0) // tiles, NH, NH, 1, BLOCK_M)
    h = (rows - plane * NH).to(tl.int32)
    cols = tl.program_id(0) % tiles * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]
    i, j = h_0 + h * SH, w_0 + cols * SW
    inside = (rows < M) & (cols < N) & (i < H) & (j < W)
    x += plane * KH * KW * tl.full((), OH, tl.int64) * OW
    b_y = tl.broadcast_to(accumulator(x, 1, 1), (BLOCK_M, BLOCK_N))
    zero = tl.full((), 0, tl.int32)
    for step in range(taps_h * taps_w):
        j_h, j_w = (zero + step) // taps_w, (zero + step) % taps_w
        oh, first = start_h + h + j_h * next_h, start_w + j_w * next_w
        found = inside & (oh >= 0) & (oh < OH) & (cols >= -first) & (cols < OW - first)
        k = (tap_h + j_h * apart_h) * KW + tap_w + j_w * apart_w
        b_y += load(x + (k * tl.full((), OH, tl.int64) + oh) * OW + first + cols, found)
    tl.store(y + (plane * H + i) * W + j, b_y, inside)


@tuning.heuristic
def _plan(way: str, planes: int, H: int, W: int, OH: int, OW: int, device: torch.device, *window: int) -> tuning.Plan:
    """window: kernel, stride, padding, dilation, of H and W each."""
    names = ("KH", "KW", "SH", "SW", "PH", "PW", "GH", "GW")
    meta: dict[str, Any] = {"H": H, "W": W, "OH": OH, "OW": OW, **dict(zip(names, window, strict=True))}
    KH, KW, SH, SW, _, _, GH, GW = window
    if way == "unfold":
        plan = tuning_windows.window_tiles(planes * KH * KW * OH, OW, device, 1)
        meta |= {"M": planes * KH * KW * OH, "STEP": SW if SW <= 4 else 0}
        return tuning.Plan(plan.grid, {**meta, **plan.meta})
    rows, columns = tuning.cdiv(H, SH), tuning.cdiv(W, SW)
    plan = tuning_windows.window_tiles(planes * rows, columns, device, 1)
    meta |= {"M": planes * rows, "N": columns, "NH": rows, "EH": math.gcd(SH, GH), "EW": math.gcd(SW, GW)}
    return tuning.Plan((*plan.grid, SH * SW), {**meta, **plan.meta})


@op("unfold")
def _unfold(x: Tensor, places: Sequence[int], window: Sequence[int]) -> Tensor:
    """x [N, C, H, W] -> [N, C KH KW, OH OW], places = (OH, OW)."""
    N, C, H, W = x.shape
    y = x.new_empty(N, C * window[0] * window[1], places[0] * places[1])
    plan = _plan("unfold", N * C, H, W, *places, x.device, *window)
    launch(_unfold_kernel, plan.grid, y, x.contiguous(), **plan.meta)
    return y


@op("fold")
def _fold(x: Tensor, size: Sequence[int], places: Sequence[int], window: Sequence[int]) -> Tensor:
    """x [N, C KH KW, OH OW] -> [N, C, *size]."""
    C = x.shape[1] // (window[0] * window[1])
    y = x.new_empty(x.shape[0], C, *size)
    plan = _plan("fold", x.shape[0] * C, *size, *places, x.device, *window)
    launch(_fold_kernel, plan.grid, y, x.contiguous(), **plan.meta)
    return y


class _Patches(torch.autograd.Function):
    """size, places: those of the image and of the window's places. to_image: fold, else unfold."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, size: Pair, places: Pair, window: tuple[int, ...], to_image: bool) -> Tensor:
        ctx.like, ctx.how = (x.shape, x.dtype), (size, places, window, to_image)
        return _fold(x, size, places, window) if to_image else _unfold(x, places, window)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (shape, dtype), (size, places, window, to_image) = ctx.like, ctx.how
        if recompute.wanted():
            x = torch.zeros((), dtype=dtype, device=dy.device).expand(shape).requires_grad_()
            kernel, stride, padding, dilation = (window[i : i + 2] for i in range(0, 8, 2))
            how = kernel, dilation, padding, stride
            F = torch.nn.functional
            found = recompute.gradients(lambda x: F.fold(x, size, *how) if to_image else F.unfold(x, *how), (x,), dy)
            return *found, None, None, None, None
        dx = _unfold(dy, places, window) if to_image else _fold(dy, size, places, window)
        return dx, None, None, None, None


def _pair(value: Any) -> Pair | None:
    """As torch takes a pair: a number, or two."""
    found = tuple(value) if isinstance(value, tuple | list) else (value, value)
    whole = all(isinstance(n, int | torch.SymInt) and not isinstance(n, bool) for n in found)
    return found if whole and len(found) == 2 else None


def _read(size: Any, kernel: Any, dilation: Any, padding: Any, stride: Any) -> tuple[Pair, tuple[int, ...]] | None:
    """The places of a window in an image of `size`, and kernel, stride, padding, dilation of each axis. None: torch
    must say what is wrong."""
    L, K, S, P, G = (_pair(value) for value in (size, kernel, stride, padding, dilation))
    if L is None or K is None or S is None or P is None or G is None:
        return None
    if min(*K, *S, *G) < 1 or min(*P) < 0 or min(*L) < 1 or S[0] * S[1] > 65535:  # programs of a GPU's second axis
        return None
    places = [(n + 2 * p - g * (k - 1) - 1) // s + 1 for n, k, s, p, g in zip(L, K, S, P, G, strict=True)]
    if min(places) < 1:
        return None
    return (places[0], places[1]), (*K, *S, *P, *G)


def _kind(name: str, found: tuple[Pair, tuple[int, ...]] | None) -> str:
    """What `crossover` knows the call by: windows that do not overlap were measured apart."""
    if found is None:
        return name
    KH, KW, SH, SW, *_ = found[1]
    return f"{name} (patches)" if SH >= KH and SW >= KW else name


def unfold(input: Tensor, kernel_size: Size, dilation: Size = 1, padding: Size = 0, stride: Size = 1) -> Tensor:
    """x [N, C, H, W] or [C, H, W] -> [N, C KH KW, L]. Same contract as :func:`torch.nn.functional.unfold`."""
    found = _read(input.shape[-2:], kernel_size, dilation, padding, stride) if input.dim() in (3, 4) else None
    if found is not None and math.prod((*input.shape[-3:], *found[0])) > WIDEST:
        found = None
    if route.to_torch(_kind("unfold", found), input, unless=route.INVALID if found is None else None) or found is None:
        return torch.nn.functional.unfold(input, kernel_size, dilation, padding, stride)
    x = input if input.dim() == 4 else input.unsqueeze(0)
    y = apply(_Patches, x, (x.shape[2], x.shape[3]), *found, False)
    return y if input.dim() == 4 else y.squeeze(0)


def fold(
    input: Tensor, output_size: Size, kernel_size: Size, dilation: Size = 1,
    padding: Size = 0, stride: Size = 1,
) -> Tensor:  # fmt: skip
    """x [N, C KH KW, L] or [C KH KW, L] -> [N, C, *output_size]. Same contract as :func:`torch.nn.functional.fold`."""
    found = _read(output_size, kernel_size, dilation, padding, stride) if input.dim() in (2, 3) else None
    if found is not None:
        (oh, ow), (kh, kw, *_) = found
        if input.shape[-1] != oh * ow or input.shape[-2] % (kh * kw) or math.prod(input.shape[-2:]) > WIDEST:
            found = None
    if route.to_torch(_kind("fold", found), input, unless=route.INVALID if found is None else None) or found is None:
        return torch.nn.functional.fold(input, output_size, kernel_size, dilation, padding, stride)
    x = input if input.dim() == 3 else input.unsqueeze(0)
    y = apply(_Patches, x, _pair(output_size), *found, True)
    return y if input.dim() == 3 else y.squeeze(0)
