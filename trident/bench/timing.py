"""How long does a call take? Variants take turns, so that what else the machine does meets all of them alike.

A round times a block of calls of each variant, in an order that turns; a figure is the median over the rounds, its
spread the distance of the 10th and the 90th percentile, and a ratio is taken within a round.
"""

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

Call = Callable[[], object]
Timer = Callable[[Call, int], float]  # seconds of a block of calls


def _timed_by(now: Callable[[], float]) -> Timer:
    def timer(call: Call, repeat: int) -> float:
        count = range(repeat)
        start = now()
        for _ in count:
            call()
        return now() - start

    return timer


# of CPUs. "cpu": the time that this thread ran, which other programs on a busy machine hardly move; of one thread only
CLOCKS: dict[str, Timer] = {"wall": _timed_by(time.perf_counter), "cpu": _timed_by(time.thread_time)}
BLOCK = 1e-3  # seconds that a block of calls lasts at least
FEWEST, MOST = 7, 41  # rounds
ENOUGH = 3  # of a second and more each


@dataclass
class Variant:
    """What takes part in a round; `context` is entered for its blocks, outside what is timed."""

    name: str
    call: Call
    context: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext
    timer: Timer | None = None  # its own, where it has one: a captured graph


@dataclass(frozen=True)
class Spread:
    """Median, 10th and 90th percentile."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> "Spread":
        ordered = sorted(samples)
        last = len(ordered) - 1
        return cls(statistics.median(ordered), ordered[round(0.1 * last)], ordered[round(0.9 * last)])

    @property
    def half(self) -> float:
        """What is printed after ±: the greater distance of an end from the median."""
        return max(self.high - self.median, self.median - self.low)


def _repeat(variant: Variant, timer: Timer) -> tuple[int, float]:
    """How many calls last a BLOCK, and how long they do."""
    timer(variant.call, 1)
    repeat = 1
    while True:
        taken = timer(variant.call, repeat)
        if taken >= BLOCK or repeat >= 1 << 14:
            return repeat, taken
        repeat = min(1 << 14, max(2 * repeat, int(1.2 * repeat * BLOCK / max(taken, 1e-7))))


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    """Python's garbage collector would run within somebody's turn."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def in_turns(variants: Sequence[Variant], timer: Timer, seconds: float) -> dict[str, list[float]]:
    """Seconds per call of each variant, round by round, in about `seconds` altogether, but FEWEST rounds at least (of
    very slow ones ENOUGH)."""
    timers = {v.name: v.timer or timer for v in variants}
    repeats, one_round = {}, 0.0
    for v in variants:
        with v.context():
            repeats[v.name], taken = _repeat(v, timers[v.name])
        one_round += taken
    rounds = min(MOST, max(FEWEST if one_round < 1 else ENOUGH, int(seconds / max(one_round, 1e-6))))
    found: dict[str, list[float]] = {v.name: [] for v in variants}
    with no_collection():
        for turn in range(rounds):
            for v in variants if turn % 2 else reversed(variants):
                with v.context():
                    found[v.name].append(timers[v.name](v.call, repeats[v.name]) / repeats[v.name])
    return found


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> Spread:
    """How often Trident's call fits into a rival's: above 1 Trident is faster."""
    return Spread.of([t / o for t, o in zip(theirs, ours, strict=True)])


def best(call: Call, timer: Timer, rounds: int = 9) -> float:
    """The least seconds of a call: of something alone, on a machine where others run."""
    variant = Variant("", call)
    repeat, _ = _repeat(variant, timer)
    return min(timer(call, repeat) / repeat for _ in range(rounds))


def one_thread(clock: str) -> None:
    """The CPU time of a thread is that of the work only if there is one."""
    if clock == "cpu":
        torch.set_num_threads(1)
