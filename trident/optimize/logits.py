"""Logits that are a product not yet computed: cross entropy takes the factors, whoever else reads them the product.

A head, the last Linear of a model over a vocabulary, gives `Logits` where gradients are asked for. They are a tensor:
its shape, dtype and device are known. `view`, `float` and slices of tokens of it are Logits again; cross entropy of it
is `linear_cross_entropy`, for which [tokens, vocabulary] never exists. Anything else computes the product, once, with
its gradient. docs/decisions/060-lazy-logits.md says why this is asked for and not the default.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trident.ops._linear import linear
from trident.ops._linear_cross_entropy import of_product
from trident.optimize import classes
from trident.runtime import autocast, redirect

KIND = "head"
F = torch.nn.functional


class Logits(torch.Tensor):
    """hidden [..., K] times weightᵀ [V, K] plus bias [V]: [..., V]. dtype: float32 where halves were to be so."""

    factors: tuple[Tensor, Tensor, Tensor | None]
    versions: tuple[int, ...]  # of the factors: what they were when the model's forward ran
    product: Tensor | None
    plain: Tensor | None

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in KNOWN:
            return super().__torch_function__(func, types, args, kwargs)
        if func in LAZY:
            with torch._C.DisableTorchFunctionSubclass():
                y = LAZY[func](*args, **kwargs)
            if y is not NotImplemented:
                return y
        args, kwargs = torch.utils._pytree.tree_map_only(Logits, computed, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Below autograd: what an autograd.Function of somebody else's does with it."""
        args, kwargs = torch.utils._pytree.tree_map_only(Logits, _values, (args, kwargs or {}))
        return func(*args, **kwargs)


class _Held(torch.autograd.Function):
    """Makes Logits whose gradient, should anybody ask for it, is that of the product."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
        ctx.save_for_backward(hidden, weight)
        ctx.set_materialize_grads(False)
        shape = (*hidden.shape[:-1], weight.shape[0])
        y: Tensor = torch.Tensor._make_wrapper_subclass(Logits, shape, dtype=dtype, device=hidden.device)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dz: Tensor | None) -> tuple[Tensor | None, ...]:
        if dz is None:
            return None, None, None, None
        hidden, weight = ctx.saved_tensors
        dz = dz.to(hidden.dtype)
        rows = dz.flatten(0, -2) if dz.dim() > 1 else dz.unsqueeze(0)
        wants = ctx.needs_input_grad
        return (
            dz @ weight if wants[0] else None,
            rows.T @ hidden.reshape(-1, hidden.shape[-1]) if wants[1] else None,
            rows.sum(0) if wants[2] else None,
            None,
        )


def of(hidden: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
    """The Logits of these factors, all of one dtype. dtype: float32 for halves that are to be read so."""
    y: Any = _Held.apply(hidden, weight, bias, dtype or hidden.dtype)
    y.factors = hidden, weight, bias
    y.versions = tuple(t._version for t in y.factors if t is not None)
    y.product = y.plain = None
    return y


def _factors(y: Any) -> tuple[Tensor, Tensor, Tensor | None]:
    if y.versions != tuple(t._version for t in y.factors if t is not None):
        raise RuntimeError(
            "these logits were not read before what they are made of, the head's weight say, was written to: read them "
            "before optimizer.step(), or optimize the model without lazy_logits"
        )
    return y.factors


def computed(y: Any) -> Tensor:
    """The product, differentiable, whatever the mode where it is asked for."""
    if y.product is None:
        hidden, weight, bias = _factors(y)
        with torch.enable_grad(), torch.autocast(hidden.device.type, enabled=False):
            y.product = linear(hidden, weight, bias).to(y.dtype)
    return y.product


def _values(y: Any) -> Tensor:
    if y.plain is None:
        hidden, weight, bias = _factors(y)
        y.plain = F.linear(hidden, weight, bias).to(y.dtype) if y.product is None else y.product.detach()
    return y.plain


# What stays lazy. NotImplemented: this call of it does not.


def _same(y: Any, memory_format: Any = torch.contiguous_format) -> Any:
    return y if memory_format is torch.contiguous_format else NotImplemented


def _float(y: Any) -> Any:
    if y.dtype in (torch.float32, torch.float64) or y.product is not None:
        return y if y.dtype == torch.float32 else NotImplemented
    return of(*_factors(y), dtype=torch.float32)


def _to(y: Any, dtype: Any = None, **how: Any) -> Any:
    return _float(y) if dtype is torch.float32 and not how else NotImplemented


def _moved(move: Callable[..., Tensor]) -> Callable[..., Any]:
    """Of what only arranges the tokens anew: the hidden states are arranged so."""

    def lazily(y: Any, *args: Any, **kwargs: Any) -> Any:
        if y.product is not None:
            return NotImplemented
        shape = move(torch.empty_strided(y.shape, y.stride(), device="meta"), *args, **kwargs).shape
        hidden, weight, bias = _factors(y)
        if not shape or shape[-1] != weight.shape[0] or shape.numel() != y.numel():
            return NotImplemented
        return of(hidden.reshape(*shape[:-1], hidden.shape[-1]), weight, bias, y.dtype)

    return lazily


def _sliced(y: Any, index: Any) -> Any:
    """Slices of tokens, with or without `:` for the vocabulary."""
    index = index if isinstance(index, tuple) else (index,)
    if y.product is not None or not all(i is ... or isinstance(i, slice) for i in index):
        return NotImplemented
    slices = len(index) - index.count(...)
    last = index[-1] is not ... and (... in index or slices == y.dim())  # does index[-1] speak of the vocabulary?
    if slices > y.dim() or (slices == y.dim() and not last) or (last and index[-1] != slice(None)):
        return NotImplemented
    hidden, weight, bias = _factors(y)
    return of(hidden[index], weight, bias, y.dtype)


_CROSS_ENTROPY = inspect.signature(F.cross_entropy)


def _cross_entropy(*args: Any, **kwargs: Any) -> Any:
    given = _CROSS_ENTROPY.bind(*args, **kwargs).arguments
    y, target = given.pop("input"), given.pop("target")
    if given.pop("size_average", None) is not None or given.pop("reduce", None) is not None:
        return NotImplemented
    if type(y) is not Logits or y.product is not None or y.dim() != 2 or target.dtype != torch.int64:
        return NotImplemented
    hidden, weight, bias = _factors(y)
    dtype = autocast.output_dtype("cross_entropy", y)
    with torch.autocast(hidden.device.type, enabled=False):  # the factors have the dtype that the product has
        return of_product(hidden, weight, target, linear_bias=bias, logits=dtype, **given)


LAZY: dict[Any, Callable[..., Any]] = {
    F.cross_entropy: _cross_entropy,
    Tensor.contiguous: _same,
    Tensor.float: _float,
    Tensor.to: _to,
    Tensor.__getitem__: _sliced,
    Tensor.view: _moved(Tensor.reshape),
    Tensor.reshape: _moved(Tensor.reshape),
    Tensor.flatten: _moved(Tensor.flatten),
    torch.flatten: _moved(torch.flatten),
}
_PROPERTIES = "shape dtype device layout ndim requires_grad is_leaf is_cuda is_cpu is_meta is_sparse is_quantized"
_METHODS = "size dim numel stride is_floating_point is_complex is_neg is_conj is_contiguous __len__ register_hook"
KNOWN = frozenset(
    {getattr(Tensor, name).__get__ for name in _PROPERTIES.split()}
    | {getattr(Tensor, name) for name in _METHODS.split()}
)


def _forward(cls: classes.Class) -> classes.Forward:
    @redirect.aside
    def forward(self: Any, input: Tensor) -> Tensor:
        if not torch.is_grad_enabled() or torch.compiler.is_compiling() or type(input) is not Tensor:
            return cls.forward(self, input)
        hidden, weight, bias = autocast.lowered("linear", input, self.weight, self.bias)
        assert hidden is not None and weight is not None  # for mypy
        if hidden.dtype != weight.dtype or not (hidden.requires_grad or weight.requires_grad):
            return cls.forward(self, input)
        return of(hidden, weight, bias)

    return forward


classes.MAKERS[KIND] = _forward


def head(model: torch.nn.Module, named: bool | str) -> torch.nn.Module:
    """The Linear whose results are to be lazy: of that name, or what transformers' models call output embeddings."""
    ask = getattr(model, "get_output_embeddings", None)
    found = model.get_submodule(named) if isinstance(named, str) else ask() if callable(ask) else None
    if found is None:
        raise ValueError(
            f"optimize: {type(model).__name__} does not say which layer gives logits; lazy_logits='its name'"
        )
    if not isinstance(found, torch.nn.Linear):
        raise TypeError(f"optimize: lazy_logits is for a torch.nn.Linear, not {type(found).__name__}")
    return found
