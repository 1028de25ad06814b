"""Which operators does a step of the original spend its time in, and what does Trident do with each of them?

The original runs once under torch's profiler, each call of a function, or of a module that `optimize` swaps, in a range
of its own; a node of the backward counts with the call that made it. Then the optimised model runs, and what `route`
says within each call is noted. Both make the same calls in the same order.
"""

import copy
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from trident.bench import routes
from trident.optimize import Report, enabled, optimize
from trident.runtime import redirect

RANGE = "trident call "
NODE = "autograd::engine::evaluate_function: "
UNKNOWN = "not in Trident"
BETWEEN = "between the calls", "autograd's sums, and Python's operators"
ATTRIBUTES = frozenset({"__get__", "__set__", "__delete__"})


@dataclass
class Share:
    """Of calls alike. where: `routes.where`, or UNKNOWN."""

    name: str  # of a function, or of a module's class
    where: str
    calls: int = 0
    seconds: float = 0.0
    part: float = 0.0  # of the step

    @staticmethod
    def table(shares: Sequence["Share"]) -> list[str]:
        """A line for what each answer takes together, and one for each operator that takes a thousandth."""
        kinds: dict[str, float] = {}
        for share in shares:
            kind = "torch" if share.where.startswith("torch") else "partly" if share.where.startswith("partly") else ""
            key = kind or share.where
            kinds[key] = kinds.get(key, 0.0) + share.part
        told = ", ".join(f"{part:.1%} {kind}" for kind, part in sorted(kinds.items(), key=lambda item: -item[1]))
        rows = [f"{s.part:7.1%}  {s.calls:5}  {s.name[:32]:32}  {s.where}" for s in shares if s.part >= 1e-3]
        return [f"the original's step: {told}", *rows]


@dataclass
class _Calls(TorchFunctionMode):
    """Notes the outermost calls of a model. around: what each runs in, by its number."""

    around: Callable[[int], Any]
    ours: bool
    names: list[str] = field(default_factory=list)
    within: Any = None  # a module's range

    def __post_init__(self) -> None:
        super().__init__()

    def begin(self, name: str) -> Any:
        self.names.append(name)
        return self.around(len(self.names) - 1)

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", str(func))
        if self.within is not None or name in ATTRIBUTES:
            return func(*args, **(kwargs or {}))
        with self.begin(name):
            if self.ours:
                return redirect.REDIRECT.__torch_function__(func, types, args, kwargs)
            return func(*args, **(kwargs or {}))

    def watch(self, module: torch.nn.Module, name: str) -> None:
        """Calls of the module are one call each, of this name."""

        def enter(module: torch.nn.Module, args: Any) -> None:
            if self.within is None:
                self.within = (module, self.begin(name))
                self.within[1].__enter__()

        def leave(module: torch.nn.Module, args: Any, y: Any) -> None:
            if self.within is not None and self.within[0] is module:
                self.within[1].__exit__(None, None, None)
                self.within = None

        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)


class _Watched(torch.nn.Module):
    """The model, whose forward makes its calls under the mode. It keeps the hooks: it is a copy."""

    def __init__(self, model: torch.nn.Module, calls: _Calls, swapped: Mapping[str, str]) -> None:
        super().__init__()
        self.model, self.calls = model, calls
        for name, cls in swapped.items():
            calls.watch(model.get_submodule(name), cls)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        with self.calls:
            return self.model(*args, **kwargs)


def shares(
    original: torch.nn.Module,
    report: Report,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    step: Callable[[torch.nn.Module, Sequence[Any], Mapping[str, Any]], Callable[[], object]],
    device: str,
) -> list[Share]:
    """The largest first. report: of `optimize(original)`. step: what a step is; run on copies of `original`."""
    theirs, ours = copy.deepcopy(original), optimize(copy.deepcopy(original), functions=False)
    step(theirs, args, kwargs)()
    calls = _Calls(lambda i: torch.profiler.record_function(f"{RANGE}{i}"), ours=False)
    timed = step(_Watched(theirs, calls, report.swapped), args, kwargs)
    with _profiler(device) as profile:
        timed()
    asked, places = _decisions(ours, report.swapped, lambda model: step(model, args, kwargs))
    if asked != calls.names:
        places = ["torch: not known, as the optimised model makes other calls"] * len(calls.names)
    seconds = _seconds(profile.function_events, device)
    return _grouped([*zip(calls.names, places, strict=True)], seconds)


def _profiler(device: str) -> Any:
    """What has `function_events` afterwards. On CPUs the old one, where torch has it: Kineto writes to the terminal."""
    if device == "cpu" and importlib.util.find_spec("torch.autograd.profiler_legacy"):
        return importlib.import_module("torch.autograd.profiler_legacy").profile()
    return torch.autograd.profiler.profile(use_device="cuda" if device == "cuda" else None, use_kineto=True)


def _decisions(
    model: torch.nn.Module, swapped: Mapping[str, str], step: Callable[[torch.nn.Module], Callable[[], object]]
) -> tuple[list[str], list[str]]:
    """The calls that it makes, and what becomes of each."""
    places: list[str] = []

    @contextmanager
    def asking(i: int) -> Iterator[None]:
        with routes.asked() as reasons:
            yield
        places.append(routes.told(reasons) if reasons else UNKNOWN)

    enabled()  # fills the table of functions
    calls = _Calls(asking, ours=True)
    step(_Watched(model, calls, swapped))()
    return calls.names, places


def _seconds(events: Any, device: str) -> dict[int | None, float]:
    """By the number of the call; None: of what belongs to none."""
    homes: dict[int, int | None] = {}  # id of an event -> the number of its call
    made: dict[int, int] = {}  # sequence number of a node of autograd -> its call

    def home(event: Any) -> int | None:
        if id(event) not in homes:
            if event.name.startswith(RANGE):
                homes[id(event)] = int(event.name.removeprefix(RANGE))
            elif event.name.startswith(NODE):
                numbers = [e.sequence_nr for e in (event, *event.cpu_children)]  # which has it depends on the profiler
                homes[id(event)] = next((made.get(n) for n in numbers if n >= 0), None)
            else:
                homes[id(event)] = home(event.cpu_parent) if event.cpu_parent is not None else None
        return homes[id(event)]

    in_order = sorted(events, key=lambda event: event.time_range.start)
    found: dict[int | None, float] = {}
    for event in in_order:  # a call ends before its node runs
        at = home(event)
        if at is not None and event.sequence_nr >= 0 and not event.name.startswith(NODE) and not _in_node(event):
            made[event.sequence_nr] = at  # the last one that had this number made the node
        spent = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        found[at] = found.get(at, 0.0) + spent / 1e6
    return found


def _in_node(event: Any) -> bool:
    while event is not None and not event.name.startswith(NODE):
        event = event.cpu_parent
    return event is not None


def _grouped(calls: Sequence[tuple[str, str]], seconds: Mapping[int | None, float]) -> list[Share]:
    rows = {BETWEEN: Share(*BETWEEN, seconds=seconds.get(None, 0.0))}
    for i, key in enumerate(calls):
        row = rows.setdefault(key, Share(*key))
        row.calls += 1
        row.seconds += seconds.get(i, 0.0)
    total = sum(row.seconds for row in rows.values()) or 1.0
    for row in rows.values():
        row.part = row.seconds / total
    return sorted(rows.values(), key=lambda row: -row.seconds)
