"""Modules of other libraries whose forward `trident.zoo` knows: their class derives from the library's."""

from typing import Any

import torch

from trident import zoo
from trident.optimize import classes

KIND = "zoo"


def adapted(cls: classes.Class) -> classes.Class | None:
    """The class with Trident's forward, None if the zoo has none for it."""
    return None if cls.__module__.startswith(("torch.", "trident.")) else classes.derived(KIND, cls)


def _forward(cls: classes.Class) -> classes.Forward | None:
    adapter = zoo.adapter(cls)
    if adapter is None:
        return zoo.rewired(cls.forward)
    ours, gains = adapter.forward, adapter.gains

    def forward(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if gains is not None and args and zoo.too_small(*gains, args[0]):
            return cls.forward(self, *args, **kwargs)
        y = ours(self, *args, **kwargs)
        return cls.forward(self, *args, **kwargs) if y is NotImplemented else y

    return forward


classes.MAKERS[KIND] = _forward
