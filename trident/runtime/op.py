"""`op`: the one door to torch.library.

An operator of Trident is a launcher: a function that allocates its outputs, launches kernels and returns. `op`
registers it as `torch.ops.trident.<name>`, with itself as its fake implementation (`launch` does nothing when tensors
have no data), so torch.compile, torch.export and fake tensors see one opaque call.

In eager mode the dispatcher costs more than a small kernel, so the function is called directly unless somebody watches.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor

F = TypeVar("F", bound=Callable[..., Any])

REGISTERED: dict[str, Any] = {}  # name -> torch.library's CustomOpDef, for opcheck
LAUNCHERS: dict[str, Callable[..., Any]] = {}  # name -> what `op` made of the function, for profiling


# types that no subclass of Tensor hides behind; asking isinstance of each argument would take longer than a launch
NO_TENSORS = frozenset((int, float, bool, str, tuple, list, torch.Size, type(None), torch.dtype))
PLAIN = NO_TENSORS | {Tensor, torch.nn.Parameter}


def watched(args: tuple[Any, ...]) -> bool:
    """Is a dispatch mode active, or an argument of a tensor subclass that intercepts operators (fake, DTensor)?"""
    if torch._C._len_torch_dispatch_stack():
        return True
    for a in args:
        if type(a) not in PLAIN and isinstance(a, Tensor) and not issubclass(type(a), torch.nn.Parameter):
            return True
    return False


def constant(function: F) -> F:
    """While a graph is traced `function` is called, once, and its result a constant of the graph.

    As torch.compiler.assume_constant_result, which imports all of dynamo: a second of each program that imports us.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def op(name: str) -> Callable[[F], F]:
    """Register `fn`, which must not mutate its arguments nor return them, as `torch.ops.trident.<name>`."""

    def decorate(fn: F) -> F:
        definition = torch.library.custom_op(f"trident::{name}", fn, mutates_args=())
        definition.register_fake(fn)
        REGISTERED[name] = definition
        registered = definition._opoverload

        @functools.wraps(fn)
        def call(*args: Any) -> Any:
            if torch.compiler.is_compiling() or watched(args):
                return registered(*args)
            return fn(*args)

        LAUNCHERS[name] = call
        return call  # type: ignore[return-value]

    return decorate
