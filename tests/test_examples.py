"""The examples run as a user runs them, at small size, and learn something."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.once

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*command: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.fspath(EXAMPLES.parent), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def example(name: str) -> str:
    return os.fspath(EXAMPLES / name)


def test_finetune_lm():
    pytest.importorskip("sklearn", reason="its descriptions of data sets are the text")
    before, after = re.findall(r"([\d.]+) (?:before|after)", run(example("finetune_lm.py"), "--steps", "60"))
    assert float(after) < float(before) - 0.05 and float(before) < 4  # of log 256 = 5.5


def test_classify_digits():
    pytest.importorskip("sklearn", reason="has the digits")
    output = run(example("classify_digits.py"), "--epochs", "6")
    assert float(re.search(r"([\d.]+)% of", output)[1]) > 94 and "functions: redirected" in output


def test_sample_diffusion():
    pytest.importorskip("sklearn", reason="has the digits")
    drawn, noise = re.findall(r"([\d.]+) (?:drawn|noise)", run(example("sample_diffusion.py"), "--steps", "60"))
    assert float(drawn) < 0.6 * float(noise)


def test_serve(tmp_path):
    assert "[5, 16] -> [5, 4]" in run(example("serve.py"), os.fspath(tmp_path / "model.pt2"))


def test_train_fsdp():
    output = run("-m", "torch.distributed.run", "--nproc-per-node", "2", example("train_fsdp.py"), "--steps", "12")
    losses = [float(x) for x in re.findall(r"loss ([\d.]+)", output)]
    assert len(losses) == 12 and losses[-1] < losses[0] - 0.5


def test_every_example_is_run():
    tested = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.name}"' in tested for path in EXAMPLES.glob("*.py"))
