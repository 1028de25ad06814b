"""Pointwise losses: a table of scalar functions over one pair of kernels.

    forward     l  = w f(x, t; A, B);  then l itself, or its mean or sum over all elements
    backward    dx = dl w f_x(x, t; A, B)
                dt = dl w f_t(x, t; A, B)       dl: dy, or dy / n for the mean

A row of the table is f and its derivatives, of lang/loss.py. A sum is one partial per program, then one reduction of
those: no atomics. w is binary_cross_entropy's weight; the weight of its positives takes the place of A.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang import loss as L
from trident.lang.tile import flat_tile, load
from trident.runtime import autocast, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.crossover_tables import ALONE
from trident.runtime.launch import launch
from trident.runtime.layout import dense, lying_as
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
    y, x, t, w, third, n, F: tl.constexpr, A: tl.constexpr, B: tl.constexpr, EACH: tl.constexpr, BLOCK: tl.constexpr
):
    """EACH: y is the loss of each element; else one sum per program."""
    total = tl.zeros((BLOCK,), y.dtype.element_ty if not EACH else tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(n, BLOCK), tl.num_programs(0)):
        at = block * tl.full((), BLOCK, tl.int64) + tl.arange(0, BLOCK)
        inside = at < n
        b_x, b_t = load(x + at, inside), load(t + at, inside)
        # not by a variable for A: that would round a float64 constexpr to float32
        loss = F(b_x, b_t, load(third + at, inside), B) if third is not None else F(b_x, b_t, A, B)
        if w is not None:
            loss *= load(w + at, inside)
        if EACH:
            tl.store(y + at, loss, inside)
        else:
            total += tl.where(inside, loss, 0.0)
    if not EACH:
        tl.store(y + tl.program_id(0), tl.sum(total, axis=0))


@triton.jit
def _backward_kernel(
    dx, dt, d_third, dy, x, t, w, third, n, BY_X: tl.constexpr, BY_T: tl.constexpr, BY_THIRD: tl.constexpr,
    A: tl.constexpr, B: tl.constexpr, REDUCTION: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at, inside = flat_tile(n, BLOCK)
    dl = load(dy + at, inside) if REDUCTION == "none" else load(dy, n > 0)
    if REDUCTION == "mean":
        dl = dl / n
    if w is not None:
        dl = dl * load(w + at, inside)
    b_x, b_t = load(x + at, inside), load(t + at, inside)
    if dx is not None:
        by_x = BY_X(b_x, b_t, load(third + at, inside), B) if third is not None else BY_X(b_x, b_t, A, B)
        tl.store(dx + at, dl * by_x, inside)
    if dt is not None:
        by_t = BY_T(b_x, b_t, load(third + at, inside), B) if third is not None else BY_T(b_x, b_t, A, B)
        tl.store(dt + at, dl * by_t, inside)
    if d_third is not None:
        tl.store(d_third + at, dl * BY_THIRD(b_x, b_t, load(third + at, inside), B), inside)


def _operands(name: str, x: Tensor, t: Tensor, w: Tensor | None, third: Tensor | None) -> list[Any]:
    """All of x's shape, and lying in memory as the result does, without gaps."""
    model = (x, t, third)[LOSSES[name].lies_as]
    assert model is not None
    model = dense(model)
    return [None if o is None else lying_as(o.expand(x.shape), model) for o in (x, t, w, third)]


@op("pointwise_loss")
def _forward(
    x: Tensor, t: Tensor, w: Tensor | None, third: Tensor | None, name: str, a: float, b: float, reduction: str,
    dtype: torch.dtype,
) -> Tensor:  # fmt: skip
    x, t, w, third = _operands(name, x, t, w, third)
    plan = tuning.flat_groups(x.numel(), x.device)
    each = reduction == "none"
    y = torch.empty_like(x, dtype=dtype) if each else x.new_empty(plan.grid[0], dtype=compute_dtype(x))
    row = {"F": LOSSES[name].f, "A": a, "B": b, "EACH": each}
    launch(_forward_kernel, plan.grid, y, x, t, w, third, x.numel(), **row, **plan.meta)
    if each:
        return y
    total = y.sum()
    return (total / x.numel() if reduction == "mean" else total).to(dtype)


@op("pointwise_loss_backward")
def _backward(
    dy: Tensor, x: Tensor, t: Tensor, w: Tensor | None, third: Tensor | None, name: str, a: float, b: float,
    reduction: str, by_x: bool, by_t: bool, by_third: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """dx if by_x, dt if by_t, and the derivative by `third` if by_third; else empty."""
    row = LOSSES[name]
    x, t, w, third = _operands(name, x, t, w, third)
    wanted = ((x, by_x), (t, by_t), (third, by_third))
    found = [torch.empty_like(of) if by and of is not None else None for of, by in wanted]
    if reduction == "none":
        dy = lying_as(dy, x)
    plan = tuning.flat(x.numel(), x.device)
    launch(
        _backward_kernel, plan.grid, *found, dy, x, t, w, third, x.numel(), BY_X=row.grad, BY_T=row.target,
        BY_THIRD=row.third, A=a, B=b, REDUCTION=reduction, **plan.meta,
    )  # fmt: skip
    dx, dt, d_third = (x.new_empty(0) if d is None else d for d in found)
    return dx, dt, d_third


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, t: Tensor, w: Tensor | None, third: Tensor | None, name: str, a: float, b: float,
        reduction: str, dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        ctx.save_for_backward(x, t, w, third)
        ctx.name, ctx.parameters, ctx.reduction = name, (a, b), reduction
        return _forward(x, t, w, third, name, a, b, reduction, dtype)

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
        return dx, dt, None, d_third, *(None,) * 5


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
    return None if all(o is None or _broadcasts(o.shape, x.shape) for o in (w, third)) else route.INVALID


def _broadcasts(shape: Sequence[int], to: Sequence[int]) -> bool:
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(shape[::-1], to[::-1], strict=False))


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
) -> Tensor | None:
    """The loss by Trident's kernel, or None if the call must go to torch. (a = 1: BCE's positives weigh as others.)

    name: of torch's function that is asked for, if it is not the row's own.
    """
    name = name or row.split(".")[0]
    unless = unless or _torch_only(LOSSES[row], x, t, reduction, legacy, w, third)
    differentiated = torch.is_grad_enabled() and (x.requires_grad or t.requires_grad)
    # |x - t| alone is a vector loop at memory speed
    each = " (each)" if name == "l1_loss" and reduction == "none" else ""
    alone = ALONE if name in CHEAP and not each and not differentiated else ""
    if route.to_torch(f"{name}{each}{alone}", x, t, w, third, unless=unless):
        return None
    return by_kernel(row, x, t, reduction, autocast.output_dtype(name, x), a, b, w, third)


def by_kernel(
    row: str, x: Tensor, t: Tensor, reduction: str, dtype: torch.dtype, a: float, b: float, w: Tensor | None = None,
    third: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """As `pointwise_loss`, for who has asked `route` already."""
    y: Tensor = apply(_Loss, x, t, w, third, row, float(a), float(b), reduction, dtype)
    return y
