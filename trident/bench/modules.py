"""Which modules of a model gained, and which lost: each distinct call that a forward makes, timed alone, in turns.

Modules of one class, with the same options and inputs of the same shapes, are one row with their number.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trident.bench import routes
from trident.bench.summary import microseconds
from trident.bench.timing import Spread, Timer, Variant, in_turns, ratio
from trident.optimize import Report

LEFT = "left: "


@dataclass
class Gain:
    module: str  # LayerNorm((192,), eps=1e-06)
    shape: str  # of the first tensor that it is called with
    count: int
    where: str  # `routes.where`, or LEFT and why the module was not swapped
    original: float  # seconds of a call
    optimised: float
    ratio: Spread | None  # None where the module is the same in both

    @property
    def saved(self) -> float:
        """Seconds of a step, all calls together; negative where the module lost."""
        return self.count * (self.original - self.optimised) if self.ratio else 0.0

    @staticmethod
    def table(gains: Sequence["Gain"]) -> list[str]:
        head = ("saved", "calls", "original", "optimised", "ratio", "module", "input", "route")
        body = [
            (
                f"{'-' if g.saved < 0 else ''}{microseconds(abs(g.saved))}" if g.ratio else "",
                str(g.count),
                microseconds(g.original),
                microseconds(g.optimised) if g.ratio else "",
                f"{g.ratio.median:.2f} ±{g.ratio.half:.2f}" if g.ratio else "",
                g.module[:44],
                g.shape,
                g.where,
            )
            for g in gains
        ]
        widths = [max(len(row[i]) for row in (head, *body)) for i in range(len(head))]
        return [
            "  ".join(
                cell.rjust(w) if i < 5 else cell.ljust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in (head, *body)
        ]


@dataclass
class _Seen:
    """A distinct call: the first module that made it, with its inputs."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    count: int = 0


def gains(
    original: torch.nn.Module,
    optimised: torch.nn.Module,
    report: Report,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    timer: Timer,
    backward: bool,
    seconds: float,
) -> list[Gain]:
    """Of every swapped module (those within a swapped one are part of it) and every left one that has no modules of
    its own; what saves most first."""
    seen = _calls(original, report, args, kwargs)
    found = [_gain(original, optimised, report, call, timer, backward, seconds) for call in seen]
    return sorted(found, key=lambda g: (g.ratio is None, -g.saved, -g.count * g.original))


def _watched(model: torch.nn.Module, report: Report) -> list[str]:
    swapped = set(report.swapped)
    return [
        name
        for name, module in model.named_modules()
        if (name in swapped or (name in report.left and not any(module.children())))
        and not any(name.startswith(f"{outer}.") for outer in swapped)
    ]


def _calls(model: torch.nn.Module, report: Report, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[_Seen]:
    seen: dict[tuple[Any, ...], _Seen] = {}

    def watcher(name: str) -> Callable[..., None]:
        def note(module: torch.nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
            values = (*given, *named.values())
            key = (type(module), module.extra_repr(), *((t.shape, t.dtype, t.stride()) for t in _tensors(values)))
            if key not in seen:
                seen[key] = _Seen(name, tuple(map(_kept, given)), {k: _kept(v) for k, v in named.items()})
            seen[key].count += 1

        return note

    model = copy.deepcopy(model)  # running statistics, and hooks that must not stay
    for name in _watched(model, report):
        model.get_submodule(name).register_forward_pre_hook(watcher(name), with_kwargs=True)
    with torch.no_grad():
        model(*args, **kwargs)
    return list(seen.values())


def _tensors(values: Sequence[Any]) -> list[Tensor]:
    return [v for v in values if isinstance(v, Tensor)]


def _kept(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _gain(
    original: torch.nn.Module,
    optimised: torch.nn.Module,
    report: Report,
    call: _Seen,
    timer: Timer,
    backward: bool,
    seconds: float,
) -> Gain:
    theirs, ours = (copy.deepcopy(m.get_submodule(call.name)) for m in (original, optimised))
    swapped = call.name in report.swapped
    variants = [Variant("original", _alone(theirs, call, backward))]
    where = LEFT + report.left[call.name][1] if not swapped else routes.where(_alone(ours, call, backward))
    if swapped:
        variants.append(Variant("optimised", _alone(ours, call, backward)))
    found = in_turns(variants, timer, seconds)
    times = {name: Spread.of(samples).median for name, samples in found.items()}
    tensors = _tensors((*call.args, *call.kwargs.values()))
    return Gain(
        module=f"{type(theirs).__name__}({theirs.extra_repr()})",
        shape="x".join(map(str, tensors[0].shape)) if tensors else "",
        count=call.count,
        where=where,
        original=times["original"],
        optimised=times.get("optimised", times["original"]),
        ratio=ratio(found["original"], found["optimised"]) if swapped else None,
    )


def _alone(module: torch.nn.Module, call: _Seen, backward: bool) -> Callable[[], object]:
    """The module's forward, with its backward if there is something to differentiate."""

    def leaf(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        return value.detach().requires_grad_(backward)

    args, kwargs = tuple(map(leaf, call.args)), {k: leaf(v) for k, v in call.kwargs.items()}
    wanted = [t for t in (*_tensors((*args, *kwargs.values())), *module.parameters()) if t.requires_grad]
    inplace = bool(getattr(module, "inplace", False))

    def forward() -> Any:
        given = tuple(a.clone() if isinstance(a, Tensor) else a for a in args) if inplace else args
        return module(*given, **kwargs)

    if not (backward and wanted):
        return torch.no_grad()(forward)

    def both() -> object:
        y = forward()
        results = [t for t in (y if isinstance(y, tuple | list) else [y]) if isinstance(t, Tensor) and t.requires_grad]
        if not results:
            return y
        return torch.autograd.grad(results, wanted, [torch.ones_like(t) for t in results], allow_unused=True)

    return both
