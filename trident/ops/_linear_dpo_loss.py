"""Losses of preferences, of a linear layer's logits that never exist: direct preference optimisation and its kin.

Sequences come in pairs, chosen ones y first, then the rejected ones y' in the same order. Of each sequence

    p = sum over its tokens of log softmax(x wᵀ + b)[target]      (an average in ipo, simpo, orpo)
    c = p(y) - reference(y),  r = p(y') - reference(y')           (no reference: 0)

    sigmoid   S(β (c - r)),  S(z) = -(1 - ε) log σ(z) - ε log σ(-z)     DPO, Rafailov et al. 2023, arXiv:2305.18290;
                                                                        ε: conservative DPO, Mitchell 2023
    hinge     max(0, 1 - β (c - r))                                     SLiC, Zhao et al. 2023, arXiv:2305.10425
    ipo       (c - r - 1 / (2 β))²                                      Azar et al. 2023, arXiv:2310.12036
    simpo     S(β (c - r) - γ)                                          Meng et al. 2024, arXiv:2405.14734
    cpo       S(β (c - r)) + α n                                        Xu et al. 2024, arXiv:2401.08417
    orpo      α n - β log σ(log odds(c) - log odds(r))                  Hong et al. 2024, arXiv:2403.07691
              log odds(p) = p - log(1 - exp(p))

n is the mean of -log softmax over the chosen sequences' tokens. What a token's gradient is multiplied by is known once
its pair's logits are: they are held while a pair is worked on (a long pair's are computed twice), become their gradient
in place (by each row's maximum and sum, which are kept), and their products are taken at once, in the forward, as
linear_cross_entropy's (docs/decisions/043).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.nn.functional import logsigmoid

from trident.ops._class_loss import check_classes
from trident.ops._linear import multiply
from trident.ops._linear_cross_entropy import _rows_kernel, _Sum, of_product, scaled
from trident.ops._pointwise_loss import REDUCTIONS
from trident.runtime import autocast, recompute, route, tuning, tuning_tables
from trident.runtime.autograd import apply
from trident.runtime.launch import asserting, launch
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype

DTYPES = route.HALF_TO_DOUBLE | {torch.int64}


class Numbers(NamedTuple):
    beta: float
    epsilon: float
    gamma: float


def _smoothed(z: Tensor, epsilon: float) -> Tensor:
    return -logsigmoid(z) if epsilon == 0 else -(1 - epsilon) * logsigmoid(z) - epsilon * logsigmoid(-z)


def _smoothed_slope(z: Tensor, epsilon: float) -> Tensor:
    return torch.sigmoid(z) - (1 - epsilon)


def _sigmoid(c: Tensor, r: Tensor, o: Numbers) -> Tensor:
    return _smoothed(o.beta * (c - r), o.epsilon)


def _sigmoid_slopes(c: Tensor, r: Tensor, o: Numbers) -> tuple[Tensor, Tensor]:
    slope = o.beta * _smoothed_slope(o.beta * (c - r), o.epsilon)
    return slope, -slope


def _hinge(c: Tensor, r: Tensor, o: Numbers) -> Tensor:
    return (1 - o.beta * (c - r)).relu()


def _hinge_slopes(c: Tensor, r: Tensor, o: Numbers) -> tuple[Tensor, Tensor]:
    m = o.beta * (c - r)
    slope = torch.where(m >= 1, 0.0, -o.beta).to(c.dtype)  # of NaN as relu's
    return slope, -slope


def _ipo(c: Tensor, r: Tensor, o: Numbers) -> Tensor:
    return (c - r - 1 / (2 * o.beta)).square()


def _ipo_slopes(c: Tensor, r: Tensor, o: Numbers) -> tuple[Tensor, Tensor]:
    slope = 2 * (c - r - 1 / (2 * o.beta))
    return slope, -slope


def _simpo(c: Tensor, r: Tensor, o: Numbers) -> Tensor:
    return _smoothed(o.beta * (c - r) - o.gamma, o.epsilon)


def _simpo_slopes(c: Tensor, r: Tensor, o: Numbers) -> tuple[Tensor, Tensor]:
    slope = o.beta * _smoothed_slope(o.beta * (c - r) - o.gamma, o.epsilon)
    return slope, -slope


def _log_odds(p: Tensor) -> Tensor:
    return p - torch.where(p > -0.6931, torch.log(-torch.expm1(p)), torch.log1p(-torch.exp(p)))


def _orpo(c: Tensor, r: Tensor, o: Numbers) -> Tensor:
    return -o.beta * logsigmoid(_log_odds(c) - _log_odds(r))


def _orpo_slopes(c: Tensor, r: Tensor, o: Numbers) -> tuple[Tensor, Tensor]:
    slope = o.beta * torch.sigmoid(_log_odds(r) - _log_odds(c))
    return slope / torch.expm1(c), -slope / torch.expm1(r)


class Variant(NamedTuple):
    f: Callable[[Tensor, Tensor, Numbers], Tensor]
    slopes: Callable[[Tensor, Tensor, Numbers], tuple[Tensor, Tensor]]
    averaged: bool = False
    reference: bool = True  # may it have one?
    alpha: float = 0.0  # the weight of n, if none is given


VARIANTS: dict[str, Variant] = {
    "sigmoid": Variant(_sigmoid, _sigmoid_slopes),
    "hinge": Variant(_hinge, _hinge_slopes),
    "ipo": Variant(_ipo, _ipo_slopes, averaged=True),
    "simpo": Variant(_simpo, _simpo_slopes, averaged=True, reference=False),
    "cpo": Variant(_sigmoid, _sigmoid_slopes, reference=False, alpha=1.0),
    "orpo": Variant(_orpo, _orpo_slopes, averaged=True, reference=False, alpha=1.0),
}
SMOOTHED = ("sigmoid", "simpo", "cpo")


def _ratios(sums: Tensor, reference: Tensor | None, lengths: Tensor, averaged: bool) -> tuple[Tensor, Tensor]:
    """c and r of sequences, chosen ones first."""
    ratios = sums if reference is None else sums - reference
    c, r = (ratios / lengths if averaged else ratios).chunk(2)
    return c, r


@op("linear_dpo_loss")
def _forward(
    x: Tensor, w: Tensor, b: Tensor | None, target: Tensor, reference: Tensor | None, kind: str, beta: float,
    epsilon: float, gamma: float, alpha: float, ignored: int, wants_dx: bool, wants_dw: bool, wants_db: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The sum of the pairs' losses; sequences' log-probabilities; gradients of the sum by x, w, b (float32 for halves),
    each empty if not wanted."""
    check_classes(target, w.shape[0], ignored)
    x, target, compute = x.contiguous(), target.contiguous(), compute_dtype(x)
    (S, T, K), V, how, o = x.shape, w.shape[0], VARIANTS[kind], Numbers(beta, epsilon, gamma)
    B = S // 2
    tokens, sums = x.new_empty(S, T, dtype=compute), x.new_empty(S, dtype=compute)
    dx = torch.empty_like(x) if wants_dx else x.new_empty(0)
    dw = _Sum((V, K), x) if wants_dw else None
    db = x.new_zeros(V, dtype=compute) if wants_db else x.new_empty(0, dtype=compute)
    total = x.new_zeros((), dtype=compute)
    if not isinstance(x, FakeTensor):
        lengths = (target != ignored).sum(1)
        of_n = B * alpha / lengths[:B].sum().clamp(min=1)
        lengths = lengths.clamp(min=1)
        most = 4 * tuning_tables.token_chunks(S * T, K, V, x.dtype, x.device).meta["EACH"]
        pairs = max(1, min(B, most // (2 * T)))
        room = x.new_empty(min(most, 2 * T * pairs), V)
        for first in range(0, B, pairs):
            at = torch.arange(first, min(first + pairs, B), device=x.device)
            at = torch.cat((at, at + B))
            part = _Part(x[at].view(-1, K), target[at].view(-1), w, b, ignored, room)
            losses = part.losses(compute)
            tokens[at] = losses.view(-1, T)
            p = -losses.view(-1, T).sum(1)
            sums[at] = p
            given = None if reference is None else reference[at].to(compute)
            c, r = _ratios(p, given, lengths[at], how.averaged)
            total += how.f(c, r, o).sum()
            slopes = -torch.cat(how.slopes(c, r, o)) / (lengths[at] if how.averaged else 1)
            if alpha:
                slopes[: len(at) // 2] += of_n
            of_x = part.gradients(slopes.repeat_interleave(T), wants_dx, dw, db if wants_db else None)
            if wants_dx:
                dx[at] = of_x.view(-1, T, K)
        if alpha:
            total += of_n * tokens[:B].sum()
    return total, sums, dx, x.new_empty(0, dtype=compute) if dw is None else dw.total, db


class _Part:
    """Rows of some pairs, and room for the logits of all of them, or of so many at a time."""

    def __init__(self, rows: Tensor, target: Tensor, w: Tensor, b: Tensor | None, ignored: int, room: Tensor) -> None:
        self.rows, self.target, self.w, self.b, self.ignored, self.room = rows, target, w, b, ignored, room
        N, each = len(rows), len(room)
        self.stats: list[Tensor] = []  # of each slice's rows, as `_rows_kernel` keeps them
        self.slices = [slice(first, min(first + each, N)) for first in range(0, N, each)]

    def _logits(self, at: slice) -> Tensor:
        z, rows = self.room[: at.stop - at.start], self.rows[at]
        multiply(z, rows, self.w.T, self.b)
        return z

    def _launch(self, z: Tensor, at: slice, losses: Tensor | None, stats: Tensor, dloss: Tensor | None) -> None:
        M, V = z.shape
        plan = tuning.rows(M, V, z.device, tuning.registers(z.dtype, 4))
        launch(
            _rows_kernel, plan.grid, z, losses, None, stats, dloss, self.target[at], None, M, V, self.ignored, 0.0,
            0.0, SMOOTH=False, GRADIENT=dloss is not None, KNOWN=dloss is not None,
            **{"BLOCK_M": 1, **plan.meta}, **asserting(z.device.type),
        )  # fmt: skip

    def losses(self, dtype: torch.dtype) -> Tensor:
        losses = self.rows.new_empty(len(self.rows), dtype=dtype)
        for at in self.slices:
            self.stats.append(losses.new_empty(2, at.stop - at.start))
            self._launch(self._logits(at), at, losses[at], self.stats[-1], None)
        return losses

    def gradients(self, dloss: Tensor, wants_dx: bool, dw: _Sum | None, db: Tensor | None) -> Tensor:
        """By the rows; those by w and b are added to the sums."""
        dx = torch.empty_like(self.rows) if wants_dx else self.rows.new_empty(0)
        if not wants_dx and dw is None and db is None:
            return dx
        for at, stats in zip(self.slices, self.stats, strict=True):
            z = self.room[: at.stop - at.start] if len(self.slices) == 1 else self._logits(at)
            self._launch(z, at, None, stats, dloss[at])
            if wants_dx:
                multiply(dx[at], z, self.w)
            if dw is not None:
                dw.add(z.T, self.rows[at])
            if db is not None:
                db += z.sum(0, dtype=db.dtype)
        return dx


class _LinearDpoLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, target: Tensor, reference: Tensor | None, kind: str,
        o: Numbers, alpha: float, ignored: int,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        wants = ctx.needs_input_grad[:3]
        total, sums, *gradients = _forward(x, w, b, target, reference, kind, *o, alpha, ignored, *wants)
        ctx.save_for_backward(x, w, b, target, reference, *gradients)
        ctx.how = kind, o, alpha, ignored
        ctx.mark_non_differentiable(sums)
        return total, sums

    @staticmethod
    def backward(ctx: Any, dloss: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        x, w, b, target, reference, *found = ctx.saved_tensors
        if recompute.wanted():
            kind, o, alpha, ignored = ctx.how

            def total(x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
                return _composed(x, w, b, target, reference, kind, o, alpha, ignored, _in_torch)[0].sum()

            found = recompute.gradients(total, (x, w, b), dloss)
        else:
            found = [scaled(t, dloss, x.dtype) for t in found]
        gradients = (t if wanted else None for t, wanted in zip(found, ctx.needs_input_grad, strict=False))
        return *gradients, None, None, None, None, None, None


def _in_torch(x: Tensor, w: Tensor, b: Tensor | None, target: Tensor, ignored: int) -> Tensor:
    z = torch.nn.functional.linear(x, w, b).to(compute_dtype(x))
    return torch.nn.functional.cross_entropy(z, target, reduction="none", ignore_index=ignored)


def _of_tokens(x: Tensor, w: Tensor, b: Tensor | None, target: Tensor, ignored: int) -> Tensor:
    return of_product(
        x, w, target, linear_bias=b, reduction="none", ignore_index=ignored, logits=compute_dtype(x)
    )  # fmt: skip


def _composed(
    x: Tensor, w: Tensor, b: Tensor | None, target: Tensor, reference: Tensor | None, kind: str, o: Numbers,
    alpha: float, ignored: int, of_tokens: Callable[..., Tensor],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The pairs' losses [B] and the sequences' log-probabilities, by operators that autograd knows."""
    S, T, K = x.shape
    tokens = of_tokens(x.reshape(-1, K), w, b, target.reshape(-1), ignored).view(S, T)
    sums = -tokens.sum(1)
    lengths = (target != ignored).sum(1)
    given = None if reference is None else reference.to(sums.dtype)
    losses = VARIANTS[kind].f(*_ratios(sums, given, lengths.clamp(min=1), VARIANTS[kind].averaged), o)
    if alpha:
        losses = losses + alpha * tokens[: S // 2].sum() / lengths[: S // 2].sum().clamp(min=1)
    return losses, sums.detach()


def _check(input: Tensor, target: Tensor, reference: Tensor | None, kind: str, o: Numbers, reduction: str) -> None:
    if kind not in VARIANTS:
        raise ValueError(f"linear_dpo_loss: loss_type is {kind!r}; expected one of {', '.join(VARIANTS)}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"linear_dpo_loss: reduction is {reduction!r}; expected one of {', '.join(REDUCTIONS)}")
    if input.dim() != 3 or target.shape != input.shape[:2] or input.shape[0] % 2:
        raise ValueError(
            f"linear_dpo_loss: input is {list(input.shape)}, target {list(target.shape)}; expected [2 B, T, K] and "
            "[2 B, T], the B chosen sequences first"
        )
    if reference is not None and not VARIANTS[kind].reference:
        raise ValueError(f"linear_dpo_loss: {kind} has no reference model; leave reference_logps out")
    if reference is not None and reference.shape != input.shape[:1]:
        raise ValueError(
            f"linear_dpo_loss: reference_logps is {list(reference.shape)}; expected [{input.shape[0]}], each sequence's"
        )
    if not o.beta > 0:
        raise ValueError(f"linear_dpo_loss: beta is {o.beta}; it must be positive")
    if not 0 <= o.epsilon < 0.5 or (o.epsilon and kind not in SMOOTHED):
        raise ValueError(
            f"linear_dpo_loss: label_smoothing is {o.epsilon}; expected 0 <= label_smoothing < 0.5, and 0 for all but "
            f"{', '.join(SMOOTHED)}"
        )


def linear_dpo_loss(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    reference_logps: Tensor | None = None,
    *,
    linear_bias: Tensor | None = None,
    loss_type: str = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
    gamma: float = 0.5,
    alpha: float | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
    return_logps: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """The loss of pairs of sequences, whose logits over the vocabulary are never held, only those of a chunk of tokens.

    loss_type: sigmoid (DPO), hinge, ipo, simpo, cpo or orpo, as trl calls them. reference_logps: of each sequence, the
    sum of its tokens' log-probabilities by the reference model, as return_logps gives them; no gradient flows to it.
    gamma: simpo's margin. alpha: how much of the chosen tokens' mean cross entropy is added (1 for cpo and orpo, else
    0). return_logps: (loss, the sums [2 B]), these detached: rewards are beta times what they exceed the reference by.

    Shapes: input [2 B, T, K], chosen sequences first; linear_weight [V, K]; linear_bias [V]; target [2 B, T] int64, the
    token that each position predicts (shifted by the caller), ignore_index where none counts; the loss a scalar, or [B]
    for reduction "none". ValueError for what is out of range; a class out of bounds as in linear_cross_entropy.
    Dtypes: float16, bfloat16, float32, float64, the loss's too (float32 under autocast); log-probabilities in float32.
    """
    numbers = Numbers(beta, label_smoothing, gamma)
    _check(input, target, reference_logps, loss_type, numbers, reduction)
    weight = VARIANTS[loss_type].alpha if alpha is None else alpha
    reference = None if reference_logps is None else reference_logps.detach()
    how = (target, reference, loss_type, numbers, weight, ignore_index)
    tensors = (input, linear_weight, linear_bias, target, reference)
    reason = _unfit(input, linear_weight, linear_bias, target)
    if reason is None and reduction == "none":
        reason = "a gradient for each pair is known in the backward alone"
    work = target.numel() * linear_weight.shape[0]
    if route.to_torch("linear_dpo_loss", *tensors, unless=reason, mixed=True, dtypes=DTYPES, work=work):
        of_tokens = _of_tokens if reduction == "none" else _in_torch
        losses, sums = _composed(input, linear_weight, linear_bias, *how, of_tokens)
        loss = losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()
    else:
        x, w, b = autocast.lowered("linear", input, linear_weight, linear_bias)
        loss, sums = apply(_LinearDpoLoss, x, w, b, *how)
        loss = loss / (input.shape[0] // 2) if reduction == "mean" else loss
    loss = loss.to(autocast.output_dtype("cross_entropy", input))
    return (loss, sums) if return_logps else loss


def _unfit(x: Tensor, w: Tensor, b: Tensor | None, target: Tensor) -> str | None:
    """Why the kernel cannot take these, or None."""
    if w.dim() != 2 or x.shape[-1] != w.shape[1] or target.dtype != torch.int64:
        return route.INVALID
    if b is not None and b.shape != w.shape[:1]:
        return route.INVALID
    if any(t.dtype != x.dtype for t in (w, b) if t is not None) and not autocast.active(x):
        return "operands of several dtypes"
    return None
