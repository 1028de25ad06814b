"""diffusers: gated units of its transformers. GroupNorm, SiLU and attention are torch's classes and functions there."""

from typing import Any

from torch import Tensor

from trident import functional as F
from trident.zoo.adapter import Adapter
from trident.zoo.gated import gated


def geglu(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The first half of a product times gelu of the second."""
    return NotImplemented if args or kwargs else F.geglu(self.proj(hidden_states))


def swiglu(self: Any, hidden_states: Tensor) -> Any:
    multiply = gated(self.activation)
    return NotImplemented if multiply is None else multiply(*self.proj(hidden_states).chunk(2, dim=-1))


ADAPTERS: dict[str, Adapter] = {
    "d4cf1a6d4dd8": Adapter("geglu", geglu, ("forward", "gelu")),  # GEGLU
    "ee4b8d29c2f2": Adapter("swiglu", swiglu),  # SwiGLU
}
