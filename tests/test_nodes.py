"""Kernels' results with torch's nodes in autograd's graph: all that holds of Trident's own nodes holds of them."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import trident.functional as T
from tests import test_laws as laws
from trident.cases import CASES
from trident.cases.case import floating, results
from trident.runtime import nodes, route

pytestmark = [pytest.mark.once, pytest.mark.skipif(laws.DEVICE != "cpu", reason="on GPUs gradients are kernels")]
aten = torch.ops.aten

NODES = {
    "adaptive_max_pool2d.indices": "AdaptiveMaxPool2DBackward0",
    "adaptive_max_pool3d": "AdaptiveMaxPool3DBackward0",
    "alpha_dropout": "MulBackward0",
    "dropout": "MulBackward0",
    "elu": "EluBackward0",
    "elu.alpha": "EluBackward0",
    "gumbel_softmax": "SoftmaxBackward0",
    "gumbel_softmax.hard": "AddBackward0",
    "layer_norm.plain": "NativeLayerNormBackward0",
    "log_softmax": "LogSoftmaxBackward0",
    "log_softmax.1": "LogSoftmaxBackward0",
    "logsigmoid": "LogSigmoidBackward0",
    "max.rows": "MaxBackward0",
    "max_pool2d": "MaxPool2DWithIndicesBackward0",
    "max_pool2d.indices": "MaxPool2DWithIndicesBackward0",
    "max_pool3d.indices": "MaxPool3DWithIndicesBackward0",
    "min": "MinBackward0",
    "rrelu": "MulBackward0",
    "selu": "EluBackward0",
    "sigmoid": "SigmoidBackward0",
    "silu": "SiluBackward0",
    "softmax": "SoftmaxBackward0",
    "softmax.0": "SoftmaxBackward0",
    "softmax.2d": "SoftmaxBackward0",
    "softplus": "SoftplusBackward0",
    "tanh": "TanhBackward0",
}
each = pytest.mark.parametrize("case", [CASES[name] for name in NODES], ids=NODES)


@pytest.fixture(autouse=True)
def of_torch(monkeypatch):
    """Every gradient that may be torch's is, at any size."""
    monkeypatch.setattr(route, "gradient_to_torch", lambda name, x: True)


@pytest.mark.parametrize("name", NODES)
def test_the_node_is_torchs_and_the_result_the_kernels(name, monkeypatch):
    case = CASES[name]
    kept = []
    torchs = nodes.torchs
    monkeypatch.setattr(
        nodes,
        "torchs",
        lambda call, op, result, *args: (kept.extend(results(result)), torchs(call, op, result, *args))[1],
    )
    y = results(case.ours(*laws.make(case, case.shapes[0], torch.float32)))
    assert type(y[0].grad_fn).__name__ == NODES[name]
    places = {t.data_ptr() for t in kept}
    assert places and all(t.data_ptr() in places for t in y)


@each
@pytest.mark.parametrize("dtype", (torch.float32, torch.bfloat16, torch.float64), ids=str)
def test_equals_float64(case, dtype):
    if not case.random:
        for shape in case.shapes:
            laws.test_equals_float64(case, shape, dtype)


LAWS = (
    *("backward_twice", "double_backward", "expanded_gradient", "inside_function_mode"),
    *("nothing_is_mutated", "results_do_not_alias", "torch_func"),
)


@each
@pytest.mark.parametrize("law", LAWS)
def test_laws(case, law):
    if not (case.random and law in ("double_backward", "expanded_gradient", "torch_func")):
        getattr(laws, f"test_{law}")(case)


@each
def test_checkpoint(case):
    """Hooks for what is saved: the gradient is then Trident's node's, which rounds as a kernel does or as torch."""
    inputs = laws.make(case, case.shapes[0], torch.float32)
    again = laws.run(lambda *inputs: checkpoint(case.ours, *inputs, use_reentrant=False), inputs)
    torch.testing.assert_close(again, laws.run(case.ours, inputs), rtol=1e-5, atol=1e-6)


@each
def test_layouts_as_torch(case):
    laws.test_layouts_as_torch(case, case.shapes[0])


@pytest.mark.parametrize("name", ("dropout", "alpha_dropout", "rrelu"))
def test_what_is_random_is_what_a_kernel_draws(name):
    """The same numbers for the same seed, in the forward and in the backward, whoever records them."""
    x, found = torch.randn(33, 77), []
    for gradient in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(route, "gradient_to_torch", lambda *_, gradient=gradient: gradient)
            torch.manual_seed(3)
            needing = x.clone().requires_grad_()
            y = getattr(T, name)(needing, training=True)
            found.append((y, *torch.autograd.grad(y, needing, torch.ones_like(y))))
    assert "Mul" in type(found[0][0].grad_fn).__name__ and "Mul" not in type(found[1][0].grad_fn).__name__
    laws.same([t.detach() for t in found[0]], [t.detach() for t in found[1]])


def test_a_result_that_is_changed_in_place_is_refused_as_by_torch():
    for sigmoid in (F.sigmoid, T.sigmoid):
        y = sigmoid(torch.randn(5, requires_grad=True))
        y.add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.sum().backward()


class Seen(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def test_nobody_else_sees_the_operator():
    """A mode, autocast, a hook that computes with what is saved, a subclass: then the node is Trident's."""
    x = torch.randn(4, 6, requires_grad=True)

    def node():
        return type(T.sigmoid(x).grad_fn).__name__

    assert node() == "SigmoidBackward0"
    with Seen() as seen:
        assert node() == "_ActivationBackward"
    assert "aten.sigmoid.default" not in seen.names and "trident.activation.default" in seen.names
    with torch.autocast("cpu", torch.bfloat16):
        assert node() == "_ActivationBackward"
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.sigmoid(), lambda t: t):
        assert node() == "_ActivationBackward"
    assert checkpoint(lambda x: T.sigmoid(x) * (node() == "_ActivationBackward"), x, use_reentrant=False).all()
    with torch.no_grad():
        assert not nodes.possible(x)
    assert not nodes.possible(x.detach())
    assert torch._C._len_torch_dispatch_stack() == 0


def test_what_torch_asks_for_besides_is_computed():
    """Below the operator, were it made of others; the mode is gone whatever happens."""
    x = torch.randn(4, 6, requires_grad=True)
    y = torch.zeros(4, 6)
    found = nodes.torchs(F.softmax, aten._softmax.default, y, x, 1, 3, torch.float64)  # converts first
    assert found is y
    assert type(found.grad_fn.next_functions[0][0]).__name__ == "ToCopyBackward0"
    torch.testing.assert_close(nodes.torchs(torch.tanh, aten.sigmoid.default, y, x), x.tanh())
    with pytest.raises(TypeError):
        nodes.torchs(torch.tanh, aten.tanh.default, y, "x")
    assert torch._C._len_torch_dispatch_stack() == 0


@each
def test_gradients_reach_leaves_of_several_calls(case):
    """Two calls on one leaf: gradients add up, as torch's."""
    inputs = laws.make(case, case.shapes[0], torch.float32)
    if case.random:
        return
    sums = []
    for fn in (case.ours, case.reference):
        for t in laws.leaves(inputs):
            t.grad = None
        total = sum(t.sum() for _ in range(2) for t in floating(results(fn(*inputs))))
        total.backward()
        sums.append([t.grad for t in laws.leaves(inputs)])
    torch.testing.assert_close(*sums)
