"""Pointwise losses: a table of scalar functions over one pair of kernels.

    forward     l  = w f(x, t; A, B);  then l itself, or its mean or sum over all elements
    backward    dx = dl w f_x(x, t; A, B)
                dt = dl w f_t(x, t; A, B)       dl: dy, or dy / n for the mean

A row of the table is f and its derivatives, of lang/loss.py. A sum is one partial per program, then one reduction of
those: no atomics. w is binary_cross_entropy's weight; the weight of its positives takes the place of A.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang import loss as L
from trident.lang.tile import flat_tile, load
from trident.runtime import autocast, recompute, route, tuning
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.layout import dense, lying_as
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype

REDUCTIONS = ("none", "mean", "sum")  # in the order of torch's enumeration
NO_WEIGHT = "no kernel for a weight"


class Loss(NamedTuple):
    """A row, named as torch's function (and _log where a logarithm is given).

    target: the derivative by t, None where torch has none. torch: torch's function of (x, t, Options).
    """

    f: Any
    grad: Any
    target: Any
    torch: Callable[..., Tensor]
    as_target: bool = False  # torch's result lies in memory as the target does, not as the input


class Options(NamedTuple):
    w: Tensor | None
    positive: Tensor | None
    reduction: str
    a: float
    b: float


F = torch.nn.functional
LOSSES = {
    "binary_cross_entropy": Loss(
        L.bce,
        L.bce_grad,
        L.bce_target,
        lambda x, t, o: F.binary_cross_entropy(x, t, o.w, reduction=o.reduction),
    ),
    "binary_cross_entropy_with_logits": Loss(
        L.bce_logits,
        L.bce_logits_grad,
        L.bce_logits_target,
        lambda x, t, o: F.binary_cross_entropy_with_logits(x, t, o.w, reduction=o.reduction, pos_weight=o.positive),
        as_target=True,
    ),
    "huber_loss": Loss(
        L.huber,
        L.huber_grad,
        L.huber_target,
        lambda x, t, o: F.huber_loss(x, t, o.reduction, delta=o.a),
    ),
    "kl_div": Loss(
        L.kl,
        L.kl_grad,
        L.kl_target,
        lambda x, t, o: _kl_div(x, t, o.reduction, False),
        as_target=True,
    ),
    "kl_div_log": Loss(
        L.kl_log,
        L.kl_log_grad,
        L.kl_log_target,
        lambda x, t, o: _kl_div(x, t, o.reduction, True),
        as_target=True,
    ),
    "l1_loss": Loss(
        L.l1,
        L.l1_grad,
        L.l1_target,
        lambda x, t, o: F.l1_loss(x, t, reduction=o.reduction),
    ),
    "mse_loss": Loss(
        L.mse,
        L.mse_grad,
        L.mse_target,
        lambda x, t, o: F.mse_loss(x, t, reduction=o.reduction),
    ),
    "poisson_nll_loss": Loss(
        L.poisson,
        L.poisson_grad,
        L.poisson_target,
        lambda x, t, o: F.poisson_nll_loss(x, t, False, bool(o.b), eps=o.a, reduction=o.reduction),
    ),
    "poisson_nll_loss_log": Loss(
        L.poisson_log,
        L.poisson_log_grad,
        L.poisson_log_target,
        lambda x, t, o: F.poisson_nll_loss(x, t, True, bool(o.b), reduction=o.reduction),
    ),
    "smooth_l1_loss": Loss(
        L.smooth_l1,
        L.smooth_l1_grad,
        L.smooth_l1_target,
        lambda x, t, o: F.smooth_l1_loss(x, t, reduction=o.reduction, beta=o.a),
    ),
    "soft_margin_loss": Loss(
        L.soft_margin,
        L.soft_margin_grad,
        None,
        lambda x, t, o: F.soft_margin_loss(x, t, reduction=o.reduction),
    ),
}


def _kl_div(x: Tensor, t: Tensor, reduction: str, log_target: bool) -> Tensor:
    return torch.kl_div(x, t, REDUCTIONS.index(reduction), log_target=log_target)  # F.kl_div warns of "mean"


@triton.jit
def _forward_kernel(
    y, x, t, w, positive, n, F: tl.constexpr, A: tl.constexpr, B: tl.constexpr, EACH: tl.constexpr, BLOCK: tl.constexpr
):
    """EACH: y is the loss of each element; else one sum per program."""
    total = tl.zeros((BLOCK,), y.dtype.element_ty if not EACH else tl.float32)
    for block in range(tl.program_id(0), tl.cdiv(n, BLOCK), tl.num_programs(0)):
        at = block * tl.full((), BLOCK, tl.int64) + tl.arange(0, BLOCK)
        inside = at < n
        b_x, b_t = load(x + at, inside), load(t + at, inside)
        # not by a variable for A: that would round a float64 constexpr to float32
        loss = F(b_x, b_t, load(positive + at, inside), B) if positive is not None else F(b_x, b_t, A, B)
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
    dx,
    dt,
    dy,
    x,
    t,
    w,
    positive,
    n,
    BY_X: tl.constexpr,
    BY_T: tl.constexpr,
    A: tl.constexpr,
    B: tl.constexpr,
    REDUCTION: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at, inside = flat_tile(n, BLOCK)
    dl = load(dy + at, inside) if REDUCTION == "none" else load(dy, n > 0)
    if REDUCTION == "mean":
        dl = dl / n
    if w is not None:
        dl = dl * load(w + at, inside)
    b_x, b_t = load(x + at, inside), load(t + at, inside)
    if dx is not None:
        by_x = BY_X(b_x, b_t, load(positive + at, inside), B) if positive is not None else BY_X(b_x, b_t, A, B)
        tl.store(dx + at, dl * by_x, inside)
    if dt is not None:
        by_t = BY_T(b_x, b_t, load(positive + at, inside), B) if positive is not None else BY_T(b_x, b_t, A, B)
        tl.store(dt + at, dl * by_t, inside)


def _operands(name: str, x: Tensor, t: Tensor, *weights: Tensor | None) -> list[Any]:
    """All of x's shape, and lying in memory as the result does, without gaps."""
    model = dense(t if LOSSES[name].as_target else x)
    return [None if o is None else lying_as(o.expand(x.shape), model) for o in (x, t, *weights)]


@op("pointwise_loss")
def _forward(
    x: Tensor,
    t: Tensor,
    w: Tensor | None,
    positive: Tensor | None,
    name: str,
    a: float,
    b: float,
    reduction: str,
    dtype: torch.dtype,
) -> Tensor:
    x, t, w, positive = _operands(name, x, t, w, positive)
    plan = tuning.flat_groups(x.numel(), x.device)
    each = reduction == "none"
    y = torch.empty_like(x, dtype=dtype) if each else x.new_empty(plan.grid[0], dtype=compute_dtype(x))
    row = {"F": LOSSES[name].f, "A": a, "B": b, "EACH": each}
    launch(_forward_kernel, plan.grid, y, x, t, w, positive, x.numel(), **row, **plan.meta)
    if each:
        return y
    total = y.sum()
    return (total / x.numel() if reduction == "mean" else total).to(dtype)


@op("pointwise_loss_backward")
def _backward(
    dy: Tensor,
    x: Tensor,
    t: Tensor,
    w: Tensor | None,
    positive: Tensor | None,
    name: str,
    a: float,
    b: float,
    reduction: str,
    by_x: bool,
    by_t: bool,
) -> tuple[Tensor, Tensor]:
    """dx if by_x, and dt if by_t; else empty."""
    x, t, w, positive = _operands(name, x, t, w, positive)
    dx = torch.empty_like(x) if by_x else None
    dt = torch.empty_like(t) if by_t else None
    if reduction == "none":
        dy = lying_as(dy, x)
    plan = tuning.flat(x.numel(), x.device)
    row = {"BY_X": LOSSES[name].grad, "BY_T": LOSSES[name].target, "A": a, "B": b, "REDUCTION": reduction}
    launch(_backward_kernel, plan.grid, dx, dt, dy, x, t, w, positive, x.numel(), **row, **plan.meta)
    return x.new_empty(0) if dx is None else dx, t.new_empty(0) if dt is None else dt


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        t: Tensor,
        w: Tensor | None,
        positive: Tensor | None,
        name: str,
        a: float,
        b: float,
        reduction: str,
        dtype: torch.dtype,
    ) -> Tensor:
        ctx.save_for_backward(x, t, w, positive)
        ctx.name, ctx.parameters, ctx.reduction = name, (a, b), reduction
        return _forward(x, t, w, positive, name, a, b, reduction, dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, t, w, positive = ctx.saved_tensors
        by_x, by_t = ctx.needs_input_grad[:2]
        if recompute.wanted():
            options = Options(w, positive, ctx.reduction, *ctx.parameters)
            dx, dt = recompute.gradients(lambda x, t: LOSSES[ctx.name].torch(x, t, options), (x, t), dy)
        else:
            a, b = ctx.parameters
            dx, dt = _backward(dy, x, t, w, positive, ctx.name, a, b, ctx.reduction, by_x, by_t)
        return dx if by_x else None, dt if by_t else None, *(None,) * 7


def _torch_only(
    row: Loss, x: Tensor, t: Tensor, reduction: str, legacy: tuple[bool | None, ...], weights: tuple[Tensor | None, ...]
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
    for w in weights:
        if w is None:
            continue
        if w.requires_grad:
            return "no kernel for the derivative by a weight"
        if w.dim() > x.dim() or any(a not in (1, b) for a, b in zip(w.shape[::-1], x.shape[::-1], strict=False)):
            return route.INVALID
    return None


def _loss(
    row: str,
    x: Tensor,
    t: Tensor,
    reduction: str,
    *legacy: bool | None,
    a: float = 1.0,
    b: float = 0.0,
    w: Tensor | None = None,
    positive: Tensor | None = None,
    unless: str | None = None,
) -> Tensor | None:
    """The loss by Trident's kernel, or None if the call must go to torch. (a = 1: BCE's positives weigh as others.)"""
    name = row.removesuffix("_log")
    unless = unless or _torch_only(LOSSES[row], x, t, reduction, legacy, (w, positive))
    if route.to_torch(name, x, t, w, positive, unless=unless):
        return None
    return apply(_Loss, x, t, w, positive, row, float(a), float(b), reduction, autocast.output_dtype(name, x))


def _given(weight: Tensor | None) -> dict[str, Any]:
    """torch's regression losses take a weight since 2.12 only."""
    return {} if weight is None else {"weight": weight}


def binary_cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """-w (t log x + (1 - t) log(1 - x)). Same contract as :func:`torch.nn.functional.binary_cross_entropy`.

    What is outside [0, 1] raises on CPUs, as in torch. Compiled and on GPUs an input outside gives NaN (where torch
    stops the whole process).
    """
    name, checked = "binary_cross_entropy", not (input.device.type == "cuda" or torch.compiler.is_compiling())
    unless = autocast.refused(name, input)
    y = _loss(name, input, target, reduction, size_average, reduce, w=weight, b=checked, unless=unless)
    if y is None or (checked and _has_nan(y)):  # torch says what is wrong
        return F.binary_cross_entropy(input, target, weight, size_average, reduce, reduction)
    return y


def _has_nan(y: Tensor) -> bool:
    return type(y) is Tensor and not y.is_meta and bool(y.detach().sum().isnan())


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """binary_cross_entropy of σ(x). Same contract as :func:`torch.nn.functional.binary_cross_entropy_with_logits`."""
    name, legacy = "binary_cross_entropy_with_logits", (size_average, reduce)
    y = _loss(name, input, target, reduction, *legacy, w=weight, positive=pos_weight)
    if y is None:
        return F.binary_cross_entropy_with_logits(input, target, weight, *legacy, reduction, pos_weight)
    return y


def huber_loss(
    input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0, weight: Tensor | None = None
) -> Tensor:
    """d² / 2 for d = |x - t| < δ, else δ (d - δ / 2). Same contract as :func:`torch.nn.functional.huber_loss`."""
    unless = NO_WEIGHT if weight is not None else None if delta > 0 else route.INVALID
    y = _loss("huber_loss", input, target, reduction, a=delta, unless=unless)
    return F.huber_loss(input, target, reduction, delta, **_given(weight)) if y is None else y


def kl_div(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    log_target: bool = False,
) -> Tensor:
    """t (log t - x), or exp(t) (t - x) if log_target. Same contract as :func:`torch.nn.functional.kl_div`."""
    per_batch = reduction == "batchmean"
    row = "kl_div_log" if log_target else "kl_div"
    y = _loss(row, input, target, "sum" if per_batch else reduction, size_average, reduce)
    if y is None:
        return F.kl_div(input, target, size_average, reduce, reduction, log_target)
    if reduction == "mean" and not torch.compiler.is_compiling():
        warnings.warn("kl_div: 'mean' divides by all elements; the divergence is 'batchmean'", stacklevel=2)
    return y / input.shape[0] if per_batch and input.dim() else y


def l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """|x - t|. Same contract as :func:`torch.nn.functional.l1_loss`."""
    unless = None if weight is None else NO_WEIGHT
    y = _loss("l1_loss", input, target, reduction, size_average, reduce, unless=unless)
    return F.l1_loss(input, target, size_average, reduce, reduction, **_given(weight)) if y is None else y


def mse_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    weight: Tensor | None = None,
) -> Tensor:
    """(x - t)². Same contract as :func:`torch.nn.functional.mse_loss`."""
    unless = None if weight is None else NO_WEIGHT
    y = _loss("mse_loss", input, target, reduction, size_average, reduce, unless=unless)
    return F.mse_loss(input, target, size_average, reduce, reduction, **_given(weight)) if y is None else y


def poisson_nll_loss(
    input: Tensor,
    target: Tensor,
    log_input: bool = True,
    full: bool = False,
    size_average: bool | None = None,
    eps: float = 1e-8,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """exp(x) - t x, or x - t log(x + eps). Same contract as :func:`torch.nn.functional.poisson_nll_loss`."""
    unless = "no kernel for the derivative of Stirling's term" if full and target.requires_grad else None
    row = "poisson_nll_loss_log" if log_input else "poisson_nll_loss"
    y = _loss(row, input, target, reduction, size_average, reduce, a=eps, b=full, unless=unless)
    if y is None:
        return F.poisson_nll_loss(input, target, log_input, full, size_average, eps, reduce, reduction)
    return y


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """d² / 2β for d = |x - t| < β, else d - β / 2. Same contract as :func:`torch.nn.functional.smooth_l1_loss`."""
    row, unless = "l1_loss" if beta == 0 else "smooth_l1_loss", None if beta >= 0 else route.INVALID
    y = _loss(row, input, target, reduction, size_average, reduce, a=beta, unless=unless)
    return F.smooth_l1_loss(input, target, size_average, reduce, reduction, beta) if y is None else y


def soft_margin_loss(
    input: Tensor,
    target: Tensor,
    size_average: bool | None = None,
    reduce: bool | None = None,
    reduction: str = "mean",
) -> Tensor:
    """log(1 + exp(-t x)). Same contract as :func:`torch.nn.functional.soft_margin_loss`."""
    y = _loss("soft_margin_loss", input, target, reduction, size_average, reduce)
    return F.soft_margin_loss(input, target, size_average, reduce, reduction) if y is None else y
