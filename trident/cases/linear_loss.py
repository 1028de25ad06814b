"""Cases of linear_cross_entropy. Shapes are those of the input [N, K]; then come the weight, its bias and targets."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import Case, Shape, randn
from trident.runtime import route


def _in_parts(x: torch.Tensor, w: torch.Tensor, target: torch.Tensor, **kwargs: Any) -> torch.Tensor:
    """What torch 2.13 has as one function."""
    kwargs["ignore_index"] = kwargs.get("ignore_index", -100)
    return F.cross_entropy(F.linear(x, w, kwargs.pop("linear_bias", None)), target, **kwargs)


def _case(V: int = 5, bias: bool = False, weighted: bool = False, **kwargs: Any) -> Case:
    def call(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def loss(x: torch.Tensor, w: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
            named: dict[str, Any] = {"linear_bias": rest[0]} if bias else {}
            if weighted:  # numbers that every dtype holds exactly
                named["weight"] = (1 + torch.arange(V, device=x.device) % 4 / 4).to(x.dtype)
            return f(x, w, rest[-1], **named, **kwargs)

        return loss

    def inputs(shape: Shape) -> list[torch.Tensor]:
        N, K = shape
        target = torch.randint(V, (N,))
        target[::3] = kwargs.get("ignore_index", target[0])
        return [randn(N, K), randn(V, K) / K**0.5, *([randn(V)] if bias else []), target]

    x, w = torch.randn(2, 3), torch.randn(4, 3)
    return Case(
        ours=call(T.linear_cross_entropy),
        reference=call(getattr(F, "linear_cross_entropy", _in_parts)),
        shapes=((4, 3), (1, 1), (300, 17) if V < 1000 else (70, 5)),
        inputs=inputs,
        reduced=lambda shape: shape[0] * max(shape[1], V),
        errors=(
            lambda f: f(x, w, torch.tensor([0, 4])),
            lambda f: f(x, w, torch.tensor([0, -1])),
            lambda f: f(x, w, torch.tensor([0])),
            lambda f: f(x, torch.randn(4, 2), torch.tensor([0, 1])),
            lambda f: f(x, w, torch.tensor([0, 1]), linear_bias=torch.randn(3)),
            lambda f: f(x, w, torch.tensor([0, 1]), reduction="no"),
        )
        if hasattr(F, "linear_cross_entropy")
        else (),
        cls="LinearCrossEntropyLoss",
        module=None if weighted or not hasattr(torch.nn, "LinearCrossEntropyLoss") else _made(V, bias, kwargs),
        bench=((64, 256), (512, 512)),
    )


def _made(V: int, bias: bool, kwargs: dict[str, Any]) -> Callable[[type], torch.nn.Module]:
    return lambda cls: cls(3, V, bias=bias, **kwargs)


def _preferred(
    c: torch.Tensor, r: torch.Tensor, kind: str, beta: float, smoothing: float, gamma: float
) -> torch.Tensor:
    """Each paper's formula, of log-probabilities (or ratios of probabilities) of chosen and rejected sequences."""
    m = c - r
    if kind == "hinge":
        return (1 - beta * m).clamp(min=0)
    if kind == "ipo":
        return (m - 1 / (2 * beta)) ** 2
    if kind == "orpo":
        odds = [p.exp() / (1 - p.exp()) for p in (c, r)]
        return -beta * torch.sigmoid((odds[0] / odds[1]).log()).log()
    z = beta * m - (gamma if kind == "simpo" else 0)
    return -(1 - smoothing) * F.logsigmoid(z) - smoothing * F.logsigmoid(-z)


def _preferences(
    kind: str, shapes: Sequence[Shape], V: int = 33, bias: bool = False, reduction: str = "mean", beta: float = 0.3,
    smoothing: float = 0.0, gamma: float = 0.5, alpha: float | None = None, K: int = 256,
) -> Case:  # fmt: skip
    """Shapes [2 B, T, K]; of an odd number of sequences, as tune's small sizes have, one more: they are pairs."""
    referenced = kind in ("sigmoid", "hinge", "ipo")

    def reference_of(x: torch.Tensor) -> torch.Tensor | None:
        """Numbers that every dtype holds."""
        return (-torch.arange(x.shape[0], device=x.device) % 5 - 3.0).to(x.dtype) if referenced else None

    def ours(x: torch.Tensor, w: torch.Tensor, *rest: torch.Tensor) -> Any:
        return T.linear_dpo_loss(
            x, w, rest[-1], reference_of(x), linear_bias=rest[0] if bias else None, loss_type=kind, beta=beta,
            label_smoothing=smoothing, gamma=gamma, alpha=alpha, reduction=reduction, ignore_index=-1,
        )  # fmt: skip

    def reference(*inputs: torch.Tensor) -> torch.Tensor:
        with route.forced("torch"):
            y: torch.Tensor = ours(*inputs)
        return y

    def exact(x: torch.Tensor, w: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        target, given = rest[-1], reference_of(x)
        z = F.linear(x, w, rest[0] if bias else None)
        tokens = z.log_softmax(-1).gather(-1, target.clamp(min=0).unsqueeze(-1)).squeeze(-1) * (target != -1)
        p = tokens.sum(1) if given is None else tokens.sum(1) - given
        if kind in ("ipo", "simpo", "orpo"):
            p = p / (target != -1).sum(1)
        c, r = p.chunk(2)
        losses = _preferred(c, r, kind, beta, smoothing, gamma)
        weight = (1.0 if kind in ("cpo", "orpo") else 0.0) if alpha is None else alpha
        B = len(c)
        losses = losses - weight * tokens[:B].sum() / (target[:B] != -1).sum()
        return losses if reduction == "none" else losses.mean() if reduction == "mean" else losses.sum()

    def inputs(shape: Shape) -> list[torch.Tensor]:
        N, L, K = shape[0] + shape[0] % 2, *shape[1:]
        target = torch.randint(V, (N, L))
        target[::3, : L // 2] = -1
        return [randn(N, L, K), randn(V, K) / K**0.5, *([randn(V)] if bias else []), target]

    return Case(
        ours=ours,
        reference=reference,
        exact=exact,
        shapes=shapes,
        inputs=inputs,
        reduced=lambda shape: shape[0] * shape[1] * max(shape[2], V),
        bench=((8, 64, K),),
    )


CASES: dict[str, Case] = {
    "linear_cross_entropy": _case(),
    "linear_cross_entropy.all": _case(33, True, True, ignore_index=2, label_smoothing=0.2, reduction="sum"),
    "linear_cross_entropy.none": _case(9000, bias=True, ignore_index=-3, reduction="none"),
    "linear_dpo_loss": _preferences("sigmoid", ((4, 3, 5), (2, 1, 1), (6, 50, 17)), bias=True, smoothing=0.1),
    "linear_dpo_loss.hinge": _preferences("hinge", ((4, 3, 5),), reduction="sum", alpha=0.5),
    "linear_dpo_loss.ipo": _preferences("ipo", ((4, 3, 5), (2, 300, 3)), V=9000, K=1024),
    "linear_dpo_loss.simpo": _preferences("simpo", ((4, 3, 5),), beta=2.0, smoothing=0.2),
    "linear_dpo_loss.cpo": _preferences("cpo", ((4, 3, 5),)),
    "linear_dpo_loss.orpo": _preferences("orpo", ((4, 3, 5), (6, 7, 8)), bias=True),
    "linear_dpo_loss.none": _preferences("sigmoid", ((4, 3, 5),), reduction="none", alpha=0.2),
}
