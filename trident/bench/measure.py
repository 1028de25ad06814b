"""One workload becomes one row."""

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from trident.bench import ceilings, gpu, memory, routes
from trident.bench.checks import SLACK, Judge, judge
from trident.bench.results import FORCED, OURS, Machine, Row, today
from trident.bench.rivals import Rival
from trident.bench.timing import Spread, Variant, best, in_turns, ratio
from trident.bench.workloads import MOST_GRAPHS, Function, Workload
from trident.cases.case import results
from trident.runtime import route


@dataclass(frozen=True)
class Settings:
    clock: str = "wall"  # of CPUs: "wall" or "cpu"
    policy: str = "auto"  # what a user gets, or "kernels": what `route` rests on
    seconds: float = 1.0  # a row's rounds last about
    gradients: bool = True  # are they checked, too?
    extras: bool = True  # host overhead and memory

    def text(self) -> str:
        return f"{self.policy} {self.seconds} {self.gradients} {self.extras}"


def blank(workload: Workload, rivals: list[Rival], settings: Settings, machine: Machine) -> Row:
    """What a row is known by before it is measured."""
    return Row(
        name=workload.name,
        family=workload.family,
        shape="x".join(map(str, workload.shape)),
        dtype=str(workload.dtype).removeprefix("torch."),
        way=workload.way,
        options=f"{settings.text()} {','.join(r.name for r in rivals)} {'cold' if workload.cold else 'warm'}",
        date=today(),
        machine=machine,
    )


def measure(workload: Workload, rivals: list[Rival], settings: Settings, machine: Machine) -> Row:
    """A call that raises is named in its row, and does not end the run."""
    row = blank(workload, rivals, settings, machine)
    try:
        _Measured(row, workload, settings).run(rivals)
    except Exception as error:  # whatever an operator raises, ours or torch's
        row.refused = f"{type(error).__name__}: {error}".splitlines()[0][:200]
    return row


class _Measured:
    """What measuring a row needs in several places."""

    def __init__(self, row: Row, workload: Workload, settings: Settings):
        self.row, self.workload, self.settings = row, workload, settings
        self.copies = workload.shared()
        self.inputs = self.copies[0]
        self.timer = ceilings.timer_of(workload.device, settings.clock)
        self.variants: list[Variant] = []

    def run(self, rivals: list[Rival]) -> None:
        row, case = self.row, self.workload.case
        policy = self.settings.policy
        with route.forced("auto"):
            row.where = routes.where(self._call_once(case.ours))
        self._enter(OURS, case.ours, policy)
        if row.routed and policy == "auto":
            self._enter(FORCED, case.ours, "kernels")
        found = judge(dataclasses.replace(self.workload, way="forward"), self.settings.gradients)
        for name, to in ((v.name, "kernels" if v.name == FORCED else policy) for v in self.variants):
            with route.forced(to):
                if fault := found.fault(f"{name} {policy}", case.ours, self.workload.way):
                    row.refused = f"{name}: {fault}"
        for rival in rivals:
            self._rival(rival, found)
        self._time()
        self._rates()
        if self.settings.extras:
            self._extras()

    def _context(self, policy: str, restore: Callable[[], None] | None = None):
        grad = torch.no_grad if self.workload.way == "forward" else torch.enable_grad

        @contextlib.contextmanager
        def context() -> Iterator[None]:
            if restore is not None:
                restore()
            with grad(), route.forced(policy):
                yield

        return context

    def _call_once(self, fn: Function) -> Callable[[], object]:
        def call() -> object:
            with self._context(route.policy)():
                return self.workload.call(fn, [self.inputs])()

        # the call itself may be made (a backward's graph) in the same policy
        return call

    def _enter(self, name: str, fn: Function, policy: str, overwrites: bool = False) -> None:
        copies, restore = self.copies, None
        if overwrites:
            copies = [*self.workload.copies(self.inputs)[1:MOST_GRAPHS], self._own()]
            restore = lambda: _restore(copies, self.inputs)  # noqa: E731
        context = self._context(policy, restore)
        start = time.perf_counter()
        with context():
            self.workload.call(fn, copies[:1])()
            _wait(self.workload.device)
            self.row.first[name] = time.perf_counter() - start
            call = self.workload.call(fn, copies)  # of a backward the graph of each copy
        variant = Variant(name, call, context)
        if self.workload.device == "cuda" and not overwrites:  # a capture would hold the restoring, too
            variant.timer = gpu.captured(variant)
        self.variants.append(variant)

    def _own(self) -> list[Tensor]:
        return [t.detach().clone().requires_grad_(t.requires_grad) for t in self.inputs]

    def _rival(self, rival: Rival, by: Judge) -> None:
        """A rival that lacks the operator, would take too long, fails or is wrong is named in the row."""
        if reason := rival.absent(self.workload):
            self.row.absent[rival.name] = reason
            return
        fn = rival.make(self.workload)
        try:
            self._enter(rival.name, fn, route.policy, rival.overwrites)
            fault = by.fault(rival.name, fn, self.workload.way, SLACK)
        except Exception as error:  # whatever a rival raises is its own
            fault = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        if fault is not None:
            self.row.absent[rival.name] = fault
            self.variants = [v for v in self.variants if v.name != rival.name]

    def _time(self) -> None:
        row = self.row
        found = in_turns(self.variants, self.timer, self.settings.seconds)
        row.seconds = {name: Spread.of(samples) for name, samples in found.items()}
        if row.refused:
            return
        ours = found.pop(OURS)
        forced = found.pop(FORCED, None)
        row.ratios = {name: ratio(theirs, ours) for name, theirs in found.items()}
        if forced and "eager" in found:
            row.forced = ratio(found["eager"], forced)

    def _rates(self) -> None:
        row, workload, seconds = self.row, self.workload, self.row.seconds[OURS].median
        device, clock, threads = workload.device, self.settings.clock, torch.get_num_threads()
        if flops := workload.flops():
            row.rate, row.unit = flops / seconds, "FLOP/s"
            row.ceiling = ceilings.product_rate(device, clock, threads, workload.dtype)
            return
        with torch.no_grad():
            outputs = results(workload.case.reference(*self.inputs))
        row.rate = workload.traffic(self.inputs, outputs) / seconds
        row.ceiling = ceilings.copy_rate(device, clock, threads)

    def _extras(self) -> None:
        """Peak memory, and what a call costs the host: on GPUs the time to enqueue it, on CPUs the time of a call on
        the case's smallest shape, whose kernel has nothing to do."""
        for variant in self.variants:
            if variant.name not in (OURS, "eager"):
                continue
            with variant.context():
                held = memory.peak(variant.call, self.workload.device)
                if held is not None:
                    self.row.memory[variant.name] = held
                if self.workload.device == "cuda":
                    self.row.host[variant.name] = 1e6 * _enqueued(variant.call)
        if self.workload.device == "cpu":
            self._host_on_cpu()

    def _host_on_cpu(self) -> None:
        case, w = self.workload.case, self.workload
        tiny = Workload(w.name, case, tuple(case.shapes[0]), w.dtype, w.way, w.device, cold=False)
        inputs = [tiny.inputs()]
        policies = {OURS: case.ours, "eager": case.reference}
        # a row that is routed at its size is measured as it is called; a kernel's row with the kernel
        to = self.settings.policy if self.row.routed else "kernels"
        for name, fn in policies.items():
            with self._context(to)():
                self.row.host[name] = 1e6 * best(tiny.call(fn, inputs), self.timer, rounds=5)


def _restore(copies: list[list[Tensor]], inputs: list[Tensor]) -> None:
    with torch.no_grad():
        for copy in copies:
            for mine, whole in zip(copy, inputs, strict=True):
                mine.data.copy_(whole)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def _enqueued(call: Callable[[], object], times: int = 20) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        call()
    taken = (time.perf_counter() - start) / times
    torch.cuda.synchronize()
    return taken
