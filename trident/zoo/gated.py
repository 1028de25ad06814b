"""Gated MLPs: which activation gates, and whether anybody listens to it."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trident import functional as F

GATED: dict[tuple[str, str], Callable[[Tensor, Tensor], Tensor]] = {
    ("silu", "none"): F.swiglu,
    ("gelu", "none"): F.geglu,
    ("gelu", "tanh"): functools.partial(F.geglu, approximate="tanh"),
    ("relu", "none"): F.reglu,
}
_OURS = "trident.nn.activation"
CLASSES = {torch.nn.SiLU: "silu", torch.nn.GELU: "gelu", torch.nn.ReLU: "relu"}
# of transformers: classes that call, or hold as `act`, a function of torch
HOLDERS = {"SiLUActivation": "silu", "GELUActivation": "gelu", "GELUTanh": "gelu", "PytorchGELUTanh": "gelu"}


def gated(activation: Any) -> Callable[[Tensor, Tensor], Tensor] | None:
    """(x, gate) -> x * activation(gate) in one kernel; None for an activation that is none of ours or has hooks."""
    if not isinstance(activation, torch.nn.Module):
        return None
    if activation._forward_hooks or activation._forward_pre_hooks or activation._backward_hooks:
        return None
    for cls, name in CLASSES.items():
        if type(activation) is cls or (isinstance(activation, cls) and type(activation).__module__ == _OURS):
            return GATED[name, getattr(activation, "approximate", "none")]
    name = HOLDERS.get(type(activation).__name__, "")
    if not name or not type(activation).__module__.startswith("transformers.activations"):
        return None
    held = getattr(activation, "act", torch.nn.functional.silu)
    options: dict[str, Any] = {}
    if isinstance(held, functools.partial):
        options, held = held.keywords, held.func
    if held is not getattr(torch.nn.functional, name) or options.keys() - {"approximate"}:
        return None
    return GATED[name, options.get("approximate", "none")]
