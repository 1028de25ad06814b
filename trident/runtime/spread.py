"""Functions on DTensors: a kernel on each process's shards where the dimensions that it works along are whole.

torch shards operators that it knows; Trident's are autograd functions of their own, so what is sharded is the whole
function, with its gradient (docs/decisions/037). Of a row norm, say, every dimension before the normalized ones may be
spread, and the gradients of weights are then sums yet to be made (Partial). What no rule covers goes to torch.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Rule(NamedTuple):
    """whole: (input, arguments) -> the dimensions that must not be spread, None where the call has no rule.
    weights: arguments that every row reads."""

    whole: Callable[[Tensor, Mapping[str, Any]], frozenset[int] | None]
    weights: tuple[str, ...] = ()


def _nowhere(x: Tensor, given: Mapping[str, Any]) -> frozenset[int] | None:
    return None if given.get("inplace") else frozenset()


def _along(x: Tensor, given: Mapping[str, Any]) -> frozenset[int] | None:
    dim = given.get("dim")
    return frozenset({dim % x.dim()}) if isinstance(dim, int) and -x.dim() <= dim < x.dim() else None


def _halves(x: Tensor, given: Mapping[str, Any]) -> frozenset[int] | None:
    return _along(x, given) if given.get("gate") is None else frozenset()


def _last(x: Tensor, given: Mapping[str, Any]) -> frozenset[int] | None:
    return frozenset(range(x.dim() - len(tuple(given["normalized_shape"])), x.dim()))


def _heads(q: Tensor, given: Mapping[str, Any]) -> frozenset[int] | None:
    if given.get("attn_mask") is not None or given.get("dropout_p") or given.get("enable_gqa"):
        return None
    return frozenset({q.dim() - 2, q.dim() - 1})


POINTWISE = (
    *("celu", "elu", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid", "mish"),
    *("quick_gelu", "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softshrink", "softsign", "tanh"),
    *("tanhshrink", "threshold"),
)
RULES = {
    **dict.fromkeys(POINTWISE, Rule(_nowhere)),
    **dict.fromkeys(("glu", "geglu", "reglu", "swiglu"), Rule(_halves)),
    **dict.fromkeys(("softmax", "log_softmax", "softmin"), Rule(_along)),
    **dict.fromkeys(("layer_norm", "rms_norm"), Rule(_last, ("weight", "bias"))),
    "scaled_dot_product_attention": Rule(_heads),
}


def spread(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which has a rule, on DTensors too."""
    rule = RULES[name]
    signature = inspect.signature(function)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if args and type(args[0]) is not Tensor and (distributed := _distributed(args[0])) is not None:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            if _fits(rule, args[0], bound.arguments, distributed):
                return _on_shards(function, rule, args[0], bound, distributed)
        return function(*args, **kwargs)

    return call


def _distributed(x: Any) -> Any:
    """torch.distributed.tensor, if x is a DTensor of it and is not being traced."""
    module = sys.modules.get("torch.distributed.tensor")
    if module is None or not isinstance(x, module.DTensor) or torch.compiler.is_compiling():
        return None
    return module


def _fits(rule: Rule, x: Any, given: Mapping[str, Any], distributed: Any) -> bool:
    whole = rule.whole(x, given)
    kinds = (distributed.Replicate, distributed.Shard)
    if whole is None or any(type(p) not in kinds for p in x.placements):
        return False
    split = {p.dim % x.dim() for p in x.placements if p.is_shard()}
    if split & whole:
        return False
    for name, t in given.items():
        if not isinstance(t, Tensor):
            continue
        if not isinstance(t, distributed.DTensor) or t.device_mesh != x.device_mesh:
            return False
        if name in rule.weights:
            if not all(p.is_replicate() for p in t.placements):
                return False
        elif t.placements != x.placements or t.dim() != x.dim() or any(t.shape[d] != x.shape[d] for d in split):
            return False
    return True


def _on_shards(
    function: Callable[..., Any], rule: Rule, x: Any, bound: inspect.BoundArguments, distributed: Any
) -> Any:
    sums = [distributed.Partial() if p.is_shard() else p for p in x.placements]
    for name, t in bound.arguments.items():
        if isinstance(t, Tensor):
            bound.arguments[name] = t.to_local(grad_placements=sums if name in rule.weights else x.placements)  # type: ignore[attr-defined]
    found = function(*bound.args, **bound.kwargs)

    def whole(y: Tensor) -> Any:
        shape = list(y.shape)
        for p in x.placements:
            if p.is_shard():
                shape[p.dim] = x.shape[p.dim]
        return distributed.DTensor.from_local(
            y, x.device_mesh, x.placements, run_check=False, shape=torch.Size(shape), stride=_strides(y, shape)
        )

    return tuple(map(whole, found)) if isinstance(found, tuple) else whole(found)


def _strides(y: Tensor, shape: list[int]) -> tuple[int, ...]:
    """Strides of a tensor of this shape whose dimensions lie in y's order."""
    strides, step = [0] * y.dim(), 1
    for d in sorted(range(y.dim()), key=lambda d: (y.stride(d), -d)):
        strides[d] = step
        step *= max(1, shape[d])
    return tuple(strides)
