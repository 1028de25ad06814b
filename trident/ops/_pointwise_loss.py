"""Pointwise losses: a table of scalar functions over one pair of kernels.

    forward     l  = w f(x, t; A, B);  then l itself, or its mean or sum over all elements
    backward    dx = dl w f_x(x, t; A, B)
                dt = dl w f_t(x, t; A, B)       dl: dy, or dy / n for the mean

A row of the table is f and its derivatives, of lang/loss.py. A sum is one partial per program, then one reduction of
those: no atomics. w is binary_cross_entropy's weight; the weight of its positives takes the place of A. What broadcasts
is read where it lies (runtime/broadcast.py).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang import loss as L
from trident.lang.broadcast import elements, nothing, tiles, values
from trident.runtime import autocast, broadcast, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.crossover_tables import ALONE
from trident.runtime.launch import launch
from trident.runtime.layout import dense_strides
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype

PARTS = "under autocast torch casts its parts"
REDUCTIONS = ("none", "mean", "sum")  # in the order of torch's enumeration


class Loss(NamedTuple):
    """A row, named as torch's function (and a variant of it after a dot).

    target: the derivative by t, third: by the tensor in A's place; None where there is none. torch: torch's function
    of (x, t, third, Options).
    """

    f: Any
    grad: Any
    target: Any
    torch: Callable[..., Tensor]
    third: Any = None
    lies_as: int = 0  # torch's result lies in memory as the input does; 1: as the target; 2: as the third tensor


class Options(NamedTuple):
    w: Tensor | None
    reduction: str
    a: float
    b: float


F = torch.nn.functional
LOSSES = {
    "binary_cross_entropy": Loss(
        L.bce,
        L.bce_grad,
        L.bce_target,
        lambda x, t, third, o: F.binary_cross_entropy(x, t, o.w, reduction=o.reduction),
    ),
    "binary_cross_entropy_with_logits": Loss(
        L.bce_logits,
        L.bce_logits_grad,
        L.bce_logits_plain_target,
        lambda x, t, third, o: F.binary_cross_entropy_with_logits(x, t, o.w, reduction=o.reduction),
        lies_as=1,
    ),
    "binary_cross_entropy_with_logits.positives": Loss(
        L.bce_logits,
        L.bce_logits_grad,
        L.bce_logits_target,
        lambda x, t, third, o: F.binary_cross_entropy_with_logits(x, t, o.w, reduction=o.reduction, pos_weight=third),
        lies_as=1,
    ),
    "huber_loss": Loss(
        L.huber,
        L.huber_grad,
        L.huber_target,
        lambda x, t, third, o: F.huber_loss(x, t, o.reduction, delta=o.a),
    ),
    "kl_div": Loss(
        L.kl,
        L.kl_grad,
        L.kl_target,
        lambda x, t, third, o: _kl_div(x, t, o.reduction, False),
        lies_as=1,
    ),
    "kl_div.log": Loss(
        L.kl_log,
        L.kl_log_grad,
        L.kl_log_target,
        lambda x, t, third, o: _kl_div(x, t, o.reduction, True),
        lies_as=1,
    ),
    "jsd_loss": Loss(
        L.jsd,
        L.jsd_grad,
        L.jsd_target,
        lambda x, t, third, o: _reduced(_jsd(x, t, o.a), o.reduction),
    ),
    "cosine_embedding_loss": Loss(
        L.cosine_embedding,
        L.cosine_embedding_grad,
        None,
        lambda x, t, third, o: _reduced(_cosine_embedding(x, t, o.a), o.reduction),
    ),
    "gaussian_nll_loss": Loss(
        L.gaussian,
        L.gaussian_grad,
        L.gaussian_target,
        lambda x, t, third, o: F.gaussian_nll_loss(x, t, third, False, o.b, o.reduction),
        L.gaussian_third,
        lies_as=2,
    ),
    "gaussian_nll_loss.full": Loss(
        L.gaussian_full,
        L.gaussian_grad,
        L.gaussian_target,
        lambda x, t, third, o: F.gaussian_nll_loss(x, t, third, True, o.b, o.reduction),
        L.gaussian_third,
        lies_as=2,
    ),
    "hinge_embedding_loss": Loss(
        L.hinge,
        L.hinge_grad,
        None,
        lambda x, t, third, o: F.hinge_embedding_loss(x, t, o.a, reduction=o.reduction),
    ),
    "margin_ranking_loss": Loss(
        L.ranking,
        L.ranking_grad,
        L.ranking_target,
        lambda x, t, third, o: F.margin_ranking_loss(
            x, t, torch.full_like(x, o.a) if third is None else third, o.b, reduction=o.reduction
        ),
        L.ranking_third,
    ),
    "l1_loss": Loss(
        L.l1,
        L.l1_grad,
        L.l1_target,
        lambda x, t, third, o: F.l1_loss(x, t, reduction=o.reduction),
    ),
    "mse_loss": Loss(
        L.mse,
        L.mse_grad,
        L.mse_target,
        lambda x, t, third, o: F.mse_loss(x, t, reduction=o.reduction),
    ),
    "poisson_nll_loss": Loss(
        L.poisson,
        L.poisson_grad,
        L.poisson_target,
        lambda x, t, third, o: F.poisson_nll_loss(x, t, False, bool(o.b), eps=o.a, reduction=o.reduction),
    ),
    "poisson_nll_loss.log": Loss(
        L.poisson_log,
        L.poisson_log_grad,
        L.poisson_log_target,
        lambda x, t, third, o: F.poisson_nll_loss(x, t, True, bool(o.b), reduction=o.reduction),
    ),
    "smooth_l1_loss": Loss(
        L.smooth_l1,
        L.smooth_l1_grad,
        L.smooth_l1_target,
        lambda x, t, third, o: F.smooth_l1_loss(x, t, reduction=o.reduction, beta=o.a),
    ),
    "soft_margin_loss": Loss(
        L.soft_margin,
        L.soft_margin_grad,
        None,
        lambda x, t, third, o: F.soft_margin_loss(x, t, reduction=o.reduction),
    ),
}


def _kl_div(x: Tensor, t: Tensor, reduction: str, log_target: bool) -> Tensor:
    return torch.kl_div(x, t, REDUCTIONS.index(reduction), log_target=log_target)  # F.kl_div warns of "mean"


def _reduced(loss: Tensor, reduction: str) -> Tensor:
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()


def _jsd(x: Tensor, t: Tensor, beta: float) -> Tensor:
    m = torch.logaddexp(t + math.log(beta), x + math.log1p(-beta))
    of_target, of_input = (torch.where(a == -math.inf, 0, a.exp() * (a - m)) for a in (t, x))
    return (1 - beta) * of_input + beta * of_target


def _cosine_embedding(cosine: Tensor, t: Tensor, margin: float) -> Tensor:
    apart = (cosine - margin).clamp_min(0)
    return torch.where(t == 1, 1 - cosine, 0) + torch.where(t == -1, apart, 0)


@triton.jit
def _forward_kernel(
    y, sums, x, t, w, third, n, N, period, F: tl.constexpr, A: tl.constexpr, B: tl.constexpr, X: tl.constexpr,
    T: tl.constexpr, W: tl.constexpr, THIRD: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """y: the loss of each element, sums: one sum per program. Each may be None."""
    total = nothing(x, N, BLOCK_M, BLOCK_N)
    for tile in range(tl.program_id(0), tiles(n, N, BLOCK_M, BLOCK_N), tl.num_programs(0)):
        places, masks = elements(tile, n, N, BLOCK_M, BLOCK_N)
        b_x, b_t = values(x, places, masks, period, X), values(t, places, masks, period, T)
        # not by a variable for A: that would round a float64 constexpr to float32
        loss = F(b_x, b_t, values(third, places, masks, period, THIRD), B) if third is not None else F(b_x, b_t, A, B)
        if w is not None:
            loss *= values(w, places, masks, period, W)
        if y is not None:
            tl.store(y + places[0], loss, masks[0])
        if sums is not None:
            total += tl.where(masks[0], loss, 0.0)
    if sums is not None:
        tl.store(sums + tl.program_id(0), tl.sum(total))


@triton.jit
def _backward_kernel(
    dx, dt, d_third, dy, x, t, w, third, n, N, period, BY_X: tl.constexpr, BY_T: tl.constexpr, BY_THIRD: tl.constexpr,
    A: tl.constexpr, B: tl.constexpr, MEAN: tl.constexpr, DY: tl.constexpr, X: tl.constexpr, T: tl.constexpr,
    W: tl.constexpr, THIRD: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    places, masks = elements(tl.program_id(0), n, N, BLOCK_M, BLOCK_N)
    dl = values(dy, places, masks, period, DY)
    if MEAN:
        dl = dl / n
    if w is not None:
        dl = dl * values(w, places, masks, period, W)
    b_x, b_t = values(x, places, masks, period, X), values(t, places, masks, period, T)
    b_third = None if third is None else values(third, places, masks, period, THIRD)
    if dx is not None:
        by_x = BY_X(b_x, b_t, b_third, B) if third is not None else BY_X(b_x, b_t, A, B)
        tl.store(dx + places[0], dl * by_x, masks[0])
    if dt is not None:
        by_t = BY_T(b_x, b_t, b_third, B) if third is not None else BY_T(b_x, b_t, A, B)
        tl.store(dt + places[0], dl * by_t, masks[0])
    if d_third is not None:
        tl.store(d_third + places[0], dl * BY_THIRD(b_x, b_t, b_third, B), masks[0])


def _strides(name: str, x: Tensor, t: Tensor, third: Tensor | None) -> tuple[int, ...]:
    """How the result lies in memory, without gaps."""
    model = (x, t, third)[LOSSES[name].lies_as]
    assert model is not None
    return dense_strides(model if model.dim() == x.dim() and model.shape == x.shape else model.expand(x.shape))


@op("pointwise_loss")
def _forward(
    x: Tensor, t: Tensor, w: Tensor | None, third: Tensor | None, name: str, a: float, b: float, reduction: str,
    dtype: torch.dtype, checked: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The result; the sum of each program's losses, if they are summed or `checked` (else empty)."""
    seen = broadcast.elements(x.shape, strides := _strides(name, x, t, third), (x, t, w, third))
    plan = tuning.element_groups(seen.n, seen.N, x.device)
    each = reduction == "none"
    y = x.new_empty_strided(x.shape, strides, dtype=dtype) if each else None
    sums = x.new_empty(plan.grid[0], dtype=compute_dtype(x)) if checked or not each else None
    launch(
        _forward_kernel, plan.grid, y, sums, *seen.operands, seen.n, seen.N, seen.period, F=LOSSES[name].f, A=a, B=b,
        **dict(zip(("X", "T", "W", "THIRD"), seen.by, strict=True)), **plan.meta,
    )  # fmt: skip
    if y is None:
        assert sums is not None
        total = sums.sum()
        y = (total / seen.n if reduction == "mean" else total).to(dtype)
    return y, x.new_empty(0) if sums is None else sums


@op("pointwise_loss_backward")
def _backward(
    dy: Tensor, x: Tensor, t: Tensor, w: Tensor | None, third: Tensor | None, name: str, a: float, b: float,
    reduction: str, by_x: bool, by_t: bool, by_third: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dx if by_x, dt if by_t, and the derivative by `third` if by_third; else empty."""
    row = LOSSES[name]
    seen = broadcast.elements(x.shape, strides := _strides(name, x, t, third), (dy, x, t, w, third))
    found = [
        of.new_empty_strided(x.shape, strides) if by and of is not None else None
        for of, by in ((x, by_x), (t, by_t), (third, by_third))
    ]
    plan = tuning.elements(seen.n, seen.N, x.device)
    launch(
        _backward_kernel, plan.grid, *found, *seen.operands, seen.n, seen.N, seen.period, BY_X=row.grad,
        BY_T=row.target, BY_THIRD=row.third, A=a, B=b, MEAN=reduction == "mean",
        **dict(zip(("DY", "X", "T", "W", "THIRD"), seen.by, strict=True)), **plan.meta,
    )  # fmt: skip
    dx, dt, d_third = (x.new_empty(0) if d is None else d for d in found)
    return dx, dt, d_third


def _is_nan(y: Tensor) -> bool:
    return type(y) is Tensor and not y.is_meta and bool(y.isnan())


class NotANumber(ArithmeticError):
    """A loss that was to be checked is NaN: torch says what is wrong with its operands, or computes it again."""


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, t: Tensor, w: Tensor | None, third: Tensor | None, name: str, a: float, b: float,
        reduction: str, dtype: torch.dtype, checked: bool,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, t, w, third)
        ctx.name, ctx.parameters, ctx.reduction = name, (a, b), reduction
        y, sums = _forward(x, t, w, third, name, a, b, reduction, dtype, checked)
        if checked and _is_nan(sums.sum() if reduction == "none" else y):
            raise NotANumber
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, t, w, third = ctx.saved_tensors
        a, b = ctx.parameters
        by = ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[3]
        if recompute.wanted():
            options = Options(w, ctx.reduction, a, b)
            of_torch = LOSSES[ctx.name].torch
            dx, dt, d_third = recompute.gradients(lambda *of: of_torch(*of, options), (x, t, third), dy)
        else:
            found = _backward(dy, x, t, w, third, ctx.name, a, b, ctx.reduction, *by)
            dx, dt, d_third = (d if wanted else None for d, wanted in zip(found, by, strict=True))
        return dx, dt, None, d_third, *(None,) * 6


def _torch_only(
    row: Loss,
    x: Tensor,
    t: Tensor,
    reduction: str,
    legacy: tuple[bool | None, ...],
    w: Tensor | None,
    third: Tensor | None,
) -> str | None:
    """Why torch must compute this loss, or None."""
    if any(flag is not None for flag in legacy):
        return "size_average and reduce are deprecated"
    if reduction not in REDUCTIONS:
        return route.INVALID
    if x.shape != t.shape:
        return "no kernel for input and target of different shapes"
    if x.dtype != t.dtype and torch.float64 in (x.dtype, t.dtype):
        return "operands of several dtypes"
    if t.requires_grad and row.target is None:
        return "torch has no derivative by the target"
    if third is not None and third.requires_grad and (row.third is None or third.shape != x.shape):
        return "no kernel for the derivative by a weight"
    if w is not None and w.requires_grad:
        return "no kernel for the derivative by a weight"
    return None if all(o is None or broadcast.fits(o.shape, x.shape) for o in (w, third)) else route.INVALID


# torch's forwards of these are as fast as memory, their gradients are not: the two have sizes of their own
CHEAP = frozenset({"huber_loss", "l1_loss", "mse_loss", "smooth_l1_loss"})


def pointwise_loss(
    row: str,
    x: Tensor,
    t: Tensor,
    reduction: str,
    *legacy: bool | None,
    a: float = 1.0,
    b: float = 0.0,
    w: Tensor | None = None,
    third: Tensor | None = None,
    unless: str | None = None,
    name: str | None = None,
    checked: bool = False,
) -> Tensor | None:
    """The loss by Trident's kernel, or None if the call must go to torch. (a = 1: BCE's positives weigh as others.)

    name: of torch's function that is asked for, if it is not the row's own. checked: also if the loss is NaN, since
    torch may then have an error to raise.
    """
    name = name or row.split(".")[0]
    unless = unless or _torch_only(LOSSES[row], x, t, reduction, legacy, w, third)
    differentiated = torch.is_grad_enabled() and (x.requires_grad or t.requires_grad)
    # |x - t| alone is a vector loop at memory speed
    each = " (each)" if name == "l1_loss" and reduction == "none" else ""
    alone = ALONE if name in CHEAP and not each and not differentiated else ""
    if route.to_torch(f"{name}{each}{alone}", x, t, w, third, unless=unless):
        return None
    try:
        return by_kernel(row, x, t, reduction, autocast.output_dtype(name, x), a, b, w, third, checked)
    except NotANumber:
        return None


def by_kernel(
    row: str, x: Tensor, t: Tensor, reduction: str, dtype: torch.dtype, a: float, b: float, w: Tensor | None = None,
    third: Tensor | None = None, checked: bool = False,
) -> Tensor:  # fmt: skip
    """As `pointwise_loss`, for who has asked `route` already. NotANumber if `checked`, and it is."""
    y: Tensor = apply(_Loss, x, t, w, third, row, float(a), float(b), reduction, dtype, checked)
    return y
