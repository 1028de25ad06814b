"""The laws: what holds for every operator. One entry of trident/cases is checked against all of them."""

import copy
import io
import math
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import trident.nn
from trident.cases import CASES, Case
from trident.cases.case import EVERYTHING, floating, results
from trident.cases.closeness import close
from trident.runtime import launch, route

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
MODULES = {name: case for name, case in CASES.items() if case.module}
VALUES = {name: case for name, case in CASES.items() if not case.random}

OPERATORS = {
    name: case for name, case in CASES.items() if "." not in name
}  # variants, after a dot, are the same program

# one pass of `make test` is enough for them (the one under the sanitizer): the fast code's numbers are not in question
once = pytest.mark.once
fast = pytest.mark.fast  # and here the other one is: the same operator is checked there with another shape or dtype
each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)
each_operator = pytest.mark.parametrize("case", OPERATORS.values(), ids=OPERATORS)
each_value = pytest.mark.parametrize("case", VALUES.values(), ids=VALUES)
each_module = pytest.mark.parametrize("case", MODULES.values(), ids=MODULES)


def make(case: Case, shape, dtype, seed=0) -> list[torch.Tensor]:
    torch.manual_seed(seed)
    made = [t.to(DEVICE) for t in case.inputs(shape)]
    return [t.to(dtype).requires_grad_() if t.is_floating_point() else t for t in made]


def leaves(inputs) -> list[torch.Tensor]:
    return [t for t in inputs if t.requires_grad]


def gradients_of(y) -> list[torch.Tensor]:
    """A gradient for each floating result."""
    torch.manual_seed(1)
    return [torch.randn(t.shape, dtype=torch.float64).to(t.device, t.dtype) for t in floating(results(y))]


def gradients(y, inputs, dy=None, **how) -> list[torch.Tensor]:
    """Of every floating input, from dy or from `gradients_of(y)`."""
    return list(torch.autograd.grad(floating(results(y)), leaves(inputs), gradients_of(y) if dy is None else dy, **how))


def run(fn, inputs, dy=None) -> list[torch.Tensor]:
    """The results and the gradient of every floating input; random operators draw the same numbers each time."""
    torch.manual_seed(2)
    y = fn(*inputs)
    if dy is not None:
        dy = [g.to(t.dtype) for g, t in zip(results(dy), floating(results(y)), strict=True)]
    return [*results(y), *gradients(y, inputs, dy)]


def double(inputs) -> list[torch.Tensor]:
    return [t.detach().double().requires_grad_() if t.is_floating_point() else t for t in inputs]


def same(actual, expected) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def sized() -> Iterator[Any]:
    """Every operator at each of its shapes in float32, at the second in bfloat16, at the last in every dtype; its
    variants at their first and their last, but not in the interpreter. EVERYTHING: every case, shape and dtype.

    As fast code: float32 and bfloat16 at the last, and there float16 for half of the operators, which have float32 at
    the second, too, float64 for the others. Under the sanitizer: float32, bfloat16 at the second, and of float16 and
    float64 the other one."""
    for number, (name, case) in enumerate(VALUES.items()):
        operator = name in OPERATORS
        if launch.INTERPRETED and not (operator or EVERYTHING):
            continue
        last = len(case.shapes) - 1
        for at, shape in enumerate(case.shapes):
            if operator:
                dtypes = DTYPES if at == last else DTYPES[:2] if at == 1 else DTYPES[:1]
            else:
                dtypes = DTYPES[:1] if at in (0, last) else ()
            marks: dict[torch.dtype, Any] = dict.fromkeys(DTYPES, once)
            if operator and at == last:
                half, whole = (once, fast) if number % 2 else (fast, once)
                bfloat16 = fast if last > 1 else ()
                marks = dict(zip(DTYPES, ((), bfloat16, half, whole), strict=True))
            elif operator and at == 1 and number % 2 == 0:
                marks[torch.float32] = ()
            for dtype in DTYPES if EVERYTHING else dtypes:
                mark = () if operator and EVERYTHING else marks[dtype]
                yield pytest.param(case, shape, dtype, id=f"{name}-{shape}-{dtype}", marks=mark)


@pytest.mark.parametrize("case, shape, dtype", list(sized()))
def test_equals_float64(case, shape, dtype):
    if dtype not in case.dtypes:
        with torch.no_grad(), pytest.raises(RuntimeError):  # torch has no such operator either
            case.reference(*make(case, shape, dtype))
        return
    inputs = make(case, shape, dtype)
    actual = run(case.ours, inputs)
    assert {t.dtype for t in floating(actual)} == {dtype}
    dy = [g.double() for g in gradients_of(actual[: len(actual) - len(leaves(inputs))])]
    close(actual, run(case.exact or case.reference, double(inputs), dy), dtype, case.reduced(shape))


def layouts(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """Tensors equal to x that lie in memory in other ways."""
    found = {"strided": torch.stack([x, x], -1)[..., 0]}
    if x.dim() >= 2:
        found["transposed"] = x.mT.contiguous().mT
        found["permuted"] = x.movedim(0, -1).contiguous().movedim(-1, 0)
    found["sliced"] = torch.cat([x, x], -1)[..., : x.shape[-1]]
    if x.dim() == 4:
        found["channels_last"] = x.contiguous(memory_format=torch.channels_last)
    if x.dim() == 5:
        found["channels_last_3d"] = x.contiguous(memory_format=torch.channels_last_3d)
    return found


def strides(t: torch.Tensor) -> list[int]:
    return [stride for stride, n in zip(t.stride(), t.shape, strict=True) if n > 1]


def laid_out() -> Iterator[Any]:
    """Every operator at its first two shapes (EVERYTHING: four), its variants at their first; the fast code is run at
    the first only, for every fourth operator."""
    for number, (name, case) in enumerate(CASES.items()):
        most = 1 if case.random or not (EVERYTHING or name in OPERATORS) else 4 if EVERYTHING else 2
        for at, shape in enumerate(case.shapes[:most]):
            marks = () if at == 0 and name in OPERATORS and (EVERYTHING or number % 4 == 0) else once
            yield pytest.param(case, shape, id=f"{name}-{shape}", marks=marks)


@pytest.mark.parametrize("case, shape", list(laid_out()))
def test_layouts_as_torch(case, shape):
    """Any strides give the same numbers, and the result lies in memory as torch's does."""
    inputs = make(case, shape, torch.float32)
    first, rest = inputs[0].detach(), inputs[1:]
    plain = run(case.ours, inputs)
    for name, x in layouts(first).items():
        x = x.detach().requires_grad_()
        actual = run(case.ours, [x, *rest])
        for y, reference in zip(actual, results(case.reference(x, *rest)), strict=False):  # then the gradients
            model = x if case.keeps_format and name.startswith("channels_last") else reference
            assert strides(y) == strides(model), name
        if not case.random:
            close(actual, plain, torch.float32, case.reduced(shape))


@each_value
@once
def test_expanded_input(case):
    inputs = make(case, case.shapes[0], torch.float32)
    x = inputs[0].detach()[:1].requires_grad_()
    wide = x.expand(inputs[0].shape)
    y, z = case.ours(wide, *inputs[1:]), case.reference(wide, *inputs[1:])
    close(results(y), results(z), torch.float32, x.numel())
    close(gradients(y, [x]), gradients(z, [x]), torch.float32, case.reduced(case.shapes[0]) * 4)


@each
@once
def test_no_elements(case):
    for axis in range(len(case.shapes[0])):
        shape = tuple(0 if i == axis else n for i, n in enumerate(case.shapes[0]))
        try:
            inputs = make(case, shape, torch.float32)
            expected = run(case.reference, inputs)
        except (RuntimeError, ValueError, IndexError, AssertionError) as error:  # torch refuses it: so do we, and so
            with pytest.raises(type(error)):
                run(case.ours, make(case, shape, torch.float32))
            continue
        same(run(case.ours, inputs), expected)


@each_value
@once
def test_expanded_gradient(case):
    inputs = make(case, case.shapes[0], torch.float32)
    y = case.ours(*inputs)
    one = torch.ones((), device=DEVICE)
    expanded = gradients(y, inputs, [one.expand(t.shape) for t in floating(results(y))], retain_graph=True)
    same(expanded, gradients(y, inputs, [torch.ones_like(t) for t in floating(results(y))]))


@each
@once
def test_nothing_is_mutated(case):
    inputs = make(case, case.shapes[0], torch.float32)
    torch.manual_seed(2)
    y = case.ours(*inputs)
    dy = gradients_of(y)
    watched = [*inputs, *results(y), *dy]
    before, versions = [t.detach().clone() for t in watched], [t._version for t in watched]
    gradients(y, inputs, dy)
    same([t.detach() for t in watched], before)
    assert [t._version for t in watched] == versions


@each
@once
def test_results_do_not_alias(case):
    inputs = make(case, case.shapes[0], torch.float32)
    found = run(case.ours, inputs)

    def storages(tensors):
        return {t.untyped_storage().data_ptr() for t in tensors}

    assert not storages(inputs) & storages(found)
    # the two terms of a sum may have one gradient, as in torch
    assert len(storages(found)) >= len(storages(run(case.reference, inputs)))


@each
@once
def test_backward_twice(case):
    inputs = make(case, case.shapes[0], torch.float32)
    y = case.ours(*inputs)
    first = gradients(y, inputs, retain_graph=True)
    same(gradients(y, inputs), first)


@each_operator
@once
def test_bitwise_repeatable(case):
    inputs = make(case, case.shapes[-1], torch.float32)
    same(run(case.ours, inputs), run(case.ours, inputs))


@each
@once
def test_the_same_where_nothing_is_recorded(case):
    inputs = make(case, case.shapes[0], torch.float32)
    torch.manual_seed(2)
    recorded = results(case.ours(*inputs))
    torch.manual_seed(2)
    with torch.no_grad():
        alone = results(case.ours(*inputs))
    same(alone, [t.detach() for t in recorded])
    assert [t.stride() for t in alone] == [t.stride() for t in recorded] and not any(t.requires_grad for t in alone)


def second_order(fn, inputs) -> list[torch.Tensor]:
    torch.manual_seed(2)
    y = fn(*inputs)
    first = gradients(y, inputs, [g.requires_grad_() for g in gradients_of(y)], create_graph=True)
    length = sum((g * g).sum() for g in first)
    if not length.requires_grad:  # a piecewise linear operator
        return [torch.zeros_like(t) for t in leaves(inputs)]
    return list(torch.autograd.grad(length, leaves(inputs), allow_unused=True, materialize_grads=True))


@each_value
@once
def test_double_backward(case):
    """As torch's, whose operator recomputes it (docs/decisions/004); an error where torch has none."""
    inputs = make(case, case.shapes[0], torch.float64)
    try:
        expected = second_order(case.twice or case.reference, inputs)
    except RuntimeError as error:  # torch has no derivative of its backward: neither have we
        with pytest.raises(type(error)):
            second_order(case.ours, inputs)
        return
    close(second_order(case.ours, inputs), expected, torch.float64, 1000)


@each_value
@once
def test_torch_func(case):
    """vmap, grad and jvp look through torch's operators: a call inside them goes there."""
    inputs = make(case, case.shapes[0], torch.float64)
    x, rest = inputs[0].detach(), [t.detach() for t in inputs[1:]]
    for transform in (
        lambda f: torch.func.vmap(lambda x: f(x, *rest))(torch.stack([x, 2 * x])),
        lambda f: torch.func.grad(lambda x: sum(t.sum() for t in floating(results(f(x, *rest)))))(x),
        lambda f: torch.func.jvp(lambda x: f(x, *rest), (x,), (torch.ones_like(x),))[1],
    ):
        try:
            expected = transform(case.reference)
        except RuntimeError as error:  # torch has no such rule: neither have we
            with pytest.raises(type(error)):
                transform(case.ours)
            continue
        same(results(transform(case.ours)), results(expected))


@each_value
@once
def test_forward_mode(case):
    inputs = make(case, case.shapes[0], torch.float64)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(inputs[0].detach(), torch.ones_like(inputs[0]))

        def tangents(f):
            return [torch.autograd.forward_ad.unpack_dual(t).tangent for t in results(f(dual, *inputs[1:]))]

        try:
            expected = tangents(case.reference)
        except RuntimeError as error:  # torch has no such rule: neither have we
            with pytest.raises(type(error)):
                tangents(case.ours)
            return
        same(tangents(case.ours), expected)


def compiled_at(case: Case, dynamic: bool) -> list[tuple[int, ...]]:
    """The first shape and, where sizes are symbols, the next one that the same graph serves: as many dimensions, and
    no size of 1, which is never a symbol. EVERYTHING: the first three, graphs of their own or not."""
    first, *others = case.shapes
    if not dynamic or EVERYTHING:
        return list(case.shapes[: 3 if dynamic else 1])
    return [first, *[shape for shape in others if len(shape) == len(first) and min(shape) > 1][:1]]


@each_operator
@pytest.mark.parametrize("dynamic", (False, True) if EVERYTHING else (True,), ids=lambda dynamic: f"dynamic={dynamic}")
@once
def test_compiles_whole(case, dynamic):
    torch._dynamo.reset()
    compiled = torch.compile(case.ours, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for at, shape in enumerate(compiled_at(case, dynamic)):
        inputs = make(case, shape, torch.float32)
        try:
            with torch._dynamo.config.patch(error_on_recompile=at > 0 and not EVERYTHING):
                actual = run(compiled, inputs)
        except torch._dynamo.exc.RecompileError:  # a graph of its own after all, traced as the first was: up to 10 s
            continue
        if not case.random:
            same(actual, run(case.ours, inputs))


@each_operator
@once
def test_autocast_as_torch(case):
    for dtype in case.autocast:
        inputs = make(case, case.shapes[0], dtype)
        with torch.autocast(DEVICE, torch.bfloat16):
            ours, theirs = results(case.ours(*inputs)), results(case.reference(*inputs))
        assert [t.dtype for t in ours] == [t.dtype for t in theirs]
        ours_grad = gradients(ours, inputs)
        assert [g.dtype for g in ours_grad] == [t.dtype for t in leaves(inputs)]
        if not case.random:
            close(ours, theirs, torch.bfloat16, case.reduced(case.shapes[0]))


@each_operator
@once
def test_checkpoint(case):
    inputs = make(case, case.shapes[0], torch.float32)

    def checkpointed(*inputs):
        return checkpoint(case.ours, *inputs, use_reentrant=False)

    same(run(checkpointed, inputs), run(case.ours, inputs))


class Recorder(TorchDispatchMode):
    """Notes every call of a registered operator of Trident."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "trident":
            self.calls.append((func, args))
        return func(*args, **(kwargs or {}))


@each_operator
@once
def test_opcheck(case):
    """Schema and fake implementation of every operator that the case calls, with the arguments it gives."""
    inputs = make(case, case.shapes[0], torch.float32)
    with Recorder() as recorder:
        run(case.ours, inputs)
    assert recorder.calls, "no operator of Trident was called"
    tests = ("test_schema", "test_faketensor", "test_autograd_registration")
    if EVERYTHING:  # test_compiles_whole traces them with symbolic sizes, too
        tests += ("test_aot_dispatch_dynamic",)
    for func, args in recorder.calls:
        args = tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in args)
        torch.library.opcheck(func, args, test_utils=tests)


@each
@once
def test_fake_and_meta(case):
    inputs = make(case, case.shapes[0], torch.float32)
    expected = case.ours(*inputs)

    def described(y):
        return [(t.shape, t.dtype, t.stride()) for t in results(y)]

    meta = case.ours(*(t.detach().to("meta") for t in inputs))
    assert all(t.device.type == "meta" for t in results(meta)) and described(meta) == described(expected)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = case.ours(*(mode.from_tensor(t.detach()) for t in inputs))
    assert described(fake) == described(expected)


@pytest.mark.parametrize(
    "case, bad", [pytest.param(c, bad, id=f"{n}-{i}") for n, c in CASES.items() for i, bad in enumerate(c.errors)]
)
@once
def test_errors_as_torch(case, bad):
    """A bad call raises the same class as torch's function of the same name."""
    with pytest.raises(Exception) as theirs:
        bad(getattr(torch.nn.functional, case.name, None) or getattr(torch, case.name))
    with pytest.raises(Exception) as ours:
        bad(getattr(trident.functional, case.name))
    assert type(ours.value) is type(theirs.value)


@pytest.mark.parametrize("case", [pytest.param(c, id=n) for n, c in CASES.items() if c.specials is not None])
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16), ids=str)
def test_specials_as_torch(case, dtype):
    """Kinks, zeros of both signs, NaN, infinities, tiny and huge numbers: value and sub-gradient are torch's."""
    points = [*case.specials, 0.0, -0.0, math.nan, math.inf, -math.inf, 1e-30, -1e-30, 3e4, -3e4]
    x = torch.tensor(points, dtype=dtype, device=DEVICE, requires_grad=True)
    rest = make(case, (len(points),), dtype)[1:]
    ones = torch.ones(len(points), dtype=dtype, device=DEVICE)
    actual = run(case.ours, [x, *rest], [ones])
    # torch's scalar loops, not its vector ones, which give other gradients at NaN: they skip strided tensors
    strided = torch.stack([x, x], -1).detach().double()[..., 0].requires_grad_()
    expected = run(case.reference, [strided, *double(rest)], [ones.double()])
    for a, e in zip(actual[:2], expected[:2], strict=True):
        torch.testing.assert_close(a.double(), e, rtol=4 * torch.finfo(dtype).eps, atol=1e-6, equal_nan=True)


@each_module
@once
def test_module_is_its_twin(case):
    """state_dict, repr, deepcopy and pickle as torch's class, and the forward runs Trident's kernel."""
    ours_cls, torch_cls = getattr(trident.nn, case.cls), getattr(torch.nn, case.cls)
    assert issubclass(ours_cls, torch_cls) and ours_cls is not torch_cls
    torch.manual_seed(0)
    theirs = case.module(torch_cls).to(DEVICE)
    torch.manual_seed(0)
    ours = case.module(ours_cls).to(DEVICE)
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    same(list(ours.state_dict().values()), list(theirs.state_dict().values()))
    ours.load_state_dict(theirs.state_dict())
    buffer = io.BytesIO(pickle.dumps(ours))
    inputs = [t.detach() for t in make(case, case.shapes[0], torch.float32)]
    inputs = [*inputs[: case.takes], *(t for t in inputs[case.takes :] if not t.is_floating_point())]
    also = case.also(inputs[0])
    torch.manual_seed(3)
    y = ours(*inputs, **also)
    for twin in (copy.deepcopy(ours), pickle.load(buffer)):
        torch.manual_seed(3)
        same(results(twin(*inputs, **also)), results(y))
    if not case.random:
        close(results(y), results(theirs(*inputs, **also)), torch.float32, case.reduced(case.shapes[0]))
    with Recorder() as recorder:
        ours(*inputs, **also)
    assert recorder.calls, "the module did not reach a kernel"


@each_operator
@once
def test_inside_function_mode(case):
    """A TorchFunctionMode (as used by tools that log or redirect calls) changes nothing."""

    class Plain(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    inputs = make(case, case.shapes[0], torch.float32)
    with Plain():
        inside = run(case.ours, inputs)
    same(inside, run(case.ours, inputs))


@each_operator
@once
def test_routes(case):
    """TRIDENT_ROUTE=torch reaches torch's operator: the very same numbers."""
    inputs = make(case, case.shapes[0], torch.float32)
    with route.forced("torch"):
        same(run(case.ours, inputs), run(case.reference, inputs))
