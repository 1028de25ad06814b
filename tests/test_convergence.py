"""Eight mini models trained for 50 steps: losses, logits and parameters lie as near to float64's as torch's own.

What rounding does to a run is measured, not assumed: torch's run in the same dtype, and another one that differs in
the order of its sums alone (the examples of each batch in another one), against the same run in float64. A number so
near to a kink (of relu, of a maximum) that one order's rounding puts it on the other side changes the rest of a run,
and says nothing of any kernel: Trident's run is as near in at least one of a few orders.
"""

import functools

import pytest
import torch
import torch.nn.functional as F

import trident
from trident.bench import mini
from trident.cases.case import EVERYTHING

pytestmark = pytest.mark.once

STEPS, COUNT = 50, 8
ORDERS = (0, 3, 5, 1, 2, 4)  # how far the examples of each batch are rolled


def batches(name, dtype, order):
    """Images whose mean tells their class; tokens that count upwards, of which BERT must guess hidden ones; noise."""
    generator = torch.Generator().manual_seed(0)
    s = mini.size(name, small=True)
    random = functools.partial(torch.randn, generator=generator, dtype=torch.float64)
    for _ in range(STEPS):
        target = torch.randint(s.words, (COUNT,), generator=generator)
        if name in ("vit", "resnet"):
            x = (random(COUNT, 3, s.length, s.length) + target.view(-1, 1, 1, 1)).to(dtype)
            given = [x], target
        elif name == "unet":
            time, noise = torch.rand(COUNT, generator=generator, dtype=torch.float64), random(COUNT, 1, 8, 8)
            part = time.view(-1, 1, 1, 1)
            given = [((1 - part) + part * noise).to(dtype), time.to(dtype)], noise.to(dtype)
        else:
            tokens = (target[:, None] + torch.arange(s.length + 1)) % s.words
            hidden = torch.rand(tokens.shape, generator=generator) < 0.3
            if name == "bert":
                given = [tokens.masked_fill(hidden, 0)[:, 1:]], tokens[:, 1:]
            else:
                given = [tokens[:, :-1]] * (1 + (name == "t5")), tokens[:, 1:]
        yield [t.roll(order, 0) for t in given[0]], given[1].roll(order, 0)


def run(name, dtype, change=lambda model: model, order=0):
    """Losses of all steps, the last step's results, the parameters. dtype bfloat16: autocast over float32."""
    half = dtype == torch.bfloat16
    stored = torch.float32 if half else dtype
    model = change(mini.model(name, small=True).to(stored))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for x, target in batches(name, stored, order):
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            y = model(*x)
            loss = F.mse_loss(y, target) if name == "unet" else F.cross_entropy(y.flatten(0, -2), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return {
        "losses": torch.tensor(losses),
        "results": y.detach().roll(-order, 0),
        "parameters": torch.cat([p.flatten() for p in model.parameters()]),
    }


def far(found, exact):
    return {key: ((found[key].double() - t.double()).norm() / t.double().norm()).item() for key, t in exact.items()}


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small are faster so, and the order of torch's sums is the same in every run."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@functools.cache
def exact(name):
    return run(name, torch.float64)


# half a minute on one core, most of it compilation; the others share most of their kernels
IN_CI = [(name, torch.float32) for name in ("llama", "bert", "resnet", "unet")]
ALL = [(name, dtype) for dtype in (torch.float32, torch.bfloat16) for name in mini.MODELS]


@pytest.mark.parametrize(("name", "dtype"), ALL if EVERYTHING else IN_CI)
def test_fifty_steps(name, dtype):
    losses = exact(name)["losses"]
    assert losses[-5:].mean() < 0.8 * losses[:5].mean(), "it learns"
    noise = [far(run(name, dtype, order=order), exact(name)) for order in ORDERS[:2]]
    most = {key: 3 * max(n[key] for n in noise) for key in noise[0]}
    found = []
    for order in ORDERS:
        found.append(far(run(name, dtype, trident.optimize, order), exact(name)))
        if all(found[-1][key] <= limit for key, limit in most.items()):
            return
    pytest.fail(f"in no order as near to float64 as {most}: {found}")
