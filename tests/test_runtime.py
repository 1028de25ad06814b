"""The seam: routes and their reasons, launches, plans."""

import collections
import logging
import os
import random
import subprocess
import sys

import pytest
import torch
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import trident.functional as T
from trident.runtime import crossover, route, tuning, tuning_planes
from trident.runtime import launch as launch_module
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.layout import memory_format

X = torch.randn(4, 8)


class Subclass(torch.Tensor):
    pass


@pytest.mark.parametrize(
    "x, reason",
    [
        (X, None),
        (X.as_subclass(Subclass), "Subclass is not a plain tensor"),
        (torch.nn.Parameter(X.as_subclass(Subclass)), "Subclass is not a plain tensor"),  # and an instance of Parameter
        (X.to_sparse(), "no kernel for torch.sparse_coo"),
        (X.int(), "no kernel for torch.int32"),
        (torch.view_as_complex(torch.randn(4, 2)).conj().imag, "a lazily negated tensor"),
        (X[:0], "no elements"),
    ],
    ids=["kernel", "subclass", "parameter", "sparse", "integer", "negated", "empty"],
)
def test_reasons(x, reason):
    assert route._reason("relu", (x,), False, route.HALF_TO_DOUBLE) == reason
    assert route.to_torch("relu", x) == (reason is not None)


def test_operands_of_several_dtypes_go_to_torch_unless_autocast():
    w = torch.ones(8, dtype=torch.bfloat16)
    assert route.to_torch("layer_norm", X, w)
    assert not route.to_torch("layer_norm", X, w, mixed=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert not route.to_torch("layer_norm", X, w)


def test_forced_nests_and_restores():
    before = route.policy
    with route.forced("torch"):
        assert route.to_torch("relu", X)
        with route.forced("kernels"):
            assert not route.to_torch("relu", X)
        assert route.to_torch("relu", X)
    assert route.policy == before
    with pytest.raises(ValueError, match="expected one of auto, kernels, torch"), route.forced("gpu"):
        pass


def test_speed_decides_in_auto_only(monkeypatch):
    how = launch_module.executor("cpu")
    monkeypatch.setitem(crossover.FEWEST_ELEMENTS, (how, "silu"), 100)
    monkeypatch.delitem(crossover.HAND_TUNED, (how, "silu"), raising=False)
    monkeypatch.setitem(crossover.HAND_TUNED, (how, "relu"), "a reason")
    with route.forced("auto"):
        assert route.to_torch("silu", X) and not route.to_torch("silu", torch.randn(100))
        assert route.to_torch("relu", torch.randn(10**6))
    assert not route.to_torch("silu", X) and not route.to_torch("relu", X)


def test_a_reason_is_looked_for_where_size_decides_nothing_or_somebody_asks(monkeypatch):
    how = launch_module.executor("cpu")
    monkeypatch.setitem(crossover.FEWEST_ELEMENTS, (how, "silu"), 100)
    monkeypatch.delitem(crossover.HAND_TUNED, (how, "silu"), raising=False)
    looked, told = [], []

    def found():
        looked.append(1)
        return "a reason"

    monkeypatch.setattr(route, "WATCHERS", [])
    with route.forced("auto"):
        assert route.to_torch("silu", X, unless=found) and not looked
        assert route.to_torch("silu", torch.randn(100), unless=found) and len(looked) == 1
        assert not route.to_torch("silu", torch.randn(100), unless=lambda: None)
        monkeypatch.setattr(route, "WATCHERS", [lambda name, tensors, reason: told.append(reason)])
        for unless in (found, "a reason", lambda: None, None):
            assert route.to_torch("silu", X, unless=unless)
    assert told == ["a reason", "a reason", *2 * ["faster in torch below 100 elements"]]
    assert route.to_torch("silu", X, unless=found) and not route.to_torch("silu", X, unless=lambda: None)


def test_log_prints_each_decision_once(monkeypatch, caplog):
    monkeypatch.setattr(route, "WATCHERS", [route._note])
    monkeypatch.setattr(route, "_noted", set())
    with caplog.at_level(logging.INFO, "trident.route"):
        for _ in range(3):
            T.relu(X)
            T.relu(X, inplace=False)
            T.relu(X.clone(), inplace=True)
            T.relu(X[:2])
    assert len(caplog.messages) == 3
    assert caplog.messages[0].startswith("trident: relu [4, 8] float32 cpu -> kernel (")
    assert caplog.messages[1] == "trident: relu [4, 8] float32 cpu -> torch: in place"


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=os.environ | env, capture_output=True, text=True, timeout=120
    )


def test_environment_switches():
    code = "import torch, trident; trident.functional.relu(torch.ones(2))"
    told = python(code, TRIDENT_LOG="route", TRIDENT_ROUTE="torch")
    assert told.stderr.strip() == "trident: relu [2] float32 cpu -> torch: TRIDENT_ROUTE=torch"
    assert python(code, TRIDENT_LOG="").stderr == ""
    wrong = python(code, TRIDENT_ROUTE="gpu")
    assert wrong.returncode and "expected one of auto, kernels, torch" in wrong.stderr


class Kernel:
    """Stands for a kernel: notes its launches."""

    __name__ = "Kernel"

    def __init__(self):
        self.grids = []

    def __getitem__(self, grid):
        return lambda *args, **meta: self.grids.append(grid)


@pytest.fixture
def interpreted(monkeypatch):
    monkeypatch.setattr(launch_module, "executor", lambda device_type: "interpreter")


def test_launch_skips_what_has_no_data(interpreted):
    kernel = Kernel()
    launch(kernel, (0,), X)
    launch(kernel, (3, 0), X)
    with FakeTensorMode() as mode:
        launch(kernel, (1,), mode.from_tensor(X))
    assert kernel.grids == []
    launch(kernel, (2,), X, None, 1.0)
    assert kernel.grids == [(2,)]


def test_meta_tensors_are_not_launched():
    kernel = Kernel()
    launch(kernel, (1,), X.to("meta"))
    assert kernel.grids == []


def test_launch_refuses_several_devices(interpreted):
    with pytest.raises(RuntimeError, match="same device, but found cpu and meta"):
        launch(Kernel(), (1,), X, X.to("meta"))


def test_launch_without_executor_names_the_fix(monkeypatch):
    monkeypatch.setattr(launch_module, "executor", lambda device_type: None)
    with pytest.raises(RuntimeError, match="install llvmlite"):
        launch(Kernel(), (1,), X)


def test_plans_cover_their_sizes():
    cpu = torch.device("cpu")
    for n in (1, 7, 33, 257, 65537, 2**31 + 5):
        plan = tuning.flat(n, cpu)
        assert plan.grid[0] * plan.meta["BLOCK"] >= n > (plan.grid[0] - 1) * plan.meta["BLOCK"]
    for M, N in ((1, 1), (7, 33), (257, 65), (100000, 3)):
        plan = tuning.rows(M, N, cpu)
        assert plan.meta["BLOCK_N"] >= N and plan.grid[0] * plan.meta["BLOCK_M"] >= M


def test_symbolic_sizes_get_a_placeholder():
    plans = []

    def traced(x):
        plans.append(tuning.flat(x.shape[0], x.device))
        return x + 1

    make_fx(traced, tracing_mode="symbolic")(torch.empty(12, 5))
    assert plans == [tuning.TRACED]


def test_how_planes_are_seen_is_remembered_of_plain_sizes_only():
    views = []

    def traced(x):
        views.append(tuning_planes.seen(2, x.shape, memory_format(x), x.device))
        return x + 1

    for size in (4, 6):
        x = torch.empty(size, 4, 5, 7).to(memory_format=torch.channels_last)
        again = tuning_planes.seen(2, x.shape, memory_format(x), x.device)
        assert tuning_planes.seen(2, x.shape, memory_format(x), x.device) is again
        make_fx(traced, tracing_mode="symbolic")(x)
    assert all(type(v.R) is torch.SymInt and v.form == torch.channels_last and v.fold == 1 for v in views)


def test_powers_of_two():
    assert [tuning.power_of_2(n) for n in (0, 1, 2, 3, 4, 5, 1023, 1025)] == [1, 1, 2, 4, 4, 8, 1024, 2048]


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x)
        ctx.factor = factor
        ctx.wanted = ctx.needs_input_grad
        return x * factor

    @staticmethod
    def backward(ctx, dy):
        return dy * ctx.factor, None


def test_apply_records_only_where_a_gradient_can_flow():
    x = torch.randn(3)
    needing = x.clone().requires_grad_()
    assert apply(Doubled, x, 2.0).grad_fn is None
    with torch.no_grad():
        assert apply(Doubled, needing, 2.0).grad_fn is None
    with torch.inference_mode():
        assert apply(Doubled, needing, 2.0).is_inference()
    assert apply(Doubled, x, 2.0, unrecorded=lambda x, factor: factor) == 2.0
    with torch.no_grad():
        assert apply(Doubled, needing, 2.0, unrecorded=lambda x, factor: factor) == 2.0
    assert apply(Doubled, needing, 2.0, unrecorded=lambda x, factor: factor).requires_grad
    y = apply(Doubled, needing, 2.0)
    assert type(y.grad_fn).__name__ == "DoubledBackward"
    y.sum().backward()
    torch.testing.assert_close(needing.grad, torch.full((3,), 2.0))


def test_a_tensor_that_outlived_its_transform():
    """It still wraps another one: torch's operators know how to read it, or say why not."""
    leaked = []
    torch.func.grad(lambda x: (leaked.append(x), x.sum())[1])(X)
    assert torch.equal(T.silu(leaked.pop()), torch.nn.functional.silu(X))
    torch.func.vmap(lambda x: (leaked.append(x), x.sum())[1])(X)
    with pytest.raises(RuntimeError, match="vmap"):
        T.silu(leaked.pop())


def test_memory_format_is_what_torch_says():
    draw = random.Random(0)
    found = collections.Counter()
    for _ in range(5000):
        dims = draw.choice((4, 5))
        shape = [draw.choice((0, 1, 1, 2, 3)) for _ in range(dims)]
        if draw.random() < 0.5:
            x = torch.empty(shape).to(memory_format=torch.channels_last if dims == 4 else torch.channels_last_3d)
            x = draw.choice((x, x[:, :, ::2], x.transpose(-1, -2), x.contiguous()))
        else:
            x = torch.empty_strided(shape, [draw.choice((0, 1, 2, 3, 4, 6, 8, 12, 18)) for _ in range(dims)])
        assert memory_format(x) == suggest_memory_format(x), (x.shape, x.stride())
        found[memory_format(x)] += 1
    assert min(found.values()) > 50 and len(found) == 3


@pytest.mark.once
def test_an_import_leaves_dynamo_alone():
    """It takes a second, which only who compiles should wait."""
    said = "import sys, trident; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", said], check=False).returncode == 0
