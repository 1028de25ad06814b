"""Cases of trident.nn.linear."""

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import (
    Case,
    randn,
)
from trident.ops._activation import ACTIVATIONS


def _linear(N: int = 5, bias: bool = True, activation: str | None = None) -> Case:
    def reference(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        y = F.linear(x, *rest)
        return y if activation is None else ACTIVATIONS[activation].torch(y)

    plain = activation is None
    return Case(
        ours=lambda *inputs: T.linear(*inputs, activation=activation),
        reference=reference,
        # not one element alone: a single f'(z) near its zero has the error of z's rounding and nothing to scale it by
        shapes=((2, 3, 4), (1, 1) if plain else (5, 1), (7,), (33, 257), (2, 130, 33), (1030, 7)),
        inputs=lambda shape: [randn(*shape), *([randn(N, shape[-1]), randn(N)][: 1 + bias])],
        reduced=lambda shape: max(shape[-1], N, torch.Size(shape[:-1]).numel()),
        errors=(
            lambda f: f(torch.randn(2, 3), torch.randn(5, 4)),
            lambda f: f(torch.randn(2, 4), torch.randn(5, 4), torch.randn(3)),
            lambda f: f(torch.randn(2, 4), torch.randn(2, 5, 4)),
            lambda f: f(torch.randn(2, 4), torch.randn(5, 4).double()),
            lambda f: f(torch.tensor(2.0), torch.randn(5, 4)),
        ),
        cls="Linear" if plain else "",
        module=(lambda cls: cls(4, N, bias)) if plain else None,
        bench=((256, 256), (4096, 1024)),
        flops=lambda shape: 2.0 * torch.Size(shape).numel() * N,
    )


CASES: dict[str, Case] = {
    "linear": _linear(),
    "linear.no_bias": _linear(bias=False),
    "linear.wide": _linear(N=257),
    "linear.gelu": _linear(activation="gelu"),
    "linear.relu": _linear(activation="relu", N=33),
    "linear.silu": _linear(activation="silu", bias=False),
}
