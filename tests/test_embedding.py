"""Embeddings: gradients of long runs by both ways, max_norm, sparse, the functions that torch alone has."""

import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE, Recorder, close, same
from trident.ops import _segments
from trident.runtime import tuning_tables
from trident.runtime.tuning import TRACED

F = torch.nn.functional


@pytest.fixture(params=("as planned", "sorted"))
def way(request, monkeypatch):
    """On CPUs the second way of _segments.py is what GPUs take."""
    if request.param == "sorted":
        monkeypatch.setattr(_segments.tuning_tables, "key_turns", lambda *args: TRACED)
    return request.param


def dense(keys, dy, V):
    return torch.zeros(V, dy.shape[1], dtype=torch.float64, device=dy.device).index_add_(0, keys, dy.double())


@pytest.mark.parametrize("T_, V", ((1, 1), (40, 3), (5000, 3), (5000, 400), (5000, 100000)))
def test_sums_by_key(way, T_, V):
    """Runs that end in their chunk, that go on into the next, that fill many; T_ positions in chunks of 16 and more."""
    torch.manual_seed(0)
    keys, dy = torch.randint(V, (T_,), device=DEVICE), torch.randn(T_, 65, device=DEVICE)
    keys[T_ // 3 :: 2] = V // 2
    dw = _segments.sum_by_key((V, 65), keys, dy, -1)
    close([dw], [dense(keys, dy, V)], torch.float32, T_)
    same(dw, _segments.sum_by_key((V, 65), keys, dy, -1))
    ignoring = _segments.sum_by_key((V, 65), keys, dy, V // 2)
    assert not ignoring[V // 2].any()
    ignoring[V // 2] = dw[V // 2]
    same(ignoring, dw)


@pytest.mark.skipif(DEVICE != "cpu", reason="only CPUs add in turns")
def test_sums_do_not_depend_on_threads():
    keys, dy = torch.randint(50, (300,)), torch.randn(300, 33)
    found, before = [], torch.get_num_threads()
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(_segments.sum_by_key((50, 33), keys, dy, -1))
    torch.set_num_threads(before)
    same(found[1:], found[:-1])
    assert tuning_tables.key_turns(50, 300, 33, torch.float32, 3, dy.device).grid != (1, 1)


def test_max_norm_writes_the_table_as_torch():
    index = torch.tensor([[0, 2], [2, 3]])
    tables = [torch.nn.Parameter(4 * torch.ones(5, 3)) for _ in range(2)]
    with Recorder() as recorder:
        ours = T.embedding(index, tables[0], max_norm=1.5)
    assert recorder.calls
    same(ours, F.embedding(index, tables[1], max_norm=1.5))
    same(tables[0].data, tables[1].data)
    assert tables[0][1, 0] == 4 and tables[0][0, 0] < 1


def test_sparse_gradients_are_torchs():
    w = torch.randn(5, 3, requires_grad=True)
    T.embedding(torch.tensor([1, 1]), w, sparse=True).sum().backward()
    assert w.grad.is_sparse


@pytest.mark.parametrize("mode", ("sum", "mean", "max"))
def test_bags_that_leave_positions_out(mode):
    """The last offset may end before the indices do: what is behind it is in no bag."""
    w, index = torch.randn(7, 5, dtype=torch.float64, requires_grad=True), torch.randint(7, (20,))
    offsets = torch.tensor([0, 4, 4, 11])
    how = {"mode": mode, "include_last_offset": True}
    with Recorder() as recorder:
        y = T.embedding_bag(index, w, offsets, **how)
        (dw,) = torch.autograd.grad(y.square().sum(), w)
    assert len(recorder.calls) == 2
    z = F.embedding_bag(index[:11], w, offsets, **how)
    close([y, dw], [z, *torch.autograd.grad(z.square().sum(), w)], torch.float64, 100)


def test_gumbel_softmax_draws_as_torch():
    x = torch.randn(33, 7, device=DEVICE)
    for how in ({}, {"hard": True}, {"tau": 0.3, "dim": 0}):
        torch.manual_seed(1)
        ours = T.gumbel_softmax(x, **how)
        torch.manual_seed(1)
        torch.testing.assert_close(ours, F.gumbel_softmax(x, **how), rtol=1e-5, atol=1e-6)


def test_one_hot_asks_the_data_for_the_number_of_classes():
    index = torch.tensor([[0, 4], [2, 2]], device=DEVICE)
    with Recorder() as recorder:
        same(T.one_hot(index), F.one_hot(index))
    assert recorder.calls


@pytest.mark.parametrize("name", ("upsample", "upsample_nearest", "upsample_bilinear"))
def test_old_names_warn_in_torchs_words(name):
    x = torch.randn(1, 2, 3, 4)
    with pytest.warns(UserWarning) as ours:
        getattr(T, name)(x, 5)
    with pytest.warns(UserWarning) as theirs:
        getattr(F, name)(x, 5)
    assert str(ours[0].message) == str(theirs[0].message) and ours[0].filename == theirs[0].filename
