"""What is peculiar to reductions: NaN, infinities and ties, indices, memory orders, and which calls go to torch."""

import math
import warnings

import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE, Recorder, floating, results, same
from trident.runtime import route
from trident.runtime.launch import executor

INF, NAN = math.inf, math.nan
LINES = (
    (1.0, NAN, 3.0, NAN, 3.0),
    (1.0, INF, 2.0, INF, -INF),
    (2.0, 2.0, 1.0, 2.0, 0.0),
    (0.0, -0.0, 0.0, 1.0, 2.0),
    (0.0, 0.0, 0.0, 0.0, 0.0),
    (2.0, 0.0, 3.0, -1.0, 4.0),
    (-1.0, -2.0, -3.0, -1.0, -3.0),
    (-INF, -INF, -INF, -INF, -INF),
    (INF, INF, INF, INF, INF),
)
CALLS = (
    *(lambda f, name=name: f(name)(-1) for name in ("sum", "mean", "std", "var", "logsumexp", "prod")),
    *(lambda f, name=name: f(name)(-1) for name in ("amax", "amin", "max", "min", "argmax", "argmin")),
    *(lambda f, name=name: f(name)() for name in ("sum", "std", "var", "prod", "amax", "max", "min", "argmax", "norm")),
    *(lambda f, p=p: f("norm")(p, -1) for p in (0, 0.5, 1, 1.5, 2, 3, INF, -INF)),
)


@pytest.mark.parametrize("line", LINES, ids=str)
@pytest.mark.filterwarnings("ignore")
def test_special_numbers_as_torch(line):
    """Values and sub-gradients; float64, so that both round alike."""
    x = torch.tensor([line, line[::-1]], dtype=torch.float64, device=DEVICE, requires_grad=True)
    for number, call in enumerate(CALLS):
        found = []
        for module in (T, torch):
            y = results(call(lambda name, module=module: lambda *args: getattr(module, name)(x, *args)))
            smooth = floating(y)
            grad = (
                torch.autograd.grad(
                    smooth, x, [torch.ones_like(t) for t in smooth], allow_unused=True, materialize_grads=True
                )
                if smooth
                else ()
            )
            found.append([t.detach() for t in (*y, *grad)])
        for a, e in zip(*found, strict=True):
            torch.testing.assert_close(
                a, e, rtol=1e-14, atol=1e-14, equal_nan=True, msg=lambda m, n=number: f"{n}: {m}"
            )


@pytest.mark.parametrize("shape, dim", (((3, 70000), -1), ((70000, 3), 0), ((70000,), None), ((4, 5000, 7), 1)))
@pytest.mark.parametrize("name", ("argmax", "argmin", "max", "min"))
def test_the_first_of_equals(name, shape, dim):
    """Also where programs share a line."""
    torch.manual_seed(0)
    x = torch.randint(-3, 3, shape, device=DEVICE).float()
    args = () if dim is None else (dim,)
    same(results(getattr(T, name)(x, *args)), results(getattr(torch, name)(x, *args)))
    x.view(-1)[x.numel() // 2 :: 1000] = NAN
    same(results(getattr(T, name)(x, *args)), results(getattr(torch, name)(x, *args)))


def test_two_results_are_named():
    x = torch.randn(3, 4, device=DEVICE, requires_grad=True)
    found = T.max(x, 1)
    assert type(found) is torch.return_types.max and not found.indices.requires_grad
    assert type(T.min(x, 1, True)) is torch.return_types.min


def test_only_the_mean_is_differentiated():
    x = torch.randn(6, 5, device=DEVICE, requires_grad=True)
    for name in ("var_mean", "std_mean"):
        for chosen in (0, 1):
            ours, theirs = (torch.autograd.grad(getattr(m, name)(x, 1)[chosen].sum(), x)[0] for m in (T, torch))
            torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("order", ((0, 2, 3, 1), (3, 1, 2, 0), (2, 0, 3, 1)))
def test_memory_orders(order):
    """Dense tensors of any order of axes are reduced where they lie: no copy of them is made."""
    x = torch.randn(4, 5, 6, 7, device=DEVICE).permute(order).requires_grad_()
    for dims in ((1,), (0, 2), (2, 3), (0, 1, 3)):
        for name in ("var", "amax"):
            ours, theirs = (getattr(m, name)(x, dims) for m in (T, torch))
            torch.testing.assert_close(ours, theirs)
            assert ours.is_contiguous()
            dy = torch.randn_like(ours)
            for a, e in zip(*(torch.autograd.grad(y, x, dy) for y in (ours, theirs)), strict=True):
                torch.testing.assert_close(a, e)
                assert a.stride() == x.stride()


@pytest.mark.parametrize("source, dtype", ((torch.bfloat16, torch.float32), (torch.float32, torch.float64)))
def test_dtype(source, dtype):
    x = torch.randn(5, 300, dtype=source, device=DEVICE, requires_grad=True)
    for name in ("sum", "mean", "prod"):
        ours, theirs = (getattr(m, name)(x, 1, dtype=dtype) for m in (T, torch))
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
        assert torch.autograd.grad(ours.sum(), x)[0].dtype == source


@pytest.mark.parametrize(
    "call",
    (
        lambda m, x: m.sum(x.long()),
        lambda m, x: m.sum(x, ()),
        lambda m, x: m.max(x, x + 1),
        lambda m, x: m.max(x, dim=1, keepdim=True).values.long(),
        lambda m, x: m.var(x, False),
        lambda m, x: m.var(x, 1, False),
        lambda m, x: m.std(x, axis=1),
        lambda m, x: m.sum(x, dim=1, keepdim=True, dtype=torch.int64),
        lambda m, x: m.norm(x, "nuc"),
        lambda m, x: m.norm(x, 2, 1, dtype=torch.float64),
        lambda m, x: m.amax(x, 1, out=torch.empty(3, device=x.device)),
        lambda m, x: m.argmax(x, None, True),
    ),
)
def test_what_torch_accepts_is_accepted(call):
    x = torch.randn(3, 4, device=DEVICE)
    torch.testing.assert_close(call(T, x), call(torch, x))


def test_deterministic_and_shared_out():
    """One long line is shared out among programs, and comes out the same each time."""
    x = torch.randn(1 << 20, device=DEVICE)
    with Recorder() as recorder:
        first = T.sum(x)
    assert recorder.calls
    same(T.sum(x), first)
    torch.testing.assert_close(first.double(), x.double().sum(), rtol=1e-4, atol=1e-2)


def test_no_warning_of_ours():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        T.var(torch.randn(4, 5, device=DEVICE), 1)


@pytest.fixture
def asked(monkeypatch):
    """The names by which operators ask whether a call is torch's."""
    names = []
    monkeypatch.setattr(route, "WATCHERS", [lambda name, *_: names.append(name)])
    return names


@pytest.mark.parametrize(
    ("dims", "dim", "apart"),
    (
        (4, (0, 2), True),
        (4, (-2, 0), True),
        (5, (0, 1, 3), True),
        (4, (0, 3), False),
        (4, (1, 2), False),
        (4, 1, False),
        (4, (), False),
        (3, (0, 2), False),
        (0, (), False),
    ),
)
def test_extrema_over_dimensions_apart_are_a_question_of_their_own(asked, dims, dim, apart):
    """torch's loop over them has no vectors."""
    x = torch.zeros([2] * dims, device=DEVICE)
    T.amax(x, dim)
    T.amin(x.requires_grad_(), dim)
    assert asked == (["amax (apart) (forward alone)", "amin (apart)"] if apart else ["amax (forward alone)", "amin"])


HALF, BRAIN, SINGLE, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64


@pytest.mark.parametrize(
    ("shape", "dim", "source", "dtype", "kind"),
    (
        ((2, 6), 0, SINGLE, None, " (few columns)"),
        ((2, 6), -2, BRAIN, None, " (few columns)"),
        ((2, 31), 0, SINGLE, None, " (few columns)"),
        ((2, 31), 0, BRAIN, DOUBLE, ""),
        ((2, 32), 0, SINGLE, None, ""),
        ((2, 32), 0, BRAIN, None, " (halves)"),
        ((2, 6), 1, HALF, None, " (halves)"),
        ((2, 6), 1, BRAIN, SINGLE, " (halves)"),
        ((2, 6), None, SINGLE, BRAIN, " (halves)"),
        ((2, 6), None, BRAIN, DOUBLE, ""),
        ((), 0, SINGLE, None, ""),
    ),
)
def test_products_without_vectors_are_questions_of_their_own(asked, shape, dim, source, dtype, kind):
    """torch's loop has none, or few."""
    x = torch.ones(shape, dtype=source, device=DEVICE)
    T.prod(x, dim, dtype=dtype)
    T.prod(x.requires_grad_(), dim, dtype=dtype)
    assert asked == [f"prod{kind} (forward alone)", f"prod{kind}"]


def test_products_of_what_lies_apart_are_plain(asked):
    """The kernel would read a copy."""
    T.prod(torch.ones(2, 6, dtype=BRAIN, device=DEVICE)[:, ::2], 0)
    assert asked == ["prod (forward alone)"]


@pytest.mark.parametrize(
    ("shape", "dtype", "ours"),
    (
        ((1024, 1024), BRAIN, True),
        ((512, 1024), BRAIN, False),
        ((1024, 1024), SINGLE, False),
        ((16384, 16), SINGLE, True),
        ((8192, 16), SINGLE, False),
    ),
)
def test_which_products_have_their_kernel(shape, dtype, ours):
    """Where no gradient is to come."""
    if executor(DEVICE) != "native":
        pytest.skip("sizes were measured of native kernels")
    with route.forced("auto"), Recorder() as recorder:
        T.prod(torch.ones(shape, dtype=dtype), 0)
    assert bool(recorder.calls) == ours
