"""Layers that the first Trident had and torch.nn has not."""

import pytest
import torch

import trident.functional as T
from tests.test_laws import Recorder
from trident import nn

REDUCTIONS = {
    nn.Sum: torch.sum,
    nn.Mean: torch.mean,
    nn.Max: torch.amax,
    nn.Argmax: torch.argmax,
    nn.Var: torch.var,
    nn.VarMean: torch.var_mean,
}


@pytest.mark.parametrize("keepdim", (False, True))
@pytest.mark.parametrize("cls", REDUCTIONS, ids=lambda cls: cls.__name__)
def test_reductions(cls, keepdim):
    x = torch.randn(3, 5, 7, dtype=torch.float64)
    with Recorder() as recorder:
        found = cls(1, keepdim)(x)
    assert recorder.calls
    torch.testing.assert_close(found, REDUCTIONS[cls](x, 1, keepdim=keepdim))
    assert repr(cls(1, keepdim)).startswith(f"{cls.__name__}(dim=1, keepdim={keepdim}")


@pytest.mark.parametrize("cls", (nn.Var, nn.VarMean))
def test_correction(cls):
    x = torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(cls((0, 1), correction=0)(x), REDUCTIONS[cls](x, (0, 1), correction=0))


def test_shift_gelu():
    layer = nn.ShiftGELU(5)
    assert layer.bias.eq(0).all() and repr(layer) == "ShiftGELU(5)"
    x = torch.randn(3, 5)
    with torch.no_grad():
        layer.bias.fill_(0.25)
    torch.testing.assert_close(layer(x), torch.nn.functional.gelu(x + 0.25))
    with pytest.raises(RuntimeError, match=r"shift_gelu: bias is \[4\], input \[3, 5\]"):
        T.shift_gelu(x, torch.zeros(4))
