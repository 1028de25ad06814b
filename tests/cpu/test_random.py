"""tl.rand and its kin: the same bits as in Triton's interpreter, for every kind of seed and offset."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import launch

N = 300
# Seeds of 32 and 64 bits, negative too; a start makes the offsets 64 bits wide, past 2^32 or negative.
CALLS = [(0, 0), (1, 0), (-1, 7), (0x7FFFFFFF, 1 << 20), (1 << 40, 0), (0x123456789ABCDEF, 1 << 34), (-5, -(1 << 33))]


@triton.jit
def random_kernel(ints, floats, seed, start, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    counter = start + at
    a, b, c, d = tl.randint4x(seed, counter)
    tl.store(ints + at, a, at < n)
    tl.store(ints + n + at, b, at < n)
    tl.store(ints + 2 * n + at, c, at < n)
    tl.store(ints + 3 * n + at, d, at < n)
    tl.store(ints + 4 * n + at, tl.randint(seed, counter), at < n)
    e, f, g, h = tl.rand4x(seed, counter)
    tl.store(floats + at, tl.rand(seed, counter), at < n)
    tl.store(floats + n + at, e, at < n)
    tl.store(floats + 2 * n + at, f, at < n)
    tl.store(floats + 3 * n + at, g, at < n)
    tl.store(floats + 4 * n + at, h, at < n)
    tl.store(floats + 5 * n + at, tl.randn(seed, counter), at < n)


def numbers() -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(integers, floats) of each call, by whatever runs @triton.jit functions in this process."""
    results = []
    for seed, start in CALLS:
        ints, floats = torch.zeros(5 * N, dtype=torch.int32), torch.zeros(6 * N)
        launch(random_kernel, (triton.cdiv(N, 128),), ints, floats, seed, start, N, BLOCK=128)
        results.append((ints, floats))
    return results


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[torch.Tensor, torch.Tensor]]:
    path, root = tmp_path_factory.mktemp("random") / "numbers.pt", Path(__file__).parents[2]
    program = f"import torch; from tests.cpu.test_random import numbers; torch.save(numbers(), {str(path)!r})"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{root}:{os.environ.get('PYTHONPATH', '')}"}
    environment.pop("TRIDENT_CPU_SANITIZE", None)
    subprocess.run([sys.executable, "-c", program], cwd=root, env=environment, check=True)
    return torch.load(path)


@pytest.fixture(scope="module")
def compiled() -> list[tuple[torch.Tensor, torch.Tensor]]:
    return numbers()


@pytest.mark.parametrize("call", range(len(CALLS)), ids=[f"seed {s}, from {o}" for s, o in CALLS])
def test_same_bits_as_the_interpreter(call: int, interpreted: list, compiled: list) -> None:
    (ints, floats), (want_ints, want_floats) = compiled[call], interpreted[call]
    assert torch.equal(ints, want_ints)
    uniform = slice(0, 5 * N)
    assert torch.equal(floats[uniform], want_floats[uniform])
    torch.testing.assert_close(floats[5 * N :], want_floats[5 * N :], rtol=1e-5, atol=1e-6)  # log, cos, sin differ
    assert ((floats[uniform] >= 0) & (floats[uniform] < 1)).all()


def test_seeds_and_offsets_make_other_numbers(compiled: list) -> None:
    streams = [ints[4 * N :] for ints, _ in compiled]
    assert len({tuple(stream.tolist()) for stream in streams}) == len(streams)
