"""The fuzzer: random programs (fuzz_programs.py) on trident_cpu and on Triton's interpreter must agree.

    python -m tests.cpu.fuzz --programs 2000 --seed 0      # prints every disagreement and a summary
    python -m tests.cpu.fuzz --show 17                     # the source of one program

Both run in processes of their own, a batch of seeds at a time; a program that crashes takes only its batch's rest
with it, and is reported. Integers and exact floats must be equal bit for bit (NaN equals NaN, 0 equals -0), what
depends on the order of additions or on a math library within the tolerance that the program states.
"""

from __future__ import annotations

import argparse
import math
import os
import pickle
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.cpu.fuzz_programs import Program
from tests.cpu.fuzz_values import PROGRAMS, SIZE
from trident.runtime.interpreter import mend

ROOT = Path(__file__).parents[2]
BATCH = 50


@dataclass(frozen=True)
class Failure:
    seed: int
    what: str


def tensors(program: Program) -> tuple[list[Any], list[Any]]:
    """(inputs x0..x5 and temp, outputs filled with a mark)."""
    import torch

    made = torch.Generator().manual_seed(program.seed)
    quarters = torch.randint(-256, 257, (SIZE,), generator=made).float() / 64
    special = torch.tensor([math.nan, math.inf, -math.inf, 0.0, -0.0, 1e-40, -1e-40, 3e38, -3e38, 65519.0, 1e-8])
    wild = torch.where(torch.rand(SIZE, generator=made) < 0.5, quarters, special[torch.arange(SIZE) * 7 % len(special)])
    inputs = [
        quarters,
        torch.randint(-1000, 1000, (SIZE,), generator=made, dtype=torch.int32),
        quarters.flip(0).half(),
        torch.randint(-128, 128, (SIZE,), generator=made, dtype=torch.int8),
        wild,
        quarters.roll(100).bfloat16(),
        torch.zeros(SIZE),
    ]
    return inputs, [torch.full((SIZE,), 77, dtype=getattr(torch, output.dtype)) for output in program.outputs]


def run(seed: int, folder: Path, native: bool) -> list[np.ndarray] | str:
    """A program's outputs, or the error it ended with."""
    import importlib.util
    import random

    import torch

    program = Program(seed)
    path = folder / f"program_{seed}.py"
    path.write_text(program.source)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    inputs, outputs = tensors(program)
    choose = random.Random(seed + 1)
    n, k, s = choose.choice([1, 5, 37, 64, 1000]), choose.choice([0, 1, 3, 4]), choose.choice([0.5, -1.25, 3.0])
    try:
        spec.loader.exec_module(module)
        if native:
            from trident_cpu import binder, launch

            binder.PARALLEL_ELEMENTS = 1 if seed % 2 else 1 << 30  # every other program on two threads
            # one rounding for each operation, as numpy has it
            launch(module.kernel, (PROGRAMS,), *inputs, *outputs, n, k, s, SIZE=SIZE, enable_fp_fusion=False)
        else:
            mend()
            module.kernel[(PROGRAMS,)](*inputs, *outputs, n, k, s, SIZE=SIZE)
    except Exception as error:
        return f"{type(error).__name__}: {' | '.join(str(error).split(chr(10)))[:400]}"
    return [(output.float() if output.dtype is torch.bfloat16 else output).numpy() for output in outputs]


def worker(seeds: list[int], folder: Path, native: bool, results: Path) -> None:
    """Run seeds one after the other; each result is written as it comes, so that a crash leaves the earlier ones."""
    import torch

    torch.set_num_threads(2)
    with results.open("ab") as file:
        for seed in seeds:
            pickle.dump((seed, run(seed, folder, native)), file)
            file.flush()


def batch(seeds: list[int], folder: Path, native: bool) -> dict[int, Any]:
    """Results by seed, from processes that are started again after a crash."""
    found: dict[int, Any] = {}
    left = list(seeds)
    environment = {**os.environ, "TRITON_INTERPRET": "0" if native else "1"}
    while left:
        results = folder / f"results_{native}"
        results.unlink(missing_ok=True)
        results.touch()
        command = [sys.executable, "-m", "tests.cpu.fuzz", "--worker", str(folder), str(results), *map(str, left)]
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
            ended = f"the process ended with {done.returncode}: {done.stderr.strip()[-300:]}"
        except subprocess.TimeoutExpired:
            ended = "no end within 600 s"
        with results.open("rb") as file:
            while file.tell() < results.stat().st_size:
                seed, value = pickle.load(file)
                found[seed] = value
        missing = [seed for seed in left if seed not in found]
        if missing:
            found[missing[0]] = ended
        left = missing[1:]
    return found


def compare(program: Program, ours: Any, theirs: Any) -> str | None:
    """What differs, or None."""
    if isinstance(ours, str) or isinstance(theirs, str):
        a, b = (side if isinstance(side, str) else "ran" for side in (ours, theirs))
        return f"ours: {a}; the interpreter's: {b}"
    for output, a, b in zip(program.outputs, ours, theirs, strict=True):
        with np.errstate(all="ignore"):
            same = (a == b) | (np.isnan(a) & np.isnan(b) if a.dtype.kind == "f" else False)
            if output.tolerance:
                wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
                same |= np.abs(wide_a - wide_b) <= output.tolerance + 1e-5 * np.abs(wide_b) * (a.dtype.itemsize < 8)
        if not same.all():
            at = int(np.flatnonzero(~same)[0])
            kind = "exact" if not output.tolerance else f"tolerance {output.tolerance:.2g}"
            return f"{output.name} ({output.dtype}, {kind}): {(~same).sum()} differ, first at {at}: {a[at]} and {b[at]}"
    return None


def check(seeds: range, report: Any = None) -> tuple[list[Failure], dict[str, int]]:
    """(disagreements, how many programs ran, were refused by the compiler, were refused by the interpreter)."""
    failures, counts = [], {"agree": 0, "refused": 0, "interpreter failed": 0}
    with tempfile.TemporaryDirectory() as name:
        for start in range(seeds.start, seeds.stop, BATCH):
            some = list(range(start, min(start + BATCH, seeds.stop)))
            ours, theirs = batch(some, Path(name), True), batch(some, Path(name), False)
            for seed in some:
                if isinstance(theirs[seed], str):
                    counts["interpreter failed"] += 1
                    if report and "-v" in sys.argv:
                        report(f"seed {seed}: the interpreter fails: {theirs[seed][:200]}")
                    continue
                if isinstance(ours[seed], str) and ours[seed].startswith("UnsupportedOp"):
                    counts["refused"] += 1
                    if report:
                        report(f"seed {seed}: refused: {ours[seed][:200]}")
                    continue
                difference = compare(Program(seed), ours[seed], theirs[seed])
                counts["agree"] += difference is None
                if difference:
                    failures.append(Failure(seed, difference))
                    if report:
                        report(f"seed {seed}: {difference}")
    return failures, counts


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.cpu.fuzz")
    parser.add_argument("--programs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", type=int)
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("-v", action="store_true", help="print what the interpreter cannot run as well")
    given = parser.parse_args()
    if given.show is not None:
        print(Program(given.show).source)
        return 0
    if given.worker:
        folder, results, *seeds = given.worker
        native = os.environ.get("TRITON_INTERPRET") != "1"
        worker([int(seed) for seed in seeds], Path(folder), native, Path(results))
        return 0
    failures, counts = check(range(given.seed, given.seed + given.programs), lambda text: print(text, flush=True))
    print(f"{given.programs} programs from seed {given.seed}: {counts}, {len(failures)} disagree")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
