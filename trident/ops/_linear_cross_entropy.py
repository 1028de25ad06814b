"""Cross entropy of a linear layer's logits, x [N, K], w [V, K], b [V], target [N], without ever holding [N, V] logits.

    z  = x wᵀ + b           logits of a chunk of tokens at a time
    z  <- dloss / dz        in place, by one kernel that also writes the losses (_cross_entropy.py has the formulas)
    dx = z w                of the chunk
    dw += zᵀ x,  db += sum of z over the chunk

Where gradients are to come and the loss is one number, all of this happens in the forward: the backward only scales.
With reduction "none" each token's gradient is known in the backward alone, which then computes the logits again.
The products are torch's (MKL, oneDNN, cuBLAS) where those are faster.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from trident.lang.classes import class_of
from trident.lang.lines import along, per_line
from trident.lang.tile import load, multiple, row_tile
from trident.ops._class_loss import check_classes, reduced
from trident.ops._cross_entropy import _in_two, _spread, cross_entropy, line_loss
from trident.ops._linear import linear, multiply
from trident.ops._pointwise_loss import REDUCTIONS
from trident.runtime import autocast, recompute, route, tuning, tuning_tables
from trident.runtime.autograd import apply
from trident.runtime.launch import asserting, launch
from trident.runtime.op import op
from trident.runtime.precision import compute_dtype

DTYPES = route.HALF_TO_DOUBLE | {torch.int64}


@triton.jit
def _rows_kernel(
    z, losses, totals, stats, dloss, target, w, M, V, ignored, smoothing_high, smoothing_low, SMOOTH: tl.constexpr,
    GRADIENT: tl.constexpr, KNOWN: tl.constexpr, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """losses, totals, and max z and log sum exp(z - max z) [2, M] (each may be None): of each row of logits z [M, V].
    GRADIENT: z becomes dloss (None: 1) dloss / dz. KNOWN: by the stats of an earlier launch, without smoothing."""
    V = multiple(V, ALIGN)
    rows, _, exist, _ = row_tile(tl.program_id(0), M, V, BLOCK_M, BLOCK_N)
    smoothing = per_line(0.0, z, 1, 1) + smoothing_high + smoothing_low
    t, counts, b_w = class_of(target, w, rows, exist, V, ignored)
    start = rows * V
    if KNOWN:
        b_top, log_sum, sum_a = load(stats + rows, exist), load(stats + M + rows, exist), b_w
    else:
        b_loss, b_top, log_sum, sum_a = line_loss(
            z, target, w, start, counts, exist, t, b_w, V, 1, smoothing, True, SMOOTH, 1, BLOCK_M, BLOCK_N
        )
        if losses is not None:
            tl.store(losses + rows, b_loss, exist)
        if totals is not None:
            tl.store(totals + rows, b_w, exist)
        if stats is not None:
            tl.store(stats + rows, b_top, exist)
            tl.store(stats + M + rows, log_sum, exist)
    if GRADIENT:
        g = tl.where(counts, 1.0, 0.0)
        if dloss is not None:
            g = load(dloss + rows, exist)
        for chunk in range(0, tl.cdiv(V, BLOCK_N)):
            n = along(chunk, 1, BLOCK_N)
            at, inside = start + n, exist & (n < V)
            a = tl.where(n == t, b_w * (1 - smoothing), 0.0)
            if SMOOTH:
                a += _spread(target, w, at, n, inside & counts, smoothing, V, True, SMOOTH)
            p = tl.exp(load(z + at, inside) - b_top - log_sum)
            tl.store(z + at, tl.where(counts, g * (sum_a * p - a), 0.0), inside)


class _Sum:
    """The sum of products of chunks, in float32 for halves: the result of each is rounded, their sum only once."""

    def __init__(self, shape: tuple[int, ...], like: Tensor) -> None:
        self.total = like.new_empty(shape, dtype=compute_dtype(like))
        self.begun = False

    def add(self, a: Tensor, b: Tensor) -> None:
        """a [M, N] b [N, K]."""
        if self.total.dtype != a.dtype:
            product = a.new_empty(self.total.shape)
            multiply(product, a, b)
            self.total = self.total.add_(product) if self.begun else self.total.copy_(product)
        else:
            multiply(self.total, a, b, add=self.begun)
        self.begun = True


def scaled(t: Tensor, by: Tensor, dtype: torch.dtype) -> Tensor:
    """t times a number, rounded once to `dtype` on the way to memory."""
    if t.dtype == dtype or torch.compiler.is_compiling():  # which makes one loop of it
        return (t * by).to(dtype)
    return torch.mul(t, by, out=t.new_empty(t.shape, dtype=dtype))


def _walk(
    x: Tensor, w: Tensor, b: Tensor | None, target: Tensor, weight: Tensor | None, dloss: Tensor | None,
    ignored: int, smoothing: float, losses: Tensor | None, totals: Tensor | None, wants: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Over all chunks: fill losses and totals if given; dx, dw, db (float32 for halves), each empty if not wanted."""
    (N, K), V = x.shape, w.shape[0]
    wants_dx, wants_dw, wants_db = wants
    dx = torch.empty_like(x) if wants_dx else x.new_empty(0)
    compute = compute_dtype(x)
    dw = _Sum((V, K), x) if wants_dw else None
    db = x.new_zeros(V, dtype=compute) if wants_db else x.new_empty(0, dtype=compute)
    if not isinstance(x, FakeTensor):  # the number of chunks may be symbolic
        each = min(N, tuning_tables.token_chunks(N, K, V, x.dtype, x.device).meta["EACH"])
        logits = x.new_empty(each, V)
        for first in range(0, N, each):
            part = slice(first, min(first + each, N))
            z, rows = logits[: part.stop - first], x[part]
            multiply(z, rows, w.T, b)
            plan = tuning.rows(z.shape[0], V, x.device, tuning.registers(x.dtype, 4))
            sliced = [None if t is None else t[part] for t in (losses, totals, None, dloss, target)]
            launch(
                _rows_kernel, plan.grid, z, *sliced, weight, z.shape[0], V, ignored, *_in_two(smoothing),
                SMOOTH=smoothing > 0, GRADIENT=any(wants), KNOWN=False,
                **{"BLOCK_M": 1, **plan.meta}, **asserting(x.device.type),
            )  # fmt: skip
            if wants_dx:
                multiply(dx[part], z, w)
            if dw is not None:
                dw.add(z.T, rows)
            if wants_db:
                db += z.sum(0, dtype=compute)
    return dx, x.new_empty(0, dtype=compute) if dw is None else dw.total, db


@op("linear_cross_entropy")
def _forward(
    x: Tensor, w: Tensor, b: Tensor | None, target: Tensor, weight: Tensor | None, ignored: int, smoothing: float,
    reduction: str, dtype: torch.dtype, wants_dx: bool, wants_dw: bool, wants_db: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The loss; of mean, the total that it was divided by (else empty); gradients by x, w, b of the sum of losses."""
    check_classes(target, w.shape[0], ignored)
    x, target = x.contiguous(), target.contiguous()
    compute = compute_dtype(x)
    losses = x.new_empty(x.shape[0], dtype=dtype if reduction == "none" else compute)
    totals = x.new_empty(x.shape[0], dtype=compute)
    wants = (wants_dx, wants_dw, wants_db)
    gradients = _walk(x, w, b, target, weight, None, ignored, smoothing, losses, totals, wants)
    if reduction == "none":
        return losses, x.new_empty(0, dtype=compute), *gradients
    return *reduced(losses, totals if reduction == "mean" else None, dtype), *gradients


@op("linear_cross_entropy_backward")
def _backward(
    dloss: Tensor, x: Tensor, w: Tensor, b: Tensor | None, target: Tensor, weight: Tensor | None, ignored: int,
    smoothing: float, wants_dx: bool, wants_dw: bool, wants_db: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients by x, w, b for a gradient of each token's loss, each empty if not wanted."""
    x, target, dloss = x.contiguous(), target.contiguous(), dloss.contiguous()
    wants = (wants_dx, wants_dw, wants_db)
    dx, dw, db = _walk(x, w, b, target, weight, dloss, ignored, smoothing, None, None, wants)
    return dx, dw.to(w.dtype), db.to(w.dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, target: Tensor, weight: Tensor | None, ignored: int,
        smoothing: float, reduction: str, dtype: torch.dtype,
    ) -> Tensor:  # fmt: skip
        weight = None if weight is None else weight.contiguous()
        wants = tuple(ctx.needs_input_grad[:3]) if reduction != "none" else (False, False, False)
        loss, total, *gradients = _forward(x, w, b, target, weight, ignored, smoothing, reduction, dtype, *wants)
        ctx.save_for_backward(x, w, b, target, weight, total, *gradients)
        ctx.how = ignored, smoothing, reduction
        return loss

    @staticmethod
    def backward(ctx: Any, dloss: Tensor) -> tuple[Tensor | None, ...]:
        x, w, b, target, weight, total, *found = ctx.saved_tensors
        ignored, smoothing, reduction = ctx.how
        wants = ctx.needs_input_grad[:3]
        if recompute.wanted():
            found = recompute.gradients(
                lambda x, w, b: torch.nn.functional.cross_entropy(
                    torch.nn.functional.linear(x, w, b), target, weight, ignore_index=ignored, reduction=reduction,
                    label_smoothing=smoothing,
                ),
                (x, w, b),
                dloss,
            )  # fmt: skip
        elif reduction == "none":
            found = _backward(dloss, x, w, b, target, weight, ignored, smoothing, *wants)
        else:
            scale = dloss.to(total.dtype) / total if reduction == "mean" else dloss
            found = [scaled(t, scale, x.dtype) if wanted else t for t, wanted in zip(found, wants, strict=True)]
        gradients = (t if wanted else None for t, wanted in zip(found, wants, strict=True))
        return *gradients, None, None, None, None, None, None


def _unfit(
    input: Tensor, w: Tensor, b: Tensor | None, target: Tensor, weight: Tensor | None, reduction: str, smoothing: float
) -> str | None:
    """Why the kernel cannot take these, or None."""
    if input.dim() not in (1, 2) or w.dim() != 2 or input.shape[-1] != w.shape[1] or reduction not in REDUCTIONS:
        return route.INVALID
    if target.dtype != torch.int64 or target.shape != input.shape[:-1] or not 0 <= smoothing <= 1:
        return route.INVALID
    vectors = [t for t in (b, weight) if t is not None]
    if any(t.shape != w.shape[:1] for t in vectors):
        return route.INVALID
    if any(t.dtype != input.dtype for t in (w, *vectors)) and not autocast.active(input):
        return "operands of several dtypes"
    if weight is not None and weight.requires_grad and torch.is_grad_enabled():
        return "the gradient of the weight"
    return None


def linear_cross_entropy(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
) -> Tensor:
    """As :func:`torch.nn.functional.linear_cross_entropy` of torch 2.13; older versions of torch lack it.

    Shapes: input [N, K] or [K]; linear_weight [V, K]; linear_bias and weight [V]; target [N] or [], int64; the result a
    scalar, or as target for reduction "none". What torch also takes (probabilities, weights of more dimensions, its
    own `options` for chunks) is linear and cross_entropy, or torch's.
    Errors: IndexError for a class out of bounds on a CPU; on a GPU a device-side assert.
    """
    return of_product(
        input, linear_weight, target, linear_bias=linear_bias, weight=weight, reduction=reduction,
        ignore_index=ignore_index, label_smoothing=label_smoothing, options=options,
    )  # fmt: skip


def of_product(
    input: Tensor,
    linear_weight: Tensor,
    target: Tensor,
    *,
    linear_bias: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "mean",
    ignore_index: int | None = None,
    label_smoothing: float = 0.0,
    options: Any = None,
    logits: torch.dtype | None = None,
) -> Tensor:
    """`linear_cross_entropy`. logits: float32 where halves are multiplied and their product is read as float32."""
    tensors = (input, linear_weight, linear_bias, target, weight)
    ignored = -100 if ignore_index is None else ignore_index
    reason = _unfit(input, linear_weight, linear_bias, target, weight, reduction, label_smoothing)
    if options is not None:
        reason = "torch's own options"
    work = target.numel() * linear_weight.shape[0] if reason is None else 0
    # of each target's loss the backward multiplies again; else the forward holds the gradients
    name = "linear_cross_entropy (each)" if reduction == "none" else "linear_cross_entropy"
    if route.to_torch(name, *tensors, unless=reason, mixed=True, dtypes=DTYPES, work=work):
        if logits not in (None, input.dtype):
            z = linear(input, linear_weight, linear_bias).to(logits)
            return cross_entropy(z, target, weight, None, ignored, None, reduction, label_smoothing)
        return _in_torch(
            input, linear_weight, target, linear_bias, weight, reduction, ignore_index, label_smoothing, options
        )
    x, w, b = autocast.lowered("linear", input, linear_weight, linear_bias)
    assert x is not None and w is not None  # for mypy
    dtype = logits or autocast.output_dtype("cross_entropy", x)
    rows, targets = (x, target) if x.dim() == 2 else (x.unsqueeze(0), target.unsqueeze(0))
    loss: Tensor = apply(_LinearCrossEntropy, rows, w, b, targets, weight, ignored, label_smoothing, reduction, dtype)
    return loss.squeeze(0) if x.dim() == 1 and reduction == "none" else loss


def _in_torch(
    x: Tensor, w: Tensor, target: Tensor, b: Tensor | None, weight: Tensor | None, reduction: str,
    ignored: int | None, smoothing: float, options: Any,
) -> Tensor:  # fmt: skip
    how: dict[str, Any] = {"weight": weight, "reduction": reduction, "label_smoothing": smoothing}
    of_torch = getattr(torch.nn.functional, "linear_cross_entropy", None)
    if of_torch is not None:
        y: Tensor = of_torch(x, w, target, linear_bias=b, ignore_index=ignored, options=options, **how)
        return y
    if options is not None or w.dim() != 2:
        raise NotImplementedError(
            "linear_cross_entropy: options, and a linear_weight of more than 2 dimensions, need torch 2.13"
        )
    return cross_entropy(linear(x, w, b), target, ignore_index=-100 if ignored is None else ignored, **how)
