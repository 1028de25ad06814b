"""What is peculiar to linear: the fused activation, lazy modules, tf32, and the GPU's tiles run on this machine."""

import pytest
import torch

import trident
from tests.test_laws import DEVICE, close, double, gradients_of, run
from trident import functional as T
from trident import nn
from trident.ops import _linear
from trident.ops._activation import ACTIVATIONS
from trident.runtime import route, tuning, tuning_products


def inputs(dtype=torch.float32, M=70, K=50, N=90):
    torch.manual_seed(0)
    made = (torch.randn(M, K, dtype=torch.float64), torch.randn(N, K, dtype=torch.float64) / 4, torch.randn(N).double())
    return [t.to(DEVICE, dtype).requires_grad_() for t in made]


@pytest.mark.parametrize("activation", sorted(_linear.FUSED))
@pytest.mark.parametrize("policy", ("kernels", "auto"))
def test_fused_activations(activation, policy):
    def reference(x, w, b):
        return ACTIVATIONS[activation].torch(torch.nn.functional.linear(x, w, b))

    given = inputs()
    with route.forced(policy):
        actual = run(lambda *t: T.linear(*t, activation=activation), given)
    close(actual, run(reference, double(given), gradients_of(actual[0])), torch.float32, 90)


def test_unknown_activation():
    with pytest.raises(ValueError, match=r"'swish'.*gelu"):
        T.linear(*inputs(), activation="swish")


def test_lazy_linear_becomes_ours():
    layer = nn.LazyLinear(5).to(DEVICE)
    y = layer(torch.randn(3, 4, device=DEVICE))
    assert type(layer) is trident.nn.Linear and y.shape == (3, 5) and layer.weight.shape == (5, 4)


@pytest.mark.parametrize("device", ("cpu", "cuda"))
@pytest.mark.parametrize("allowed", (False, True))
def test_tf32_follows_torch(monkeypatch, device, allowed):
    launched = []
    monkeypatch.setattr(_linear, "launch", lambda *args, **meta: launched.append(meta["PRECISION"]))
    monkeypatch.setattr(tuning, "multiprocessors", lambda device: 132)
    with torch._subclasses.FakeTensorMode():
        a = torch.empty(8, 8, device=device)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed  # not a plain attribute: monkeypatch cannot put it back
    try:
        _linear._product(a, a, a)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    assert launched == ["tf32" if allowed and device == "cuda" else "ieee"]


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize("M, K, N", ((300, 1000, 40), (17, 4097, 33)))
def test_gpu_tiles(monkeypatch, dtype, M, K, N):
    """The tiles and slices of a GPU, whatever runs them."""
    plan = tuning_products.matmul.__wrapped__
    monkeypatch.setattr(tuning, "multiprocessors", lambda device: 132)
    monkeypatch.setattr(tuning_products, "matmul", lambda *args: plan(*args[:-1], torch.device("cuda")))
    given = inputs(dtype, M, K, N)
    exact = double(given)
    actual = run(T.linear, given)
    expected = run(torch.nn.functional.linear, exact, gradients_of(actual[0]))
    close(actual, expected, dtype, max(M, N, K))


@pytest.mark.parametrize("M, K, N", ((300, 1000, 40), (512, 192, 1024), (256, 1576, 256)))
def test_sums_do_not_depend_on_the_thread_count(monkeypatch, M, K, N):
    torch.manual_seed(0)
    a, b = torch.randn(M, K), torch.randn(K, N)
    found, plans = [], set()
    for threads in (1, 2, 3, 64):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        plan = tuning_products.matmul(M, N, K, a.dtype, False, True, threads, a.device)
        plans.add(tuple(plan.meta.values()))
        y = torch.empty(M, N)
        _linear._product(y, a, b)
        found.append(y)
    assert len(plans) > 1 and all(torch.equal(y, found[0]) for y in found)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float64), ids=str)
@pytest.mark.parametrize("policy", ("kernels", "torch"))
def test_multiply_writes_and_adds(monkeypatch, dtype, policy):
    torch.manual_seed(0)
    monkeypatch.setattr(route, "faster_in_torch", lambda *args: policy == "torch")
    a, b, bias, y = (torch.randn(s).to(dtype) for s in ((33, 65), (65, 17), (17,), (33, 17)))
    for given, add, expected in (
        ((a, b), False, a.double() @ b.double()),
        ((a, b, bias), False, a.double() @ b.double() + bias.double()),
        ((a, b), True, y.double() + a.double() @ b.double()),
    ):
        found = y.clone() if add else torch.full_like(y, float("nan"))
        _linear.multiply(found, *given, add=add)
        torch.testing.assert_close(
            found.double(),
            expected,
            rtol=1e-2 if dtype.itemsize == 2 else 1e-5,
            atol=1e-1 if dtype.itemsize == 2 else 1e-4,
        )


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float64), ids=str)
@pytest.mark.parametrize("M, K, N", ((1, 1, 1), (1, 7, 33), (2, 1024, 65), (3, 3072, 10), (4, 1100, 257), (4, 65, 1)))
@pytest.mark.parametrize("activation", (None, "silu"))
@pytest.mark.skipif(DEVICE != "cpu", reason="few rows have a kernel of their own on CPUs alone")
def test_few_rows(monkeypatch, dtype, M, K, N, activation):
    """One launch of the kernel for them, with a bias and without, of rows that lie apart."""
    torch.manual_seed(0)
    launched = []
    launch = _linear.launch
    monkeypatch.setattr(_linear, "launch", lambda f, *a, **meta: (launched.append(f), launch(f, *a, **meta)))
    x, w, b = torch.randn(M, K + 5).to(dtype)[:, :K], torch.randn(N, K + 3).to(dtype)[:, :K], torch.randn(N).to(dtype)
    f = ACTIVATIONS[activation].torch if activation else lambda z: z
    for bias in (b, None):
        with torch.no_grad():
            y = T.linear(x, w, bias, activation=activation)
        exact = f(torch.nn.functional.linear(x.double(), w.double(), None if bias is None else bias.double()))
        close([y], [exact], dtype, K)
    assert launched == 2 * [_linear._few_rows_kernel]


@pytest.mark.parametrize("M, K, N", ((64, 4096, 64), (4, 4096, 64)))
def test_long_sums_are_as_precise_as_torchs(M, K, N):
    """Block by block: term by term they would be four times as far from float64 as MKL's."""
    torch.manual_seed(0)
    a, b, y = torch.randn(M, K), torch.randn(N, K).T, torch.empty(M, N)
    exact = a.double() @ b.double()
    _linear._product(y, a, b)
    ours, theirs = ((found.double() - exact).square().mean().sqrt() for found in (y, a @ b))
    assert ours < 1.5 * theirs
