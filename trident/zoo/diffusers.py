"""diffusers: its root mean square norm, GELU and gated units. GroupNorm, SiLU and attention are torch's there."""

from typing import Any

from torch import Tensor

from trident import functional as F
from trident.runtime.redirect import aside
from trident.zoo.adapter import Adapter
from trident.zoo.gated import fused, gated


def geglu(self: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
    """The first half of a product times gelu of the second."""
    return NotImplemented if args or kwargs else F.geglu(self.proj(hidden_states))


def swiglu(self: Any, hidden_states: Tensor) -> Any:
    multiply = gated(self.activation)
    return NotImplemented if multiply is None else multiply(*self.proj(hidden_states).chunk(2, dim=-1))


def gelu(self: Any, hidden_states: Tensor) -> Any:
    first = fused(self.proj, "gelu_tanh" if self.approximate == "tanh" else "gelu")
    return NotImplemented if first is None else first(hidden_states)


@aside
def rms_norm(self: Any, hidden_states: Tensor) -> Any:
    """Its weight may be missing or have a bias, or another dtype than the input: then its own."""
    w = self.weight
    if w is None or self.bias is not None or w.dtype != hidden_states.dtype:
        return NotImplemented
    return F.rms_norm(hidden_states, w.shape, w, self.eps)


ADAPTERS: dict[str, Adapter] = {
    "d4cf1a6d4dd8": Adapter("geglu", geglu, ("forward", "gelu")),  # GEGLU
    "5e9bdfafb314": Adapter("gelu", gelu, ("forward", "gelu")),  # GELU
    "8486c8e24319": Adapter("rms_norm", rms_norm),  # RMSNorm
    "ee4b8d29c2f2": Adapter("swiglu", swiglu),  # SwiGLU
}
