"""What is peculiar to the pointwise losses: kinks, clamps, weights, and which calls go to torch."""

import math

import pytest
import torch

import trident.functional as T
import trident.nn
from tests.test_laws import DEVICE, Recorder, close, double, run, same

F = torch.nn.functional


def called(f, *args, **kwargs) -> bool:
    """Did the call reach a kernel?"""
    with Recorder() as recorder:
        f(*args, **kwargs)
    return bool(recorder.calls)


@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
@pytest.mark.parametrize(
    "name, options",
    (("l1_loss", {}), ("smooth_l1_loss", {"beta": 0.5}), ("huber_loss", {"delta": 0.5}), ("mse_loss", {})),
    ids=str,
)
def test_kinks(name, options, dtype):
    """Input and target equal, and apart by exactly the width of the quadratic part."""
    x = torch.tensor(
        [1.0, 1.5, 0.5, 1.0, -math.inf, math.inf, math.inf], dtype=dtype, device=DEVICE, requires_grad=True
    )
    t = torch.tensor([1.0, 1.0, 1.0, 1.25, 1.0, 1.0, math.inf], dtype=dtype, device=DEVICE, requires_grad=True)
    dy = torch.ones_like(x)
    actual = run(lambda x, t: getattr(T, name)(x, t, reduction="none", **options), [x, t], dy)
    expected = run(lambda x, t: getattr(F, name)(x, t, reduction="none", **options), [x, t], dy)
    same([a.detach() for a in actual], [e.detach() for e in expected])


@pytest.mark.parametrize("reduction", ("none", "mean", "sum"))
def test_binary_cross_entropy_at_its_ends(reduction):
    """Logarithms are clamped at -100, the derivative's denominator at 1e-12, as in torch."""
    x = torch.tensor([0.0, 0.0, 1.0, 1.0, 1e-30, 1 - 2**-24], device=DEVICE, requires_grad=True)
    t = torch.tensor([0.0, 1.0, 0.0, 1.0, 0.5, 0.5], device=DEVICE)
    actual, expected = (
        run(lambda x, f=f: f(x, t, reduction=reduction), [x]) for f in (T.binary_cross_entropy, F.binary_cross_entropy)
    )
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)
    assert called(T.binary_cross_entropy, x, t, reduction=reduction)


@pytest.mark.skipif(DEVICE != "cpu", reason="torch stops the process there; Trident's loss is NaN")
@pytest.mark.parametrize("reduction", ("none", "mean"))
@pytest.mark.parametrize("bad", (-0.1, 1.1, math.nan))
@pytest.mark.parametrize("of", ("input", "target"))
def test_binary_cross_entropy_refuses_what_is_no_probability(of, bad, reduction):
    for at in (0, 99):
        tensors = {"input": torch.full((100,), 0.5), "target": torch.ones(100)}
        tensors[of][at] = bad
        try:
            expected = F.binary_cross_entropy(**tensors, reduction=reduction)
        except RuntimeError as error:
            with pytest.raises(RuntimeError, match=str(error)):
                T.binary_cross_entropy(**tensors, reduction=reduction)
        else:  # torch before 2.13 takes any target
            assert of == "target"
            same(T.binary_cross_entropy(**tensors, reduction=reduction), expected)


@pytest.mark.parametrize("shape", ((), (1,), (5,), (3, 1), (4, 3, 5), (1, 3, 5)), ids=str)
@pytest.mark.parametrize("name", ("binary_cross_entropy", "binary_cross_entropy_with_logits"))
def test_weights_broadcast(name, shape):
    torch.manual_seed(0)
    x = torch.rand(4, 3, 5, device=DEVICE, requires_grad=True)
    t, w = torch.rand(4, 3, 5, device=DEVICE), torch.rand(shape, device=DEVICE) + 0.5
    options = [{"weight": w}]
    if name.endswith("logits"):
        options += [{"pos_weight": w}, {"pos_weight": w, "weight": 1 / w}]
    for o in options:
        actual = run(lambda x, o=o: getattr(T, name)(x, t, **o), [x])
        exact = {k: v.double() for k, v in o.items()}
        close(actual, run(lambda x, o=exact: getattr(F, name)(x, t.double(), **o), double([x])), torch.float32, 60)
        assert called(getattr(T, name), x, t, **o)


def test_a_differentiated_weight_is_refused_as_in_torch():
    x, w = torch.randn(3, device=DEVICE), torch.ones(3, device=DEVICE, requires_grad=True)
    for f in (F.binary_cross_entropy_with_logits, T.binary_cross_entropy_with_logits):
        with pytest.raises(RuntimeError, match="not differentiable"):
            f(x, x, weight=w)


def test_stable_where_torch_overflows():
    x = torch.tensor([-200.0, 200.0], device=DEVICE, requires_grad=True)
    t = torch.tensor([1.0, -1.0], device=DEVICE)
    y, dx = run(lambda x: T.soft_margin_loss(x, t, reduction="none"), [x], torch.ones(2, device=DEVICE))
    assert y.tolist() == [200.0, 200.0] and dx.tolist() == [-1.0, 1.0]


@pytest.mark.parametrize(
    "call",
    (
        lambda L, x, t: L.mse_loss(x, t[:1]),
        lambda L, x, t: L.mse_loss(x, t, weight=t.abs()),
        lambda L, x, t: L.mse_loss(x, t, size_average=False),
        lambda L, x, t: L.l1_loss(x, t, reduce=False),
        lambda L, x, t: L.mse_loss(x, t.double()),
        lambda L, x, t: L.poisson_nll_loss(x, t.abs().requires_grad_(), full=True),
        lambda L, x, t: L.kl_div(x, t[:1].abs(), reduction="sum"),
    ),
)
@pytest.mark.filterwarnings("ignore")
def test_goes_to_torch(call):
    torch.manual_seed(0)
    x, t = torch.randn(6, 4, device=DEVICE), torch.randn(6, 4, device=DEVICE)
    same(call(T, x, t).detach(), call(F, x, t).detach())
    assert not called(call, T, x, t)


def test_modules_with_buffers_and_targets_that_are_not_differentiated():
    torch.manual_seed(0)
    x, w = torch.randn(6, 4, device=DEVICE), torch.rand(4)
    for cls, options, t in (
        ("SoftMarginLoss", {}, torch.randn(6, 4, device=DEVICE).sign()),
        ("BCELoss", {"weight": w}, torch.rand(6, 4, device=DEVICE)),
        ("BCEWithLogitsLoss", {"weight": w, "pos_weight": 2 * w, "reduction": "sum"}, torch.rand(6, 4, device=DEVICE)),
        ("PoissonNLLLoss", {"full": True}, torch.arange(24.0, device=DEVICE).view(6, 4)),
    ):
        ours, theirs = (getattr(nn, cls)(**options).to(DEVICE) for nn in (trident.nn, torch.nn))
        assert list(ours.state_dict()) == list(theirs.state_dict()) and repr(ours) == repr(theirs)
        values = x.sigmoid() if cls == "BCELoss" else x
        assert called(ours, values, t)
        torch.testing.assert_close(ours(values, t), theirs(values, t))


def test_mean_of_the_divergence_warns_as_torch_does():
    x, t = torch.randn(3, 4, device=DEVICE), torch.rand(3, 4, device=DEVICE)
    with pytest.warns(UserWarning, match="batchmean"):
        T.kl_div(x, t)
