"""The model whose forward runs with torch's functions redirected to Trident's: its class derives from the model's."""

from typing import Any

import torch
from torch.nn.utils import parametrize

from trident.optimize import classes, functions
from trident.runtime import redirect

KIND = "scope"


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
        with redirect.on():
            return cls.forward(self, *args, **kwargs)

    return forward


classes.MAKERS[KIND] = _forward
