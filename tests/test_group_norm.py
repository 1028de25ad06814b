"""group_norm, instance_norm: planes split over programs, inputs without a batch, NaN."""

import pytest
import torch
import torch.nn.functional as F

import trident.functional as T
import trident.nn
from tests.test_laws import DEVICE, close, double, run
from trident.runtime import route, tuning, tuning_planes


@pytest.mark.parametrize("shape", ((2, 4, 5, 7), (1, 2, 300, 301)))
def test_mean_far_from_zero(shape):
    """Partial moments are merged without cancellation."""
    torch.manual_seed(0)
    x = (3000 + torch.randn(shape, device=DEVICE)).requires_grad_()
    y = T.group_norm(x, 2)
    exact = F.group_norm(x.detach().double(), 2)
    # the float32 mean is within an ulp or two of 3000
    assert (y.double() - exact).abs().max() < 2 * 3000 * torch.finfo(torch.float32).eps * exact.abs().max()


def test_planes_that_differ():
    """Parts of a long row whose means and deviations are far apart."""
    torch.manual_seed(0)
    x = torch.randn(1, 4, 200, 200, device=DEVICE) * torch.tensor([1.0, 100, 1e-3, 0], device=DEVICE).view(4, 1, 1)
    x = (x + torch.tensor([0.0, 500, -500, 3], device=DEVICE).view(4, 1, 1)).requires_grad_()
    dy = torch.randn_like(x)
    actual = run(lambda x: T.group_norm(x, 2), [x], [dy])
    close(actual, run(lambda x: F.group_norm(x, 2), double([x]), [dy]), torch.float32, 80000)


@pytest.mark.parametrize("spatial", ((3, 5), (300, 301)))
def test_not_finite_as_torch(spatial):
    """A NaN or an infinity makes its own group NaN, and no other."""
    x = torch.randn(2, 4, *spatial, device=DEVICE)
    x[0, 1, 2, 3], x[1, 2, 0, 0] = torch.nan, torch.inf
    y = T.group_norm(x, 2)
    torch.testing.assert_close(y, F.group_norm(x, 2), equal_nan=True)
    assert y.isnan().view(2, 2, -1).all(-1).tolist() == [[True, False], [False, True]]


@pytest.mark.parametrize("wanted", ("x", "w", "b"))
@pytest.mark.parametrize("spatial", ((3, 5), (300, 301)))
def test_one_gradient_only(wanted, spatial):
    torch.manual_seed(0)
    tensors = {"x": torch.randn(1, 4, *spatial), "w": torch.randn(4), "b": torch.randn(4)}
    tensors = {name: t.to(DEVICE).requires_grad_(name == wanted) for name, t in tensors.items()}
    y = T.group_norm(tensors["x"], 2, tensors["w"], tensors["b"])
    dy = torch.randn_like(y)
    exact = {name: t.detach().double().requires_grad_(name == wanted) for name, t in tensors.items()}
    z = F.group_norm(exact["x"], 2, exact["w"], exact["b"])
    alone, expected = torch.autograd.grad(y, tensors[wanted], dy), torch.autograd.grad(z, exact[wanted], dy.double())
    close(alone, expected, torch.float32, y.numel())


@pytest.mark.parametrize("watched", (False, True))
def test_small_calls_are_refused_as_torch_does(watched, monkeypatch):
    """Where torch is asked for its size before anything else is looked at; who watches hears the reason."""
    told = []
    monkeypatch.setattr(route, "WATCHERS", [lambda name, tensors, reason: told.append(reason)] * watched)
    x, w = torch.randn(2, 4, 3, device=DEVICE), torch.randn(3, device=DEVICE)
    calls = (
        lambda f: f.group_norm(x, 3),
        lambda f: f.group_norm(x, 2, w),
        lambda f: f.group_norm(x[:1, :, :1], 4),
        lambda f: f.batch_norm(x, None, None, w, training=True),
        lambda f: f.batch_norm(x[:1, :, :1], None, None, training=True),
        lambda f: f.batch_norm(x, None, None),
        lambda f: f.instance_norm(x, weight=w),
        lambda f: f.instance_norm(x[:, :, :1]),
    )
    with route.forced("auto"):
        for call in calls:
            with pytest.raises(Exception) as theirs:
                call(F)
            with pytest.raises(type(theirs.value)) as ours:
                call(T)
            assert str(ours.value) == str(theirs.value)
    assert told == [route.INVALID] * len(calls) * watched


@pytest.mark.parametrize("dims", (1, 2, 3))
def test_without_a_batch(dims):
    x = torch.randn(3, *(4, 5, 6)[:dims], device=DEVICE)
    name = f"InstanceNorm{dims}d"
    ours, theirs = (getattr(nn, name)(3).to(DEVICE)(x) for nn in (trident.nn, torch.nn))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("device", ("cpu", "cuda"))
def test_parts_cover_a_plane(device, monkeypatch):
    """No part is empty (its moments would be 0 / 0), none is missing."""
    monkeypatch.setattr(tuning, "multiprocessors", lambda device: 132)
    for lines in ((1, 1, 1), (1, 4096, 1), (1, 4097, 1), (3, 262144, 1), (500, 10**6, 1), (2, 8191, 3), (1, 10**6, 64)):
        plan = tuning_planes.line_parts(*lines, torch.device(device), 2)
        parts, chunks = plan.grid[1], -(-lines[1] // plan.meta["BLOCK_N"])
        assert (parts - 1) * plan.meta["STEP"] < chunks <= parts * plan.meta["STEP"]


SAMPLES = {  # shape, groups, activation, is there a residual, dtype
    "narrow": ((9, 6, 5, 7), 3, "silu", True, torch.float32),
    "folded": ((8, 32, 16, 16), 4, "relu", True, torch.float32),
    "from x": ((8, 32, 16, 16), 4, "relu", False, torch.float32),
    "wide": ((8, 1200, 3, 3), 8, "gelu", True, torch.float32),
    "one group": ((8, 60, 20, 20), 1, None, False, torch.float32),
    "a group per channel": ((8, 60, 20, 20), 60, "tanh", True, torch.float32),
    "bfloat16": ((8, 64, 12, 12), 8, "silu", True, torch.bfloat16),
    "float64": ((8, 64, 12, 12), 8, "silu", True, torch.float64),
}


@pytest.mark.parametrize("name", SAMPLES)
def test_channels_last_samples(name):
    """CPUs: each sample is one program's work, its mean far from zero and unlike the others'."""
    shape, groups, activation, beside, dtype = SAMPLES[name]
    torch.manual_seed(0)
    x = torch.randn(shape, device=DEVICE) * 2 + 5 * torch.arange(shape[0], device=DEVICE).view(-1, 1, 1, 1)
    x = x.to(dtype).contiguous(memory_format=torch.channels_last)
    inputs = [x, *(torch.randn(shape[1], device=DEVICE).to(dtype) for _ in "wb")]
    inputs = [t.requires_grad_() for t in [*inputs, *[torch.randn_like(x)] * beside]]
    dy = [torch.randn_like(x)]

    def ours(x, w, b, residual=None):
        return T.group_norm(x, groups, w, b, activation=activation, residual=residual)

    def theirs(x, w, b, residual=None):
        z = F.group_norm(x, groups, w, b)
        z = z if residual is None else z + residual
        return z if activation is None else getattr(torch, activation, getattr(F, activation, None))(z)

    close(run(ours, inputs, dy), run(theirs, double(inputs), double(dy)), dtype, 40 * x[0].numel())
