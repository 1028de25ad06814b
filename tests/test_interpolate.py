"""What the laws do not ask of interpolate: sizes of one, corners, rounding of scale factors, every ratio."""

import pytest
import torch
import torch.nn.functional as F

import trident.functional as T
from tests.test_laws import DEVICE, close, double, gradients_of, run, same

pytestmark = pytest.mark.once

MODES = {"nearest": 1, "nearest-exact": 1, "linear": 1, "bilinear": 2, "bicubic": 2, "trilinear": 3, "area": 2}
SMOOTH = ("linear", "bilinear", "bicubic", "trilinear")


def agree(x: torch.Tensor, **options) -> None:
    """Within rounding of float64; where torch picks an element, the same one."""
    x = x.to(DEVICE).requires_grad_()
    actual = run(lambda x: T.interpolate(x, **options), [x])
    if options["mode"].startswith("nearest"):
        same(actual[0], F.interpolate(x, **options))
    dy = [g.double() for g in gradients_of(actual[0])]
    exact = run(lambda x: F.interpolate(x, **options), double([x]), dy)
    close(actual, exact, torch.float32, max(64, x.numel()))


def noise(mode: str, size: int) -> torch.Tensor:
    return torch.randn(2, 3, *[size] * MODES[mode])


@pytest.mark.parametrize("corners", (None, False, True))
@pytest.mark.parametrize("mode", MODES)
def test_one_element_in_or_out(mode, corners):
    """align_corners divides by size - 1."""
    if corners is not None and mode not in SMOOTH:
        with pytest.raises(ValueError):
            T.interpolate(noise(mode, 2), size=3, mode=mode, align_corners=corners)
        return
    for before, after in ((1, 1), (1, 5), (5, 1), (2, 2), (2, 3), (3, 2)):
        agree(noise(mode, before), size=(after,) * MODES[mode], mode=mode, align_corners=corners)


@pytest.mark.parametrize("recompute", (None, True))
@pytest.mark.parametrize("mode", MODES)
def test_scale_factors_round_as_torch(mode, recompute):
    """Sizes are floors of products, and positions follow the factor as given, not the sizes' ratio."""
    for scale in (0.3, 1 / 3, 0.5, 0.7, 0.999, 1.0, 1.1, 4 / 3, 2.0, 2.7, 10 / 3):
        if mode == "area" and recompute is None and scale != 0.5:
            continue  # windows of area pooling are the sizes' alone: one factor says all
        agree(noise(mode, 10), scale_factor=scale, mode=mode, recompute_scale_factor=recompute)


@pytest.mark.parametrize("mode", ("nearest", "nearest-exact"))
def test_nearest_at_every_ratio(mode):
    """Which element is nearest is decided in float32, as torch decides it for planes and on GPUs: exact halves, thirds,
    sevenths. (Its one-dimensional "nearest-exact" on CPUs fuses a multiplication and gives another neighbour in 3 of
    2301 ratios of 1 to 39 and 1 to 59 elements.)"""
    x = torch.arange(2.0 * 2 * 23).view(1, 2, 2, 23).to(DEVICE)
    for before in (1, 2, 3, 7, 12, 23):
        for after in range(1, 48):
            part = x[..., :before]
            same(T.interpolate(part, size=(2, after), mode=mode), F.interpolate(part, size=(2, after), mode=mode))


def test_corners_keep_the_corners():
    x = torch.randn(1, 2, 5, 4, device=DEVICE)
    for mode in ("bilinear", "bicubic"):
        y = T.interpolate(x, size=(9, 13), mode=mode, align_corners=True)
        torch.testing.assert_close(y[..., :: y.shape[-2] - 1, :: y.shape[-1] - 1], x[..., ::4, ::3])
