"""`torchs`: what a kernel computed, with torch's own node in autograd's graph.

Where a gradient is torch's (`route.gradient_to_torch`), an autograd.Function would ask for it from Python, 25 us of a
backward on a CPU. Instead torch's operator is called, and below autograd, where dispatch modes are, it finds the result
that is there already: torch records its node as it does for itself, and the backward enters no Python
(docs/decisions/051).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

PLAIN = frozenset({Tensor, torch.nn.Parameter})
aten = torch.ops.aten

_modes = torch._C._len_torch_dispatch_stack
_push = torch._C._push_on_torch_dispatch_stack
_pop = torch._C._pop_torch_dispatch_stack
_saving_hooks = torch._C._autograd._top_saved_tensors_default_hooks


class _Answer(TorchDispatchMode):
    """Lives for one call of one operator, which it answers; what else torch asks for meanwhile, torch computes."""

    def __init__(self, operator: Any, result: Any) -> None:  # what its base's keeps is of `with` alone
        self.operator, self.result = operator, result

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # dynamo need not be kept out of what is never compiled: to ask that takes 5 us

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        # else aten.detach, of a result that the node keeps
        return self.result if func is self.operator else func(*args, **(kwargs or {}))


def possible(x: Tensor) -> bool:
    """Will autograd record an operator on `x`, and nobody else see it: no mode, no compiler, no autocast, no hook that
    computes with what is saved (activation checkpointing)?"""
    return (
        x.requires_grad
        and torch.is_grad_enabled()
        and type(x) in PLAIN
        and not torch.compiler.is_compiling()
        and not _modes()
        and not torch.is_autocast_enabled("cpu" if x.is_cpu else x.device.type)
        and _saving_hooks(True) is None
    )


def product(y: Tensor, x: Tensor, factor: Tensor) -> Tensor:
    """y, whose derivative by x is `factor`."""
    result: Tensor = torchs(torch.mul, aten.mul.Tensor, y, x, factor)
    return result


def torchs(call: Callable[..., Any], operator: Any, result: Any, *args: Any) -> Any:
    """`result` as `call(*args)` returns its own; operator: what that asks below autograd, an overload of aten's.

    `result`, new and without a graph, is a tensor or as many as the operator has; `possible` was asked.
    """
    _push(_Answer(operator, result))
    try:
        return call(*args)
    finally:
        _pop(None)
