"""Adafactor steps as torch's does, in a few launches for all matrices, and keeps torch's state."""

import pytest
import torch
from torch import nn

from trident import optim
from trident.inspect.compiled import compiled
from trident.inspect.launches import described
from trident.inspect.targets import TARGETS
from trident.optim import adafactor, factored, lists
from trident.runtime import launch, tuning

from .test_optim import NOISE, Decisions, give_gradients, grouped, parameters, same, same_states, states

SHAPES = (7,), (33, 5), (), (1, 300), (70, 1000), (3, 40, 50), (5, 1), (2, 2, 37, 64), (4, 3, 3, 3)
SMALL = 8  # the place of a stack of small matrices, torch's
STEPS = 8
WAYS = {
    "plain": {"eps": (1e-7, 1e-3)},
    "all": {"lr": 0.3, "beta2_decay": -0.6, "eps": (1e-4, 0.1), "d": 1.5, "weight_decay": 0.1, "maximize": True},
}


def trained(library, way, dtype=torch.float32, steps=STEPS, rounded_to=None):
    params = parameters(rounded_to or dtype, SHAPES)
    for p in params:
        p.data = p.data.to(dtype)
    optimizer = library.Adafactor(grouped(params), **WAYS[way])
    for i in range(steps):
        give_gradients(params, i, without=(1,) if i in (0, 5) else (), rounded_to=rounded_to)
        optimizer.step()
        if rounded_to:
            state = [t for each in optimizer.state.values() for name, t in each.items() if name != "step"]
            for t in [p.data for p in params] + state:
                t.copy_(t.to(rounded_to))
    return params, optimizer


@pytest.mark.parametrize("dtype", NOISE, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_steps_as_torch(way, dtype):
    half = dtype == torch.bfloat16
    theirs, their_optimizer = trained(
        torch.optim, way, torch.float32 if half else dtype, rounded_to=dtype if half else None
    )
    with Decisions() as decisions:
        ours, our_optimizer = trained(optim, way, dtype)
    assert decisions.reasons == {None, "a stack of small matrices"}
    small = slice(SMALL, SMALL + (1 if half else 0))  # in bfloat16 torch rounds after each operation
    del ours[small], theirs[small]
    same(ours, theirs, dtype)
    same_states(our_optimizer, their_optimizer, dtype)


@pytest.mark.parametrize("first, second", [(optim, torch.optim), (torch.optim, optim)], ids=["to torch", "from torch"])
def test_state_goes_both_ways(first, second):
    expected, _ = trained(torch.optim, "all")
    params, optimizer = trained(first, "all", steps=STEPS // 2)
    other = second.Adafactor(grouped(params), **WAYS["all"])
    other.load_state_dict(optimizer.state_dict())
    for i in range(STEPS // 2, STEPS):
        give_gradients(params, i, without=(1,) if i == 5 else ())
        other.step()
    same(params, expected)


def test_extremes():
    """Zeros, a NaN, an infinity, what is far below the floor: as torch."""

    def step(library, value):
        params = parameters(shapes=[(5, 40), (9,)])
        give_gradients(params, 0)
        for p in params:
            p.grad[1:3] = value
        library.Adafactor(params, lr=0.1).step()
        return params

    for value in (0.0, float("nan"), float("inf"), 1e-30, 1e9):
        for a, b in zip(step(optim, value), step(torch.optim, value), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, equal_nan=True)


def test_what_is_torchs():
    for option in ({"foreach": True}, {"foreach": False}):
        params = parameters()[:5]
        give_gradients(params, 0)
        with Decisions() as decisions:
            optim.Adafactor(params, **option).step()
        assert len(decisions.reasons) == 1 and "foreach" in decisions.reasons.pop()
    p = nn.Parameter(torch.ones(3, 4).t())
    p.grad = torch.ones(4, 3)
    with Decisions() as decisions:
        optim.Adafactor([p]).step()
    assert decisions.reasons == {"tensors that lie differently in memory"}
    with pytest.raises(RuntimeError, match="sparse"):
        p = nn.Parameter(torch.ones(3))
        p.grad = torch.ones(3).to_sparse()
        optim.Adafactor([p]).step()


def test_no_element_is_a_step_of_nothing():
    """torch 2.13 divides by 0 there."""
    p = nn.Parameter(torch.ones(0, 3))
    p.grad = torch.ones(0, 3)
    optimizer = optim.Adafactor([p])
    optimizer.step()
    assert states(optimizer)[0]["step"] == 1


def test_the_same_in_every_run():
    found = []
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        found.append(trained(optim, "all", steps=2)[0])
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


@pytest.mark.once
@pytest.mark.skipif(launch.INTERPRETED, reason="under TRITON_INTERPRET=1 kernels are Python, not sources")
@pytest.mark.parametrize("name", TARGETS)
def test_kernels_compile_for_gpus(name):
    meta = {**tuning.factors(torch.device("cuda")).meta}
    del meta["CHUNK"]
    table, sums = torch.empty(8, dtype=torch.int64), torch.empty(8, dtype=torch.float64)
    numbers = [1 << 60] * lists.NUMBERS
    for dtype in (torch.float32, torch.bfloat16):
        x, columns = torch.empty(8, dtype=dtype), torch.empty(8)
        for work, b in (
            (factored.moments, x), (factored.columns_mean, x), (factored.norms, x), (factored.move, x),
            (factored.vector_moments, None), (factored.vector_move, None),
        ):  # fmt: skip
            launched = described(
                factored.list_kernel, (table, table, x, x, x, b, sums, columns, 1 << 40, *numbers),
                dict(WORK=work, BY_COLUMN=work is factored.columns_mean, ALIGNED=b is not None, **meta),
            )  # fmt: skip
            assert not compiled(launched, TARGETS[name]).spills, launched


def test_matrices_are_tabled_by_their_shapes():
    shape = adafactor._shape((torch.Size((3, 40, 50)), torch.Size((5, 7))), True, 1000, 4, 32)
    assert shape.programs == 3 * 2 + 1 and shape.scratch == 6 * 50 + 7
    assert shape.counts == ((2, 2),) * 3 + ((1, 1),)
