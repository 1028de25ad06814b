"""The pointwise plans of a GPU, run by whatever executor this machine has: tiles and walks must not change results."""

import functools
from collections.abc import Callable

import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE, close, double, gradients_of, make, run, same
from trident.cases import CASES
from trident.cases.case import EVERYTHING
from trident.inspect import watch
from trident.ops import _resample
from trident.runtime import launch, tuning, tuning_conv, tuning_planes

pytestmark = pytest.mark.once

PLANS = [(tuning, name) for name in ("flat", "flat_groups", "bands", "lines", "resampled")]
PLANS += [(tuning_planes, name) for name in ("plane_rows", "plane_tiles", "line_parts", "part_lines")]
NAMES = ("gelu", "glu", "glu.channels", "glu.first", "huber_loss", "kl_div.none", "prelu", "prelu.channels")
NAMES += ("interpolate", "interpolate.bilinear", "interpolate.bicubic_less", "interpolate.trilinear", "pad")
NAMES += ("batch_norm", "batch_norm.silu_residual", "group_norm", "group_norm.silu", "group_norm.long")


def gpu_plans(monkeypatch, multiprocessors):
    def on_gpu(heuristic, *args):
        return heuristic.__wrapped__(*(torch.device("cuda") if isinstance(a, torch.device) else a for a in args))

    monkeypatch.setattr(tuning, "multiprocessors", lambda device: multiprocessors)
    for module, name in PLANS:
        monkeypatch.setattr(module, name, functools.partial(on_gpu, getattr(module, name)))
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


# rows of W elements: what divides them is told to the compiler (`tuning.aligned`), and must be so
LENGTHS = (4, 12, 24, 33, 112) if EVERYTHING else (12, 24, 33, 112)  # 4 divides 12, too
HINTED: dict[str, Callable[[int], tuple[int, ...]]] = {
    **dict.fromkeys(("sum.two", "mean", "var.two", "amax", "norm.3", "std", "min"), lambda W: (2, 3, 5, W)),
    **dict.fromkeys(("softmax", "log_softmax", "masked_softmax", "normalize", "gumbel_softmax.hard"), lambda W: (5, W)),
    **dict.fromkeys(("layer_norm", "rms_norm", "rms_norm.partial"), lambda W: (5, W)),
    **dict.fromkeys(("cross_entropy", "cross_entropy.q", "nll_loss", "triplet_margin_loss"), lambda W: (5, W)),
    **dict.fromkeys(("multi_margin_loss", "multilabel_margin_loss", "shift_gelu", "prelu.channels"), lambda W: (5, W)),
    **{"cross_entropy.maps": lambda W: (2, 3, 3, W), "softmax.0": lambda W: (5, 2, W), "glu": lambda W: (5, 2 * W)},
    **{"masked_softmax.1": lambda W: (2, 3, 5, W), "prelu": lambda W: (5 * W,)},
    **dict.fromkeys(("one_hot", "embedding", "embedding_bag", "embedding_bag.sum"), lambda W: (7, W)),
    **dict.fromkeys(("bilinear", "linear_cross_entropy.all", "linear_cross_entropy.none"), lambda W: (5, W)),
    **dict.fromkeys(("pixel_shuffle", "interpolate", "interpolate.bilinear", "pad"), lambda W: (2, 8, 3, W)),
    **dict.fromkeys(("interpolate.exact_space", "interpolate.nearest_space"), lambda W: (1, 2, 2, 3, W)),
    **{"pixel_shuffle.three": lambda W: (1, 18, 3, W), "channel_shuffle": lambda W: (2, 6, 5, W)},
    "pixel_unshuffle": lambda W: (2, 3, 6, 2 * W),
    **dict.fromkeys(("batch_norm", "instance_norm", "group_norm", "group_norm.silu"), lambda W: (2, 6, 3, W)),
    "local_response_norm": lambda W: (2, 6, 3, W),
    "group_norm.long": lambda W: (2, 6, 200, W),
    **dict.fromkeys(("max_pool1d", "avg_pool1d", "lp_pool1d", "adaptive_avg_pool1d"), lambda W: (2, 3, 2 * W)),
    **dict.fromkeys(("adaptive_max_pool1d", "adaptive_avg_pool1d.more", "max_unpool1d"), lambda W: (2, 3, W)),
    **dict.fromkeys(("max_pool2d", "max_pool2d.halves", "avg_pool2d", "avg_pool2d.own"), lambda W: (2, 3, 5, W)),
    **dict.fromkeys(("adaptive_avg_pool2d", "adaptive_max_pool2d"), lambda W: (2, 3, 7, W)),
    "max_pool2d.indices": lambda W: (2, 3, 7, 2 * W),
    **dict.fromkeys(("adaptive_avg_pool2d.more", "max_unpool2d"), lambda W: (2, 3, 4, W)),
    **dict.fromkeys(("adaptive_avg_pool3d", "max_unpool3d", "max_pool3d"), lambda W: (1, 2, 4, 5, W)),
    **dict.fromkeys(("conv2d", "conv2d.silu"), lambda W: (2, 3, 3, W)),
    **{"conv2d.depthwise": lambda W: (2, 6, 3, W), "conv2d.depthwise_stride": lambda W: (2, 6, 5, 2 * W)},
}


def close_as_planned_for_gpus(case, shape, inputs, dtype=torch.float32):
    with watch.planned_for_gpus(launch.launch, case.ours.__module__):
        actual = run(case.ours, inputs)
    expected = run(case.reference, double(inputs), gradients_of(actual[0]))
    close(actual, expected, dtype, case.reduced(shape))


@pytest.mark.parametrize("name", HINTED)
def test_what_divides_rows_is_so(name):
    case = CASES[name]
    for W in LENGTHS:
        shape = HINTED[name](W)
        close_as_planned_for_gpus(case, shape, make(case, shape, torch.float32))


@pytest.mark.parametrize(
    "name",
    ("softmax", "masked_softmax", "normalize", "layer_norm", "rms_norm.bias", "cross_entropy", "gumbel_softmax.hard"),
)
def test_what_divides_long_rows_is_so(name):
    """Of rows that no program holds, which are walked in chunks."""
    case, shape = CASES[name], (2, 65548)
    close_as_planned_for_gpus(case, shape, make(case, shape, torch.float32))


@pytest.mark.parametrize("K", (2, 3, 4, 6, 7, 18))
@pytest.mark.parametrize("name", ("max_pool2d", "avg_pool2d"))
def test_padded_windows_two_apart(name, K):
    """Pairs of gradients begin where segments do."""
    for P in range(1, K // 2 + 1):
        for W in (16, 33, 40):
            x = torch.randn(2, 3, 18, W, device=DEVICE).requires_grad_()
            ours, reference = (
                functools.partial(getattr(of, name), kernel_size=K, stride=2, padding=P)
                for of in (T, torch.nn.functional)
            )
            with watch.planned_for_gpus(launch.launch):
                actual = run(ours, [x])
            expected = run(reference, double([x]), gradients_of(actual[0]))
            close(actual, expected, torch.float32, K * K)


CHANNELS = (4, 8, 12, 16, 24, 36, 64) if EVERYTHING else (8, 12, 16, 24, 36)  # 12 and 16 stand for 4 and 64, too


@pytest.mark.parametrize(
    "name",
    ("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "interpolate", "max_pool2d", "batch_norm", "conv2d.silu"),
)
@pytest.mark.parametrize("C", CHANNELS)
def test_what_divides_channels_is_so(name, C):
    case = CASES[name]
    shape = (2, 3 * C if name == "channel_shuffle" else C, 4, 6)
    x, *rest = make(case, shape, torch.float32)
    x = x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    close_as_planned_for_gpus(case, shape, [x, *rest])


@pytest.mark.parametrize("stride", (1, 2))
@pytest.mark.parametrize("C", (12, 24))
def test_what_divides_channels_of_a_depthwise_convolution_is_so(C, stride):
    x = torch.randn(2, C, 5, 6, device=DEVICE).contiguous(memory_format=torch.channels_last).requires_grad_()
    inputs = [x, torch.randn(C, 1, 3, 3, device=DEVICE, requires_grad=True)]
    ours, reference = (
        functools.partial(of.conv2d, stride=stride, padding=1, groups=C) for of in (T, torch.nn.functional)
    )
    with watch.planned_for_gpus(launch.launch):
        actual = run(ours, inputs)
    close(actual, run(reference, double(inputs), gradients_of(actual[0])), torch.float32, 60)


@pytest.mark.parametrize("down", (False, True))
@pytest.mark.parametrize("name", ("conv1d", "conv2d", "conv2d.silu", "conv2d.groups", "conv_transpose2d", "conv3d"))
def test_tiles_of_convolutions_lie_either_way(monkeypatch, name, down):
    monkeypatch.setattr(tuning_conv, "TIES_GO_DOWN", down)
    case = CASES[name]
    for last in (False, True) if "2d" in name else (False,):
        inputs = make(case, case.shapes[0], torch.float32)
        if last:
            inputs[0] = inputs[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
        close_as_planned_for_gpus(case, case.shapes[0], inputs)


@pytest.mark.parametrize("name", ("conv2d.depthwise_stride", "avg_pool3d", "adaptive_max_pool3d", "linear"))
def test_float64_has_smaller_tiles(name):
    case = CASES[name]
    for shape in case.shapes[:2]:
        close_as_planned_for_gpus(case, shape, make(case, shape, torch.float64), torch.float64)


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
