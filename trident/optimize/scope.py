"""`scoped`: a model whose forward runs with torch's functions redirected to Trident's.

The model's class becomes a subclass of it with another forward, made once for each class. Whatever holds a model goes
on to work: hooks, DistributedDataParallel, state_dict; copies and pickles are of the same kind again.
"""

import copyreg
import functools
import types
from typing import Any

import torch
from torch.nn.utils import parametrize

from trident.optimize import functions
from trident.runtime import redirect

_MADE: dict[type[torch.nn.Module], type[torch.nn.Module]] = {}  # a class -> the same with functions redirected


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
    if not is_scoped(model):
        functions.fill()
        model.__class__ = scoped(type(model))


def leave(model: torch.nn.Module) -> None:
    if is_scoped(model):
        model.__class__ = original(type(model))


def is_scoped(model: torch.nn.Module) -> bool:
    return original(type(model)) is not type(model)


def original(cls: type[torch.nn.Module]) -> type[torch.nn.Module]:
    return vars(cls).get("_before_trident", cls)


def scoped(cls: type[torch.nn.Module]) -> type[torch.nn.Module]:
    if cls in _MADE:
        return _MADE[cls]

    @functools.wraps(cls.forward)
    def forward(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        with redirect.on():
            return cls.forward(self, *args, **kwargs)

    def __reduce_ex__(self: torch.nn.Module, protocol: Any) -> Any:
        """As the class's, but the class itself, which no module holds, is made again from the one it comes from."""
        make, args, *rest = super(made, self).__reduce_ex__(protocol)
        if make is copyreg.__newobj__ and args[0] is made:  # type: ignore[attr-defined]
            return _new, (cls, *args[1:]), *rest
        return make, args, *rest

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update({name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")})
        namespace.update(forward=forward, __reduce_ex__=__reduce_ex__, _before_trident=cls)

    made: Any = types.new_class(cls.__name__, (cls,), exec_body=fill)
    _MADE[cls] = made
    return made


def _new(cls: type[torch.nn.Module], *args: Any) -> Any:
    functions.fill()
    made = scoped(cls)
    return made.__new__(made, *args)
