"""The model whose forward runs with torch's functions redirected to Trident's: its class derives from the model's.

Redirecting takes a microsecond of each call of torch, taken or not: a twentieth of the time of a language model's next
token, in which all of them are too small to gain. Where a whole forward gained nothing by it, those that follow and are
asked for alike (`_asked`) run without, but each SIXTEENTH, which looks again: what a model remembers may have grown.
Another kind of forward between them begins anew, so that a text is written the same way each time (decision 122). Where
parts are compiled all are redirected: a graph is traced with what is redirected in it, once.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from trident.optimize import classes, functions
from trident.runtime import redirect, route

KIND = "scope"
SIXTEENTH = 16


class _Last(NamedTuple):
    asked: tuple[object, ...]
    left: int  # how many of the kind are to run without the mode


_lasts: WeakKeyDictionary[torch.nn.Module, _Last] = WeakKeyDictionary()


def _asked(model: torch.nn.Module, values: Iterable[Any]) -> tuple[object, ...]:
    """What a forward is asked for, as far as its calls' sizes go by it: shapes of tensors, whether it learns."""
    kinds = ((v.shape, v.dtype, v.device) if isinstance(v, Tensor) else type(v) for v in values)
    return (model.training, torch.is_grad_enabled(), *kinds)


def _redirected(model: torch.nn.Module, forward: classes.Forward, args: Any, kwargs: Any) -> Any:
    with redirect.on():
        return forward(model, *args, **kwargs)


def reason_to_stay_out(model: torch.nn.Module) -> str | None:
    cls = type(model)
    if isinstance(model, torch.jit.ScriptModule):
        return "scripted"
    if parametrize.is_parametrized(model):
        return "parametrized"
    if "forward" in vars(model):
        return "its forward was replaced on the instance"
    if cls.forward is torch.nn.Module.forward:
        return "it has no forward"
    if any(base.__name__ == "FSDPModule" for base in cls.__mro__):
        return "sharded already: fully_shard comes after optimize"
    return None


def enter(model: torch.nn.Module) -> None:
    """Change the model's class; a model that is changed already stays as it is."""
    if classes.kind(type(model)) != KIND:
        model.__class__ = classes.derived(KIND, type(model))  # type: ignore[assignment]


def _forward(cls: classes.Class) -> classes.Forward:
    functions.fill()

    def forward(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if torch.compiler.is_compiling() or route.watched() or redirect.active() or redirect.REDIRECT.in_graphs:
            return _redirected(self, cls.forward, args, kwargs)
        asked = _asked(self, (*args, *kwargs.values()))
        last = _lasts.get(self)
        if last is not None and last.left and last.asked == asked:
            _lasts[self] = _Last(asked, last.left - 1)
            return cls.forward(self, *args, **kwargs)
        before = redirect.REDIRECT.gained
        y = _redirected(self, cls.forward, args, kwargs)
        _lasts[self] = _Last(asked, SIXTEENTH - 1 if redirect.REDIRECT.gained == before else 0)
        return y

    return forward


classes.MAKERS[KIND] = _forward
