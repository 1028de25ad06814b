"""`trident.profile()`: which calls of Trident a block of a program makes, where each went and why, and its time.

Within the block Trident's functions, and the launchers that its backwards call, are replaced by ones that take the
time, wherever a loaded module names them; so a program that does not profile pays nothing. Calls that another call
makes count with that one. Calls inside of torch.compile are not seen.
"""

import functools
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import trident.functional
from trident.runtime import route
from trident.runtime.launch import executor
from trident.runtime.op import LAUNCHERS


@dataclass
class Call:
    """One call. seconds: wall time on the host, which on a GPU is the launch; device_seconds: None on a CPU."""

    name: str
    shapes: tuple[tuple[int, ...], ...]
    dtype: torch.dtype | None
    device: str
    where: str  # "kernel (native)", "torch: reason"
    seconds: float = 0.0
    device_seconds: float | None = None
    events: tuple[Any, Any] | None = field(default=None, repr=False)  # CUDA's, until the block ends


@dataclass
class Profile:
    """What `trident.profile()` gives: print it, or read `calls`."""

    calls: list[Call] = field(default_factory=list)

    def rows(self) -> list[tuple[Call, list[float]]]:
        """A call, and the seconds of all that are like it (the device's where there are); the longest first."""
        found: dict[tuple[Any, ...], list[Call]] = {}
        for call in self.calls:
            found.setdefault((call.name, call.shapes, call.dtype, call.device, call.where), []).append(call)
        times = [
            [c.seconds if c.device_seconds is None else c.device_seconds for c in calls] for calls in found.values()
        ]
        rows = [(calls[0], taken) for calls, taken in zip(found.values(), times, strict=True)]
        return sorted(rows, key=lambda row: -sum(row[1]))

    def __str__(self) -> str:
        head = ("operator", "shapes", "dtype", "device", "where it went", "calls", "median us", "ms")
        body = [
            (
                call.name, " ".join("x".join(map(str, shape)) or "()" for shape in call.shapes),
                str(call.dtype).removeprefix("torch."), call.device, call.where,
                str(len(taken)), f"{statistics.median(taken) * 1e6:.1f}", f"{sum(taken) * 1e3:.3f}",
            )
            for call, taken in self.rows()
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(head, *body, strict=True)]
        left = len(head) - 3  # words to the left, numbers to the right
        lines = [
            "  ".join(w.ljust(n) if i < left else w.rjust(n) for i, (w, n) in enumerate(zip(row, widths, strict=True)))
            for row in (head, *body)
        ]
        return "\n".join(line.rstrip() for line in lines)


class _Local(threading.local):
    inside = False  # a call is being timed: what it calls is its own
    decision: str | None = None  # where the call went, of the first operator that it asked for


class _Recorder:
    def __init__(self) -> None:
        self.profile = Profile()
        self.local = _Local()

    def decided(self, name: str, tensors: tuple[Tensor | None, ...], reason: str | None) -> None:
        """As `route` tells it."""
        if self.local.decision is None:
            self.local.decision = f"torch: {reason}" if reason else _kernel(tensors)

    def timing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling() or self.local.inside:
                return function(*args, **kwargs)
            tensors = tuple(a for a in (*args, *kwargs.values()) if isinstance(a, Tensor))
            call = _described(name, tensors)
            self.local.inside, self.local.decision = True, None
            try:
                with torch.profiler.record_function(f"trident::{name}"):
                    return self._run(call, function, args, kwargs)
            finally:
                call.where = self.local.decision or (_kernel(tensors) if name in LAUNCHERS else "torch: not asked")
                self.local.inside = False

        return timed

    def _run(self, call: Call, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        events = _events() if call.device.startswith("cuda") else None
        if events:
            events[0].record()
        start = time.perf_counter()
        result = function(*args, **kwargs)
        call.seconds = time.perf_counter() - start
        if events:
            events[1].record()
            call.events = events
        self.profile.calls.append(call)
        return result

    def end(self) -> None:
        """Ask the devices how long they took."""
        for call in self.profile.calls:
            if call.events:
                begin, end = call.events
                end.synchronize()
                call.device_seconds, call.events = begin.elapsed_time(end) / 1e3, None


def _events() -> tuple[Any, Any]:
    return torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)


def _kernel(tensors: tuple[Tensor | None, ...]) -> str:
    device = next((t.device.type for t in tensors if t is not None), "cpu")
    return f"kernel ({executor(device)})"


def _described(name: str, tensors: tuple[Tensor, ...]) -> Call:
    first = tensors[0] if tensors else None
    shapes = tuple(tuple(t.shape) for t in tensors)
    return Call(name, shapes, first.dtype if first is not None else None, str(first.device) if tensors else "", "")  # type: ignore[union-attr]


@contextmanager
def profile() -> Iterator[Profile]:
    """List the calls of Trident within the block.

    >>> with trident.profile() as p:
    ...     model(x).sum().backward()
    >>> print(p)

    Under torch.profiler each call is a range named "trident::<operator>". On CUDA devices times are the device's, which
    the end of the block waits for.
    """
    recorder = _Recorder()
    functions = {name: f for name, f in vars(trident.functional).items() if callable(f) and not name.startswith("_")}
    known = {id(f): (name, f) for name, f in {**LAUNCHERS, **functions}.items()}
    known |= {id(f): (name, f) for name, f in LAUNCHERS.items()}
    replaced = {key: recorder.timing(name, f) for key, (name, f) in known.items()}
    with ExitStack() as patches:
        for module in list(sys.modules.values()):
            for key, value in list(getattr(module, "__dict__", {}).items()):
                if id(value) in replaced:
                    patches.enter_context(mock.patch.object(module, key, replaced[id(value)]))
        route.WATCHERS.append(recorder.decided)
        patches.callback(route.WATCHERS.remove, recorder.decided)
        yield recorder.profile
    recorder.end()
