"""Which operators a step spends its time in, as `trident.compare` tells it."""

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import trident
from trident.bench import compare, mini, shares
from trident.runtime import crossover, route

pytestmark = pytest.mark.once


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.out = torch.nn.Linear(64, 64), torch.nn.Linear(64, 8)

    def forward(self, x):
        h = F.silu(self.inner(x)).softmax(-1)
        return self.out(torch.cumsum(h, -1) * 2)


def of(model, *args, step=compare._step):
    report = trident.optimize(copy.deepcopy(model), report=True)
    return {s.name: s for s in shares.shares(model, report, args, {}, step, "cpu")}


def test_every_call_is_there_with_what_became_of_it():
    with route.forced("kernels"):
        found = of(Model(), torch.randn(128, 64))
    assert {name: s.calls for name, s in found.items()} == {
        "Linear": 2, "silu": 1, "softmax": 1, "cumsum": 1, "mul": 1, shares.BETWEEN[0]: 0,
    }  # fmt: skip
    assert {found[name].where for name in ("Linear", "silu", "softmax")} == {"kernel"}
    assert {found[name].where for name in ("cumsum", "mul")} == {shares.UNKNOWN}
    assert sum(s.part for s in found.values()) == pytest.approx(1)
    assert all(s.seconds > 0 for s in found.values() if s.calls)
    with route.forced("torch"):
        assert of(Model(), torch.randn(128, 64))["Linear"].where == "torch: TRIDENT_ROUTE=torch"


def test_a_backward_counts_with_its_call(monkeypatch):
    """Where each product takes a second and nothing else takes any: the forward's, then the weight's gradient."""
    products = property(lambda event: 1e6 * (event.name in ("aten::addmm", "aten::mm")))
    monkeypatch.setattr(torch.autograd.profiler_util.FunctionEvent, "self_cpu_time_total", products)
    model, x = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Softplus()), torch.randn(16, 64)
    for step, seconds in ((compare._forward, 1), (compare._step, 2)):
        assert {name: s.seconds for name, s in of(model, x, step=step).items()} == {
            "Linear": seconds, "Softplus": 0, shares.BETWEEN[0]: 0,
        }  # fmt: skip


def event(name, number=-1, parent=None, spent=1.0, start=[0]):  # noqa: B006  a clock
    start[0] += 1
    made = SimpleNamespace(
        name=name, sequence_nr=number, cpu_parent=parent, cpu_children=[], self_cpu_time_total=spent * 1e6,
        time_range=SimpleNamespace(start=start[0]),
    )  # fmt: skip
    if parent is not None:
        parent.cpu_children.append(made)
    return made


def test_nodes_are_found_by_the_last_call_of_their_number():
    first, second = event(shares.RANGE + "0"), event(shares.RANGE + "1")
    events = [first, event("aten::arange", 7, first), second, event("aten::mul", 7, second)]  # arange made no node
    node = event(shares.NODE + "MulBackward0", 7, None, 10.0)
    legacy = event(shares.NODE + "MulBackward0", -1, None, 100.0)
    sums = event(shares.NODE + "torch::autograd::AccumulateGrad", -1, None, 1000.0)
    events += [node, event("aten::mul", 9, node, 10.0), legacy, event("MulBackward0", 7, legacy, 100.0), sums]
    assert shares._seconds(events, "cpu") == {0: 2.0, 1: 222.0, None: 1000.0}


@pytest.mark.parametrize("name", ("llama", "vit", "resnet", "unet"))
def test_mini_models_call_what_is_taken_or_has_a_reason(name):
    with route.forced("auto"):
        found = of(mini.model(name, small=True), *mini.inputs(name, 2, small=True))
    assert all(
        s.where == "kernel" or ": " in s.where or s.where in (shares.UNKNOWN, shares.BETWEEN[1]) for s in found.values()
    )
    norm = {"llama": "RMSNorm", "vit": "LayerNorm", "resnet": "BatchNorm2d", "unet": "GroupNorm"}
    assert found[norm[name]].where != shares.UNKNOWN
    assert not any("not known" in s.where for s in found.values())


def test_compare_tells_them():
    with route.forced("auto"):
        found = trident.compare(Model(), torch.randn(128, 64), seconds=0.01)
    assert sum(s.part for s in found.shares) == pytest.approx(1)
    assert (
        "the original's step: " in str(found)
        and "Linear" in str(found)
        and crossover.faster_in_torch("linear", "native", 1) in str(found)
    )
