"""Case after case, the largest size first: who has lost there need not be timed at smaller ones."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from trident.cases import Case
from trident.runtime import crossover
from trident.tune.decide import Findings, lost
from trident.tune.measure import LARGEST_JUDGED, LONGEST, SIZES, Refused, Settings, Trial, scaled, trials

Tell = Callable[[str], None]


@dataclass
class Run:
    findings: Findings = field(default_factory=Findings)
    refused: dict[str, str] = field(default_factory=dict)  # case -> what is wrong with its results
    raised: dict[str, str] = field(default_factory=dict)  # case -> what ended its measurement
    left: list[str] = field(default_factory=list)  # cases for which no time was left
    interrupted: bool = False


def kernel_ships(key: str, size: int) -> bool:
    return size >= crossover.shipped(key)


def tune(cases: Mapping[str, Case], settings: Settings, limit: float, tell: Tell = lambda name: None) -> Run:
    """Functions first, then their variants; none is begun after `limit` seconds. Ctrl-C keeps what was found."""
    made, names = Run(), sorted(cases, key=lambda name: "." in name)
    end = time.monotonic() + limit
    try:
        for i, name in enumerate(names):
            if time.monotonic() > end:
                made.left = names[i:]
                break
            tell(name)
            _case(name, cases[name], settings, made)
    except KeyboardInterrupt:
        made.interrupted = True
    return made


def _case(name: str, case: Case, settings: Settings, made: Run) -> None:
    """A call that raises is named, and does not end the run. Where a result is wrong, what it asks is not decided."""
    asked: set[str] = set()
    try:
        for shape in shapes(case):
            trial = Trial(name, case, shape, settings)
            asked.update(*(trial.asked(way) for way in trial.ways()))
            if trial.takes() > LONGEST:
                continue
            if torch.Size(shape).numel() <= LARGEST_JUDGED:
                trial.judge()
            found = list(trials(trial, kernel_ships))
            for key, size, ratio in found:
                made.findings.add(key, name, size, ratio)
            if found and all(lost(ratio) for _, _, ratio in found):
                break
    except Refused as wrong:
        made.refused[name] = str(wrong)
        made.findings.wrong |= asked
    except Exception as error:  # whatever an operator raises
        made.raised[name] = f"{type(error).__name__}: {error}".splitlines()[0][:200]


def shapes(case: Case) -> Sequence[tuple[int, ...]]:
    """The largest first, each once."""
    middle = tuple(case.bench[len(case.bench) // 2])
    return list(dict.fromkeys(scaled(middle, elements) for elements in SIZES))
