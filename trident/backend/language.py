"""Patterns of language models: positions turned into angles, and the loss over a vocabulary."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from trident import functional as F
from trident.backend.graph import Call, arguments, meta, name, only_use, operands
from trident.ops._linear_cross_entropy import of_product


def rotary(node: Node) -> Call | None:
    """x cos + cat(-x[..., E/2:], x[..., :E/2]) sin, of whole heads."""
    pair = operands(node) if name(node) == "add" else None
    for straight, turned in (pair, pair[::-1]) if pair else ():
        first, second = (operands(t) if name(t) == "mul" else None for t in (straight, turned))
        if first is None or second is None:
            return None
        for other, sin in (second, second[::-1]):
            x = _unturned(other)
            cos = _beside(first, x)
            if cos is not None and _fit(node, x, cos, sin):
                return Call(_rotary, (x, cos, sin), {})
    return None


def _unturned(node: Any) -> Any:
    """x of cat((-second half of x, first half of x), -1)"""
    given = arguments(node) if name(node) == "cat" else {}
    parts = given.get("tensors")
    if given.get("dim") not in (-1, 3) or not isinstance(parts, tuple | list) or len(parts) != 2:
        return None
    if name(parts[0]) != "neg":
        return None
    second, first = _half(parts[0].args[0]), _half(parts[1])
    return first[0] if first and second and first[0] is second[0] and (first[1], second[1]) == (0, 1) else None


def _half(node: Any) -> tuple[Any, int] | None:
    """(x, 0 or 1) of the first or second half of x's last dimension."""
    if name(node) != "item":
        return None
    x, which = node.args
    if name(x) == "chunk" and isinstance(which, int):
        given = arguments(x)
        last = given.get("dim") in (-1, 3)
        return (given["input"], which) if given.get("chunks") == 2 and last and which in (0, 1) else None
    width = meta(x).shape[-1] if meta(x) is not None else None  # type: ignore[union-attr]
    if not isinstance(which, tuple) or len(which) != 2 or which[0] is not Ellipsis or not isinstance(width, int):
        return None
    if width % 2 or not isinstance(which[1], slice):
        return None
    at, half = (which[1].start or 0, width if which[1].stop is None else which[1].stop, which[1].step or 1), width // 2
    return (x, int(at[0] > 0)) if at in ((0, half, 1), (half, width, 1)) else None


def _beside(pair: Any, x: Any) -> Any:
    """What x is multiplied with."""
    if not isinstance(x, Node):
        return None
    return pair[1] if pair[0] is x else pair[0] if pair[1] is x else None


def _fit(node: Node, x: Node, cos: Any, sin: Any) -> bool:
    """Is x [B, H, L, E] or [B, L, H, E], turned by tables of one row for each of L, with a result like x?"""
    found, tables, of_sin = meta(x), meta(cos), meta(sin)
    if found is None or tables is None or tables != of_sin or meta(node) != found or len(found.shape) != 4:
        return False
    (B, first, second, E), shape = found.shape, (1, 1, *tables.shape)[-4:]
    rows = (1, second) if shape[1] == 1 else (first, 1)
    return 2 <= len(tables.shape) <= 4 and shape[0] in (1, B) and shape[1:] == (*rows, E)


def _rotary(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    cos, sin = (t.reshape((1,) * (4 - t.dim()) + t.shape) for t in (cos, sin))
    heads = 1 if cos.shape[1] == 1 else 2
    y, _ = F.rotary_embedding(x, None, cos.squeeze(heads), sin.squeeze(heads), sequence_dim=-1 - heads)
    return y


def cross_entropy(node: Node) -> Call | None:
    """nll_loss of log_softmax(x), or of log(softmax(x)), over the classes."""
    if name(node) != "nll_loss":
        return None
    given = arguments(node)
    of = given.pop("input")
    if not only_use(of, node):
        return None
    if name(of) == "log" and name(of.args[0]) == "softmax" and only_use(of.args[0], of):
        of = of.args[0]
    elif name(of) != "log_softmax":
        return None
    softmax, shape = arguments(of), meta(of)
    if shape is None or softmax.get("dtype") is not None:
        return None
    axis = max(len(shape.shape) - 1, 0) if softmax.get("dim") == -1 else softmax.get("dim")
    if axis != min(1, len(shape.shape) - 1):
        return None
    return Call(F.cross_entropy, (softmax["input"],), given)


def linear_cross_entropy(node: Node) -> Call | None:
    """The loss of logits that nobody else reads: they are never all in memory."""
    if name(node) != "cross_entropy" and node.target is not F.cross_entropy:
        return None
    given = arguments(node)
    last = z = given.pop("input")
    reader, dtype = node, None
    while name(z) in ("view", "to", "float") and only_use(z, reader):
        inner, before, after = z.args[0], meta(z.args[0]), meta(z)
        if before is None or after is None or (name(z) == "view" and not _keeps_rows(before.shape, after.shape)):
            return None
        if before.dtype != after.dtype:
            if after.dtype != torch.float32 or dtype is not None:
                return None
            dtype = torch.float32
        z, reader = inner, z
    if name(z) != "linear" or not only_use(z, reader):
        return None
    target, logits, product = meta(given.get("target")), meta(last), arguments(z)
    if target is None or target.dtype != torch.int64 or logits is None or len(logits.shape) != 2:
        return None
    if given.pop("size_average", None) is not None or given.pop("reduce", None) is not None:
        return None
    return Call(
        _linear_cross_entropy,
        (product["input"], product["weight"], product.get("bias"), given.pop("target")),
        {**given, "logits": dtype},
    )


def _keeps_rows(before: tuple[Any, ...], after: tuple[Any, ...]) -> bool:
    """[..., V] as [rows, V]"""
    return len(before) >= 2 and len(after) == 2 and before[-1] == after[-1]


def _linear_cross_entropy(x: Tensor, w: Tensor, b: Tensor | None, target: Tensor, **how: Any) -> Tensor:
    return of_product(x.flatten(0, -2), w, target, linear_bias=b, **how)
