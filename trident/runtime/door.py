"""The door of a public function: what every call passes before the function reads it.

A call on a tensor so small that torch is faster in whichever way it is made goes to torch at once: there reading the
call, which is Python, takes longer than the work (docs/decisions/050). `enabled`'s mode is taken off meanwhile.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import torch

from trident.runtime import crossover, redirect, route
from trident.runtime.launch import EXECUTORS
from trident.runtime.route import PLAIN
from trident.runtime.spread import RULES, spread

F = TypeVar("F", bound=Callable[..., Any])

_modes, _mode_at = redirect._len, redirect._at
# what else compiles hands over tensors that are not PLAIN; `is_compiling` would be two calls more
_compiling = torch.compiler.is_dynamo_compiling
_ANY = math.inf


class Contract(NamedTuple):
    """What torch's function takes as ours does: so many arguments by position, and these by name (None: any).
    ours: arguments that it lacks -> the value that asks for nothing."""

    positional: int
    names: frozenset[str] | None
    ours: Mapping[str, Any] = {}


ANYTHING = Contract(255, None)


def common(name: str, ours: Any, theirs: Any) -> Contract:
    mine = inspect.signature(ours).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in mine.values()):
        return ANYTHING  # a reduction: what it does not know itself it passes on
    positional, named = _theirs(name, theirs, list(mine))
    in_order = 0
    for parameter, other in zip(mine, positional, strict=False):
        if parameter != other:
            break
        in_order += 1
    more = {n: p.default for n, p in mine.items() if n not in named and isinstance(p.default, float | None)}
    return Contract(in_order, named & mine.keys(), more)


def _theirs(name: str, theirs: Any, mine: list[str]) -> tuple[list[str], frozenset[str]]:
    """Names of what torch's function takes by position, in order, and by name."""
    if inspect.isfunction(theirs):
        parameters = inspect.signature(theirs).parameters.values()
        if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
            return mine, frozenset(mine)  # F.max_pool2d and its like: one of two functions that share their arguments
        by_position = [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        return by_position, frozenset(p.name for p in parameters)
    schemas = torch._C._jit_get_schemas_for_operator(f"aten::{name}")
    found = [s for s in schemas if not any(a.is_out for a in s.arguments)]
    if not found:
        return [], frozenset()
    arguments = ["input" if a.name == "self" else a.name for a in found[0].arguments]
    by_position = [n for n, a in zip(arguments, found[0].arguments, strict=True) if not a.kwarg_only]
    return by_position, frozenset(arguments)


def _limits(name: str) -> dict[str, float]:
    """Device type -> elements of the first argument below which every way of calling the function goes to torch."""
    return {device: least for device, how in EXECUTORS.items() if (least := crossover.least(name, how))}


def _rows(args: tuple[Any, ...]) -> float:
    """Of the second argument, a matrix; else the call is never small."""
    if len(args) > 1 and type(w := args[1]) in PLAIN and w.dim() == 2:
        return w.shape[0]
    return math.inf


def door(name: str, function: F, theirs: Any = None) -> F:
    """`function` behind its door; theirs: torch's function of the same contract, if there is one."""
    if theirs is None or not any(crossover.least_shipped(name, how) for how in EXECUTORS.values()):
        return redirect.aside(function)
    limits: dict[str, float] = dict.fromkeys(EXECUTORS, _ANY)  # until they are first needed
    on_cpu = _ANY  # asked apart: to read the name of a device's type takes a fifth of a microsecond
    contract: Contract | None = None
    in_order = -1  # so many arguments by position, where none is named, need no look into the contract
    products = name in crossover.ASKED_BY_PRODUCTS

    def small(args: tuple[Any, ...]) -> bool:
        x = args[0]
        return x.numel() * (_rows(args) if products else 1) < (on_cpu if x.is_cpu else limits.get(x.device.type, 0))

    def shared(args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Does torch's function take this call as ours does? What asks for nothing that it lacks is left out."""
        nonlocal contract, limits, on_cpu, in_order
        if contract is None:  # when first needed: a hundred signatures are milliseconds of an import
            contract, limits = common(name, function, theirs), _limits(name)
            on_cpu, in_order = limits.get("cpu", 0), contract.positional
            if not small(args):
                return False
        if len(args) > contract.positional:
            return False
        if not kwargs or contract.names is None or contract.names.issuperset(kwargs):
            return True
        for key in kwargs.keys() & contract.ours.keys():
            value, nothing = kwargs[key], contract.ours[key]
            if value is not nothing and (type(value) is not float or value != nothing):
                return False
            del kwargs[key]
        return contract.names.issuperset(kwargs)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if depth := _modes():
            if type(_mode_at(depth - 1)) is not redirect.Redirect:
                return function(*args, **kwargs)
            mode = redirect._pop()
            try:
                return call(*args, **kwargs)
            finally:
                redirect._push(mode)
        if args and type(x := args[0]) in PLAIN and not _compiling():
            least = on_cpu if x.is_cpu else limits.get(x.device.type, 0)
            if (
                # small, without a call; torch's at any size: without a look at it
                (least is _ANY or x.numel() * (_rows(args) if products else 1) < least)
                and route.policy == "auto"
                and not route.WATCHERS
                and ((not kwargs and len(args) <= in_order) or shared(args, kwargs))
            ):
                return theirs(*args, **kwargs)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def doors(namespace: dict[str, Any]) -> None:
    """Put each public function of a module's namespace behind its door."""
    for name, function in list(namespace.items()):
        if inspect.isfunction(function) and not name.startswith("_"):
            theirs = getattr(torch.nn.functional, name, None) or getattr(torch, name, None)
            namespace[name] = door(name, spread(name, function) if name in RULES else function, theirs)
