"""Cases of linear_cross_entropy. Shapes are those of the input [N, K]; then come the weight, its bias and targets."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import Case, Shape, randn


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


CASES: dict[str, Case] = {
    "linear_cross_entropy": _case(),
    "linear_cross_entropy.all": _case(33, True, True, ignore_index=2, label_smoothing=0.2, reduction="sum"),
    "linear_cross_entropy.none": _case(9000, bias=True, ignore_index=-3, reduction="none"),
}
