"""Your model, original against optimised: are the numbers the same, is the step faster, and by which modules? And what
is its time spent in, that Trident's kernels do, that torch keeps for a reason, or that Trident does not have?

    print(trident.compare(model, inputs))
    python -m trident bench --model package.module:function     # a function that returns (model, inputs)

The model is copied and left as it was. Numbers: outputs and gradients of both are compared with the model in float64;
the optimised one may be off by FACTOR times as much as the original is. Where the model does not run in float64 the
two are compared with each other, within `DIRECT`.
"""

import copy
import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from trident.bench import ceilings, memory
from trident.bench.modules import Gain, gains
from trident.bench.results import Machine, machine
from trident.bench.shares import Share, shares
from trident.bench.summary import microseconds, size
from trident.bench.timing import Spread, Variant, in_turns, one_thread, ratio
from trident.optimize import Report, optimize, restore

FACTOR = 4.0  # another order of summation is as likely to be nearer to float64 as farther
ROUNDING = 32.0  # and errors of so many eps of the dtype are nobody's fault
NOISE = 1e-3  # a gradient that much smaller than the largest one is rounding noise of the others
DIRECT = {torch.float32: 1e-3, torch.float64: 1e-9, torch.float16: 3e-2, torch.bfloat16: 6e-2}  # of the norm


@dataclass
class Comparison:
    """print() it. `wrong`: what differs, name by name; empty if the numbers are the same. `step`, `forward`: the
    original's time over the optimised model's. Seconds and bytes are keyed "original" and "optimised"."""

    model: str
    machine: Machine
    against: str  # what the numbers were compared with
    notes: list[str] = field(default_factory=list)
    wrong: dict[str, str] = field(default_factory=dict)
    compared: int = 0
    worst: tuple[float, float] = (0.0, 0.0)  # greatest relative error of an output or gradient: original, optimised
    seconds: dict[str, dict[str, Spread]] = field(default_factory=dict)  # "forward", "step" -> ...
    forward: Spread | None = None
    step: Spread | None = None
    memory: dict[str, int | None] = field(default_factory=dict)  # of a step, at most
    modules: list[Gain] = field(default_factory=list)
    shares: list[Share] = field(default_factory=list)  # of the original's step, or forward
    report: Report = field(default_factory=Report)

    @property
    def same(self) -> bool:
        return not self.wrong

    def __str__(self) -> str:
        lines = [f"{self.model}: {len(self.report.swapped)} modules swapped, {len(self.report.left)} left", *self.notes]
        lines.append(str(self.machine))
        verdict = "the same numbers" if self.same else f"{len(self.wrong)} DIFFER"
        lines.append(
            f"outputs and gradients: {verdict} of {self.compared}, against {self.against}; greatest relative error "
            f"{self.worst[0]:.1e} original, {self.worst[1]:.1e} optimised"
        )
        lines += [f"  {name}: {what}" for name, what in list(self.wrong.items())[:10]]
        for name, gain in (("forward", self.forward), ("step", self.step)):
            if name in self.seconds:
                times = [microseconds(self.seconds[name][who].median) for who in ("original", "optimised")]
                told = f"{gain.median:.2f} ±{gain.half:.2f} times as fast" if gain else "no ratio of different results"
                lines.append(f"{name:8} {times[0]:>10} -> {times[1]:>10}   {told}")
        lines.append(
            f"{'memory':8} {size(self.memory['original']):>10} -> {size(self.memory['optimised']):>10}   of a step"
        )
        lines += ["", *Gain.table(self.modules), "", *Share.table(self.shares)]
        return "\n".join(lines)


def compare(
    model: torch.nn.Module, inputs: object, *, seconds: float = 2.0, clock: str = "wall", backward: bool = True
) -> Comparison:
    """The model, optimised, against itself.

    inputs: a tensor, a sequence of arguments, or a mapping of named ones. seconds: how long forwards, and steps, are
    timed, about. clock: "wall", or "cpu" (one thread's time, for a busy machine). backward: is a step a forward with
    its backward? Raises TypeError for what is not a module, ValueError for a model that returns no floating tensor.
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"compare: model is a {type(model).__name__}; expected a torch.nn.Module")
    args, kwargs = _arguments(inputs)
    device = _device(model, args, kwargs)
    if device == "cpu":
        one_thread(clock)
    original, optimised = restore(copy.deepcopy(model)), restore(copy.deepcopy(model))
    done = Comparison(type(model).__name__, machine(device, clock), "float64", report=optimize(optimised, report=True))
    if _random(original, args, kwargs):
        done.notes.append("random in training mode: numbers are compared in eval mode")
    _numbers(done, original, optimised, args, kwargs, backward)
    steps = {"original": original, "optimised": optimised}
    timer = ceilings.timer_of(device, clock)
    for name, calls in (
        ("forward", {who: _forward(m, args, kwargs) for who, m in steps.items()}),
        ("step", {who: _step(m, args, kwargs) for who, m in steps.items()} if backward else {}),
    ):
        if not calls:
            continue
        variants = [
            Variant(who, call, torch.no_grad if name == "forward" else torch.enable_grad) for who, call in calls.items()
        ]
        found = in_turns(variants, timer, seconds)
        done.seconds[name] = {who: Spread.of(samples) for who, samples in found.items()}
        if done.same:
            setattr(done, name, ratio(found["original"], found["optimised"]))
    for who, m in steps.items():
        done.memory[who] = memory.peak((_step if backward else _forward)(m, args, kwargs), device)
    done.shares = shares(original, done.report, args, kwargs, _step if backward else _forward, device)
    done.modules = gains(original, optimised, done.report, args, kwargs, timer, backward, seconds / 8)
    return done


def _arguments(inputs: object) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, Sequence) and not isinstance(inputs, str):
        return tuple(inputs), {}
    return (inputs,), {}


def _device(model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    tensors = [*model.parameters(), *(t for t in (*args, *kwargs.values()) if isinstance(t, Tensor))]
    kinds = {t.device.type for t in tensors}
    if len(kinds) != 1:
        raise ValueError(f"compare: model and inputs live on {sorted(kinds) or 'no device'}; expected one device")
    return kinds.pop()


def outputs(y: object) -> list[Tensor]:
    """The floating tensors of what a model returns: a tensor, sequences and mappings of them, nested."""
    if isinstance(y, Tensor):
        return [y] if y.is_floating_point() else []
    if isinstance(y, Mapping):
        return [t for part in y.values() for t in outputs(part)]
    if isinstance(y, list | tuple):
        return [t for part in y for t in outputs(part)]
    return []


def _run(model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    found = outputs(model(*args, **kwargs))
    if not found:
        raise ValueError(f"compare: {type(model).__name__} returns no floating tensor")
    return found


def _forward(model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[[], object]:
    return lambda: model(*args, **kwargs)


def _step(model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Callable[[], object]:
    """Forward, and gradients of every parameter; the optimizer's work is the same for both."""
    wanted = [p for p in model.parameters() if p.requires_grad]

    def call() -> object:
        y = [t for t in _run(model, args, kwargs) if t.requires_grad]
        return torch.autograd.grad(y, wanted, [torch.ones_like(t) for t in y], allow_unused=True)

    return call


def _random(model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Does it give other numbers each time? Then only an evaluation can be compared."""
    if not model.training:
        return False
    with torch.no_grad():
        found = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            found.append(_run(copy.deepcopy(model), args, kwargs))  # a copy: statistics run on
    return any(not torch.equal(a, b) for a, b in zip(*found, strict=True))


def _named(model: torch.nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], backward: bool) -> dict[str, Tensor]:
    """Outputs and gradients of parameters, detached, by name."""
    torch.manual_seed(0)
    y = _run(model, args, kwargs)
    found = {f"output {i}": t.detach() for i, t in enumerate(y)}
    wanted = {name: p for name, p in model.named_parameters() if p.requires_grad}
    y = [t for t in y if t.requires_grad]
    if backward and wanted and y:
        torch.manual_seed(1)
        dy = [torch.randn(t.shape).to(t.device, t.dtype) for t in y]
        grads = torch.autograd.grad(y, list(wanted.values()), dy, allow_unused=True)
        found |= {f"gradient of {name}": g for name, g in zip(wanted, grads, strict=True) if g is not None}
    return found


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value


def _numbers(
    done: Comparison,
    original: torch.nn.Module,
    optimised: torch.nn.Module,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    backward: bool,
) -> None:
    """On copies: running statistics of a training forward stay as they were."""
    theirs, ours = copy.deepcopy(original), copy.deepcopy(optimised)
    exact = copy.deepcopy(original).double()
    if done.notes:
        for m in (theirs, ours, exact):
            m.eval()
    a, b = (_named(m, args, kwargs, backward) for m in (ours, theirs))
    try:
        named = {name: _double(t) for name, t in kwargs.items()}
        e = _named(exact, [_double(t) for t in args], named, backward)
    except RuntimeError as error:  # say, a mask that the model makes in float32
        done.against = f"the original (in float64: {str(error).splitlines()[0][:80]})"
        e = b
    done.compared = len(e)
    if a.keys() != e.keys() or b.keys() != e.keys():
        missing = (a.keys() ^ e.keys()) | (b.keys() ^ e.keys())
        done.wrong |= dict.fromkeys(sorted(missing), "only one of the models has it")
    largest = max((t.double().norm().item() for t in e.values()), default=0.0)
    for name in e.keys() & a.keys() & b.keys():
        _judge(done, name, a[name], b[name], e[name], largest)


def _judge(done: Comparison, name: str, ours: Tensor, theirs: Tensor, exact: Tensor, largest: float) -> None:
    norm = exact.double().norm().item()
    scale = norm + NOISE * largest
    off = [(t.double() - exact.double()).norm().item() / (scale or 1.0) for t in (theirs, ours)]
    done.worst = (max(done.worst[0], off[0]), max(done.worst[1], off[1]))
    direct = done.against != "float64"
    allowed = DIRECT[ours.dtype] if direct else FACTOR * off[0] + ROUNDING * torch.finfo(ours.dtype).eps
    if not off[1] <= allowed:  # NaN is wrong
        done.wrong[name] = f"relative error {off[1]:.1e}, allowed {allowed:.1e}"


def load(spec: str) -> tuple[torch.nn.Module, Any]:
    """`package.module:function` -> what the function returns. Raises ValueError naming what is not there."""
    name, _, function = spec.partition(":")
    if not function:
        raise ValueError(f"bench: model {spec!r} is not like package.module:function")
    try:
        made = getattr(importlib.import_module(name), function)()
    except (ImportError, AttributeError) as error:
        raise ValueError(f"bench: model {spec!r}: {error}") from error
    if not (isinstance(made, tuple) and len(made) == 2):
        raise ValueError(f"bench: model {spec!r} returns a {type(made).__name__}; expected (model, inputs)")
    return made


def command(spec: str, clock: str) -> int:
    model, inputs = load(spec)
    found = compare(model, inputs, clock=clock)
    print(found)
    return 0 if found.same else 1
