"""batch_norm, instance_norm: running statistics, mixed dtypes, layers, moments that could cancel."""

import copy
import time

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

import trident
import trident.functional as T
from tests.test_laws import DEVICE, Recorder, close, double, run

SHAPES = ((6, 3), (4, 3, 7), (4, 3, 5, 6), (2, 3, 181, 182))


def running(dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    return [torch.tensor(v, device=DEVICE, dtype=dtype) for v in ((0.5, -1, 2), (1.5, 1, 0.25))]


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float64), ids=str)
@pytest.mark.parametrize("momentum", (0.0, 0.1, 1.0))
@pytest.mark.parametrize("shape", SHAPES)
def test_running_statistics_as_torch(shape, momentum, dtype):
    torch.manual_seed(0)
    x = (3 + 2 * torch.randn(shape, device=DEVICE)).to(dtype)
    statistics = running(dtype), running(dtype)
    versions = [t._version for t in statistics[0]]
    with Recorder() as recorder:
        y = T.batch_norm(x, *statistics[0], training=True, momentum=momentum)
    assert recorder.calls and [t._version for t in statistics[0]] > versions
    expected = F.batch_norm(x, *statistics[1], training=True, momentum=momentum)
    rounding = {torch.bfloat16: 0.02, torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    torch.testing.assert_close((y, *statistics[0]), (expected, *statistics[1]), rtol=rounding, atol=rounding)


@pytest.mark.parametrize("use_input_stats", (True, False))
@pytest.mark.parametrize("shape", SHAPES[1:])
def test_instance_norm_running_statistics_as_torch(shape, use_input_stats):
    torch.manual_seed(0)
    x = (3 + 2 * torch.randn(shape, device=DEVICE)).requires_grad_()
    w = torch.randn(3, device=DEVICE, requires_grad=True)
    ours, theirs = running(), running()
    with Recorder() as recorder:
        actual = run(lambda x, w: T.instance_norm(x, *ours, w, None, use_input_stats), [x, w])
    assert recorder.calls
    expected = run(lambda x, w: F.instance_norm(x, *theirs, w, None, use_input_stats), [x, w])
    close(actual, expected, torch.float32, x.numel())
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("of_input", (False, True))
@pytest.mark.parametrize("which", (0, 1), ids=("mean", "variance"))
@pytest.mark.parametrize("name", ("batch_norm", "instance_norm"))
def test_a_running_statistic_has_no_gradient(name, which, of_input):
    x = torch.randn(2, 8, 5, 5, device=DEVICE)
    running = [torch.zeros(8, device=DEVICE), torch.ones(8, device=DEVICE)]
    running[which].requires_grad_()
    for norm in (getattr(torch.nn.functional, name), getattr(T, name)):
        with pytest.raises(RuntimeError, match="not differentiable with respect to argument"):
            norm(x, *running, None, None, of_input)
        with torch.no_grad():
            norm(x, *running, None, None, of_input)


@pytest.mark.parametrize("channels_last", (False, True))
@pytest.mark.parametrize("N", (4, 300))
def test_mean_far_from_zero(channels_last, N):
    """A mean of thousands of deviations: E[x^2] - E[x]^2 would have no right digit. (What is left is x's rounding.)"""
    torch.manual_seed(0)
    x = 3000 + torch.randn(N, 4, 17, 19, device=DEVICE)
    x = x.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    y = T.batch_norm(x, None, None, training=True)
    exact = F.batch_norm(x.double(), None, None, training=True)
    # the float32 mean is within an ulp or two of 3000
    assert (y.double() - exact).abs().max() < 2 * 3000 * torch.finfo(torch.float32).eps * exact.abs().max()


@pytest.mark.parametrize("training", (True, False))
@pytest.mark.parametrize("spatial", ((5, 6), (181, 182)))
def test_half_input_with_float32_parameters(training, spatial):
    """What a model in bfloat16 with layers kept in float32 calls, and torch.autocast."""
    torch.manual_seed(0)
    x = torch.randn(2, 3, *spatial, device=DEVICE).bfloat16().requires_grad_()
    w, b = (torch.randn(3, device=DEVICE, requires_grad=True) for _ in range(2))
    with Recorder() as recorder:
        actual = run(lambda x, w, b: T.batch_norm(x, *running(), w, b, training), [x, w, b])
    assert recorder.calls and [t.dtype for t in actual] == 2 * [torch.bfloat16] + 2 * [torch.float32]
    statistics = [t.double() for t in running()]
    dy = [torch.randn_like(x)]
    reference = run(lambda x, w, b: F.batch_norm(x, *statistics, w, b, training), double([x, w, b]), dy)
    actual = run(lambda x, w, b: T.batch_norm(x, *running(), w, b, training), [x, w, b], dy)
    close(actual, reference, torch.bfloat16, x.numel())


def test_not_finite_as_torch():
    """A NaN or an infinity makes its own channel NaN, and no other."""
    x = torch.randn(2, 4, 3, 5, device=DEVICE)
    x[0, 1, 2, 3], x[1, 2, 0, 0] = torch.nan, torch.inf
    y = T.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(y, F.batch_norm(x, None, None, training=True), equal_nan=True)
    assert y.isnan().transpose(0, 1).reshape(4, -1).all(1).tolist() == [False, True, True, False]


OPTIONS = ({}, {"momentum": None}, {"affine": False}, {"track_running_stats": False})


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_layer_trains_and_evaluates_as_torchs(options):
    torch.manual_seed(0)
    theirs = torch.nn.BatchNorm2d(3, **options).to(DEVICE)
    ours = trident.optimize(copy.deepcopy(theirs))
    assert type(ours) is trident.nn.BatchNorm2d
    for step in range(3):
        x = (step + 1) * torch.randn(4, 3, 5, 6, device=DEVICE)
        torch.testing.assert_close(ours(x), theirs(x))
    ours.eval(), theirs.eval()
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


@pytest.mark.parametrize("momentum", (0.1, 0.6))
def test_running_statistics_under_compile(momentum):
    torch._dynamo.reset()
    torch.manual_seed(0)
    layer = trident.nn.BatchNorm2d(3, momentum=momentum).to(DEVICE)
    twin = copy.deepcopy(layer)
    compiled = torch.compile(twin, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        x = torch.randn(4, 3, 5, 6, device=DEVICE)
        torch.testing.assert_close(compiled(x), layer(x), rtol=0, atol=0)
    torch.testing.assert_close(twin.state_dict(), layer.state_dict(), rtol=0, atol=0)
    assert twin.num_batches_tracked == 2


def test_running_statistics_under_ddp(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        layer = trident.nn.BatchNorm1d(3)
        twin = copy.deepcopy(layer)
        wrapped = torch.nn.parallel.DistributedDataParallel(layer)
        for _ in range(2):
            x = torch.randn(8, 3)
            wrapped(x).square().sum().backward()
            twin(x).square().sum().backward()
        torch.testing.assert_close(layer.state_dict(), twin.state_dict())
        torch.testing.assert_close(layer.weight.grad, twin.weight.grad)
    finally:
        # gloo's thread drops the last reduction, for which it needs the GIL; torch 2.13 joins it while holding that
        del wrapped
        time.sleep(0.5)
        dist.destroy_process_group()


def test_activation_and_residual_of_a_layer():
    torch.manual_seed(0)
    layer = trident.nn.BatchNorm2d(3, activation="relu").to(DEVICE)
    x, r = torch.randn(2, 2, 3, 4, 5, device=DEVICE)
    plain = torch.nn.BatchNorm2d(3).to(DEVICE)
    torch.testing.assert_close(layer(x, r), torch.relu(plain(x) + r))
    assert "activation=relu" in repr(layer)
    assert type(trident.restore(torch.nn.Sequential(layer))[0]) is trident.nn.BatchNorm2d  # torch's has no activation
    with pytest.raises(ValueError, match="activation is 'swoosh'"):
        T.batch_norm(x, None, None, training=True, activation="swoosh")
    with pytest.raises(ValueError, match="residual is"):
        T.batch_norm(x, None, None, training=True, residual=r[:1])


def test_fused_call_that_goes_to_torch():
    """What the kernels do not take is torch's norm, sum and activation."""
    torch.manual_seed(0)
    x, r = torch.randn(2, 2, 3, 4, 5, device=DEVICE)
    statistics, expected = running(), running()
    y = T.batch_norm(x, *statistics, training=True, activation="silu", residual=r.double())
    torch.testing.assert_close(y, F.silu(F.batch_norm(x, *expected, training=True) + r.double()))
    torch.testing.assert_close(statistics, expected)


@pytest.mark.parametrize("name", ("LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d"))
def test_lazy_batch_norm(name):
    check_lazy(name)


@pytest.mark.parametrize("name", ("LazyInstanceNorm1d", "LazyInstanceNorm2d", "LazyInstanceNorm3d"))
def test_lazy_instance_norm(name):
    check_lazy(name)


def check_lazy(name: str) -> None:
    layer, twin = (getattr(nn, name)().to(DEVICE) for nn in (trident.nn, torch.nn))
    x = torch.randn(2, 3, *(4, 5, 6)[: int(name[-2])], device=DEVICE)
    torch.testing.assert_close(layer(x), twin(x))
    with Recorder() as recorder:
        layer(x)
    assert recorder.calls and type(layer) is getattr(trident.nn, name.removeprefix("Lazy"))
