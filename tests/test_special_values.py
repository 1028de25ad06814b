"""NaN, infinities and ties as torch, for every operator: in one place, in a whole row, everywhere."""

import math

import pytest
import torch

from tests.test_laws import VALUES, close, double, gradients_of, leaves, make, run

pytestmark = pytest.mark.once


def _one(value: float):
    def plant(x: torch.Tensor) -> None:
        x.view(-1)[x.numel() // 2] = value

    return plant


def _row(value: float):
    def plant(x: torch.Tensor) -> None:
        x[..., -1:, :] = value

    return plant


def _both(x: torch.Tensor) -> None:
    x.view(-1)[0], x.view(-1)[-1] = math.inf, -math.inf


def _ties(x: torch.Tensor) -> None:
    x.copy_(x.round())


PLANTS = {
    "nan": _one(math.nan),
    "inf": _one(math.inf),
    "-inf": _one(-math.inf),
    "both": _both,
    "row of nan": _row(math.nan),
    "row of -inf": _row(-math.inf),
    "ties": _ties,
}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("case", VALUES.values(), ids=VALUES)
def test_as_torch(case, plant):
    shape = case.shapes[0]
    inputs = make(case, shape, torch.float32)
    with torch.no_grad():
        PLANTS[plant](inputs[0])
    actual = run(case.ours, inputs)
    dy = [g.double() for g in gradients_of(actual[: len(actual) - len(leaves(inputs))])]
    exact = run(case.exact or case.reference, double(inputs), dy)
    n = len(actual) - len(leaves(inputs))
    close(actual[:n], exact[:n], torch.float32, case.reduced(shape))
    close(actual[n:], exact[n:], torch.float32, case.reduced(shape))
