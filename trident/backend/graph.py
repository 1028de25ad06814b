"""Reading a graph of Dynamo: what a node computes, by one name for all the ways to write it, and its arguments."""

import functools
import inspect
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.fx import Node

F = torch.nn.functional

# name -> the ways to call it, as Dynamo records them; a word is a method of Tensor
WAYS: dict[str, tuple[Any, ...]] = {
    "add": (operator.add, torch.add, "add"),
    "mul": (operator.mul, torch.mul, torch.multiply, "mul"),
    "div": (operator.truediv, torch.div, "div"),
    "matmul": (operator.matmul, torch.matmul, torch.bmm, "matmul", "bmm"),
    "transpose": (torch.transpose, torch.swapaxes, "transpose"),
    "t": ("mT",),
    "cat": (torch.cat, torch.concat, torch.concatenate),
    "neg": (operator.neg, torch.neg, torch.negative, "neg"),
    "item": (operator.getitem,),
    "chunk": (torch.chunk, "chunk"),
    "view": (torch.reshape, torch.flatten, "view", "reshape", "flatten"),
    "pow": (operator.pow, torch.pow, "pow"),
    "square": (torch.square, "square"),
    "mean": (torch.mean, "mean"),
    "rsqrt": (torch.rsqrt, "rsqrt"),
    "to": ("to",),
    "float": ("float",),
    "type_as": ("type_as",),
    "softmax": (F.softmax, torch.softmax, "softmax"),
    "log_softmax": (F.log_softmax, torch.log_softmax, "log_softmax"),
    "log": (torch.log, "log"),
    "nll_loss": (F.nll_loss,),
    "cross_entropy": (F.cross_entropy,),
    "dropout": (F.dropout,),
    "linear": (F.linear,),
    "layer_norm": (F.layer_norm,),
    "rms_norm": (F.rms_norm,),
    "group_norm": (F.group_norm,),
    "batch_norm": (F.batch_norm,),
    "conv1d": (F.conv1d,),
    "conv2d": (F.conv2d,),
    "conv3d": (F.conv3d,),
    "gelu": (F.gelu,),
    "silu": (F.silu,),
    "relu": (F.relu, torch.relu, "relu"),
    "sigmoid": (F.sigmoid, torch.sigmoid, "sigmoid"),
    "tanh": (F.tanh, torch.tanh, "tanh"),
    "mish": (F.mish,),
    "hardswish": (F.hardswish,),
}
NAMES = {way: name for name, ways in WAYS.items() for way in ways}

# the arguments of functions that Python cannot be asked about, as torch's documentation has them
ARGUMENTS = {
    "linear": ("input", "weight", "bias"),
    "gelu": ("input", "approximate"),
    "softmax": ("input", "dim", "dtype"),
    "log_softmax": ("input", "dim", "dtype"),
    "mean": ("input", "dim", "keepdim", "dtype"),
    "cat": ("tensors", "dim"),
    "chunk": ("input", "chunks", "dim"),
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d"), ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    ),
}


def name(node: Any) -> str:
    """What the node computes, "" if nothing that is known here."""
    if not isinstance(node, Node) or node.op not in ("call_function", "call_method"):
        return ""
    try:
        return NAMES.get(node.target, "")
    except TypeError:
        return ""  # a target without a hash


def arguments(node: Node) -> dict[str, Any]:
    """By their names, those that were given."""
    what = name(node)
    names = ARGUMENTS.get(what)
    if node.target in (F.softmax, F.log_softmax):
        names = ("input", "dim", "_stacklevel", "dtype")
    elif names is None:
        names = _parameters(node.target)
    return {**dict(zip(names, node.args, strict=False)), **node.kwargs}


@functools.cache
def _parameters(function: Any) -> tuple[str, ...]:
    return tuple(inspect.signature(function).parameters) if inspect.isfunction(function) else ("input", "other")


_WORDS = "iadd iand ifloordiv ilshift imatmul imod imul ior ipow irshift isub itruediv ixor setitem"
_IN_PLACE = frozenset(getattr(operator, word) for word in _WORDS.split())


# what comes after one is computed in another way than what comes before
_BORDERS = frozenset(
    (torch.amp.autocast_mode._enter_autocast, torch.amp.autocast_mode._exit_autocast, torch._C._set_grad_enabled)
)


def mutates(node: Node) -> bool:
    """Does it write into a tensor that was there before, or begin or end autocast or the recording of gradients?"""
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    if node.op != "call_function":
        return False
    written = bool(node.kwargs.get("inplace")) or node.kwargs.get("out") is not None
    training = name(node) == "batch_norm" and arguments(node).get("training") is not False
    return written or training or node.target in _IN_PLACE or node.target in _BORDERS


class Call(NamedTuple):
    """function(*args, **kwargs), in place of the last node or of `at`."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    results: tuple[Node, ...] = ()  # the call gives a tuple: these nodes, in order, become its elements
    at: Node | None = None


class Meta(NamedTuple):
    shape: tuple[Any, ...]
    dtype: torch.dtype


def meta(node: Any) -> Meta | None:
    """Shape and dtype of what a node gives, if that is one tensor."""
    value = node.meta.get("example_value") if isinstance(node, Node) else None
    return Meta(tuple(value.shape), value.dtype) if isinstance(value, torch.Tensor) else None


def alike(a: Any, b: Any) -> bool:
    return meta(a) is not None and meta(a) == meta(b)


def only_use(node: Any, user: Node) -> bool:
    """Does nobody but `user` read it?"""
    return isinstance(node, Node) and set(node.users) == {user}


def operands(node: Node) -> tuple[Any, Any] | None:
    """Of a sum or product: both, if it is of two operands and nothing else, as alpha=."""
    return (node.args[0], node.args[1]) if len(node.args) == 2 and not node.kwargs else None
