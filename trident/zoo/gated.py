"""MLPs: which activation a module is, whether anybody listens to it, and what does its work in one kernel."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trident import functional as F
from trident.runtime.op import constant
from trident.zoo.adapter import digest

GATED: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "silu": F.swiglu,
    "gelu": F.geglu,
    "gelu_tanh": functools.partial(F.geglu, approximate="tanh"),
    "relu": F.reglu,
}
_OURS = ("trident.nn.activation", "trident.nn.linear")
CLASSES = {torch.nn.SiLU: "silu", torch.nn.GELU: "gelu", torch.nn.ReLU: "relu"}
# by the digest of its forward; `act`: calls what it holds under that name
WRITTEN = {
    "9d0b9dd71753": "gelu_tanh",  # NewGELUActivation
    "4caa3bda3218": "gelu_tanh",  # FastGELUActivation
    "1f9121cf6b0a": "gelu_tanh",  # AccurateGELUActivation
    "e730f54291b8": "silu",  # SiLUActivation
    "95ac42583b21": "quick_gelu",  # QuickGELUActivation
    "842e096e5792": "gelu",  # timm's GELU
    "a203310f440a": "gelu_tanh",  # timm's GELUTanh
    "618093a6bcb8": "act",  # GELUActivation, GELUTanh, MishActivation
}


def _silent(module: Any) -> bool:
    """A module that nobody listens to, and whose forward is its class's."""
    if not isinstance(module, torch.nn.Module) or "forward" in vars(module):
        return False
    return not (
        module._forward_hooks or module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks
    )


def _exactly(module: torch.nn.Module, cls: type) -> bool:
    """Of this class of torch, or Trident's twin of it."""
    return type(module) is cls or (isinstance(module, cls) and type(module).__module__ in _OURS)


@constant  # reading source is nothing to trace
def _written(cls: type) -> str:
    return WRITTEN.get(digest(vars(cls).get("_before_trident", cls)) or "", "")


def name_of(activation: Any) -> str | None:
    """silu, gelu, gelu_tanh, quick_gelu or relu; None for anything else, and for what has hooks."""
    if not _silent(activation):
        return None
    for cls, name in CLASSES.items():
        if _exactly(activation, cls):
            return "gelu_tanh" if getattr(activation, "approximate", "none") == "tanh" else name
    name = _written(type(activation))
    if name != "act":
        return name or None
    held, options = activation.act, {}
    if isinstance(held, functools.partial):
        options, held = held.keywords, held.func
    if held is not torch.nn.functional.gelu or options.keys() - {"approximate"}:
        return None
    return "gelu_tanh" if options.get("approximate") == "tanh" else "gelu"


def gated(activation: Any) -> Callable[[Tensor, Tensor], Tensor] | None:
    """(x, gate) -> x * activation(gate) in one kernel; None for an activation that is none of ours or has hooks."""
    return GATED.get(name_of(activation) or "")


def fused(linear: Any, name: str) -> Callable[[Tensor], Tensor] | None:
    """x -> activation(linear(x)) in one kernel; None for a Linear of another class, or with hooks."""
    if not _silent(linear) or not _exactly(linear, torch.nn.Linear):
        return None
    return lambda x: F.linear(x, linear.weight, linear.bias, activation=name)


CONV1D = "2de078e4b215"  # GPT-2's linear layer, whose weight is [K, N]


@constant  # as `_written`
def _is_conv1d(cls: Any) -> bool:
    return digest(cls) == CONV1D


def activated_conv1d(layer: Any, activation: Any) -> Callable[[Tensor], Tensor] | None:
    """x -> activation(layer(x)) in one kernel; None for what is not GPT-2's Conv1D, or with hooks."""
    name = name_of(activation)
    if name is None or not _silent(layer) or not _is_conv1d(type(layer)):
        return None
    return lambda x: F.linear(x, layer.weight.T, layer.bias, activation=name)


def activated(linear: Any, activation: Any) -> Callable[[Tensor], Tensor] | None:
    """`fused` of an activation that is a module."""
    name = name_of(activation)
    return None if name is None else fused(linear, name)
