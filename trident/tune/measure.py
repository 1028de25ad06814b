"""A case at a size: which keys does the call ask, and what does each answer cost?"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import torch
from torch import Tensor

from trident.bench import timing
from trident.bench.checks import Judge
from trident.bench.timing import CLOCKS, Variant
from trident.bench.workloads import Workload
from trident.cases import Case
from trident.cases.case import Shape
from trident.runtime import crossover, route
from trident.tune.decide import lost

SIZES = (4194304, 262144, 131072, 16384, 1024)  # elements: 16 MB, 1 MB, 512 KB, 64 KB and 4 KB of float32
LARGEST_JUDGED = 262144  # elements, up to which results are compared with those of float64
LONGEST = 0.3  # seconds of both calls, above which a size is left out
AGAIN = 4  # times as long, where the first answer is not the one that ships
GRADIENT = " (gradient)"


def scaled(shape: Shape, elements: int) -> Shape:
    """The shape with about so many elements: fewer images or batches first, then shorter lines; never less channels."""
    sizes = list(shape)
    may = [0, *range(2, len(sizes))] if len(sizes) > 2 else list(range(len(sizes)))
    while torch.Size(sizes).numel() > elements:
        at = 0 if len(sizes) > 2 and sizes[0] > 1 else max(may, key=lambda i: sizes[i])
        if sizes[at] == 1:
            break
        sizes[at] = sizes[at] // 2
    sizes[0] *= max(1, elements // torch.Size(sizes).numel())
    return tuple(sizes)


def is_gradient(key: str) -> bool:
    return key.endswith(GRADIENT)


@contextlib.contextmanager
def answering(torchs: Callable[[str], bool]) -> Iterator[dict[str, int]]:
    """Within the block every question of speed is answered so. Yields what is asked: key -> the size it goes by."""
    asked: dict[str, int] = {}

    def answer(name: str, executor: str, size: int) -> str | None:
        asked.setdefault(name, size)
        return "tuning" if torchs(name) else None

    def nobody(name: str, tensors: tuple[Tensor | None, ...], reason: str | None) -> None:
        """Where somebody watches, no call is stopped at the door."""

    route.WATCHERS.append(nobody)
    try:
        with mock.patch.object(crossover, "faster_in_torch", answer), route.forced("auto"):
            yield asked
    finally:
        route.WATCHERS.remove(nobody)


@dataclass(frozen=True)
class Settings:
    clock: str = "wall"
    seconds: float = 0.05  # a comparison lasts about


class Refused(Exception):
    """A result differs from torch's."""


class Trial:
    """A case at a shape, to be timed in each way."""

    def __init__(self, name: str, case: Case, shape: Shape, settings: Settings):
        self.case, self.settings = case, settings
        self.workload = Workload(name, case, shape, torch.float32, "forward", cold=False)
        self.differentiable = self.workload.differentiable
        self.inputs = self.workload.inputs()

    def asked(self, way: str, in_torch: bool = False) -> dict[str, int]:
        """Key -> the size that it goes by. in_torch: nothing is compiled, and what only a kernel asks is not heard."""
        with answering(lambda key: in_torch) as found:
            self._call(way)()
        return found

    def judge(self) -> None:
        """Raises Refused."""
        judge = Judge(self.workload, self.differentiable)
        with route.forced("kernels"):
            for way in self.ways():
                if fault := judge.fault("kernel", self.case.ours, way):
                    raise Refused(fault)

    def ways(self) -> tuple[str, ...]:
        return ("forward", "both") if self.differentiable else ("forward",)

    def torch_takes(self) -> float:
        """Seconds of one call."""
        call = self._call(self.ways()[-1])
        start = time.perf_counter()
        with route.forced("torch"):
            call()
        return time.perf_counter() - start

    def takes(self) -> float:
        """Seconds of a call of each side, once both have run."""
        sides = [(policy, self._call(self.ways()[-1])) for policy in ("torch", "kernels")]
        for _ in range(2):
            start = time.perf_counter()
            for policy, call in sides:
                with route.forced(policy):
                    call()
        return time.perf_counter() - start

    def times(self, way: str, sides: tuple[str, ...], longer: int = 1) -> dict[str, list[float]]:
        """Seconds of calls: "kernels", "torch", and "mixed", a kernel whose gradient is torch's."""
        variants = []
        for side in sides:
            context = _context(side)
            with context():
                call = self._call(way)
                call()
            variants.append(Variant(side, call, context))
        return timing.in_turns(variants, CLOCKS[self.settings.clock], longer * self.settings.seconds)

    def _call(self, way: str) -> Callable[[], object]:
        workload = Workload(self.workload.name, self.case, self.workload.shape, torch.float32, way, cold=False)
        call = workload.call(self.case.ours, [self.inputs])
        if way != "forward":
            return call

        def forward() -> object:
            with torch.no_grad():
                return call()

        return forward


def _context(side: str) -> Callable[[], contextlib.AbstractContextManager[object]]:
    return (lambda: answering(is_gradient)) if side == "mixed" else (lambda: route.forced(side))


Expected = Callable[[str, int], bool]  # does what ships call the kernel of this key at this size?


def trials(trial: Trial, expected: Expected) -> Iterator[tuple[str, int, float]]:
    """Key, size, and the time of torch's answer over that of the kernel's, for each way in which the case asks.

    A call that asks by several keys says nothing of each.
    """
    for way in trial.ways():
        asked = trial.asked(way)
        gradients = [key for key in asked if is_gradient(key)]
        keys = asked.keys() - gradients
        if len(keys) != 1 or len(gradients) > 1:
            continue
        (key,) = keys
        whole = functools.partial(_whole, trial, way, gradients)
        yield key, asked[key], _surely(whole, expected(key, asked[key]))
        for gradient in gradients:
            alone = functools.partial(_gradient, trial)
            yield gradient, asked[gradient], _surely(alone, expected(gradient, asked[gradient]))


def _surely(ratio: Callable[[int], float], expected: bool) -> float:
    """Measured again, for longer, where it is not as expected."""
    found = ratio(1)
    return found if lost(found) != expected else ratio(AGAIN)


def _whole(trial: Trial, way: str, gradients: list[str], longer: int) -> float:
    """Of a kernel with the better of its gradients."""
    found = trial.times(way, ("torch", "kernels", *(["mixed"] if gradients else [])), longer)
    return max(timing.ratio(found["torch"], times).median for side, times in found.items() if side != "torch")


def _gradient(trial: Trial, longer: int) -> float:
    found = trial.times("backward", ("mixed", "kernels"), longer)
    return timing.ratio(found["mixed"], found["kernels"]).median
