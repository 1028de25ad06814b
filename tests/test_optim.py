"""Optimizers step as torch's do, keep torch's state, and leave to torch what kernels lack."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import trident
from trident import optim
from trident.inspect.compiled import compiled
from trident.inspect.launches import described
from trident.inspect.targets import TARGETS
from trident.optim import clip, lists, rules
from trident.runtime import launch, route, tuning

SHAPES = (7,), (33, 5), (), (1, 300), (70, 100), (0, 3), (4, 3, 3, 3)
STEPS = 20
# what another order of rounding may make of 20 steps
NOISE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2**-7}

WAYS = {
    "AdamW": {},
    "Adam": {"weight_decay": 0.1, "maximize": True, "betas": (0.8, 0.95)},
    "Adam decoupled": {"weight_decay": 0.1, "decoupled_weight_decay": True},
    "SGD": {"weight_decay": 0.1},
    "SGD momentum": {"momentum": 0.9, "dampening": 0.3, "maximize": True},
    "SGD nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
}


def parameters(dtype=torch.float32, shapes=SHAPES):
    g = torch.Generator().manual_seed(1)
    return [nn.Parameter(torch.randn(s, generator=g).to(dtype)) for s in shapes]


def give_gradients(params, seed, without=(), rounded_to=None):
    g = torch.Generator().manual_seed(seed)
    for i, p in enumerate(params):
        grad = torch.randn(p.shape, generator=g).to(rounded_to or p.dtype)
        p.grad = None if i in without else torch.empty_like(p).copy_(grad)


def grouped(params):
    return [{"params": params[:3], "lr": 0.03}, {"params": params[3:]}]


class Decisions:
    """Which parameters went where: (optimizer, reason or None)."""

    def __enter__(self):
        self.seen = []
        route.WATCHERS.append(self)
        return self

    def __exit__(self, *_):
        route.WATCHERS.remove(self)

    def __call__(self, name, tensors, reason):
        self.seen.append((name, reason))

    @property
    def reasons(self):
        return {reason for _, reason in self.seen}


def made(library, way, params, **options):
    return getattr(library, way.split()[0])(params, lr=0.01, **WAYS[way], **options)


def trained(library, way, dtype=torch.float32, steps=STEPS, rounded_to=None, **options):
    """rounded_to: what every step's results are rounded to. (In bfloat16 torch's own loop rounds after each operation,
    and its fused SGD gives something else: 2.13, weight_decay, tensors of 32 and more on CPUs.)"""
    params = parameters(rounded_to or dtype)
    for p in params:
        p.data = p.data.to(dtype)
    optimizer = made(library, way, grouped(params), **options)
    for i in range(steps):
        give_gradients(
            params, i, without=(1,) if i in (0, 5) else (), rounded_to=rounded_to
        )  # so counts of steps differ
        optimizer.step()
        if rounded_to:
            state = [t for each in optimizer.state.values() for name, t in each.items() if name != "step"]
            for t in [p.data for p in params] + state:
                t.copy_(t.to(rounded_to))
    return params, optimizer


def same(ours, theirs, dtype=torch.float32):
    """To the noise of the largest: once rounded another way there, an element may have become small since."""
    for a, b in zip(ours, theirs, strict=True):
        largest = b.detach().abs().max().item() if b.numel() else 0.0
        torch.testing.assert_close(a.detach().to(b.dtype), b.detach(), rtol=0, atol=NOISE[dtype] * max(1, largest))


def states(optimizer):
    return optimizer.state_dict()["state"]


def same_states(ours, theirs, dtype):
    """Of two optimizers: the same names and shapes, in `dtype` but for the steps, and the same numbers."""
    found, expected = states(ours), states(theirs)
    assert found.keys() == expected.keys()
    for i in expected:
        assert found[i].keys() == expected[i].keys()
        for name, value in expected[i].items():
            kept = value.dtype if name == "step" else dtype
            assert (found[i][name].shape, found[i][name].dtype) == (value.shape, kept)
            same([found[i][name]], [value], dtype)


@pytest.mark.parametrize("dtype", NOISE, ids=str)
@pytest.mark.parametrize("way", WAYS)
def test_steps_as_torch(way, dtype):
    half = dtype == torch.bfloat16
    theirs, their_optimizer = trained(
        torch.optim, way, torch.float32 if half else dtype, rounded_to=dtype if half else None
    )
    with Decisions() as decisions:
        ours, our_optimizer = trained(optim, way, dtype)
    assert decisions.reasons == {None}
    same(ours, theirs, dtype)
    same_states(our_optimizer, their_optimizer, dtype)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("first, second", [(optim, torch.optim), (torch.optim, optim)], ids=["to torch", "from torch"])
def test_state_goes_both_ways(way, first, second):
    expected, _ = trained(torch.optim, way)
    params, optimizer = trained(first, way, steps=STEPS // 2)
    saved = io.BytesIO()
    torch.save(optimizer.state_dict(), saved)
    saved.seek(0)
    other = made(second, way, grouped(params))
    other.load_state_dict(torch.load(saved))
    for i in range(STEPS // 2, STEPS):
        give_gradients(params, i)
        other.step()
    same(params, expected)


def lion(p, g, m, lr, betas, decay):
    u = (betas[0] * m + (1 - betas[0]) * g).sign()
    return p * (1 - lr * decay) - lr * u, betas[1] * m + (1 - betas[1]) * g


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("policy", ["kernels", "torch"])
def test_lion_is_its_paper(dtype, policy):
    params = parameters(dtype)
    expected = [p.detach().double() for p in params]
    averages = [torch.zeros_like(p) for p in expected]
    optimizer = optim.Lion(params, lr=0.01, weight_decay=0.1)
    for i in range(STEPS):
        give_gradients(params, i)
        for k, p in enumerate(params):
            expected[k], averages[k] = lion(expected[k], p.grad.double(), averages[k], 0.01, (0.9, 0.99), 0.1)
        with route.forced(policy):
            optimizer.step()
    for p, e in zip(params, expected, strict=True):
        torch.testing.assert_close(p.detach().double(), e, rtol=1e-5, atol=1e-6)
    again = optim.Lion(parameters(dtype))
    again.load_state_dict(pickle.loads(pickle.dumps(optimizer.state_dict())))
    assert set(states(again)[0]) == {"exp_avg"}


@pytest.mark.parametrize("number", [{"lr": -1}, {"betas": (0.9, 1.0)}, {"weight_decay": -1}])
def test_lion_names_a_number_out_of_range(number):
    with pytest.raises(ValueError, match=f"Lion: {next(iter(number))}"):
        optim.Lion(parameters(), **number)


def test_zero_and_nan_of_lion():
    p = nn.Parameter(torch.ones(3))
    p.grad = torch.tensor([0.0, float("nan"), -2.0])
    optim.Lion([p], lr=0.5).step()
    torch.testing.assert_close(p.detach(), torch.tensor([1.0, float("nan"), 1.5]), equal_nan=True)


@pytest.mark.parametrize(
    "options, dtype",
    [
        ({}, torch.float32),
        ({}, torch.bfloat16),
        # not in bfloat16: torch 2.13 then normalizes the average itself, in place, which its formula does not
        ({"nesterov": False, "adjust_lr_fn": "match_rms_adamw"}, torch.float32),
    ],
)
def test_muon_steps_as_torch(options, dtype):
    """Until Newton-Schulz, which multiplies the difference of a rounding in bfloat16 by about 3 in each of 5 steps: a
    tenth of a step is allowed for that. Parameters in bfloat16 torch rounds twice a step, Trident once."""

    def run(library):
        params = parameters(dtype, shapes=[(8, 24), (24, 8), (8, 24)])
        optimizer = library.Muon(params, lr=0.01, **options)
        for i in range(4):
            give_gradients(params, i)
            optimizer.step()
        return params, states(optimizer)

    with Decisions() as decisions:
        ours, our_states = run(optim)
    theirs, their_states = run(torch.optim)
    assert decisions.reasons == {None}
    for a, b in zip(ours, theirs, strict=True):
        rounding = torch.finfo(dtype).eps * b.detach().abs().max().item()
        torch.testing.assert_close(a, b, rtol=0, atol=4 * (0.1 * 0.01 + rounding))
    for i, state in their_states.items():
        same([our_states[i]["momentum_buffer"]], [state["momentum_buffer"]], dtype)


# -- what goes to torch


@pytest.mark.parametrize("option", [{"foreach": True}, {"fused": True}, {"amsgrad": True}], ids=str)
def test_options_that_kernels_lack(option):
    theirs, _ = trained(torch.optim, "AdamW", steps=3, **option)
    with Decisions() as decisions:
        ours, _ = trained(optim, "AdamW", steps=3, **option)
    assert len(decisions.reasons) == 1 and next(iter(option)) in decisions.reasons.pop()
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a, b)


def test_tensors_that_kernels_lack_go_alone():
    """A complex parameter and one that lies differently from its gradient are torch's, the others not."""

    def step(library):
        params = [*parameters(), nn.Parameter(torch.randn(3, dtype=torch.complex64).mul_(0)), *parameters()[3:5]]
        give_gradients(params, 0)
        params[3].grad = params[3].grad.expand(1, 300)
        params[4].grad = params[4].grad.t().contiguous().t()
        optimizer = library.AdamW(params, foreach=None)
        optimizer.step()
        return params

    with Decisions() as decisions:
        ours = step(optim)
    assert decisions.reasons == {None, "no kernel for torch.complex64", "tensors that lie differently in memory"}
    for a, b in zip(ours, step(torch.optim), strict=True):
        torch.testing.assert_close(a, b)


def test_sparse_gradients():
    def step(library):
        embedding = nn.Embedding(5, 3, sparse=True)
        with torch.no_grad():
            embedding.weight.fill_(1)
        embedding(torch.tensor([1, 3])).sum().backward()
        library.SGD(embedding.parameters(), lr=0.1).step()
        return embedding.weight

    assert torch.equal(step(optim), step(torch.optim))
    with pytest.raises(RuntimeError, match="sparse"):
        p = nn.Parameter(torch.ones(3))
        p.grad = torch.ones(3).to_sparse()
        optim.AdamW([p]).step()


def test_small_lists_are_faster_in_torch():
    with route.forced("auto"), Decisions() as decisions:
        for cls in (optim.AdamW, optim.SGD):
            params = parameters(shapes=[(3,)])
            give_gradients(params, 0)
            cls(params).step()
        many = parameters(shapes=[(3,)] * 100)
        give_gradients(many, 0)
        optim.AdamW(many).step()
    assert len(decisions.seen) == 102 and all(reason for _, reason in decisions.seen[:2])
    assert {reason for _, reason in decisions.seen[2:]} == {None}


# -- what torch's class brings along


def test_hooks_closures_schedulers_and_groups():
    def run(library):
        params = parameters()
        optimizer = library.AdamW(params[:4], lr=torch.tensor(0.01))
        calls = []
        optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
        optimizer.register_step_post_hook(lambda *_: calls.append("after"))
        optimizer.add_param_group({"params": params[4:], "lr": 0.1})
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)

        def closure():
            assert torch.is_grad_enabled()
            optimizer.zero_grad()
            loss = sum((p * p).sum() for p in params)
            loss.backward()
            return loss

        losses = [optimizer.step(closure).item()]
        scheduler.step()
        optimizer = copy.deepcopy(optimizer)
        params = [p for group in optimizer.param_groups for p in group["params"]]
        losses.append(optimizer.step(closure).item())
        assert calls == ["before", "after"]  # a copy has no hooks
        return params, losses

    ours, theirs = run(optim), run(torch.optim)
    same(ours[0], theirs[0])
    torch.testing.assert_close(ours[1], theirs[1])


def test_grad_scaler():
    def run(library):
        params = parameters()
        optimizer = library.AdamW(params)
        scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
        for i in range(4):
            optimizer.zero_grad()
            loss = sum((p * p).sum() for p in params)
            scaler.scale(loss).backward()
            if i == 2:
                params[0].grad.fill_(float("inf"))  # this step is left out
            scaler.step(optimizer)
            scaler.update()
        return params, scaler.get_scale(), states(optimizer)[0]["step"]

    ours, theirs = run(optim), run(torch.optim)
    same(ours[0], theirs[0])
    assert ours[1:] == theirs[1:]


def test_other_optimizers_and_schedulers_are_torchs():
    assert optim.RMSprop is torch.optim.RMSprop
    assert optim.lr_scheduler is torch.optim.lr_scheduler
    assert isinstance(optim.AdamW(parameters()), torch.optim.AdamW)


def test_a_default_device_does_not_matter():
    params, other = parameters(), parameters()
    for p in (params, other):
        give_gradients(p, 0)
    lists._chunks.cache_clear()
    optimizer = optim.SGD(params, lr=0.1)
    with torch.device("meta"):
        optimizer.step()
        norm = optim.clip_grad_norm_(params, 1.0)
    torch.optim.SGD(other, lr=0.1).step()
    same(params, other)
    assert norm.device.type == "cpu"


def test_a_profile_does_not_disturb_a_step():
    params, other = parameters(), parameters()
    for p in (params, other):
        give_gradients(p, 0)
    with trident.profile():
        optim.AdamW(params).step()
    torch.optim.AdamW(other).step()
    same(params, other)


def test_where_they_are():
    assert trident.optim is optim and trident.nn.utils.clip_grad_norm_ is optim.clip_grad_norm_
    assert trident.nn.utils.parameters_to_vector is torch.nn.utils.parameters_to_vector


def test_optimize_leaves_optimizers_alone():
    model = nn.Sequential(nn.Linear(3, 4), nn.GELU())
    optimizer = torch.optim.AdamW(model.parameters())
    trident.optimize(model)
    assert type(optimizer) is torch.optim.AdamW and optimizer.param_groups[0]["params"][0] is model[0].weight


@pytest.mark.once
def test_compiles():
    """torch.compile traces torch's own step."""
    params, other = parameters(), parameters()
    for p in (params, other):
        give_gradients(p, 0)
    optimizer = optim.AdamW(params)
    torch.compile(optimizer.step, backend="eager")()
    torch.optim.AdamW(other).step()
    same(params, other)


# -- clip_grad_norm_


@pytest.mark.parametrize("dtype", [*NOISE, torch.float16], ids=str)
@pytest.mark.parametrize("most", [0.5, 1e6])
def test_clips_as_torch(dtype, most):
    ours, theirs = parameters(dtype), parameters(dtype)
    for params in (ours, theirs):
        give_gradients(params, 0, without=(2,))
    with Decisions() as decisions:
        norm = optim.clip_grad_norm_(ours, most)
    assert decisions.reasons == {None}
    expected = torch.nn.utils.clip_grad_norm_(theirs, most)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(norm, expected, rtol=8 * eps, atol=0)
    for a, b in zip(ours, theirs, strict=True):
        if b.grad is not None:
            torch.testing.assert_close(a.grad, b.grad, rtol=8 * eps, atol=0)


def test_clips_several_dtypes_and_what_is_torchs():
    def grads(function, *args, **options):
        params = [*parameters(), *parameters(torch.bfloat16), *parameters(torch.float64)]
        params = [p for p in params if p.numel()]  # torch refuses the largest element of none
        give_gradients(params, 0)
        return [function(iter(params), *args, **options), *(p.grad for p in params)]

    for options in ({}, {"norm_type": 1.0}, {"norm_type": float("inf")}, {"foreach": False}):
        ours = grads(optim.clip_grad_norm_, 0.5, **options)
        for a, b in zip(ours, grads(torch.nn.utils.clip_grad_norm_, 0.5, **options), strict=True):
            torch.testing.assert_close(a, b, rtol=2**-7, atol=0)  # torch rounds norms of bfloat16 before it adds them


def test_clips_nothing_and_the_infinite():
    assert optim.clip_grad_norm_(parameters(), 1.0) == 0
    with pytest.warns(UserWarning, match="empty generator"):
        optim.clip_grad_norm_((p for p in ()), 1.0)
    for value in (float("inf"), float("nan")):
        p, q = parameters(shapes=[(5,)])[0], parameters(shapes=[(5,)])[0]
        for x in (p, q):
            x.grad = torch.tensor([1.0, value, 2.0, 3.0, 4.0])
        with pytest.raises(RuntimeError, match="non-finite"):
            optim.clip_grad_norm_(p, 1.0, error_if_nonfinite=True)
        optim.clip_grad_norm_(p, 1.0)
        torch.nn.utils.clip_grad_norm_(q, 1.0)
        torch.testing.assert_close(p.grad, q.grad, equal_nan=True)


def test_clipping_is_the_same_in_every_run():
    params = parameters(shapes=[(100_001,), (7,)])
    give_gradients(params, 0)
    norms = set()
    for threads in (1, 2, 2):
        torch.set_num_threads(threads)
        norms.add(optim.clip_grad_norm_(params, 1e9).item())
    assert len(norms) == 1


# -- for GPUs


@pytest.mark.once
@pytest.mark.skipif(launch.INTERPRETED, reason="under TRITON_INTERPRET=1 kernels are Python, not sources")
@pytest.mark.parametrize("name", TARGETS)
def test_kernels_compile_for_gpus(name):
    """With accesses of four elements, and without spilled registers."""
    meta = {**tuning.lists(torch.device("cuda")).meta, "num_warps": 4 if name.startswith("gfx") else 8}
    table = torch.empty(8, dtype=torch.int64)
    numbers = [1 << 60] * lists.NUMBERS
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.empty(8, dtype=dtype)
        launches = [
            described(rules.list_kernel, (table, table, x, x, *state, *numbers), dict(RULE=rule, ALIGNED=True, **meta))
            for rule, state in ((rules.adamw, (x, x)), (rules.lion, (x, None)), (rules.sgd, (None, None)))
        ]
        launches += [
            described(clip.list_kernel, (x, table, table, x), dict(WORK=work, ALIGNED=True, **meta))
            for work in (clip._squares, clip._scale)
        ]
        for launched in launches:
            result = compiled(launched, TARGETS[name])
            assert not result.spills, launched
            assert result.widest("?", "load") == 4 * dtype.itemsize, launched
