"""What the laws do not ask of max pooling: which of several equal elements wins, NaN, windows of -inf, odd geometry."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F

import trident.functional as T
from tests.test_laws import DEVICE, Recorder, gradients, same
from trident.runtime import route

pytestmark = pytest.mark.once

PLANES = {
    "ties": torch.zeros(2, 3, 9, 11),
    "two values": torch.arange(2 * 3 * 9 * 11).remainder(2).view(2, 3, 9, 11).float(),
    "zeros of both signs": torch.arange(2 * 3 * 9 * 11).remainder(2).view(2, 3, 9, 11).mul(-0.0),
    "-inf": torch.full((2, 3, 9, 11), -math.inf),
    "inf": torch.full((2, 3, 9, 11), math.inf),
    "nan": torch.full((2, 3, 9, 11), math.nan),
}
GEOMETRY = [
    {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation, "ceil_mode": ceil}
    for kernel, stride, padding, dilation, ceil in itertools.product(
        (1, 2, 3, (2, 3)), (1, 2, (3, 2)), (0, 1), (1, 2, (1, 3)), (False, True)
    )
    if padding == 0 or (kernel if isinstance(kernel, int) else min(kernel)) >= 2 * padding
]


def planted(value: float) -> torch.Tensor:
    """Noise with `value` in corners and in the middle: in windows of one, of several, next to each other."""
    x = torch.randn(2, 3, 9, 11)
    x[0, 0, 0, 0] = x[0, 1, -1, -1] = x[1, 2, 4, 5] = x[1, 2, 4, 6] = value
    return x


def agree(function: str, x: torch.Tensor, **options) -> None:
    """Values, indices and the gradient are torch's, to the last bit."""
    x = x.to(DEVICE).requires_grad_()
    with Recorder() as recorder:
        ours = getattr(T, function)(x, return_indices=True, **options)
    assert recorder.calls
    theirs = getattr(F, function)(x, return_indices=True, **options)
    same(list(ours), list(theirs))
    dy = torch.arange(1.0, ours[0].numel() + 1, device=DEVICE).view(ours[0].shape)  # exact in any order of a sum
    same(gradients(ours[0], [x], [dy]), gradients(theirs[0], [x], [dy]))


@pytest.mark.parametrize("name", PLANES)
@pytest.mark.parametrize("function", ("max_pool2d", "adaptive_max_pool2d"))
def test_planes_of_one_kind(function, name):
    options = {"output_size": (4, 3)} if function.startswith("adaptive") else {"kernel_size": 3, "stride": 2}
    agree(function, PLANES[name], **options)


@pytest.mark.parametrize("value", (math.nan, math.inf, -math.inf))
def test_one_special_number(value):
    agree("max_pool2d", planted(value), kernel_size=3, stride=2, padding=1)
    agree("max_pool2d", planted(value), kernel_size=2, stride=1, dilation=2, ceil_mode=True)
    agree("adaptive_max_pool2d", planted(value), output_size=(4, 3))
    agree("max_pool1d", planted(value)[0], kernel_size=3, stride=1, padding=1)
    agree("max_pool3d", planted(value), kernel_size=2, stride=1, padding=1)


@pytest.mark.parametrize("options", GEOMETRY, ids=lambda options: "-".join(map(str, options.values())))
def test_geometry(options):
    """Every combination of kernel, stride, padding, dilation and ceil_mode on few different values, so with ties."""
    agree("max_pool2d", torch.randn(2, 9, 11).round(), **options)


def test_a_window_that_begins_past_the_input_is_dropped():
    """ceil_mode rounds up only where a window begins inside the input or its left padding."""
    x = torch.randn(1, 1, 7, 7, device=DEVICE)
    for kernel, stride, padding in ((2, 5, 1), (1, 4, 0), (3, 6, 1), (2, 3, 1)):
        assert T.max_pool2d(x, kernel, stride, padding, 1, True).shape == (
            F.max_pool2d(x, kernel, stride, padding, 1, True).shape
        )
        agree("max_pool2d", x, kernel_size=kernel, stride=stride, padding=padding, ceil_mode=True)


@pytest.mark.skipif(DEVICE != "cpu", reason="torch's gradients were measured faster on CPUs alone")
@pytest.mark.parametrize(
    ("function", "shape", "size"),
    [
        ("max_pool1d", (4, 32, 1024), (3, 2, 1)),
        ("max_pool2d", (2, 16, 64, 65), ((2, 3), 2, 1, 1, True)),
        ("max_pool3d", (2, 8, 16, 24, 24), (3, 2, 1)),
    ],
)
def test_gradient_of_torch(function, shape, size, monkeypatch):
    """Where speed is asked about, dx comes from torch's own loop over the indices that the kernel found."""
    x = torch.randn(shape, device=DEVICE)
    results, asked = [], {}
    monkeypatch.setattr(route, "WATCHERS", [lambda name, tensors, reason: asked.update({name: reason})])
    for f in (getattr(T, function), getattr(F, function)):
        leaf = x.clone().requires_grad_()
        with route.forced("auto"):
            y = f(leaf, *size)
            y.backward(torch.arange(y.numel(), device=DEVICE).view_as(y).to(y.dtype))
        results.append((y.detach(), leaf.grad))
    assert [reason is not None for name, reason in asked.items()] == [False, True], asked
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours, theirs) and ours.stride() == theirs.stride()
