"""What is peculiar to gated linear units: layers that torch lacks, and the errors of functions that torch lacks."""

import pytest
import torch

import trident.functional as T
from trident import nn
from trident.runtime import route

LAYERS = {
    nn.SwiGLU: torch.nn.functional.silu,
    nn.GEGLU: torch.nn.functional.gelu,
    nn.ReGLU: torch.nn.functional.relu,
}


@pytest.mark.parametrize("cls", LAYERS, ids=lambda cls: cls.__name__)
def test_layers(cls):
    layer = cls(5, 7).double()
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    a, b = torch.nn.functional.linear(x, layer.weight, layer.bias).chunk(2, -1)
    torch.testing.assert_close(layer(x), a * LAYERS[cls](b))
    assert layer.weight.shape == (14, 5) and repr(layer) == f"{cls.__name__}(in_features=5, out_features=7, bias=True)"


@pytest.mark.parametrize("policy", route.POLICIES)
def test_errors_name_the_argument(policy):
    x = torch.randn(2, 3)
    with route.forced(policy):
        with pytest.raises(RuntimeError, match=r"swiglu: input is \[2, 3\]; expected an even size at dim -1"):
            T.swiglu(x)
        with pytest.raises(RuntimeError, match=r"reglu: gate is \[3\]; expected input's shape \[2, 3\]"):
            T.reglu(x, x[0])
        with pytest.raises(ValueError, match="geglu: approximate is 'no'"):
            T.geglu(x, x, approximate="no")
        with pytest.raises(RuntimeError, match="even size at dim 2"):
            T.swiglu(x, dim=2)
