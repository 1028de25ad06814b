"""cross_entropy and nll_loss: ignored targets, infinities, wrong classes, what is kept, and the gradient of targets."""

import math

import pytest
import torch
import torch.nn.functional as F
import triton

import trident.functional as T
from tests.test_laws import DEVICE, close, double, run
from trident.runtime import launch

both = pytest.mark.parametrize("name", ("cross_entropy", "nll_loss"))
on_cpu = pytest.mark.skipif(DEVICE != "cpu", reason="a wrong class stops a CUDA program for good, in torch as here")


@both
@pytest.mark.parametrize("reduction", ("none", "mean", "sum"))
def test_all_ignored_as_torch(name, reduction):
    """The mean of nothing is NaN, its sum 0."""
    x = torch.randn(3, 5, device=DEVICE, requires_grad=True)
    target = torch.full((3,), 2, device=DEVICE)
    results = [run(lambda x, f=f: f(x, target, ignore_index=2, reduction=reduction), [x]) for f in pair(name)]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, equal_nan=True)


def pair(name):
    return getattr(T, name), getattr(F, name)


@both
def test_ignored_class_may_lie_outside(name):
    x, target = torch.randn(3, 5, device=DEVICE), torch.tensor([0, 77, 4], device=DEVICE)
    ours, theirs = (f(x, target, ignore_index=77) for f in pair(name))
    torch.testing.assert_close(ours, theirs)


def test_ignored_line_is_not_read():
    """NaN logits of an ignored target (padding) do no harm: loss and gradient are 0."""
    x = torch.randn(3, 5, device=DEVICE)
    x[1] = math.nan
    x.requires_grad_()
    loss = T.cross_entropy(x, torch.tensor([0, -100, 4], device=DEVICE))
    (dx,) = torch.autograd.grad(loss, x)
    assert loss.isfinite() and dx.isfinite().all() and not dx[1].any()


@both
@on_cpu
@pytest.mark.parametrize("compiled", (False, True))
def test_wrong_class_as_torch(name, compiled):
    f, reference = pair(name)
    if compiled:
        torch._dynamo.reset()
        f = torch.compile(f, backend="aot_eager", fullgraph=True)
    for wrong in (5, -1, 2**40):
        target = torch.tensor([0, wrong, 1])
        with pytest.raises(IndexError, match=f"Target {wrong} is out of bounds"):
            reference(torch.randn(3, 5), target)
        with pytest.raises(IndexError, match=f"Target {wrong} is out of bounds"):
            f(torch.randn(3, 5), target)


@both
def test_bytes(name):
    x, target = torch.randn(3, 5, device=DEVICE), torch.tensor([0, 3, 4], dtype=torch.uint8, device=DEVICE)
    ours, theirs = (f(x, target) for f in pair(name))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("V", (9, 70000))
@pytest.mark.parametrize("smoothing", (0.0, 0.1))
def test_infinities_as_torch(V, smoothing):
    """-inf logits (classes that are ruled out): at other classes, at the target, everywhere; whole chunks of them."""
    torch.manual_seed(0)
    x = torch.randn(6, V, device=DEVICE)
    x[0, ::2] = -math.inf
    x[1, 1] = -math.inf
    x[2] = -math.inf
    x[3, : V // 2] = -math.inf
    x[4, 3] = math.inf
    x[5, 2] = math.nan
    x.requires_grad_()
    target = torch.tensor([1, 1, 0, V - 1, 0, 1], device=DEVICE)
    results = [
        run(lambda x, f=f: f(x, target, reduction="none", label_smoothing=smoothing), [x])
        for f in pair("cross_entropy")
    ]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("offset", (1e4, -1e4))
@pytest.mark.parametrize("V", (9, 70000))
@pytest.mark.parametrize("kind", ("classes", "smooth", "probabilities"))
def test_large_logits(offset, V, kind):
    """A common offset of the logits cancels; no accuracy is lost to it."""
    torch.manual_seed(0)
    x = (torch.randn(4, V, device=DEVICE) + offset).requires_grad_()
    target = torch.randint(V, (4,), device=DEVICE)
    if kind == "probabilities":
        target = torch.randn(4, V, device=DEVICE).softmax(1)
    options = {"reduction": "none", "label_smoothing": 0.1 if kind == "smooth" else 0.0}
    actual = run(lambda x: T.cross_entropy(x, target, **options), [x])
    dy = torch.randn_like(actual[0])
    actual = run(lambda x: T.cross_entropy(x, target, **options), [x], dy)
    exact_target = target.double() if target.is_floating_point() else target
    exact = run(lambda x: F.cross_entropy(x, exact_target, **options), double([x]), dy.double())
    close(actual, exact, torch.float32, V)


@pytest.mark.parametrize("smoothing, weighted", ((0.0, False), (0.2, True)))
@pytest.mark.parametrize("shape", ((5, 33), (2, 7, 4, 3), (2, 40000)))
def test_gradient_of_probabilities(shape, smoothing, weighted):
    """Alone, and together with that of the logits."""
    torch.manual_seed(0)
    x = torch.randn(shape, device=DEVICE)
    target = torch.randn(shape, device=DEVICE).softmax(1)
    w = 0.5 + torch.rand(shape[1], device=DEVICE) if weighted else None
    for needed in ((False, True), (True, True)):
        inputs = [t.detach().requires_grad_(need) for t, need in zip((x, target), needed, strict=True)]
        exact = [t.detach().double().requires_grad_(need) for t, need in zip((x, target), needed, strict=True)]
        exact_w = None if w is None else w.double()
        actual = run(lambda x, q: T.cross_entropy(x, q, w, label_smoothing=smoothing), inputs)
        expected = run(lambda x, q: F.cross_entropy(x, q, exact_w, label_smoothing=smoothing), exact)  # noqa: B023
        close(actual, expected, torch.float32, x.numel())


def test_weight_that_is_learnt_goes_to_torch():
    x, q = torch.randn(3, 5, device=DEVICE), torch.randn(3, 5, device=DEVICE).softmax(1)
    w = torch.rand(5, device=DEVICE, requires_grad=True)
    ours, theirs = (torch.autograd.grad(f(x, q, w), w)[0] for f in pair("cross_entropy"))
    torch.testing.assert_close(ours, theirs)


def test_probabilities_are_not_kept():
    """Between forward and backward only the logits and three numbers per line live on."""
    x = torch.randn(64, 1000, device=DEVICE, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        T.cross_entropy(x, torch.randint(1000, (64,), device=DEVICE))
    others = [t for t in kept if t.data_ptr() != x.data_ptr()]
    assert sum(t.numel() for t in others) <= 64 * 4 + 1


def test_smoothing_is_exact_in_float64():
    """Kernels take scalars in float32: 0.1 must not become 0.10000000149."""
    x, target = torch.randn(3, 5, device=DEVICE, dtype=torch.float64), torch.tensor([0, 3, 4], device=DEVICE)
    ours, theirs = (f(x, target, label_smoothing=0.1) for f in pair("cross_entropy"))
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0)


def test_vocabulary_of_262144():
    torch.manual_seed(0)
    x = torch.randn(2, 262144, device=DEVICE).to(torch.bfloat16).requires_grad_()
    target = torch.tensor([262143, 0], device=DEVICE)
    close(
        run(lambda x: T.cross_entropy(x, target), [x], torch.ones((), device=DEVICE)),
        run(lambda x: F.cross_entropy(x, target), double([x]), torch.ones((), device=DEVICE)),
        torch.bfloat16,
        262144,
    )


@pytest.mark.skipif(launch.INTERPRETED, reason="the interpreter compiles nothing")
def test_a_gpu_checks_in_the_kernel(monkeypatch):
    """The options of the launch compile the assert in; nothing is copied to the host."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from trident.ops._nll_loss import _forward_kernel

    monkeypatch.setitem(launch.EXECUTORS, "cuda", "gpu")
    pointers = {"loss": "*fp32", "total": "*fp32", "x": "*fp32", "target": "*i64", "w": "*fp32"}
    signature = pointers | dict.fromkeys(("M", "V", "inner", "ignored"), "i32")
    signature |= dict.fromkeys(("PER_LINE", "BLOCK"), "constexpr")
    source = ASTSource(_forward_kernel, signature, constexprs={"PER_LINE": False, "BLOCK": 128})
    options = launch.asserting("cuda")
    assert "assertfail" in triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
