"""benchmarks.training: every side trains the same model, and a side that does not gets no ratio."""

import pytest
import torch

from benchmarks import training
from trident.bench import mini
from trident.runtime import pages

pytestmark = pytest.mark.once


@pytest.fixture
def small(monkeypatch):
    whole = mini.size
    monkeypatch.setattr(mini, "size", lambda name, small: whole(name, True))
    monkeypatch.setattr(pages, "keep", lambda: False)  # this process's malloc is not the benchmark's


def run(name, side):
    model, step = training.step_of(name, side)
    begin = torch.cat([p.detach().flatten() for p in model.parameters()])
    losses = torch.tensor([step() for _ in range(6)])
    return {"losses": losses, "moved": torch.cat([p.detach().flatten() for p in model.parameters()]) - begin}


@pytest.mark.parametrize("name", ("llama", "resnet"))
def test_sides_do_the_same(small, name):
    eager, again = run(name, "eager"), run(name, "again")
    assert eager["losses"].isfinite().all() and eager["moved"].norm() > 0
    noise = training.far(again, eager)
    for side in ("kept", "trident", *["lazy"] * (name == "llama")):
        far = training.far(run(name, side), eager)
        assert all(d <= 10 * n + training.ROUNDING for d, n in zip(far, noise, strict=True)), side


@pytest.mark.parametrize(
    ("wrong", "told"), (((1e-7, 1e-7), "0.500"), ((1e-7, 1e-2), "refused"), ((float("nan"), 0.0), "refused"))
)
def test_a_side_that_does_something_else_gets_no_ratio(capsys, wrong, told):
    steps = {"eager": [[1.0, 3]] * 7, "again": [[1.0, 3]] * 7, "trident": [[2.0, 0]] * 7}
    distance = {"eager": (0.0, 0.0), "again": (1e-7, 1e-5), "trident": wrong}
    training.tell("llama", steps, dict.fromkeys(steps, 5_000_000), distance)
    line = capsys.readouterr().out.splitlines()[-1]
    assert told in line and "2000.0 ms" in line and "5 MB" in line and "0 faults" in line


def test_a_process_answers_for_its_side(tmp_path):
    with pytest.raises(RuntimeError, match="ended with"):
        process = training.start("no such model", "eager", "cpu", 1, tmp_path / "end")
        training.ask(process, "step")
