"""What is peculiar to convolutions: fused activations, lazy layers, padding modes, tf32, GPU tiles."""

import functools

import pytest
import torch

import trident
from tests.test_laws import DEVICE, close, double, gradients_of, run
from trident import functional as T
from trident import nn
from trident.ops import _conv
from trident.ops._activation import ACTIVATIONS
from trident.runtime import route, tuning, tuning_conv, tuning_windows


def inputs(x, w, dtype=torch.float32):
    torch.manual_seed(0)
    made = torch.randn(x), torch.randn(w), torch.randn(w[0])
    return [t.to(DEVICE, dtype).requires_grad_() for t in made]


@pytest.mark.parametrize("policy", ("kernels", "auto"))
def test_fused_activation(policy):
    def reference(x, w, b):
        return ACTIVATIONS["gelu"].torch(torch.nn.functional.conv2d(x, w, b, 2, 1))

    given = inputs((2, 3, 9, 8), (4, 3, 3, 3))
    with route.forced(policy):
        actual = run(lambda *t: T.conv2d(*t, 2, 1, activation="gelu"), given)
    close(actual, run(reference, double(given), gradients_of(actual[0])), torch.float32, 160)


def test_unknown_activation():
    with pytest.raises(ValueError, match=r"conv1d: .*'swish'.*gelu"):
        T.conv1d(*inputs((2, 3, 9), (4, 3, 3)), activation="swish")


@pytest.mark.parametrize("part", ("(activation)", "(dx)", "(dw)"))
def test_parts_in_torch(monkeypatch, part):
    """Each part of a call may be torch's, as `crossover` asks for, and the others kernels."""
    asked = route.to_torch
    monkeypatch.setattr(route, "to_torch", lambda name, *t, **how: name.endswith(part) or asked(name, *t, **how))
    given = inputs((2, 4, 9, 8), (4, 2, 3, 3))
    actual = run(lambda x, w: T.conv_transpose2d(x, w, None, 2, 1, 1, activation="silu"), given[:2])

    def reference(x, w):
        return torch.nn.functional.silu(torch.nn.functional.conv_transpose2d(x, w, None, 2, 1, 1))

    close(actual, run(reference, double(given[:2]), gradients_of(actual[0])), torch.float32, 300)


LAZY = (
    *("LazyConv1d", "LazyConv2d", "LazyConv3d"),
    *("LazyConvTranspose1d", "LazyConvTranspose2d", "LazyConvTranspose3d"),
)


@pytest.mark.parametrize("name", LAZY)
def test_lazy_layers_become_ours(name):
    n, larger = int(name[-2]), "Transpose" in name
    layer = getattr(nn, name)(5, 2).to(DEVICE)
    y = layer(torch.randn(2, 3, *[4] * n, device=DEVICE))
    assert type(layer) is getattr(trident.nn, name.removeprefix("Lazy"))
    assert y.shape == (2, 5, *[5 if larger else 3] * n)


@pytest.mark.parametrize("mode", ("reflect", "replicate", "circular"))
def test_padding_modes(mode):
    theirs = torch.nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode=mode).to(DEVICE)
    ours = nn.Conv2d(3, 4, 3, padding=(1, 2), padding_mode=mode).to(DEVICE)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 6, 5, device=DEVICE)
    close([ours(x)], [theirs.double()(x.double())], torch.float32, 27)


def test_output_size():
    x = torch.randn(1, 3, 5, 6, device=DEVICE)
    layer = nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1).to(DEVICE)
    assert layer(x, output_size=[10, 11]).shape == (1, 2, 10, 11)
    with pytest.raises(ValueError, match="requested an output size"):
        layer(x, output_size=[12, 11])


def test_layer_with_activation():
    layer = nn.Conv1d(3, 4, 3, activation="relu").to(DEVICE)
    x = torch.randn(2, 3, 8, device=DEVICE)
    close([layer(x)], [torch.relu(torch.nn.functional.conv1d(x, layer.weight, layer.bias))], torch.float32, 9)
    assert "activation=relu" in repr(layer) and type(trident.restore(layer)) is nn.Conv1d


@pytest.mark.parametrize("device", ("cpu", "cuda"))
@pytest.mark.parametrize("allowed", (False, True))
def test_tf32_follows_torch(monkeypatch, device, allowed):
    launched = []
    monkeypatch.setattr(_conv, "launch", lambda *args, **meta: launched.append(meta["PRECISION"]))
    monkeypatch.setattr(tuning, "multiprocessors", lambda device: 132)
    with torch._subclasses.FakeTensorMode(), torch.backends.cudnn.flags(allow_tf32=allowed):
        x, w = torch.empty(2, 3, 8, 8, device=device), torch.empty(4, 3, 1, 1, device=device)
        how = (1, 1), (0, 0), (1, 1), 1
        _conv.convolved.__wrapped__(x, w, None, (8, 8), *how, False, False, None, False)
        _conv.correlated.__wrapped__(x.new_empty(2, 4, 8, 8), x, (1, 1), *how, False)
    assert launched == ["tf32" if allowed and device == "cuda" else "ieee"] * 2


@pytest.mark.parametrize("last", (False, True))
@pytest.mark.parametrize("x, w, groups", (((3, 18, 20, 17), (40, 18, 3, 3), 1), ((2, 7, 30, 33), (7, 1, 3, 3), 7)))
def test_gpu_tiles(monkeypatch, x, w, groups, last):
    """The tiles and slices of a GPU, whatever runs them."""

    def on_gpu(plan, *args):
        return plan(*(torch.device("cuda") if isinstance(a, torch.device) else a for a in args))

    monkeypatch.setattr(tuning, "multiprocessors", lambda device: 132)
    for name in ("conv", "conv_weight", "depthwise_weight", "window_tiles"):
        module = tuning_conv if hasattr(tuning_conv, name) else tuning_windows
        plan = getattr(module, name).__wrapped__
        monkeypatch.setattr(module, name, functools.partial(on_gpu, plan))
    monkeypatch.setattr(_conv, "_plan", _conv._plan.__wrapped__)  # not the cache
    given = inputs(x, w)
    if last:
        given[0] = given[0].detach().contiguous(memory_format=torch.channels_last).requires_grad_()
    exact = double(given)
    actual = run(lambda *t: T.conv2d(*t, 2, 1, 1, groups), given)
    expected = run(lambda *t: torch.nn.functional.conv2d(*t, 2, 1, 1, groups), exact, gradients_of(actual[0]))
    close(actual, expected, torch.float32, 500)
