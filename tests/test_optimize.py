"""`optimize` changes classes and nothing else; `restore` undoes it."""

import copy
import pickle

import pytest
import torch
from torch import nn

import trident
from trident.optimize import SWAPS


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Sequential(nn.ReLU(), nn.Identity()), nn.CTCLoss()
    )


class Odd(nn.GELU):
    def forward(self, input):
        return input + 1


def test_swaps_exact_types_and_reports():
    report = trident.optimize(model(), report=True)
    assert {"1", "2", "3.0"} <= set(report.swapped)
    assert report.left["4"] == ("CTCLoss", "Trident has no kernel for it")
    assert "3.1" not in report.left and "GELU" in str(report)


def test_returns_the_model_in_place_and_is_idempotent():
    m = model()
    children = list(m.modules())
    assert trident.optimize(m) is m
    classes = [type(c) for c in m.modules()]
    assert trident.optimize(m) is m and [type(c) for c in m.modules()] == classes
    assert all(a is b for a, b in zip(m.modules(), children, strict=True))
    assert trident.optimize(m, report=True).swapped == {}


def test_everything_but_the_class_stays():
    m = model().eval().double()
    calls = []
    m[2].register_forward_hook(lambda *_: calls.append("hook"))
    m[2].weight.requires_grad_(False)
    parameters, keys = list(m.parameters()), list(m.state_dict())
    x = torch.randn(3, 8, dtype=torch.float64)
    expected = m[:4](x)
    trident.optimize(m)
    assert all(a is b for a, b in zip(m.parameters(), parameters, strict=True))
    assert list(m.state_dict()) == keys and not m.training and not m[2].training
    torch.testing.assert_close(m[:4](x), expected)
    assert calls == ["hook", "hook"] and not m[2].weight.requires_grad


def test_leaves_what_may_differ():
    replaced = nn.GELU()
    replaced.forward = lambda input: input
    parametrized = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    scripted = torch.jit.script(nn.ReLU())
    m = nn.ModuleList([Odd(), replaced, parametrized, scripted])
    classes = [type(c) for c in m]
    report = trident.optimize(m, report=True)
    assert [type(c) for c in m] == classes
    assert report.left["0"] == ("Odd", "a subclass: its forward may differ")
    assert report.left["1"] == ("GELU", "its forward was replaced on the instance")
    assert report.left["2"][1] == "parametrized"
    assert report.left["3"][1] == "scripted"


def test_quantized_is_left():
    with torch.ao.quantization.utils.warnings.catch_warnings():
        torch.ao.quantization.utils.warnings.simplefilter("ignore")
        m = torch.ao.quantization.quantize_dynamic(nn.Sequential(nn.Linear(4, 4)), {nn.Linear})
    report = trident.optimize(m, report=True)
    assert report.left["0"][1] == "quantized" and not report.swapped


def test_restore_undoes_it():
    m = model()
    before = [type(c) for c in m.modules()]
    assert trident.restore(trident.optimize(m)) is m
    assert [type(c) for c in m.modules()] == before


def test_shared_modules_and_copies():
    shared = nn.GELU()
    m = trident.optimize(nn.Sequential(shared, shared))
    assert type(m[0]) is trident.nn.GELU and m[0] is m[1]
    for twin in (copy.deepcopy(m), pickle.loads(pickle.dumps(m))):
        assert type(twin[0]) is trident.nn.GELU


def test_a_non_module_is_refused():
    for function in (trident.optimize, trident.restore):
        with pytest.raises(TypeError, match=r"expected a torch\.nn\.Module"):
            function(torch.nn.functional.relu)


def test_every_swap_is_a_subclass_with_its_own_forward():
    for theirs, ours in SWAPS.items():
        assert ours.__name__ == theirs.__name__ and issubclass(ours, theirs)
        assert ours.__doc__ == theirs.__doc__


def test_every_class_of_torch_nn_is_in_trident_nn():
    missing = [
        n for n, c in vars(nn).items() if isinstance(c, type) and not n.startswith("_") and not hasattr(trident.nn, n)
    ]
    assert missing == []
    for name in ("init", "utils", "functional", "parameter", "modules", "Parameter"):
        assert hasattr(trident.nn, name)


def test_training_step_after_optimize_equals_torch():
    torch.manual_seed(1)
    x, target = torch.randn(5, 8), torch.randn(5, 16)
    results = []
    for change in (lambda m: m, trident.optimize):
        m = change(nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16)))
        m.load_state_dict(model()[:3].state_dict())
        (m(x) - target).square().mean().backward()
        results.append([p.grad for p in m.parameters()])
    torch.testing.assert_close(*results)
