"""`enabled` and `optimize(model)`: torch's functions are Trident's where they are called, and nowhere else."""

import contextlib
import copy
import functools
import inspect
import pickle
import statistics
import threading
import time
from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._dynamo.testing import AotEagerAndRecordGraphs
from torch.nn.functional import gelu as bound_before
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import trident
from tests.test_conformance import EACH, is_random, samples
from tests.test_laws import close, same
from trident.cases.case import results
from trident.optimize import functions
from trident.runtime import redirect, route

pytestmark = pytest.mark.once

X = torch.linspace(-2, 2, 32).view(4, 8)


class Watch(TorchDispatchMode):
    """Notes which operators of Trident run."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "trident":
            self.seen.append(func._opname)
        return func(*args, **(kwargs or {}))


def taken(function, *args):
    with Watch() as watch:
        function(*args)
    return watch.seen


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)

    def forward(self, x, *, scale=1.0):
        h = F.gelu(self.inner(x)) * scale
        return self.norm(h).softmax(-1)


def model():
    torch.manual_seed(0)
    return Model()


# What is redirected


def test_every_function_of_torch_is_in_the_table():
    functions.fill()
    ours = {n: f for n, f in vars(trident.functional).items() if inspect.isfunction(f) and not n.startswith("_")}
    for name, function in ours.items():
        theirs = getattr(F, name, None) or getattr(torch, name, None)
        assert theirs is None or redirect.TARGETS[theirs].function is function, name
    for name in ("softmax", "relu", "sum", "var", "logsumexp", "max", "tanh"):
        assert getattr(torch.Tensor, name) in redirect.TARGETS and getattr(torch, name) in redirect.TARGETS


def test_another_contract_is_left():
    functions.fill()
    for other in (torch.batch_norm, torch.dropout, torch.adaptive_max_pool1d, torch.instance_norm, torch.kl_div):
        assert other not in redirect.TARGETS
    with trident.enabled():
        assert torch.softmax(X, -1, torch.float64).dtype == torch.float64
        out = torch.empty(4)
        assert torch.sum(X, 1, out=out) is out and taken(lambda: torch.sum(X, 1, out=out)) == []
        assert torch.sum(input=X, dim=1).shape == (4,) and taken(lambda: torch.sum(input=X, dim=1)) == ["reduce"]


def derived(name, info):
    """The functions of torch and methods of tensors that an entry of op_db tests, whose row was read from schemas."""
    functions.fill()
    found = {info.op, info.method_variant, getattr(torch, name.split(".")[-1], None)}
    return [f for f in found if f in redirect.TARGETS and f is not getattr(F, name, None)]


DERIVED = [entry for entry in EACH if derived(*entry.values)]


@pytest.mark.parametrize("name, info", DERIVED)
def test_functions_and_methods_are_as_torchs(name, info):
    """Called as torch's own tests call them: by position and by name."""
    for sample in samples(info, torch.float32)[:5]:
        for function in derived(name, info):
            try:
                expected = results(function(sample.input, *sample.args, **sample.kwargs))
            except TypeError:
                continue  # torch.max_pool2d, say, has no return_indices
            with trident.enabled():
                got = results(function(sample.input, *sample.args, **sample.kwargs))
            assert [(t.shape, t.dtype) for t in got] == [(t.shape, t.dtype) for t in expected]
            if is_random(name, sample):
                continue
            for a, b in zip(got, expected, strict=True):
                if a.is_floating_point():
                    close([a], [b.double()], a.dtype, 8 * sample.input.numel())
                else:
                    same(a, b)


# Where


def test_only_within_the_block():
    assert taken(F.gelu, X) == []
    with trident.enabled():
        assert taken(F.gelu, X) == ["activation"]
        with trident.enabled():
            assert taken(X.softmax, -1) == ["softmax"]
        assert taken(torch.sum, X) == ["reduce"] and torch._C._len_torch_function_stack() == 1
    assert taken(F.gelu, X) == []


def test_an_exception_ends_it():
    with pytest.raises(KeyboardInterrupt), trident.enabled():
        raise KeyboardInterrupt
    with trident.enabled(), pytest.raises(RuntimeError):
        F.layer_norm(X, (3,))  # torch says what is wrong
    with pytest.raises(RuntimeError):
        trident.optimize(Model())(torch.randn(3))
    assert not redirect.active()


def test_a_thread_of_its_own():
    seen = {}

    def run(name, block):
        with block:
            ready.wait()
            seen[name] = taken(F.gelu, X)
            ready.wait()

    ready = threading.Barrier(2)
    blocks = {"on": trident.enabled(), "off": contextlib.nullcontext()}
    threads = [threading.Thread(target=run, args=item) for item in blocks.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"on": ["activation"], "off": []}


def test_as_a_decorator():
    @trident.enabled()
    def f(x):
        return F.gelu(x)

    assert taken(f, X) == taken(f, X) == ["activation"] and not redirect.active()


def test_fallbacks_do_not_recur():
    integers = torch.arange(6).view(2, 3)
    with trident.enabled():
        assert torch.sum(integers).item() == 15 and integers.max(1).values.tolist() == [2, 5]
        torch.testing.assert_close(torch.func.vmap(F.gelu)(X), F.gelu(X))
        sparse = torch.eye(3).to_sparse()
        assert torch.sum(sparse).item() == 3


def test_other_modes_stay():
    with torch.device("meta"), trident.enabled():
        assert torch.empty(3).is_meta and taken(F.gelu, X) == ["activation"]
    with trident.enabled(), torch.device("meta"):
        assert torch.empty(3).is_meta and taken(F.gelu, X) == ["activation"]
        assert trident.functional.gelu(X).device == X.device


def test_functions_that_were_bound_before():
    @functools.wraps(F.gelu)
    def wrapped(*args):
        return F.gelu(*args)

    partial = functools.partial(F.softmax, dim=-1)
    with trident.enabled():
        assert taken(bound_before, X) == taken(wrapped, X) == ["activation"] and taken(partial, X) == ["softmax"]


class Plain(TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("inner", [False, True])
def test_somebodys_mode_above_or_below(inner):
    blocks = [trident.enabled(), Plain()] if inner else [Plain(), trident.enabled()]
    with blocks[0], blocks[1]:
        assert taken(F.gelu, X) == ["activation"] and taken(X.softmax, -1) == ["softmax"]
        with pytest.raises(RuntimeError):
            torch.split(X, -1)
        assert torch._C._len_torch_function_stack() == 2
    assert torch._C._len_torch_function_stack() == 0


class Heard(torch.Tensor):
    heard: ClassVar[list] = []

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        cls.heard.append(func)
        return super().__torch_function__(func, types, args, kwargs or {})


class NoTensor:
    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        return func


@pytest.mark.parametrize("function", [F.gelu, F.softmax, F.layer_norm, F.cross_entropy, torch.sum, torch.softmax])
def test_who_decides_by_itself_hears_of_torchs_function(function):
    """A class with a `__torch_function__` of its own: it is asked what torch would ask it, and nothing else."""
    more = {F.softmax: (-1,), torch.softmax: (-1,), F.layer_norm: ((8,),), F.cross_entropy: (torch.arange(4),)}
    x = X.as_subclass(Heard)
    with trident.enabled():
        Heard.heard.clear()
        y = function(x, *more.get(function, ()))
        heard = Heard.heard[:]
        assert function(NoTensor(), *more.get(function, ())) is function
    assert heard == [function] and type(y) is Heard


def test_parameters_and_their_kind_are_redirected():
    class Named(nn.Parameter):
        pass

    with trident.enabled():
        for x in (nn.Parameter(X), nn.Buffer(X), Named(X)):
            assert taken(F.gelu, x) == ["activation"] and taken(x.softmax, -1) == ["softmax"]


def test_gradients_of_gradients():
    x = X.double().requires_grad_()
    with trident.enabled():
        assert torch.autograd.gradgradcheck(lambda x: F.silu(x).sum(-1), x)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("scope", ["enabled", "model"])
def test_a_checkpoint_is_run_again_as_it_was(reentrant, scope):
    def block(x):  # torch saves other tensors for these than Trident
        return F.layer_norm(F.softplus(x), (8,)).softmax(-1).cumsum(-1)

    class Checkpointed(nn.Module):
        def forward(self, x):
            return checkpoint(block, x, use_reentrant=reentrant)

    m = Checkpointed()
    forward = trident.enabled()(m) if scope == "enabled" else trident.optimize(m)
    x = X.clone().requires_grad_()
    expected = torch.autograd.grad(block(x).square().sum(), x)
    y = forward(x)
    with Watch() as watch:
        y.square().sum().backward()
    torch.testing.assert_close(x.grad, expected[0])
    assert reentrant or {"softmax", "activation"} <= set(watch.seen)  # the forward ran again, and with kernels
    assert not redirect.active()


# optimize(model)


def test_a_models_forward_is_the_scope():
    plain, m = model(), trident.optimize(model())
    assert taken(m, X) == ["linear", "activation", "layer_norm", "softmax"]
    assert taken(F.gelu, X) == [] and taken(trident.optimize(model(), functions=False), X) == ["linear", "layer_norm"]
    torch.testing.assert_close(m(X, scale=2.0), plain(X, scale=2.0))
    assert isinstance(m, Model) and type(m).__name__ == "Model" and repr(m) == repr(plain)
    assert inspect.signature(m.forward) == inspect.signature(plain.forward)
    assert list(m.state_dict()) == list(plain.state_dict())


class Seen(nn.Module):
    """Notes whether its forward was redirected."""

    def __init__(self, function):
        super().__init__()
        self.function, self.seen = function, []

    def forward(self, x):
        self.seen.append(redirect.active())
        return self.function(x)


def test_who_gains_nothing_by_it_is_redirected_each_sixteenth_time(monkeypatch):
    monkeypatch.setattr(redirect.REDIRECT, "in_graphs", False)  # by other tests
    small, large = torch.randn(4), torch.randn(1024, 1024)
    with route.forced("auto"):
        m, kernels = trident.optimize(Seen(F.mish)), trident.optimize(Seen(F.mish))
        for _ in range(33):
            torch.testing.assert_close(m(small), F.mish(small))
        assert [at for at, seen in enumerate(m.seen) if seen] == [0, 16, 32]
        for _ in range(3):
            kernels(large)
        assert kernels.seen == [True] * 3
        kernels(small), kernels(small), kernels(large), kernels(small)  # of another size: begun anew
        assert kernels.seen[3:] == [True, False, True, True]
        m.seen.clear()
        m(small), m.eval()(small), m(small), m(small.double()), m(small), m(small)
        with torch.no_grad():
            m(small)
        assert m.seen == [False, True, False, True, True, False, True]


def test_a_compiled_part_stays_as_it_was_traced(monkeypatch):
    """A graph holds what was redirected when it was traced, which no later call shows; without the mode it would be
    traced again."""
    monkeypatch.setattr(redirect.REDIRECT, "in_graphs", False)
    torch._dynamo.reset()
    graphs = []

    def backend(graph, _):
        graphs.append(graph.code)
        return graph.forward

    m = trident.optimize(Seen(torch.compile(F.mish, backend=backend)))
    with route.forced("auto"):
        for _ in range(4):
            m(torch.randn(1024, 1024))
        large = len(graphs), m.seen[:]
        for _ in range(4):
            m(X)
    assert large == (1, [True] * 4) and "trident" in graphs[0]
    assert m.seen == [True] * 8 and len(graphs) == 2  # of another size


def test_who_watches_sees_each_call():
    m = trident.optimize(Seen(F.mish))
    for _ in range(3):
        m(X)
    with route.forced("auto"), trident.enabled():
        for _ in range(3):
            m(X)
    assert m.seen == [True] * 6


def test_a_forward_that_raises_says_nothing_of_the_next():
    m = trident.optimize(Seen(lambda x: F.mish(x).view(3)))
    with route.forced("auto"):
        for _ in range(2):
            with pytest.raises(RuntimeError):
                m(X)
    assert m.seen == [True, True] and not redirect.active()


def test_restore_ends_it():
    m = trident.optimize(trident.optimize(model()))
    assert type(trident.restore(m)) is Model and taken(m, X) == []


def test_torchs_inference_path_stays():
    """It is what gives zeros for padding; torch asks whether a mode is on before it takes it."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    plain, padding = nn.TransformerEncoder(layer, 2).eval(), torch.tensor([[False, True], [False, False]])
    x = X.view(2, 2, 8)
    with torch.no_grad():
        expected = plain(x, src_key_padding_mask=padding)
        got = trident.optimize(copy.deepcopy(plain))(x, src_key_padding_mask=padding)
        with trident.enabled():
            again = trident.optimize(copy.deepcopy(plain), functions=False)(x, src_key_padding_mask=padding)
    assert expected[0, 1].eq(0).all()
    torch.testing.assert_close([got, again], [expected, expected])


def test_copies_and_pickles_are_the_same_kind():
    m = trident.optimize(model())
    for twin in (copy.deepcopy(m), copy.copy(m), pickle.loads(pickle.dumps(m))):
        assert type(twin) is type(m) and taken(twin, X) == taken(m, X)
        assert type(trident.restore(twin)) is Model
        trident.optimize(m)  # a shallow copy shares its children


def test_what_has_no_scope_says_why():
    replaced = Model()
    replaced.forward = lambda x: x
    scripted = torch.jit.script(nn.Sequential(nn.Flatten()))
    parametrized = nn.utils.parametrizations.weight_norm(nn.Conv1d(1, 1, 1))
    expected = {
        "its forward was replaced on the instance": replaced,
        "scripted": scripted,
        "parametrized": parametrized,
        "it has no forward": nn.ModuleList([nn.GELU()]),
        "is Trident's already": nn.GELU(),
    }
    for reason, m in expected.items():
        report = trident.optimize(m, report=True)
        assert report.functions == reason and reason in str(report)
    assert "functions: redirected" in str(trident.optimize(model(), report=True))


@pytest.mark.parametrize("scope", ["enabled", "model"])
def test_compiles_whole(scope):
    torch._dynamo.reset()
    m = model() if scope == "enabled" else trident.optimize(model())
    x = X.clone().requires_grad_()
    with trident.enabled() if scope == "enabled" else contextlib.nullcontext():
        expected = torch.autograd.grad(m(x).square().sum(), x)
        recorded = AotEagerAndRecordGraphs()
        compiled = torch.compile(m, fullgraph=True, backend=recorded)
        torch.testing.assert_close(torch.autograd.grad(compiled(x).square().sum(), x), expected)
    assert "trident.softmax" in str(recorded.fw_graphs[0].graph)
    torch._dynamo.reset()


def test_exports():
    m = trident.optimize(model().eval())
    program = torch.export.export(m, (X,))
    assert "trident.softmax" in str(program.graph)
    torch.testing.assert_close(program.module()(X), m(X))


# The price


def cost(function, calls=400):
    start = time.thread_time()
    for _ in range(calls):
        function()
    return (time.thread_time() - start) / calls


@pytest.mark.parametrize("call", [lambda: torch.add(X, X), lambda: X + X, lambda: X.shape, lambda: X.view(8, 4)])
def test_a_call_that_is_not_taken_costs_little(call):
    """2 us; 4 here, for a busy machine. The least of differences between neighbours."""
    differences = []
    for _ in range(20):
        off = cost(call)
        with trident.enabled():
            differences.append(cost(call) - off)
    assert statistics.quantiles(differences, n=4)[0] < 4e-6


@pytest.mark.parametrize("call", [lambda: torch.split(X, 2), lambda: 1 - X, lambda: X.unflatten(0, (2, 2))])
def test_a_function_in_python_costs_what_any_mode_costs(call):
    """torch takes 2 us and more for any mode (docs/measured.md); ours adds a tenth, 1 us here, for a busy machine."""
    differences = []
    for _ in range(20):
        with Plain():
            any_mode = cost(call)
        with trident.enabled():
            differences.append(cost(call) - any_mode)
    assert statistics.quantiles(differences, n=4)[0] < 1e-6


def test_tridents_own_functions_do_not_pay_for_the_mode():
    """The mode on costs a microsecond an attribute: 40 and more for a function that reads its input's."""
    ratios = []
    for _ in range(10):
        off = cost(lambda: trident.functional.layer_norm(X, (8,)), 50)
        with trident.enabled():
            ratios.append(cost(lambda: trident.functional.layer_norm(X, (8,)), 50) / off)
    assert statistics.quantiles(ratios, n=4)[0] < 1.5


class CrossEntropy(nn.Module):
    def forward(self, x):
        return F.cross_entropy(x, x.argmax(1), reduction="none")


class Distance(nn.Module):
    def forward(self, x):
        return F.pairwise_distance(x, x[0])


class LearntMean(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return (self.scale * x).mean(-1)


class Attention(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x, x, x, is_causal=True)


ROWS, PLANES = torch.randn(4, 8), torch.randn(4, 8, 6, 6)
LAST = PLANES.contiguous(memory_format=torch.channels_last)
BY_MODE = (nn.GroupNorm(2, 8), nn.BatchNorm2d(8), nn.InstanceNorm2d(8, affine=True, track_running_stats=True))
PLACES = (
    *(nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2)),
    *(nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.PixelShuffle(2)),
)
OF_ROWS = (
    *(nn.ReLU(), nn.Sigmoid(), nn.GELU(), nn.PReLU(), nn.GLU(), nn.Dropout(0.0), nn.LayerNorm(8), nn.RMSNorm(8)),
    *(nn.BatchNorm1d(8), nn.Softmax(-1), nn.Linear(8, 8), CrossEntropy(), Distance(), LearntMean()),
)
EXPORTED = (
    *((layer, x, training) for layer in BY_MODE for x in (PLANES, LAST) for training in (False, True)),
    *((layer, x, False) for layer in PLACES for x in (PLANES, LAST)),
    *((layer, ROWS, True) for layer in OF_ROWS),
    *((nn.Embedding(9, 4), torch.randint(9, (4, 3)), True), (Attention(), torch.randn(4, 2, 16, 8), True)),
    *((layer(8, 8, batch_first=True), torch.randn(4, 64, 8), True) for layer in (nn.RNN, nn.GRU)),
)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("layer, x, training", EXPORTED, ids=lambda part: type(part).__name__)
def test_export_leaves_the_batch_free(layer, x, training, strict):
    """Whether a kernel is faster depends on the size, and is not asked of a graph for all sizes."""
    model = trident.optimize(nn.Sequential(copy.deepcopy(layer))).train(training)
    with route.forced("auto"):
        program = torch.export.export(model, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},), strict=strict)
    exported, more = program.module(), torch.cat([x, x, x[:1]])
    if x is LAST:
        more = more.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(exported(more), model(more))
    kept = dict(exported.named_buffers())  # strict: those that the graph reads
    assert ("0.running_mean" in kept) is hasattr(layer, "running_mean")
    torch.testing.assert_close({n: b for n, b in model.named_buffers() if n in kept}, kept)


@pytest.mark.parametrize("strict", [False, True])
def test_a_bound_of_the_batch_decides(strict):
    """Small whatever it is: torch's. What may be large has its kernel."""
    for most, expected in ((64, False), (None, True)):
        batch = torch.export.Dim("batch", max=most)
        with route.forced("auto"):
            program = torch.export.export(
                trident.optimize(nn.Sequential(nn.Mish())), (X,), dynamic_shapes=({0: batch},), strict=strict
            )
        assert ("trident.activation" in str(program.graph_module)) is expected


@pytest.mark.parametrize("dynamic", [False, True])
def test_compile_decides_by_size(dynamic):
    for size, expected in ((64, False), (1 << 20, True)):
        torch._dynamo.reset()
        recorded, x = AotEagerAndRecordGraphs(), torch.randn(size)
        if dynamic:
            torch._dynamo.mark_dynamic(x, 0)
        with route.forced("auto"):
            torch.compile(trident.functional.mish, fullgraph=True, backend=recorded)(x)
        assert ("trident.activation" in str(recorded.fw_graphs[0].graph)) is expected
    torch._dynamo.reset()
