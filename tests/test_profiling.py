"""`trident.profile()` lists what was called, where it went, and costs nothing afterwards."""

import pytest
import torch

import trident
import trident.functional as T
from trident.functional import softmax
from trident.ops import _layer_norm
from trident.runtime import route

pytestmark = pytest.mark.once


def block(x):
    w = torch.randn(x.shape[-1], requires_grad=True)
    T.layer_norm(x, (x.shape[-1],), w).sum().backward()
    return softmax(x, -1)


def test_calls_are_listed_with_shapes_and_place():
    x = torch.randn(33, 64)
    with trident.profile() as p:
        block(x)
        with route.forced("torch"):
            block(x)
        T.layer_norm(x[:7], (64,))
    found = {(call.name, call.shapes[0]): (call.where, count) for call, count in ((c, len(t)) for c, t in p.rows())}
    assert {name for name, _ in found} == {"layer_norm", "layer_norm_backward", "softmax"}
    wheres = sorted(call.where for call in p.calls if call.name == "softmax")
    assert wheres == ["kernel (native)", "torch: TRIDENT_ROUTE=torch"] or trident.runtime.launch.INTERPRETED
    assert all(call.seconds > 0 and call.device_seconds is None and call.dtype == torch.float32 for call in p.calls)
    table = str(p).splitlines()
    assert len(table) == 1 + len(p.rows()) and "33x64" in str(p) and "torch: TRIDENT_ROUTE=torch" in str(p)


def test_a_call_within_a_call_counts_with_it():
    x = torch.randn(5, 32)
    with trident.profile() as p:
        T.masked_softmax(x, x > 0, -1)
        torch.nn.functional.softmax(x, -1)
    assert [call.name for call in p.calls] == ["masked_softmax"]


def test_nothing_is_left_behind():
    before = (T.softmax, softmax, _layer_norm._backward, list(route.WATCHERS))
    try:
        with trident.profile():
            assert T.softmax is not before[0] and _layer_norm._backward is not before[2]
            raise KeyError
    except KeyError:
        pass
    assert (T.softmax, softmax, _layer_norm._backward, list(route.WATCHERS)) == before


def test_a_failing_call_is_still_raised():
    with trident.profile() as p:
        for _ in range(2):
            try:
                T.layer_norm(torch.randn(2, 3), (4,))
            except RuntimeError:
                continue
            raise AssertionError("a bad shape was accepted")
        block(torch.randn(2, 3))
    assert {call.name for call in p.calls} >= {"layer_norm", "softmax"}


def test_torch_profiler_has_named_ranges():
    x = torch.randn(5, 32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as inner, trident.profile():
        block(x)
    names = {event.key for event in inner.key_averages()}
    assert {"trident::layer_norm", "trident::layer_norm_backward", "trident::softmax"} <= names
