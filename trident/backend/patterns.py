"""Patterns of Dynamo's graph, and the call of Trident that each becomes.

A pattern takes a node that may be the last of it, and returns None or what replaces that node: a `Call`. Nodes before
it that nobody reads any more are dropped afterwards.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node

from trident import functional as F
from trident.backend.graph import Call, alike, arguments, meta, name, only_use, operands
from trident.backend.language import cross_entropy, linear_cross_entropy, rotary


def activation(node: Node) -> tuple[Node, str] | None:
    """(what it is applied to, its name for `activation=`)"""
    what = name(node)
    if what not in ("gelu", "silu", "relu", "sigmoid", "tanh", "mish", "hardswish"):
        return None
    given = arguments(node)
    x = given.pop("input", node.args[0] if node.args else None)
    approximate = given.pop("approximate", "none")
    if not isinstance(x, Node) or given.keys() - {"inplace"}:
        return None
    if given.get("inplace") and not (name(x) and only_use(x, node)):
        return None  # what it writes into is not a result that nobody else reads
    return x, "gelu_tanh" if approximate == "tanh" else what


def linear_activation(node: Node) -> Call | None:
    found = activation(node)
    if found is None or name(found[0]) != "linear" or not only_use(found[0], node):
        return None
    given = arguments(found[0])
    return Call(F.linear, (given["input"], given["weight"], given.get("bias")), {"activation": found[1]})


def norm_activation(node: Node) -> Call | None:
    """Of group norms, and of batch norms with fixed statistics."""
    found = activation(node)
    if found is None or name(found[0]) not in ("group_norm", "batch_norm") or not only_use(found[0], node):
        return None
    given = arguments(found[0])
    if name(found[0]) == "batch_norm" and given.get("training", False) is not False:
        return None
    return Call(getattr(F, name(found[0])), (), {**given, "activation": found[1]})


def gated(node: Node) -> Call | None:
    """x * activation(gate), two tensors of one shape."""
    pair = operands(node) if name(node) == "mul" else None
    if pair is None:
        return None
    for x, second in (pair, pair[::-1]):
        found = activation(second) if isinstance(second, Node) else None
        if found is None or not only_use(second, node) or not alike(x, found[0]):
            continue
        gate, how = found
        if how in ("silu", "relu"):
            return Call(F.swiglu if how == "silu" else F.reglu, (x, gate), {})
        if how in ("gelu", "gelu_tanh"):
            return Call(F.geglu, (x, gate), {"approximate": "tanh" if how == "gelu_tanh" else "none"})
    return None


def residual_norm(node: Node) -> Call | None:
    """The norm of a sum that others read, too, as every block of a transformer has it."""
    if name(node) not in ("layer_norm", "rms_norm"):
        return None
    given = arguments(node)
    total = given.pop("input")
    pair = operands(total) if name(total) == "add" else None
    if pair is None or not alike(*pair) or not alike(total, pair[0]):
        return None
    if any(isinstance(t, Node) and t.op != "placeholder" for t in given.values()):
        return None  # a weight that is computed after the sum
    function = getattr(F, name(node))
    return Call(function, (pair[0],), {**given, "residual": pair[1]}, results=(node, total), at=total)


def hand_written_rms_norm(node: Node) -> Call | None:
    """w (x / √(mean(x²) + ε)), with or without casts to float32 and back, as LlamaRMSNorm."""
    pair = operands(node) if name(node) == "mul" else None
    if pair is None:
        return None
    for weight, normed in (pair, pair[::-1]):
        found = _normed(_uncast(normed))
        x = found and _uncast(found[0])
        if found is None or meta(weight) is None or meta(x) is None:
            continue
        shape, dtype = meta(weight)  # type: ignore[misc]
        if len(shape) == 1 and shape == meta(x).shape[-1:] and meta(x).dtype == dtype == meta(node).dtype:  # type: ignore[union-attr]
            return Call(F.rms_norm, (x, shape, weight, found[1]), {})
    return None


def _uncast(node: Any) -> Any:
    """Through casts that lose nothing, or back to the dtype that was before."""
    while name(node) in ("to", "float", "type_as"):
        node = node.args[0]
    return node


def _normed(node: Any) -> tuple[Any, float] | None:
    """(x, ε) of x * rsqrt(mean(x², -1, keepdim) + ε)"""
    pair = operands(node) if name(node) == "mul" else None
    for x, root in (pair, pair[::-1]) if pair else ():
        total = root.args[0] if name(root) == "rsqrt" else None
        parts = operands(total) if isinstance(total, Node) and name(total) == "add" else None
        if parts is None or not isinstance(parts[1], float) or name(parts[0]) != "mean":
            continue
        given = arguments(parts[0])
        if given.get("dim") not in (-1, (-1,), [-1]) or given.get("keepdim") is not True:
            continue
        if _squared(parts[0].args[0]) is x:
            return x, parts[1]
    return None


def _squared(node: Any) -> Any:
    what = name(node)
    if what == "square" or (what == "pow" and node.args[1:] in ((2,), (2.0,))):
        return node.args[0]
    return node.args[0] if what == "mul" and len(node.args) == 2 and node.args[0] is node.args[1] else None


def attention(node: Node) -> Call | None:
    """softmax(q kᵀ * scale + mask, -1) v of 4 dimensions, written out."""
    pair = operands(node) if name(node) == "matmul" else None
    if pair is None:
        return None
    weights, v, p = *pair, 0.0
    if name(weights) == "dropout":
        given = arguments(weights)
        p = given.get("p", 0.5) if given.get("training", True) else 0.0
        if given.get("inplace") or not isinstance(p, float):
            return None
        weights = given["input"]
    if name(weights) != "softmax" or meta(weights) is None or len(meta(weights).shape) != 4:  # type: ignore[union-attr]
        return None
    given = arguments(weights)
    if given.get("dim") not in (-1, 3) or given.get("dtype") is not None:
        return None
    scores, mask = given["input"], None
    if name(scores) == "add" and operands(scores):
        scores, mask = operands(scores)  # type: ignore[misc]
        if name(scores) not in ("mul", "div", "matmul"):
            scores, mask = mask, scores
    scale = 1.0
    if name(scores) in ("mul", "div") and operands(scores) and isinstance(scores.args[1], int | float):
        factor = float(scores.args[1])
        scale, scores = (factor if name(scores) == "mul" else 1 / factor), scores.args[0]
    products = operands(scores) if name(scores) == "matmul" else None
    k = _transposed(products[1]) if products else None
    if products is None or k is None or not _fit(products[0], k, v, mask):
        return None
    return Call(
        F.scaled_dot_product_attention, (products[0], k, v), {"attn_mask": mask, "dropout_p": p, "scale": scale}
    )


def _transposed(node: Any) -> Any:
    """k of k.transpose(-2, -1)"""
    if name(node) == "transpose" and {a % 4 if isinstance(a, int) else a for a in node.args[1:]} == {2, 3}:
        return node.args[0]
    return None


def _fit(q: Any, k: Any, v: Any, mask: Any) -> bool:
    """Are these [B, H, L, E], [B, H, S, E], [B, H, S, V], of one dtype, and is the mask added in it?"""
    found = [meta(t) for t in (q, k, v)]
    if any(m is None or len(m.shape) != 4 for m in found):
        return False
    same = len({(m.shape[:2], m.dtype) for m in found}) == 1  # type: ignore[union-attr]
    added = mask is None or (meta(mask) is not None and meta(mask).dtype == found[0].dtype)  # type: ignore[union-attr]
    return same and added


def convolution_batch_norm(node: Node) -> Call | None:
    """A batch norm with fixed statistics is a factor and a summand of the convolution before it; where no gradient is
    asked for."""
    if name(node) != "batch_norm" or torch.is_grad_enabled():
        return None
    norm = arguments(node)
    x = norm["input"]
    if name(x) not in ("conv1d", "conv2d", "conv3d") or not only_use(x, node) or norm.get("training") is not False:
        return None
    if norm.get("running_mean") is None or norm.get("weight") is None or norm.get("bias") is None:
        return None
    given = arguments(x)
    fixed = {key: norm[key] for key in ("running_mean", "running_var", "weight", "bias")}
    return Call(
        _folded, (x.target, given.pop("input"), given.pop("weight")), {"norm": fixed, "eps": norm["eps"], **given}
    )


def _folded(convolution: Any, x: Any, w: Any, *, norm: dict[str, Any], eps: float, bias: Any = None, **how: Any) -> Any:
    factor = norm["weight"] * torch.rsqrt(norm["running_var"] + eps)
    moved = -norm["running_mean"] if bias is None else bias - norm["running_mean"]
    w = (w * factor.view(-1, *(1,) * (w.dim() - 1))).to(w.dtype)
    return convolution(x, w, (moved * factor + norm["bias"]).to(w.dtype), **how)


# tried in this order: the larger first
PATTERNS: dict[str, Callable[[Node], Call | None]] = {
    "attention": attention,
    "rotary embedding": rotary,
    "rms norm by hand": hand_written_rms_norm,
    "convolution + batch norm": convolution_batch_norm,
    "norm + activation": norm_activation,
    "linear + activation": linear_activation,
    "gated unit": gated,
    "residual + norm": residual_norm,
    "softmax + cross entropy": cross_entropy,
    "linear + cross entropy": linear_cross_entropy,  # of what the one before may have made
}
