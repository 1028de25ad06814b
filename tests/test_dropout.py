"""What is peculiar to dropout: which numbers are drawn, and that the backward draws the same ones."""

import math

import pytest
import torch
import triton
import triton.language as tl

import trident.functional as T
from tests.test_laws import DEVICE, same
from trident.lang.random import random4
from trident.runtime.launch import INTERPRETED, launch

CHANNELS = {"dropout1d": (64, 96, 3), "dropout2d": (64, 96, 2, 3), "dropout3d": (64, 96, 2, 1, 3)}
MASK = 2**32 - 1


def philox(key: int, counter: int, rounds: int = 7) -> list[int]:
    """Philox4x32 in Python's integers, as published."""
    c, k = [counter & MASK, counter >> 32, 0, 0], [key & MASK, key >> 32]
    for _ in range(rounds):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [b >> 32 ^ c[1] ^ k[0], b & MASK, a >> 32 ^ c[3] ^ k[1], a & MASK]
        k = [k[0] + 0x9E3779B9 & MASK, k[1] + 0xBB67AE85 & MASK]
    return c


@triton.jit
def _random_kernel(out, seed, counters, N: tl.constexpr):
    at = tl.arange(0, N)
    random = random4(seed, tl.load(counters + at))
    for i in tl.static_range(4):
        tl.store(out + 4 * at + i, random[i].to(tl.int64))


def test_philox_as_published():
    """The known answer of the Random123 distribution, and counters beyond 2^32."""
    assert philox(0, 0) == [0x5F6FB709, 0x0D893F64, 0x4F121F81, 0x4F730A48]
    counters = torch.tensor([0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**40 + 7, 2**62], device=DEVICE)
    for key in (0, 0x0123456789ABCDEF):
        out = torch.empty(8, 4, dtype=torch.int64, device=DEVICE)
        launch(_random_kernel, (1,), out, torch.tensor([key], device=DEVICE), counters, N=8)
        assert out.tolist() == [philox(key, c) for c in counters.tolist()]


@pytest.mark.parametrize("p", (0.1, 0.5, 0.93))
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float64), ids=str)
def test_keeps_the_right_share_scaled_exactly(p, dtype):
    n = 65537
    torch.manual_seed(0)
    y = T.dropout(torch.ones(n, dtype=dtype, device=DEVICE), p)
    kept = y != 0
    assert abs(kept.sum().item() - n * (1 - p)) < 5 * math.sqrt(n * p * (1 - p))
    # Triton's interpreter truncates to bfloat16; what runs in earnest rounds
    slack = torch.finfo(dtype).eps if INTERPRETED and dtype == torch.bfloat16 else 0
    exact = torch.full_like(y[kept], 1 / (1 - p))
    torch.testing.assert_close(y[kept], exact, rtol=slack, atol=0)


@pytest.mark.parametrize("lag", (1, 2, 3, 4, 16, 1000, 16400))
def test_places_are_independent(lag):
    """Chi-square of the joint counts of an element and another one, within and across the words of a counter."""
    n, p = 65600, 0.3  # a quarter is 16400
    torch.manual_seed(3)
    k = (T.dropout(torch.ones(n, device=DEVICE), p) != 0).long()
    pairs = (2 * k[:-lag] + k[lag:]).bincount(minlength=4).double().cpu()
    expected = torch.tensor([p * p, p * (1 - p), p * (1 - p), (1 - p) ** 2], dtype=torch.float64) * (n - lag)
    assert ((pairs - expected) ** 2 / expected).sum() < 30  # 4 cells; chance of more: 1e-6


def test_calls_are_independent_and_reproducible():
    x = torch.ones(65536, device=DEVICE)
    torch.manual_seed(0)
    first, second = T.dropout(x), T.dropout(x)
    torch.manual_seed(0)
    same(T.dropout(x), first)
    both = ((first != 0) & (second != 0)).sum().item()
    assert abs(both - 16384) < 5 * math.sqrt(65536 * 0.25 * 0.75)


@pytest.mark.parametrize("layout", ("contiguous", "channels_last", "sliced", "expanded gradient"))
@pytest.mark.parametrize("name", ("dropout", "dropout2d", "alpha_dropout", "feature_alpha_dropout"))
def test_backward_draws_the_mask_of_the_forward(name, layout):
    x = torch.rand(4, 6, 5, 7, device=DEVICE) + 1
    if layout == "channels_last":
        x = x.contiguous(memory_format=torch.channels_last)
    if layout == "sliced":
        x = torch.cat([x, x], -1)[..., 7:]
    x.requires_grad_()
    y = getattr(T, name)(x, 0.4, True)
    dy = torch.ones((), device=DEVICE).expand(y.shape) if layout == "expanded gradient" else torch.rand_like(x)
    (dx,) = torch.autograd.grad(y, x, dy, retain_graph=True)
    scale = 1 / 0.6
    if "alpha" in name:
        scale = 1 / math.sqrt((1.7580993408473766**2 * 0.4 + 1) * 0.6)
    kept = y > 0  # what alpha dropout drops is negative
    assert 0 < kept.sum() < y.numel()
    torch.testing.assert_close(dx, torch.where(kept, dy * scale, 0))
    # and its own gradient, where it is asked for
    dy = dy.clone().requires_grad_()
    (dx,) = torch.autograd.grad(y, x, dy, create_graph=True)
    torch.testing.assert_close(torch.autograd.grad(dx.sum(), dy)[0], torch.where(kept, scale, 0.0))


@pytest.mark.parametrize("unbatched", (False, True))
@pytest.mark.parametrize("name", CHANNELS)
def test_drops_whole_channels(name, unbatched):
    shape, spatial = CHANNELS[name], len(CHANNELS[name]) - 2
    if unbatched:
        if name == "dropout2d":
            pytest.skip("torch takes 3 axes as [B, C, L] and warns")
        shape = (6144, *shape[2:])
    ones = torch.ones(shape, device=DEVICE)
    for x in (ones, ones.mT.contiguous().mT, ones.movedim(-1, 0).contiguous().movedim(0, -1)):
        y = getattr(T, name)(x, 0.25).flatten(-spatial)
        assert (y == y[..., :1]).all()
        kept = (y[..., 0] != 0).sum().item()
        assert abs(kept - 6144 * 0.75) < 5 * math.sqrt(6144 * 0.25 * 0.75)
        assert ((y == 0) | (y == 1 / 0.75)).all()


def test_channels_are_dropped_alike_in_every_memory_format():
    x = torch.rand(4, 6, 5, 7, device=DEVICE)
    torch.manual_seed(0)
    expected = T.dropout2d(x, 0.4)
    for other in (x.contiguous(memory_format=torch.channels_last), x.mT.contiguous().mT):
        torch.manual_seed(0)
        same(T.dropout2d(other, 0.4), expected)


@pytest.mark.parametrize("name", ("alpha_dropout", "feature_alpha_dropout"))
def test_alpha_dropout_keeps_mean_and_variance(name):
    torch.manual_seed(0)
    x = torch.randn(1000, 70, 1, device=DEVICE)  # channels of one element
    y = getattr(T, name)(x, 0.3, True)
    assert abs(y.mean().item()) < 0.03 and abs(y.var().item() - 1) < 0.03
    alpha, p = 1.7580993408473766, 0.3
    a = 1 / math.sqrt((alpha**2 * p + 1) * (1 - p))
    dropped = -alpha * a + a * alpha * p
    kept = (y - dropped).abs() > 1e-6
    assert abs(kept.float().mean().item() - 0.7) < 0.03
    torch.testing.assert_close(y[kept], x[kept] * a + a * alpha * p)


@pytest.mark.parametrize("name", ("dropout", "dropout1d", "alpha_dropout", "feature_alpha_dropout"))
def test_nothing_to_draw(name):
    """As torch: the input itself when nothing can be dropped; zeros when everything is; in place when asked."""
    f, reference = getattr(T, name), getattr(torch.nn.functional, name)
    x = torch.randn(3, 4, 5, device=DEVICE)
    state = torch.get_rng_state()
    assert f(x, 0.0, True) is x or f(x, 0.0, True).data_ptr() == x.data_ptr()
    assert f(x, 0.5, False).data_ptr() == x.data_ptr()
    same(f(x, 1.0, True), reference(x, 1.0, True))
    same(torch.get_rng_state(), state)
    z = x.clone()
    assert f(z, 0.5, True, True) is z


def test_infinity_dropped_is_nan():
    y = T.dropout(torch.full((1000,), math.inf, device=DEVICE))
    assert (y.isnan() | y.isposinf()).all() and y.isnan().any() and y.isposinf().any()
