"""What is particular to recurrent cells and layers: samples alone, packed sequences, directions, dropout."""

import itertools

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import trident
import trident.nn
from tests.test_laws import Recorder, close, same
from trident.cases.case import results
from trident.runtime import route, tuning_rnn

pytestmark = pytest.mark.once

CELLS = ("RNNCell", "LSTMCell", "GRUCell")
LAYERS = ("RNN", "GRU")


def twins(name, *args, dtype=torch.float64, **how):
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*args, **how, dtype=dtype)
    ours = getattr(trident.nn, name)(*args, **how, dtype=dtype)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def flat(found):
    return [t for part in results(found) for t in ([part.data] if isinstance(part, PackedSequence) else [part])]


def agree(ours, theirs, *inputs, call=lambda module, *inputs: module(*inputs)):
    """Results and gradients of inputs and parameters; a kernel ran."""
    found = []
    for module in (ours, theirs):
        leaves = [t for t in [*inputs, *module.parameters()] if t.requires_grad]
        torch.manual_seed(1)
        with Recorder() as recorder:
            ys = flat(call(module, *inputs))
        assert bool(recorder.calls) == (module is ours)
        loss = sum((y * torch.arange(1, y.numel() + 1).view_as(y).to(y.dtype).cos()).sum() for y in ys)
        found.append([*ys, *torch.autograd.grad(loss, leaves)])
    close(*found, torch.float64, 1000)


def randn(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("batch", ((), (4,)), ids=("alone", "batch"))
def test_cells_alone_and_without_a_state(name, batch):
    ours, theirs = twins(name, 3, 5)
    x, h, c = randn(*batch, 3), randn(*batch, 5), randn(*batch, 5)
    agree(ours, theirs, x)
    states = (h, c) if name == "LSTMCell" else (h,)
    agree(ours, theirs, x, *states, call=lambda m, x, *s: m(x, s if len(s) == 2 else s[0]))


def test_relu_cell():
    agree(*twins("RNNCell", 3, 5, nonlinearity="relu"), randn(4, 3), randn(4, 5))
    agree(*twins("RNN", 3, 5, nonlinearity="relu"), randn(6, 4, 3))


@pytest.mark.parametrize("name", (*CELLS, *LAYERS))
def test_torch_says_what_is_wrong(name):
    ours, theirs = twins(name, 3, 5)
    for bad in (randn(2, 3, 4, 3), randn(4, 4)):
        with pytest.raises(Exception) as expected:
            theirs(bad)
        with pytest.raises(Exception) as got:
            ours(bad)
        assert (type(got.value), str(got.value)) == (type(expected.value), str(expected.value))


def test_one_bias_and_expanded_gradients():
    x, h, w_ih, w_hh, b = randn(4, 3), randn(4, 5), randn(15, 3), randn(15, 5), randn(15)
    for biases in ((b, None), (None, b)):
        ours, theirs = (f(x, h, w_ih, w_hh, *biases) for f in (trident.functional.gru_cell, torch.gru_cell))
        close([ours], [theirs], torch.float64, 10)
        wanted = x, h, w_ih, w_hh, b
        grads = (torch.autograd.grad(y.sum(), wanted) for y in (ours, theirs))
        close(*grads, torch.float64, 100)


def test_only_what_is_wanted_is_computed():
    x, h, c = (t.detach() for t in (randn(4, 3), randn(4, 5), randn(4, 5)))
    weights = [randn(20, 3), randn(20, 5), randn(20), randn(20)]
    for wanted in range(4):
        given = [w if at == wanted else w.detach() for at, w in enumerate(weights)]
        found = [f(x, (h, c), *given)[0].square().sum() for f in (trident.functional.lstm_cell, torch.lstm_cell)]
        close(*(torch.autograd.grad(y, given[wanted]) for y in found), torch.float64, 100)


@pytest.mark.parametrize("name", CELLS)
def test_autocast_lowers_products_and_keeps_states(name):
    """As torch: the state of an LSTM and of a GRU stays float32 on a CPU."""
    ours, theirs = twins(name, 8, 16, dtype=torch.float32)
    x = torch.randn(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = [results(m(x)) for m in (ours, theirs)]
    assert [t.dtype for t in found[0]] == [t.dtype for t in found[1]]
    close(*found, torch.bfloat16, 16)
    sum(t.float().sum() for t in found[0]).backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in ours.parameters())


@pytest.mark.parametrize("name", CELLS)
def test_compiled_whole_and_second_derivatives(name):
    ours, theirs = twins(name, 3, 5)
    x = randn(4, 3)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    same(results(compiled(x)), results(ours(x)))

    def second(module):
        (dx,) = torch.autograd.grad(sum(t.square().sum() for t in results(module(x))), x, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), [x, *module.parameters()])

    close(second(ours), second(theirs), torch.float64, 1000)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("H", (5, 70), ids=("one kernel", "in steps"))
@pytest.mark.parametrize(
    ("layers", "both", "first", "bias"),
    [(1, False, False, True), (2, True, False, True), (2, False, True, False), (1, True, True, True)],
)
def test_layers(name, H, layers, both, first, bias):
    how = {"num_layers": layers, "bidirectional": both, "batch_first": first, "bias": bias}
    ours, theirs = twins(name, 3, H, **how)
    x = randn(6, 4, 3)
    agree(ours, theirs, x)
    agree(ours, theirs, x, randn(layers * (1 + both), 6 if first else 4, H))
    agree(ours, theirs, randn(6, 3))  # a sequence alone
    agree(ours, theirs, x, call=lambda m, x: m(x)[1])  # the last state alone
    assert flat(ours(x))[0].stride() == flat(theirs(x))[0].stride()


def test_which_layers_are_taken_in_steps():
    cpu = torch.device("cpu")
    assert not tuning_rnn.layer(4, 5, torch.float64, cpu).loops and tuning_rnn.layer(4, 70, torch.float64, cpu).loops
    assert (
        tuning_rnn.layer(4, 512, torch.bfloat16, cpu).loops and not tuning_rnn.layer(4, 512, torch.float32, cpu).loops
    )


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("both", (False, True))
def test_packed_sequences(name, both):
    ours, theirs = twins(name, 3, 5, 2, bidirectional=both)
    D = 2 + 2 * both
    x = randn(6, 4, 3)
    ordered = [6, 4, 4, 1]
    agree(ours, theirs, x, call=lambda m, x: m(pack_padded_sequence(x, ordered)))
    agree(ours, theirs, x, call=lambda m, x: m(pack_padded_sequence(x, [6, 6, 6, 6])))
    agree(
        ours, theirs, x, randn(D, 4, 5),
        call=lambda m, x, h: m(pack_padded_sequence(x, [2, 6, 1, 3], enforce_sorted=False), h),
    )  # fmt: skip
    agree(ours, theirs, randn(5, 3), randn(2, 3), call=lambda m, *xs: m(pack_sequence(xs)))


@pytest.mark.parametrize("name", LAYERS)
def test_dropout_draws_torchs_numbers(name):
    ours, theirs = twins(name, 3, 5, 3, dropout=0.5)
    agree(ours, theirs, randn(6, 4, 3))
    agree(ours.eval(), theirs.eval(), randn(6, 4, 3))


@pytest.mark.parametrize("both", (False, True))
def test_second_derivatives_of_layers(both):
    ours, theirs = twins("GRU", 3, 5, bidirectional=both)
    x = randn(4, 2, 3)

    def second(module):
        (dx,) = torch.autograd.grad(module(x)[0].square().sum(), x, create_graph=True)
        return torch.autograd.grad(dx.square().sum(), [x, *module.parameters()])

    close(second(ours), second(theirs), torch.float64, 1000)


def test_what_a_step_does_not_have_stays():
    """The state of a sequence that has ended is its last, and its gradient comes from there."""
    ours, _ = twins("GRU", 3, 5)
    x = randn(6, 2, 3)
    h_n = ours(pack_padded_sequence(x, [6, 2]))[1]
    close([h_n[0, 1]], [ours(x[:2, 1:])[1][0, 0]], torch.float64, 10)
    (dx,) = torch.autograd.grad(h_n[0, 1].sum(), x)
    assert dx[:2, 1].all() and not dx[2:].any() and not dx[:, 0].any()


def test_functions_of_torch_are_redirected():
    """As torch.nn's classes call them, and by themselves."""
    torch.manual_seed(0)
    x = torch.randn(20, 2, 3)
    for name in (*CELLS, *LAYERS):
        module = getattr(torch.nn, name)(3, 5)
        given = x[0] if name in CELLS else x
        with Recorder() as recorder, trident.enabled():
            inside = flat(module(given))
        assert recorder.calls, name
        close(inside, flat(module(given)), torch.float32, 300)


def test_optimize_and_restore():
    model = torch.nn.ModuleList([getattr(torch.nn, name)(3, 5) for name in (*CELLS, *LAYERS)])
    names = list(model.state_dict())
    assert trident.optimize(model, report=True).swapped == dict(zip("01234", (*CELLS, *LAYERS), strict=True))
    assert all(type(m).__module__ == "trident.nn.rnn" for m in model) and list(model.state_dict()) == names
    assert [type(m) for m in trident.restore(model)] == [getattr(torch.nn, name) for name in (*CELLS, *LAYERS)]


def test_few_steps_and_small_cells_are_torchs():
    with route.forced("auto"):
        for steps, name in itertools.product((4, 32), LAYERS):
            module = getattr(trident.nn, name)(3, 5)
            with Recorder() as recorder:
                module(torch.randn(steps, 2, 3))
            assert bool(recorder.calls) == (steps == 32)
        with Recorder() as recorder:
            trident.nn.LSTMCell(8, 8)(torch.randn(4, 8))
        assert not recorder.calls
        with Recorder() as recorder:
            trident.nn.LSTMCell(8, 8)(torch.randn(4096, 8))
        assert recorder.calls


def test_lstm_is_torchs():
    assert trident.nn.LSTM is torch.nn.LSTM
