"""`derived`: a subclass that differs in its forward alone, made once, whose objects copy and pickle as the same kind.

The class keeps its name; `original` is the one it comes from. An object becomes one by `__class__`.
"""

import copyreg
import functools
import types
from collections.abc import Callable
from typing import Any

import torch

Class = type[torch.nn.Module]
Forward = Callable[..., Any]

MAKERS: dict[str, Callable[[Class], Forward | None]] = {}  # kind -> (class -> its other forward, None: it has none)
_MADE: dict[tuple[str, Class], Class] = {}


def original(cls: Class) -> Class:
    return vars(cls).get("_before_trident", cls)


def kind(cls: Class) -> str | None:
    return vars(cls).get("_kind_in_trident")


def derived(which: str, cls: Class) -> Class | None:
    """The class of this kind that comes from cls, None if it has no such forward. Raises what subclassing does."""
    if (which, cls) in _MADE:
        return _MADE[which, cls]
    forward = MAKERS[which](cls)
    if forward is None:
        return None

    def __reduce_ex__(self: torch.nn.Module, protocol: Any) -> Any:
        """As the class's, but the class itself, which no Python module holds, is made again from the one it is of."""
        make, args, *rest = super(made, self).__reduce_ex__(protocol)
        if make is copyreg.__newobj__ and args[0] is made:  # type: ignore[attr-defined]
            return _new, (which, cls, *args[1:]), *rest
        return make, args, *rest

    def fill(namespace: dict[str, Any]) -> None:
        namespace.update({name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__")})
        namespace.update(forward=functools.wraps(cls.forward)(forward), __reduce_ex__=__reduce_ex__)
        namespace.update(_before_trident=cls, _kind_in_trident=which)

    made: Any = types.new_class(cls.__name__, (cls,), exec_body=fill)
    _MADE[which, cls] = made
    return made


def _new(which: str, cls: Class, *args: Any) -> Any:
    """Where another version of its library is installed, the object may be one of the class itself."""
    made = derived(which, cls) or cls
    return made.__new__(made, *args)
