"""Dropout (Srivastava et al. 2014) of elements or of whole channels, and alpha dropout (arXiv:1706.02515).

    k           = 1 with probability 1 - p, else 0
    forward     y  = x (k scale) + (shift if k else dropped)
    backward    dx = dy (k scale)

    dropout         scale = 1 / (1 - p), shift = dropped = 0
    alpha dropout   scale = a = 1 / sqrt((1 + p α²) (1 - p)), shift = p a α, dropped = -(1 - p) a α: with -α for what
                    is dropped and an affine map after, mean and variance stay those of a self-normalizing net

k is Philox at the element's (or channel's) place, keyed by one int64 that torch's generator draws. It depends on the
key and the shape, not on how a kernel is launched; so GPUs draw it again in the backward. CPUs, where random numbers
take several times as long as memory does, keep it, a byte for an element as torch does. A product with 0, not a
selection: what is dropped from inf or NaN is NaN, as in torch.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.random import at_least, random4
from trident.lang.tile import band_tile, flat_tile, from_bits, load, multiple
from trident.runtime import exact, nodes, pages, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.layout import lying, lying_as
from trident.runtime.op import op

SELU_ALPHA = 1.7580993408473766  # α of the paper times its scale: what selu tends to at -infinity, negated
RUN_TIME = ("bound", "scale", "shift", "dropped")


@triton.jit
def _masked(x, k, scale, shift, dropped):
    """x as the formula above, in x's dtype."""
    factor = tl.where(k, from_bits(scale), 0.0).to(x.dtype)
    return x * factor + tl.where(k, from_bits(shift), from_bits(dropped)).to(x.dtype)


@triton.jit(do_not_specialize=RUN_TIME)
def _element_kernel(y, kept, x, seed, n, quarter, bound, scale, shift, dropped, BLOCK: tl.constexpr):
    at, in_quarter = flat_tile(quarter, BLOCK)
    random = random4(seed, at)  # the four words of a counter serve four elements, a quarter of the tensor apart
    for i in tl.static_range(4):
        inside, k = in_quarter & (at < n), at_least(random[i], bound)
        tl.store(y + at, _masked(load(x + at, inside), k, scale, shift, dropped), inside)
        if kept is not None:
            factor = k.to(tl.int8) if kept.dtype.element_ty == tl.int8 else tl.where(k, from_bits(scale), 0.0)
            tl.store(kept + at, factor.to(kept.dtype.element_ty), inside)
        at += quarter


@triton.jit(do_not_specialize=("scale",))
def _kept_kernel(dx, dy, kept, n, scale, BLOCK: tl.constexpr):
    at, inside = flat_tile(n, BLOCK)
    k = tl.load(kept + at, mask=inside, other=0) != 0
    b_dy = load(dy + at, inside)
    tl.store(dx + at, b_dy * tl.where(k, from_bits(scale), 0.0).to(b_dy.dtype), inside)


@triton.jit(do_not_specialize=RUN_TIME)
def _channel_kernel(
    y,
    x,
    seed,
    M,
    N,
    bound,
    scale,
    shift,
    dropped,
    BY_ROW: tl.constexpr,  # x is a matrix [M, N] whose rows are channels; else planes of [M, N] whose columns are
    ALIGN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    N = multiple(N, ALIGN)
    bands = tl.num_programs(0) if BY_ROW else tl.cdiv(N, BLOCK_N)
    steps = tl.cdiv(N, BLOCK_N) if BY_ROW else tl.cdiv(M, BLOCK_M)
    band, plane = tl.program_id(0) % bands, (tl.program_id(0) // bands).to(tl.int64)
    rows, cols, _ = band_tile(band, 0, M, N, BY_ROW, BLOCK_M, BLOCK_N)
    random = random4(seed, rows if BY_ROW else plane * N + cols)
    k = at_least(random[0], bound)
    for step in range(tl.program_id(1), steps, tl.num_programs(1)):
        rows, cols, inside = band_tile(band, step, M, N, BY_ROW, BLOCK_M, BLOCK_N)
        at = (plane * M + rows) * N + cols
        tl.store(y + at, _masked(load(x + at, inside), k, scale, shift, dropped), inside)


def _run_time(p: float, values: Sequence[float]) -> tuple[int, ...]:
    """The kernels' arguments RUN_TIME: P(random uint32 < bound + 2^31) = p to 32 bits."""
    return min(round(p * 2**32), 2**32 - 1) - 2**31, *map(exact.bits, values)


@op("dropout")
def _elements(
    x: Tensor, seed: Tensor, p: float, values: Sequence[float], keep: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """y, and in the order of its memory what is to be kept: k as int8, or k scale in another dtype (None: nothing)."""
    y = torch.empty_like(x)
    n = x.numel()
    kept = torch.empty_like(y if keep else x.new_empty(0), dtype=keep)
    if keep and type(kept) is Tensor and kept.is_cpu and n >= pages.FEWEST_ELEMENTS:  # fakes have no memory
        pages.advise(kept)
    quarter = (n + 63) // 64 * 16  # a multiple of 16, so that all four places are aligned
    plan = tuning.flat(quarter, x.device)
    some = kept if keep else None
    launch(_element_kernel, plan.grid, y, some, lying_as(x, y), seed, n, quarter, *_run_time(p, values), **plan.meta)
    return y, kept


@op("dropout_backward")
def _kept(dy: Tensor, kept: Tensor, scale: float) -> Tensor:
    """dx = dy (k scale); k lies as dy does."""
    dx = torch.empty_like(dy)
    plan = tuning.flat(dy.numel(), dy.device)
    launch(_kept_kernel, plan.grid, dx, dy, kept, dy.numel(), exact.bits(scale), **plan.meta)
    return dx


@op("channel_dropout")
def _channels(x: Tensor, seed: Tensor, p: float, values: Sequence[float], leading: int) -> Tensor:
    """The last of the `leading` axes is that of the channels."""
    like = torch.empty_like(x)
    by_row = like.is_contiguous() or not like.movedim(leading - 1, -1).is_contiguous()
    # not a second result beside it: the first may have been given memory that malloc kept, the second then has none
    y = torch.empty_like(x, memory_format=torch.contiguous_format) if by_row and not like.is_contiguous() else like
    C, planes, inner = x.shape[leading - 1], math.prod(x.shape[: leading - 1]), math.prod(x.shape[leading:])
    M, N, planes = (planes * C, inner, 1) if by_row else (inner, C, planes)
    plan = tuning.bands(M, N, by_row, x.device)
    grid = (plan.grid[0] * planes, plan.grid[-1])
    launch(_channel_kernel, grid, y, lying_as(x, y), seed, M, N, *_run_time(p, values), BY_ROW=by_row, **plan.meta)
    return lying_as(y, like)


class _Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, seed: Tensor, p: float, values: tuple[float, ...], leading: int) -> Tensor:
        if leading:
            y, kept = _channels(x, seed, p, values, leading), None
        else:
            keep = torch.int8 if ctx.needs_input_grad[0] and tuning.keeps_numbers(x.device) else None
            y, found = _elements(x, seed, p, values, keep)
            kept = found if keep else None
        ctx.save_for_backward(seed, kept)
        ctx.p, ctx.scale, ctx.leading, ctx.strides = p, values[0], leading, y.stride()
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """The forward, on dy, without its constants; an element's place is its place in y's memory."""
        seed, kept = ctx.saved_tensors
        dy, values = lying(dy, ctx.strides), (ctx.scale, 0.0, 0.0)
        if recompute.wanted():
            dx = _Dropout.apply(dy, seed, ctx.p, values, ctx.leading)
        elif kept is not None:
            dx = _kept(dy, kept, ctx.scale)
        elif ctx.leading:
            dx = _channels(dy, seed, ctx.p, values, ctx.leading)
        else:
            dx, _ = _elements(dy, seed, ctx.p, values, None)
        return dx, None, None, None, None


def seed_for(x: Tensor) -> Tensor:
    """A key for Philox from torch's generator of x's device, on that device: no transfer, no synchronization."""
    return torch.randint(2**63 - 1, (1,), dtype=torch.int64, device=x.device)


def nothing_drawn(training: bool, p: float, inplace: bool, valid: bool) -> str | None:
    """Why a random operator has nothing to do for Trident's kernel, or None."""
    if not (valid and 0 <= p <= 1):
        return route.INVALID
    if inplace:
        return "in place"
    if not training or p in (0, 1):
        return "nothing is drawn"
    return None


def _drop(
    name: str, x: Tensor, p: float, training: bool, inplace: bool, leading: int = 0, valid: bool = True
) -> Tensor:
    if route.to_torch(name, x, unless=nothing_drawn(training, p, inplace, valid)):
        return getattr(torch.nn.functional, name)(x, p, training, inplace)
    values = (1 / (1 - p), 0.0, 0.0)
    if "alpha" in name:
        a = 1 / math.sqrt((SELU_ALPHA * SELU_ALPHA * p + 1) * (1 - p))
        values = (a, p * a * SELU_ALPHA, (p - 1) * a * SELU_ALPHA)
    if not leading and torch_multiplies("dropout", x):
        y, factor = _elements(x.detach(), seed_for(x), p, values, x.dtype)
        return nodes.product(y, x, factor)
    return apply(_Dropout, x, seed_for(x), p, values, leading)


def torch_multiplies(name: str, x: Tensor) -> bool:
    """Is a gradient to come that is dy times what is kept, and torch the faster one to multiply?"""
    return nodes.possible(x) and tuning.keeps_numbers(x.device) and route.gradient_to_torch(name, x)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Same contract as :func:`torch.nn.functional.dropout`: any shape; the result lies in memory as input does."""
    return _drop("dropout", input, p, training, inplace)


def dropout1d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of [B, C, L] or [C, L]. Same contract as :func:`torch.nn.functional.dropout1d`."""
    return _drop("dropout1d", input, p, training, inplace, input.dim() - 1, valid=input.dim() in (2, 3))


def dropout2d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of [B, C, H, W]. Same contract as :func:`torch.nn.functional.dropout2d`."""
    return _drop("dropout2d", input, p, training, inplace, 2, valid=input.dim() == 4)  # else torch warns


def dropout3d(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Whole channels of [B, C, D, H, W] or [C, D, H, W]. Same contract as :func:`torch.nn.functional.dropout3d`."""
    return _drop("dropout3d", input, p, training, inplace, input.dim() - 3, valid=input.dim() in (4, 5))


def alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Same contract as :func:`torch.nn.functional.alpha_dropout`: any shape."""
    return _drop("alpha_dropout", input, p, training, inplace)


def feature_alpha_dropout(input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False) -> Tensor:
    """Whole channels of [B, C, *]. Same contract as :func:`torch.nn.functional.feature_alpha_dropout`."""
    return _drop("feature_alpha_dropout", input, p, training, inplace, 2, valid=input.dim() > 1)
