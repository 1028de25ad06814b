"""From what was timed to what is decided: from which size on an operator's kernel is called, on this machine."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from trident.runtime.tuned import Decision

MARGIN = 1.03  # less is no difference
ENOUGH = 262144  # elements, 1 MB: who has lost nothing larger than that is not known to lose there
Trials = Mapping[int, float]  # elements -> torch's time over the kernel's


def lost(ratio: float) -> bool:
    return ratio < 1 / MARGIN


def least(trials: Trials, shipped: float) -> float | None:
    """Elements from which on the kernel wins and, of what was timed, loses no more; inf: never; None: not known.

    What is shipped stays if nothing that was timed speaks against it: between two sizes nothing was.
    """
    largest_lost = max((size for size, ratio in trials.items() if lost(ratio)), default=-1)
    won = min((size for size, ratio in trials.items() if ratio >= MARGIN and size > largest_lost), default=math.inf)
    if largest_lost < shipped <= won:
        return shipped
    return None if math.isinf(won) and largest_lost < ENOUGH else won


@dataclass
class Findings:
    """Key -> case -> its trials; a key that several cases ask gets the most careful answer of them."""

    trials: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    wrong: set[str] = field(default_factory=set)  # keys by which a call asked whose result was refused

    def add(self, key: str, case: str, size: int, ratio: float) -> None:
        """Of two ways in which a case asks at one size, the worse counts."""
        at = self.trials.setdefault(key, {}).setdefault(case, {})
        at[size] = min(ratio, at.get(size, math.inf))

    def lost(self, key: str, size: int) -> bool:
        """Has the key lost at that size or a larger one? Then no other case can change what is decided below."""
        cases = self.trials.get(key, {}).values()
        return any(at >= size and lost(ratio) for trials in cases for at, ratio in trials.items())

    def decisions(self, shipped: Callable[[str], float]) -> dict[str, Decision]:
        made = {}
        for key, cases in self.trials.items():
            if key in self.wrong:
                continue
            answers = [answer for t in cases.values() if (answer := least(t, shipped(key))) is not None]
            if len(answers) == len(cases):
                made[key] = Decision(max(answers), worst(cases.values()))
        return made


def worst(trials: Iterable[Trials]) -> dict[int, float]:
    found: dict[int, float] = {}
    for each in trials:
        for size, ratio in each.items():
            found[size] = min(ratio, found.get(size, math.inf))
    return found
