"""`python -m trident tune`: from which size on each operator's kernel is faster than torch's, on this machine."""

import fnmatch
import importlib.metadata
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from trident.cases import CASES, Case
from trident.runtime import crossover, tuned
from trident.runtime.launch import executor


def select(names: Sequence[str]) -> dict[str, Case]:
    """The cases that are timed, of the named functions: all variants. Raises ValueError naming what is no function."""
    chosen = dict(CASES) if not names else {}
    for name in names:
        found = {n: c for n, c in CASES.items() if fnmatch.fnmatchcase(n, name) or fnmatch.fnmatchcase(c.name, name)}
        if not found:
            raise ValueError(
                f"tune: {name!r} is not a case; one of: {', '.join(sorted({c.name for c in CASES.values()}))}"
            )
        chosen |= found
    return {name: case for name, case in chosen.items() if case.bench and torch.float32 in case.dtypes}


def main(
    names: list[str], seconds: float, minutes: float, clock: str, out: Path | None, dry_run: bool, forget: bool
) -> int:
    """The command. Returns 1 where a result was wrong, 130 after ctrl-C."""
    file = out or tuned.path()
    if file is None and not dry_run:
        print("TRIDENT_TUNED=0: what is tuned would be ignored; --out names a file", file=sys.stderr)
        return 2
    if forget:
        return _forget(file)
    if executor("cpu") != "native":
        print("tune: Trident compiles no kernels for this CPU; see: python -m trident doctor", file=sys.stderr)
        return 2
    try:
        cases = select(names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return _tune(cases, seconds, minutes, clock, None if dry_run else file)


def _forget(file: Path | None) -> int:
    if file is not None and file.exists():
        file.unlink()
        print(f"{file} is removed")
    else:
        print("nothing is tuned")
    return 0


def _tune(cases: dict[str, Case], seconds: float, minutes: float, clock: str, file: Path | None) -> int:
    from trident.bench.timing import one_thread
    from trident.tune.measure import Settings
    from trident.tune.run import tune

    one_thread(clock)
    crossover.forget()  # what ships, not what an earlier run found
    done = tune(cases, Settings(clock, seconds), 60 * minutes, lambda name: print(f"{name} ...", file=sys.stderr))
    decisions = done.findings.decisions(crossover.shipped)
    for key, decision in sorted(decisions.items()):
        print(line(key, decision))
    for name, fault in done.refused.items():
        print(f"{name}: wrong, what it asks is not decided: {fault}", file=sys.stderr)
    for name, fault in done.raised.items():
        print(f"{name}: left: {fault}", file=sys.stderr)
    if done.left:
        print(f"no time was left for {len(done.left)} cases; --minutes gives more", file=sys.stderr)
    if file is not None and decisions:
        try:
            keep(decisions, clock, file)
        except OSError as error:
            print(f"{file} cannot be written: {error}", file=sys.stderr)
            return 2
        print(f"written to {file}; python -m trident tune --forget removes it")
    return 130 if done.interrupted else int(bool(done.refused))


def keep(decisions: dict[str, tuned.Decision], clock: str, file: Path) -> None:
    """Write them, and what an earlier run on this machine found of other operators."""
    from trident.bench.results import source, today

    try:
        before = tuned.read(file, crossover.known).keys
    except ValueError:
        before = {}
    versions = {"torch": torch.__version__, "triton": importlib.metadata.version("triton"), "trident": source()}
    tuned.write(tuned.Tuned(tuned.here(), versions, clock, today(), {**before, **decisions}), file)


def line(key: str, decision: tuned.Decision) -> str:
    """relu  torch (ships: kernel from 1024)  1024: 0.31, 16384: 0.52"""
    ratios = ", ".join(f"{size}: {ratio:.2f}" for size, ratio in sorted(decision.ratios.items()))
    shipped = crossover.shipped(key)
    was = "" if shipped == decision.least else f" (ships: {_said(shipped)})"
    return f"{key:44} {_said(decision.least) + was:52} {ratios}"


def _said(least: float) -> str:
    return "torch" if math.isinf(least) else f"kernel from {int(least)}" if least else "kernel"
