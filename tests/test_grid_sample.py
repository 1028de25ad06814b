"""grid_sample's gradients: both ways of adding taps, every mode, padding and layout, places that are no numbers."""

import math

import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE, Recorder, close, same
from trident.ops import _grid_sample, _turned
from trident.runtime import route
from trident.runtime.tuning import TRACED

F = torch.nn.functional
MODES, PADDINGS = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
SHAPES = ((2, 3, 3, 4), (1, 1, 1, 4), (2, 17, 4, 3), (1, 2, 2, 3, 2), (1, 9, 2, 3, 1))


@pytest.fixture(params=("as planned", "sorted"))
def way(request, monkeypatch):
    """On CPUs the second is the way that GPUs take."""
    if request.param == "sorted":
        monkeypatch.setattr(_grid_sample.tuning_conv, "added_taps", lambda *args: TRACED)


def drawn(shape, dtype=torch.float32):
    torch.manual_seed(0)
    places = [n + 1 for n in shape[2:]]
    x = torch.randn(shape, device=DEVICE).to(dtype)
    grid = torch.rand(shape[0], *places, len(places), device=DEVICE) * 3 - 1.5
    return x.requires_grad_(), grid.to(dtype).requires_grad_()


def names(recorder):
    return {func.__name__.split(".")[0] for func, _ in recorder.calls}


def gradients(fn, x, grid, dy, *how):
    return torch.autograd.grad(fn(x, grid, *how), (x, grid), dy)


@pytest.mark.once
@pytest.mark.parametrize(
    "mode, shape", [(m, s) for m in MODES for s in SHAPES if m != "bicubic" or len(s) == 4], ids=str
)
@pytest.mark.parametrize("padding", PADDINGS)
def test_gradients(way, mode, padding, shape):
    x, grid = drawn(shape)
    dy = torch.randn_like(F.grid_sample(x, grid, align_corners=False))
    for aligned in (True, False):
        with Recorder() as recorder:
            found = gradients(T.grid_sample, x, grid, dy, mode, padding, aligned)
        assert {"grid_sample", "grid_sample_dx"} <= names(recorder)
        X, G = (t.detach().double().requires_grad_() for t in (x, grid))
        close(found, gradients(F.grid_sample, X, G, dy.double(), mode, padding, aligned), torch.float32, 64 * x.numel())
        same(found, gradients(T.grid_sample, x, grid, dy, mode, padding, aligned))


@pytest.mark.once
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("mode", MODES)
def test_places_that_are_no_numbers(way, mode, padding):
    """They change nothing elsewhere; torch's own gradient reads what is no image's then (2.13, CPU: a fault)."""
    x, grid = drawn((1, 9, 4, 5))
    with torch.no_grad():
        whole = grid.clone()
        for i, value in enumerate((math.nan, math.inf, -math.inf, 1e20, -1e20)):
            grid[0, 0, i, i % 2] = value
            whole[0, 0, i] = 9.0  # far outside
    dy = torch.randn(1, 9, *grid.shape[1:3], device=DEVICE)
    dx, dgrid = gradients(T.grid_sample, x, grid, dy, mode, padding, False)
    assert dx.isfinite().all() and dgrid.isfinite().all()
    if (mode, padding) != ("bicubic", "reflection"):  # four taps somewhere: torch's is NaN
        there = dgrid[0, 0, range(5), [i % 2 for i in range(5)]]
        assert there.abs().max() < 1e-5  # bicubic: of four equal taps, whose slopes add up to nothing
    _, expected = gradients(T.grid_sample, x, whole.requires_grad_(), dy, mode, padding, False)
    same(dgrid[0, 1:], expected[0, 1:])
    if padding == "zeros":
        dy[0, :, 0, :5] = 0
        same(dx, gradients(T.grid_sample, x, whole, dy, mode, padding, False)[0])


def test_one_gradient_alone():
    x, grid = drawn((2, 17, 7, 9))
    dy = torch.randn_like(F.grid_sample(x, grid, align_corners=False))
    both = gradients(T.grid_sample, x, grid, dy, "bilinear", "zeros", False)
    for k in (0, 1):
        inputs = [t.detach().requires_grad_(i == k) for i, t in enumerate((x, grid))]
        same(torch.autograd.grad(T.grid_sample(*inputs, "bilinear", "zeros", False), inputs[k], dy), [both[k]])


@pytest.mark.parametrize("shape", ((2, 17, 7, 9), (2, 3, 7, 9), (1, 9, 3, 4, 5)), ids=str)
def test_channels_last(shape):
    """What lies so has a gradient that lies so, of the same bits."""
    x, grid = drawn(shape)
    form = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    dy = torch.randn_like(F.grid_sample(x, grid, align_corners=False))
    found = gradients(T.grid_sample, x, grid, dy, "bilinear", "border", True)
    last = x.detach().contiguous(memory_format=form).requires_grad_()
    again = gradients(T.grid_sample, last, grid, dy.contiguous(memory_format=form), "bilinear", "border", True)
    same(found, again)
    assert again[0].is_contiguous(memory_format=form)


@pytest.mark.skipif(DEVICE != "cpu", reason="only CPUs take some images at a time, and torch's forward")
def test_some_images_at_a_time(monkeypatch):
    x, grid = drawn((5, 17, 7, 9))
    dy = torch.randn_like(F.grid_sample(x, grid, align_corners=False))
    expected = gradients(T.grid_sample, x, grid, dy, "bilinear", "zeros", False)
    monkeypatch.setattr(_grid_sample.tuning_conv, "images_at_once", lambda *args: 2)
    same(gradients(T.grid_sample, x, grid, dy, "bilinear", "zeros", False), expected)
    with route.forced("auto"):
        name = _grid_sample._kind(x, grid, "bilinear")
        monkeypatch.setattr(route.crossover, "faster_in_torch", lambda asked, *args: None if asked == name else "slow")
        with Recorder() as recorder:
            found = gradients(_grid_sample.grid_sample, x, grid, dy, "bilinear", "zeros", False)
    assert "grid_sample_dx" in names(recorder) and "grid_sample" not in names(recorder)
    same(found, expected)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float64))
def test_turned(dtype):
    for shape in ((2, 16, 1111), (1, 33, 1000), (3, 5, 7), (1, 1000, 33)):
        x = torch.randn(shape, device=DEVICE).to(dtype)
        x[0, 0, 0], x[-1, -1, -1] = math.nan, math.inf
        same(_turned.turned(x), x.transpose(1, 2).contiguous())


def test_no_elements():
    x, grid = torch.randn(2, 0, 4, 5, device=DEVICE, requires_grad=True), torch.zeros(2, 3, 3, 2, device=DEVICE)
    assert T.grid_sample(x, grid, align_corners=False).shape == F.grid_sample(x, grid, align_corners=False).shape
    for places in ((0, 3), (3, 0)):
        x, grid = torch.randn(2, 3, 4, 5, device=DEVICE, requires_grad=True), torch.zeros(2, *places, 2, device=DEVICE)
        y = T.grid_sample(x, grid.requires_grad_(), align_corners=False)
        found = torch.autograd.grad(y.sum(), (x, grid))
        assert y.shape == (2, 3, *places) and not found[0].any() and found[1].shape == grid.shape
