"""`optimize` swaps a model's modules for Trident's by class reassignment; `restore` undoes it.

An object keeps its identity, parameters, buffers, hooks, name, training mode and device: only its class changes, and
with it `forward`. What is not exactly a torch.nn class that Trident knows is left alone: its forward may differ. The
functions of torch that the forwards call are redirected (scope.py).
"""

from dataclasses import dataclass, field
from typing import Literal, TypeVar, overload

import torch
from torch.nn.utils import parametrize

import trident.nn
from trident.optimize import adapted, classes, logits, scope
from trident.runtime import pages

Model = TypeVar("Model", bound=torch.nn.Module)

# torch.nn's class -> Trident's
SWAPS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    getattr(torch.nn, name): cls
    for name, cls in vars(trident.nn).items()
    if isinstance(cls, type) and cls.__module__.startswith("trident.") and hasattr(torch.nn, name)
}
BACK = {ours: theirs for theirs, ours in SWAPS.items()}

DONE = "is Trident's already"

# these compute nothing themselves: no use in reporting that they were left
CONTAINERS = frozenset({torch.nn.Sequential, torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Identity})


@dataclass(frozen=True)
class Report:
    """What `optimize` did. swapped: module name -> class; left: module name -> (class, reason).

    functions: why torch's functions are not redirected in the model's forward; None if they are.
    """

    swapped: dict[str, str] = field(default_factory=dict)
    left: dict[str, tuple[str, str]] = field(default_factory=dict)
    functions: str | None = None

    def __str__(self) -> str:
        lines = [f"swapped {len(self.swapped)} modules, left {len(self.left)}"]
        lines += [f"  functions: {'redirected' if self.functions is None else f'left: {self.functions}'}"]
        lines += [f"  {name or '(model)'}: {cls}" for name, cls in self.swapped.items()]
        lines += [f"  {name or '(model)'}: {cls} left: {reason}" for name, (cls, reason) in self.left.items()]
        return "\n".join(lines)


@overload
def optimize(
    model: Model, *, functions: bool = True, lazy_logits: bool | str = False, report: Literal[False] = False
) -> Model: ...
@overload
def optimize(
    model: torch.nn.Module, *, functions: bool = True, lazy_logits: bool | str = False, report: Literal[True]
) -> Report: ...
def optimize(
    model: Model, *, functions: bool = True, lazy_logits: bool | str = False, report: bool = False
) -> Model | Report:
    """Make every module of exactly a supported torch.nn type, in place, its twin in `trident.nn`.

    Modules of other libraries whose forward `trident.zoo` knows, line by line, get another forward.
    functions: while the model's forward runs, calls of torch's functions are Trident's, as within `trident.enabled()`.
    The model's class becomes a subclass of itself for that.
    lazy_logits: where gradients are asked for, the last layer (its name; True: a transformers model knows it) gives
    logits that are computed when they are read, and never if only cross entropy reads them. They must be read before
    `optimizer.step()`: later a RuntimeError says so.

    Returns the model; with report=True a :class:`Report`. Calling it again changes nothing more. Raises TypeError if
    `model` is not a module.
    """
    _check("optimize", model)
    if any(p.is_cpu for p in model.parameters()):
        pages.keep()
    swapped, left = {}, {}
    head = logits.head(model, lazy_logits) if lazy_logits else None
    for name, module in model.named_modules():
        cls = type(module)
        ours, reason = _twin(module)
        if ours is not None:
            module.__class__ = ours
            swapped[name] = cls.__name__
        elif reason != DONE and cls not in CONTAINERS:
            left[name] = (cls.__name__, reason)
    if head is not None and classes.kind(type(head)) != logits.KIND and _twin(head)[1] == DONE:
        head.__class__ = classes.derived(logits.KIND, type(head))  # type: ignore[assignment]
    done = type(model) in BACK or classes.kind(type(model)) == adapted.KIND
    no_scope = DONE if done else scope.reason_to_stay_out(model) if functions else "functions=False"
    if no_scope is None:
        scope.enter(model)
    return Report(swapped, left, no_scope) if report else model


def restore(model: Model) -> Model:
    """Make every module of a `trident.nn` type, in place, its twin in torch.nn, functions torch's; returns the model.

    A module with options that torch has not (`activation=`, say) stays: its twin would compute something else.
    """
    _check("restore", model)
    for module in model.modules():
        module.__class__ = classes.original(type(module))
        if type(module) in BACK and not getattr(module, "beyond_torch", False):
            module.__class__ = BACK[type(module)]
    return model


def _check(function: str, model: object) -> None:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"{function}: model is a {type(model).__name__}; expected a torch.nn.Module")


def _twin(module: torch.nn.Module) -> tuple[type[torch.nn.Module] | None, str]:
    """The class of Trident's that the module may become, or None and why there is none."""
    cls = type(module)
    if classes.kind(cls) == scope.KIND:
        cls = classes.original(cls)
    if cls in BACK or classes.kind(cls) in (adapted.KIND, logits.KIND):
        return None, DONE
    if isinstance(module, torch.jit.ScriptModule):
        return None, "scripted"
    if parametrize.is_parametrized(module):
        return None, "parametrized"
    if "forward" in vars(module):
        return None, "its forward was replaced on the instance"
    if cls.__module__.startswith(("torch.ao.", "torch.nn.quantized", "torch.nn.qat")):
        return None, "quantized"
    ours = SWAPS.get(cls) or adapted.adapted(cls)
    if isinstance(module, tuple(SWAPS)):
        return ours, "a subclass: its forward may differ"
    return ours, "Trident has no kernel for it" if cls.__module__.startswith("torch.nn.") else "not a torch.nn class"
