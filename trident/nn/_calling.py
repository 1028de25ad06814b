"""A layer whose forward is one function, given the layer's attributes of the same names."""

from collections.abc import Callable
from typing import Any


def calling(function: Callable[..., Any], *options: str) -> Callable[..., Any]:
    """A forward: `function` of what the layer is called with, and of its attributes `options` by name."""

    def forward(self: Any, *tensors: Any, **named: Any) -> Any:
        return function(*tensors, **named, **{option: getattr(self, option) for option in options})

    return forward
