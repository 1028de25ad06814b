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
        for trial in _trials(name, case, settings):
            if not _open(trial, made.findings):
                break
            asked.update(*(trial.asked(way) for way in trial.ways()))
            if trial.takes() > LONGEST:
                continue
            if torch.Size(trial.workload.shape).numel() <= LARGEST_JUDGED:
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


def _trials(name: str, case: Case, settings: Settings) -> Sequence[Trial]:
    """The largest first, of those for which torch takes no longer than LONGEST: work may grow by the square."""
    made: list[Trial] = []
    for shape in reversed(shapes(case)):
        size = torch.Size(shape).numel()
        if made and made[-1].torch_takes() * size / torch.Size(made[-1].workload.shape).numel() > LONGEST:
            break
        made.append(Trial(name, case, shape, settings))
    return made[::-1]


def _open(trial: Trial, findings: Findings) -> bool:
    """May the trial, or one of a smaller shape, change what is decided? Found without compiling anything."""
    asked = [trial.asked(way, in_torch=True) for way in trial.ways()]
    return any(not findings.lost(*next(iter(keys.items()))) for keys in asked if len(keys) == 1)


def shapes(case: Case) -> Sequence[tuple[int, ...]]:
    """The largest first, each once."""
    middle = tuple(case.bench[len(case.bench) // 2])
    return list(dict.fromkeys(scaled(middle, elements) for elements in SIZES))
