"""The pointwise plans of a GPU, run by whatever executor this machine has: tiles and walks must not change results."""

import functools

import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE, close, double, gradients_of, make, run, same
from trident.cases import CASES
from trident.ops import _resample
from trident.runtime import tuning

pytestmark = pytest.mark.once

PLANS = ("flat", "flat_groups", "bands", "plane_rows", "plane_tiles", "line_parts", "lines", "resampled")
NAMES = ("gelu", "glu", "glu.channels", "glu.first", "huber_loss", "kl_div.none", "prelu", "prelu.channels")
NAMES += ("interpolate", "interpolate.bilinear", "interpolate.bicubic_less", "interpolate.trilinear", "pad")
NAMES += ("batch_norm", "batch_norm.silu_residual", "group_norm", "group_norm.silu", "group_norm.long")


def gpu_plans(monkeypatch, multiprocessors):
    def on_gpu(heuristic, *args):
        return heuristic.__wrapped__(*(torch.device("cuda") if isinstance(a, torch.device) else a for a in args))

    monkeypatch.setattr(tuning, "multiprocessors", lambda device: multiprocessors)
    for name in PLANS:
        monkeypatch.setattr(tuning, name, functools.partial(on_gpu, getattr(tuning, name)))
    # it keeps the plans that it has asked for
    monkeypatch.setattr(_resample, "_geometry", functools.partial(on_gpu, _resample._geometry))


@pytest.mark.parametrize("multiprocessors", (1, 132))  # few: programs walk far
@pytest.mark.parametrize("name", NAMES)
def test_equals_float64(monkeypatch, name, multiprocessors):
    gpu_plans(monkeypatch, multiprocessors)
    case = CASES[name]
    for shape in case.shapes[2:] or case.shapes:
        inputs = make(case, shape, torch.float32)
        actual = run(case.ours, inputs)
        expected = run(case.reference, double(inputs), gradients_of(actual[0]))
        close(actual, expected, torch.float32, case.reduced(shape))


@pytest.mark.parametrize("name", ("dropout", "alpha_dropout", "dropout2d", "feature_alpha_dropout", "rrelu"))
def test_random_numbers_do_not_depend_on_the_launch(monkeypatch, name):
    options = {"training": True}
    for x in (torch.randn(9, 7, 33, 5), torch.randn(9, 7, 33, 5).contiguous(memory_format=torch.channels_last)):
        x = x.to(DEVICE).requires_grad_()
        expected = run(lambda x: getattr(T, name)(x, **options), [x])
        with monkeypatch.context() as patched:
            gpu_plans(patched, 2)
            same(run(lambda x: getattr(T, name)(x, **options), [x]), expected)


@pytest.mark.parametrize("call", (lambda x: T.pad(x, (1, 2, 0, 1), "reflect"), lambda x: T.interpolate(x, size=(4, 9))))
def test_resampling_is_planned_as_for_a_gpu(monkeypatch, call):
    """Its plans are cached by shape: the ones above must not be a CPU's."""
    x, noted = torch.randn(2, 3, 5, 7, device=DEVICE), []
    call(x)
    gpu_plans(monkeypatch, 2)
    monkeypatch.setattr(_resample, "launch", lambda kernel, grid, *args, **meta: noted.append(meta))
    call(x)
    assert noted and all("num_warps" in meta for meta in noted)
