"""Cases of the reductions of trident.functional."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

import trident.functional as T
from trident.cases.case import Case, Errors, Shape, randn

ROWS_BENCH, MAPS_BENCH = ((4, 256), (256, 1024), (4096, 4096)), ((1, 3, 16, 16), (8, 64, 56, 56), (64, 64, 56, 56))
ROWS = ((2, 3), (1, 1), (257, 3), (3, 65537))
INNER = ((2, 3, 4, 5), (1, 1, 1, 1), (3, 257, 5, 33), (1, 40000, 3))  # over dimension 1
TWO = ((2, 3, 4, 5), (1, 1, 1), (33, 3, 65, 17))  # over dimensions 0 and 2
ALL = ((2, 3), (1,), (7, 33, 2), (5, 100003))


BAD: Errors = (lambda f: f(torch.randn(2, 3), 2), lambda f: f(torch.randn(2, 3), "a"))
BAD_NORMS: Errors = (lambda f: f(torch.randn(2, 3), 2, 2), lambda f: f(torch.randn(2, 3), "a"))


def _reduction(
    name: str,
    *args: Any,
    shapes: Sequence[Shape] = ALL,
    over: Callable[[Shape], int] = math.prod,
    take: Callable[[Any, torch.Tensor], torch.Tensor] = lambda y, x: y,
    inputs: Callable[[Shape], list[torch.Tensor]] = lambda shape: [randn(*shape)],
    **options: Any,
) -> Case:
    """take: one differentiable tensor of what the function returns."""
    return Case(
        ours=lambda x: take(getattr(T, name)(x, *args, **options), x),
        reference=lambda x: take(getattr(torch, name)(x, *args, **options), x),
        shapes=shapes,
        inputs=inputs,
        reduced=over,
        errors=BAD_NORMS if name == "norm" else BAD,
        bench=MAPS_BENCH if shapes[0] == INNER[0] else ROWS_BENCH,
    )


def _along(dim: int) -> Callable[[Shape], int]:
    return lambda shape: shape[dim]


def _over_two(shape: Shape) -> int:
    return shape[0] * shape[2]


def _at(dim: int) -> Callable[[Any, torch.Tensor], torch.Tensor]:
    """What lies at the indices: differentiable."""
    return lambda index, x: x.gather(dim, index)


def _ties(shape: Shape) -> list[torch.Tensor]:
    return [torch.randint(3, shape).double() - 1]


def _factors(shape: Shape) -> list[torch.Tensor]:
    """Near 1 and of both signs, so that long products neither overflow nor vanish; some lines have a zero, some two."""
    x = torch.where(torch.rand(shape) < 0.5, -1.0, 1.0).double() * (1 + torch.rand(shape).double() / 64 - 1 / 128)
    x.view(-1)[:: max(7, x.numel() // 5)] = 0
    return [x]


CASES: dict[str, Case] = {
    "sum": _reduction("sum"),
    "sum.rows": _reduction("sum", -1, shapes=ROWS, over=_along(-1)),
    "sum.inner": _reduction("sum", 1, True, shapes=INNER, over=_along(1)),
    "sum.two": _reduction("sum", (0, 2), shapes=TWO, over=_over_two),
    "mean": _reduction("mean", (2, 0), True, shapes=TWO, over=_over_two),
    "prod": _reduction("prod", inputs=_factors, shapes=((2, 3), (1,), (7, 33), (3, 5001))),
    "prod.inner": _reduction("prod", 1, inputs=_factors, shapes=INNER[:3], over=_along(1)),
    "var": _reduction("var"),
    "var.two": _reduction("var", (0, 2), correction=0, keepdim=True, shapes=TWO, over=_over_two),
    "std": _reduction("std", 1, correction=0, shapes=INNER, over=_along(1)),
    "var_mean": _reduction("var_mean", -1, correction=0, shapes=ROWS, over=_along(-1)),
    "std_mean": _reduction("std_mean", correction=0.5, shapes=ALL[:3]),
    "amax": _reduction("amax", (0, 2), inputs=_ties, shapes=TWO),
    "amin": _reduction("amin", -1, True, inputs=_ties, shapes=ROWS),
    "max": _reduction("max", inputs=_ties),
    "max.rows": _reduction("max", -1, shapes=ROWS),
    "min": _reduction("min", 1, True, inputs=_ties, shapes=INNER),
    "argmax": _reduction("argmax", -1, True, shapes=ROWS, take=_at(-1)),
    "argmin": _reduction("argmin", 1, True, inputs=_ties, shapes=INNER, take=_at(1)),
    "logsumexp": _reduction("logsumexp", -1, shapes=ROWS, over=_along(-1)),
    "norm": _reduction("norm"),
    "norm.3": _reduction("norm", 3.0, (0, 2), True, shapes=TWO, over=_over_two),
    "norm.half": _reduction("norm", 0.5, 1, shapes=INNER[:-1], over=lambda shape: shape[1] ** 2),
    "norm.inf": _reduction("norm", math.inf, 1, inputs=_ties, shapes=INNER),
}
