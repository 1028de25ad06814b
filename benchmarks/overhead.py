"""What does `trident.enabled()` cost a call that Trident does not take? Asked: 2 us.

    python -m benchmarks.overhead

One thread, CPU time, medians of rounds in turns of: the call; the call under a mode that does nothing but call (what
torch takes for any mode); the call under `enabled`. Functions in C, operators, methods and attributes; functions that
are written in Python, which look for modes themselves (torch.overrides.handle_torch_function). "asks alone" is one
that does nothing else: the floor of those, whose parts stand below it.
"""

import statistics
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import overrides

import trident
from trident.bench import timing
from trident.optimize import functions
from trident.runtime import redirect

ROUNDS, CALLS = 31, 400


class Nothing(overrides.TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        return func(*args, **kwargs) if kwargs else func(*args)


def asks(x: torch.Tensor) -> object:
    if overrides.has_torch_function_unary(x):
        return overrides.handle_torch_function(asks, (x,), x)
    return x


def mode_taken_off() -> None:
    with overrides._pop_mode_temporarily():
        pass


def mode_taken_off_in_c() -> None:
    redirect._push(redirect._pop())


X, SQUARE = torch.ones(4), torch.ones(3, 3)
LOGS, TARGETS, LENGTHS = torch.zeros(2, 1, 3), torch.ones(1, 2, dtype=torch.long), torch.full((1,), 2)
IN_C: dict[str, tuple[Any, Callable[[], object]]] = {
    "torch.add": (torch.add, lambda: torch.add(X, X)),
    "x * x": (torch.Tensor.mul, lambda: X * X),
    "x.view": (torch.Tensor.view, lambda: X.view(2, 2)),
    "x.shape": (torch.Tensor.shape.__get__, lambda: X.shape),  # type: ignore[attr-defined]
}
IN_PYTHON: dict[str, tuple[Any, Callable[[], object]]] = {
    "asks alone": (asks, lambda: asks(X)),
    "torch.split": (torch.functional.split, lambda: torch.split(X, 2)),
    "torch.cdist": (torch.functional.cdist, lambda: torch.cdist(SQUARE, SQUARE)),
    "torch.tensordot": (torch.functional.tensordot, lambda: torch.tensordot(X, X, 1)),
    "F.ctc_loss": (F.ctc_loss, lambda: F.ctc_loss(LOGS, TARGETS, LENGTHS, LENGTHS)),
}

# of "asks alone", under a mode
PARTS: dict[str, Callable[[], object]] = {
    "collect the arguments' types": lambda: tuple(map(type, overrides._get_overloaded_args((X,)))),
    "take the mode off and on, a generator": mode_taken_off,
    "(the same by torch._C)": mode_taken_off_in_c,
}


def microseconds(call: Callable[[], object]) -> list[float]:
    """Of a call by itself, under Nothing, under `enabled`."""
    variants = [
        timing.Variant("itself", call),
        timing.Variant("nothing", call, Nothing),
        timing.Variant("enabled", call, trident.enabled),
    ]
    found: dict[str, list[float]] = {v.name: [] for v in variants}
    with timing.no_collection():
        for turn in range(ROUNDS):
            for v in variants if turn % 2 else reversed(variants):
                with v.context():
                    found[v.name].append(timing.CLOCKS["cpu"](call, CALLS) / CALLS * 1e6)
    return [statistics.median(times) for times in found.values()]


def main() -> int:
    torch.set_num_threads(1)
    functions.fill()
    for kind, calls in (("in C", IN_C), ("in Python", IN_PYTHON)):
        for name, (function, call) in calls.items():
            assert function not in redirect.TARGETS, f"{name} is Trident's"
            itself, nothing, enabled = microseconds(call)
            told = f"{itself:6.2f} us   +{nothing - itself:5.2f} any mode   +{enabled - itself:5.2f} enabled"
            print(f"{kind:10} {name:14} {told}", flush=True)
    with Nothing(), timing.no_collection():
        for part, call in PARTS.items():
            rounds = [timing.CLOCKS["cpu"](call, CALLS) / CALLS * 1e6 for _ in range(ROUNDS)]
            print(f"{part:40} {statistics.median(rounds):.2f} us", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
