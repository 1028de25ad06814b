"""`apply`: an autograd.Function where somebody will ask for gradients, its forward alone where nobody can."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trident.runtime.op import NO_TENSORS


class Unrecorded:
    """Stands for the context of a forward without backward: takes what is saved and keeps nothing alive after it."""

    def __init__(self, inputs: int) -> None:
        self.needs_input_grad = (False,) * inputs

    def save_for_backward(self, *tensors: Tensor | None) -> None: ...

    def mark_non_differentiable(self, *tensors: Tensor) -> None: ...

    def set_materialize_grads(self, value: bool) -> None: ...


@functools.cache
def _record(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """`function.apply` without torch's own Python around it, which serves torch.func.

    Its backward too is called at once: what torch's engine calls is another function of torch's, that looks for it.
    """
    function._backward_cls.apply = function.backward
    return super(torch.autograd.Function, function).apply  # type: ignore[misc]


def apply(function: type[torch.autograd.Function], *args: Any, unrecorded: Callable[..., Any] | None = None) -> Any:
    """`function.apply(*args)`, which takes 6 us of a small call on a CPU, left out where no gradient can flow.

    Tensors that may need gradients are arguments of their own, not inside of a tuple. unrecorded: what gives the
    results of `function.forward` for the same arguments without a context, where there is such a function.
    """
    if torch.compiler.is_compiling():
        return function.apply(*args)
    if torch.is_grad_enabled() and _need_gradients(args):
        return _record(function)(*args)
    if unrecorded is not None:
        return unrecorded(*args)
    return function.forward(Unrecorded(len(args)), *args)


def _need_gradients(args: tuple[Any, ...]) -> bool:
    for a in args:  # noqa: SIM110  any() of a generator takes twice as long
        if type(a) not in NO_TENSORS and isinstance(a, Tensor) and a.requires_grad:
            return True
    return False
