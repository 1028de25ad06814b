"""What passes the door of a public function, and what goes to torch before the function reads it."""

import contextlib

import pytest
import torch

import trident
import trident.functional as T
from tests.test_laws import make
from trident.cases import CASES
from trident.ops._activation import FUSED
from trident.runtime import crossover, door, route
from trident.runtime.launch import executor

pytestmark = pytest.mark.once
HOW = executor("cpu")


@contextlib.contextmanager
def heard():
    """Names of the operators that are asked for: nothing is, where a call went to torch at its door."""
    names = []
    to_torch = route.to_torch

    def listen(name, *args, **kwargs):
        names.append(name)
        return to_torch(name, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(route, "to_torch", listen)
        yield names


@contextlib.contextmanager
def watching(watcher):
    route.WATCHERS.append(watcher)
    try:
        yield
    finally:
        route.WATCHERS.remove(watcher)


BEHIND = {name: case for name, case in CASES.items() if crossover.least(case.name, HOW) and hasattr(torch, case.name)}
BEHIND |= {
    name: case
    for name, case in CASES.items()
    if crossover.least(case.name, HOW) and hasattr(torch.nn.functional, case.name)
}


@pytest.mark.parametrize("case", BEHIND.values(), ids=BEHIND)
def test_no_way_of_calling_is_faster_here_below_the_least(case):
    """The door says what the function would have said: each name by which it asks is torch's up to that size."""
    names = []
    inputs = make(case, case.shapes[0], case.dtypes[0])
    with watching(lambda name, *_: names.append(name)), route.forced("auto"):  # nobody is stopped at the door meanwhile
        case.ours(*inputs)
        with torch.no_grad():
            case.ours(*inputs)
    # a convolution asks for itself, whether it can, then for each of its parts, whether it should
    names = {name for name in names if not any(other.startswith(f"{name} (") for other in names)}
    names -= FUSED - {
        case.name,
        *crossover.ASKED_AS.get(case.name, ()),
    }  # `activation=`, which torch lacks, always enters
    assert names
    least = crossover.least(case.name, HOW)
    for name in names:
        assert least <= crossover.size(name, HOW), name


def test_small_calls_are_torchs_at_the_door():
    x, w = torch.randn(4, 8), torch.ones(8)
    calls = {
        "positional": lambda: T.softmax(x, -1),
        "by name": lambda: T.gelu(x, approximate="tanh"),
        "a Parameter": lambda: T.silu(torch.nn.Parameter(x)),
        "a reduction": lambda: T.sum(x, 0, keepdim=True),
        "one of two functions": lambda: T.max_pool2d(x[None], 2, return_indices=True),
        "several tensors": lambda: T.layer_norm(x, (8,), w, w),
        "a layer": lambda: trident.nn.Softplus(beta=2)(x),
        "nothing that torch lacks": lambda: T.rms_norm(x, (8,), w, None, bias=None, p=1.0, residual=None),
        "a layer that names such": lambda: trident.nn.GroupNorm(2, 4)(x[None]),
    }
    for what, call in calls.items():
        for mode in (contextlib.nullcontext, trident.enabled):
            with route.forced("auto"), mode(), heard() as names:
                call()
            assert not names, what
        with heard() as names:
            call()
        assert names, what


def test_what_torch_lacks_enters():
    x, w = torch.randn(4, 8), torch.ones(8)
    image = torch.randn(2, 4, 3, 3)
    for call in (
        lambda: T.layer_norm(x, (8,), w, w, residual=x),
        lambda: T.rms_norm(x, (8,), w, p=0.5),
        lambda: T.rms_norm(x, (8,), w, bias=w, p=1.0),
        lambda: trident.nn.RMSNorm(8, p=0.5)(x),
        lambda: T.group_norm(image, 2, activation="silu"),
        lambda: T.linear(x, torch.eye(8), activation="gelu"),
        lambda: T.swiglu(x),
        lambda: T.mish(torch.randn(1024, 1024)),
    ):
        for mode in (contextlib.nullcontext, trident.enabled):
            with route.forced("auto"), mode(), heard() as names:
                call()
            assert names


def test_whoever_watches_hears_of_small_calls():
    decisions = []
    with watching(lambda *decision: decisions.append(decision[::2])), route.forced("auto"):
        T.mish(torch.randn(4))
    assert decisions == [("mish", f"faster in torch below {crossover.size('mish', HOW)} elements")]


def test_bad_calls_are_explained_by_torch():
    for call in (lambda: T.softmax(), lambda: T.silu(3), lambda: T.gelu(torch.ones(2), approximate="what")):
        with route.forced("auto"), pytest.raises((TypeError, RuntimeError)):
            call()


def test_contracts():
    """By position, as far as torch has the same order; by name, what both have."""
    F = torch.nn.functional
    rms_norm = door.common("rms_norm", T.rms_norm, F.rms_norm)
    assert rms_norm[:2] == (4, {"input", "normalized_shape", "weight", "eps"})
    assert rms_norm.ours == {"bias": None, "p": 1.0, "residual": None}
    assert door.common("gelu", T.gelu, F.gelu) == (1, {"input", "approximate"}, {})
    assert door.common("sum", T.sum, torch.sum) == door.ANYTHING
    assert door.common("max_pool2d", T.max_pool2d, F.max_pool2d).names >= {"kernel_size", "return_indices"}
