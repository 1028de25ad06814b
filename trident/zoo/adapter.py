"""What an adapter is, and `digest`, by which the class that it is for is told.

A class is told by the source of its forward and of the methods and functions that the forward calls, without comments,
docstrings and annotations: libraries copy the same ten lines into a hundred classes, users copy them into their own,
and a version that changed them is another class, which is left alone.
"""

import ast
import functools
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from trident.runtime import crossover, route
from trident.runtime.launch import device_type, executor


class Adapter(NamedTuple):
    """forward: takes the module and what its forward takes; NotImplemented sends the call to the class's own.

    gains: the function of trident.functional for whose sake it is there, and how many elements that has at most for one
    of the input. Where it would be torch's, the class's own forward is called, which asks nothing.
    """

    name: str
    forward: Callable[..., Any]
    methods: tuple[str, ...] = ("forward",)  # what the digest is of; or functions of forward's own file
    gains: tuple[str, int] | None = None


@functools.cache
def _least(name: str, device: str) -> float:
    how = executor(device)
    return 0 if how is None else crossover.least(name, how)


def unwatched() -> bool:
    """May a call go by unseen? Not where functions are redirected: each one of the class's own would take a microsecond
    more than the one of ours."""
    return not (torch.compiler.is_dynamo_compiling() or route.watched() or torch._C._len_torch_function_stack())


def too_small(name: str, times: int, x: Any) -> bool:
    """Is trident.functional.<name> torch's in each way of calling it, for `times` as many elements as x has?"""
    return type(x) is torch.Tensor and unwatched() and x.numel() * times < _least(name, device_type(x))


NAMES = {"torch": torch, "nn": torch.nn, "F": torch.nn.functional}  # what these names must be where a forward uses them


@functools.cache
def digest(cls: type, methods: tuple[str, ...] = ("forward",)) -> str | None:
    """`digest_of` the methods, or of functions of these names in the file of its forward."""
    namespace = getattr(getattr(cls, "forward", None), "__globals__", {})
    return digest_of([getattr(cls, name, None) or namespace.get(name) for name in methods])


def digest_of(functions: list[Any]) -> str | None:
    """Twelve hexadecimal digits; None where there is no source, or where `torch` is not torch."""
    texts = []
    for function in functions:
        if not inspect.isfunction(function) or hasattr(function, "__wrapped__"):
            return None  # decorated: it does something else besides
        if any(function.__globals__.get(key, value) is not value for key, value in NAMES.items()):
            return None
        try:
            texts.append(_plain(inspect.getsource(function)))
        except (OSError, SyntaxError):
            return None
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def _plain(source: str) -> str:
    tree = ast.parse(textwrap.dedent(source)).body[0]
    if not isinstance(tree, ast.FunctionDef):
        raise SyntaxError("not a plain function")
    tree.returns, tree.decorator_list = None, []
    for argument in (*tree.args.posonlyargs, *tree.args.args, *tree.args.kwonlyargs):
        argument.annotation = None
    if ast.get_docstring(tree, clean=False) is not None:
        tree.body = tree.body[1:] or [ast.Pass()]
    return ast.unparse(tree)
