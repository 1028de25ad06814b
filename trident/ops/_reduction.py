"""Reductions over any dimensions, with the signatures of torch's own: which row of _reduce.py's table each one is.

What torch also accepts and no kernel does (integers, `out=`, names of dimensions, no dimensions) goes to torch.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trident.ops._reduce import of_sum, reduce
from trident.runtime import autocast, route
from trident.runtime.autograd import apply
from trident.runtime.crossover_tables import ALONE
from trident.runtime.layout import dense_strides

Dim = int | Sequence[int] | None
HALVES = frozenset({torch.float16, torch.bfloat16})
AT_ONCE = 32  # columns that torch's loop takes together (of float64 half as many), others one by one
MOST_DIMS = 64  # torch says what it thinks of more
ALIASES = "out=, or another library's names of the arguments"


def _dims(x: Tensor, dim: Any) -> list[int] | None:
    """The dimensions, counted from 0 and in order; all for None. None if they are not distinct dimensions of x."""
    D = x.dim() or 1
    if D > MOST_DIMS:
        return None
    if dim is None:
        return list(range(D))
    dims = [dim] if type(dim) is int else dim
    if not isinstance(dims, (list, tuple)) or not all(type(a) is int and -D <= a < D for a in dims):
        return None
    found = sorted({a % D for a in dims})
    return found if found and len(found) == len(dims) else None


def _reduction(
    name: str,
    row: str,
    input: Tensor,
    dim: Any,
    keepdim: bool,
    others: dict[str, Any],
    dtype: torch.dtype | None = None,
    a: float = 1.0,
    b: float = 0.0,
    unless: str | None = None,
    kind: str = "",
    apart: bool = False,
) -> Any:
    """The row of the table, or None if the call must go to torch.

    kind: added to the name that `crossover` knows. apart: it knows dimensions apart by a name of their own.
    """
    dims, x = _dims(input, dim), input
    if apart and dims is not None and _apart(dims, input.dim()):
        kind = " (apart)"
    if others:
        unless = unless or ALIASES
    elif dims is None:
        unless = unless or "no kernel for these dimensions"
    if dtype is not None and unless is None and input.is_floating_point():
        if dtype not in route.HALF_TO_DOUBLE:
            unless = f"no kernel for {dtype}"
        elif not (dtype == torch.float32 and x.dtype in HALVES):
            x = x.to(dtype)  # the kernel reads halves and writes float32 by itself
    differentiated = torch.is_grad_enabled() and x.requires_grad
    if route.to_torch(name + kind + ("" if differentiated else ALONE), x, unless=unless):
        return None
    if name == "mean" and differentiated and route.to_torch(name + ALONE, x):
        return apply(_TorchsMean, x, dims or [], keepdim, dtype or autocast.output_dtype(name, x))
    return reduce(row, x, None, dims or [], keepdim, dtype or autocast.output_dtype(name, x), a, b)


class _TorchsMean(torch.autograd.Function):
    """Where torch's forward is the faster one, and its gradient writes what ours has as a view."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dims: list[int], keepdim: bool, dtype: torch.dtype) -> Tensor:
        ctx.how = x.shape, dims, keepdim, True, x.dtype
        return torch.mean(x, dims, keepdim, dtype=dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        return of_sum(dy, *ctx.how), None, None, None


def sum(
    input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: torch.dtype | None = None, **others: Any
) -> Tensor:
    """Σ x. Same contract as :func:`torch.sum`."""
    y = _reduction("sum", "sum", input, dim, keepdim, others, dtype)
    return torch.sum(input, **_dim(dim, keepdim), dtype=dtype, **others) if y is None else y


def mean(
    input: Tensor, dim: Dim = None, keepdim: bool = False, *, dtype: torch.dtype | None = None, **others: Any
) -> Tensor:
    """Σ x / n. Same contract as :func:`torch.mean`."""
    y = _reduction("mean", "mean", input, dim, keepdim, others, dtype)
    return torch.mean(input, **_dim(dim, keepdim), dtype=dtype, **others) if y is None else y


def prod(
    input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: torch.dtype | None = None, **others: Any
) -> Tensor:
    """Π x. Same contract as :func:`torch.prod`."""
    kind = _without_vectors(input, dim, dtype)
    y = _reduction("prod", "prod", input, dim, keepdim, others, dtype, unless=_one(dim, keepdim), kind=kind)
    return torch.prod(input, **_dim(dim, keepdim), dtype=dtype, **others) if y is None else y


def _without_vectors(x: Tensor, dim: Any, dtype: torch.dtype | None) -> str:
    """Where torch's loop has no vectors, or few, and no copy is to be made for ours: what `crossover` calls it."""
    of = dtype or x.dtype
    columns = x.stride(dim) if type(dim) is int and x.layout == route.STRIDED and -x.dim() <= dim < x.dim() else 1
    if type(columns) is int and 1 < columns < (AT_ONCE // 2 if of == torch.float64 else AT_ONCE):
        kind = " (few columns)"
    elif of != torch.float64 and (of in HALVES or x.dtype in HALVES):
        kind = " (halves)"
    else:
        return ""
    return kind if x.layout == route.STRIDED and x.stride() == dense_strides(x) else ""


def logsumexp(input: Tensor, dim: Dim, keepdim: bool = False, **others: Any) -> Tensor:
    """log Σ exp x, without overflow. Same contract as :func:`torch.logsumexp`."""
    unless = "no kernel for these dimensions" if dim is None else None
    y = _reduction("logsumexp", "logsumexp", input, dim, keepdim, others, unless=unless)
    return torch.logsumexp(input, dim, keepdim, **others) if y is None else y  # type: ignore[arg-type]


def _dim(dim: Any, keepdim: bool) -> dict[str, Any]:
    """The arguments that were given."""
    return {} if dim is None and not keepdim else {"dim": dim, "keepdim": keepdim}


def _one(dim: Any, keepdim: bool) -> str | None:
    """What torch requires of functions of one dimension or of all."""
    return None if type(dim) is int or (dim is None and not keepdim) else route.INVALID


# Variance: y = Σ (x - mean)² / (n - correction), by Chan's update of partial means


def _variance(
    name: str, input: Tensor, dim: Any, unbiased: bool | None, keepdim: bool, correction: float | None, others: Any
) -> Any:
    legacy = None if unbiased is None and type(dim) is not bool else "unbiased is torch's old name for correction"
    row, second = name.removesuffix("_mean"), name.endswith("_mean")
    freedom = 1.0 if correction is None else float(correction)
    found = _reduction(name, row, input, dim, keepdim, others, a=freedom, unless=legacy)
    if found is not None:
        return found if second else found[0]
    if type(dim) is bool:
        return getattr(torch, name)(input, dim)
    given = {"dim": dim, "unbiased": unbiased, "correction": correction, "keepdim": keepdim or None}
    return getattr(torch, name)(input, **{key: value for key, value in given.items() if value is not None}, **others)


def var(
    input: Tensor, dim: Dim = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None, **others: Any,
) -> Tensor:  # fmt: skip
    """Σ (x - mean)² / (n - correction), correction 1 if not given. Same contract as :func:`torch.var`."""
    return _variance("var", input, dim, unbiased, keepdim, correction, others)


def std(
    input: Tensor, dim: Dim = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None, **others: Any,
) -> Tensor:  # fmt: skip
    """√var. Same contract as :func:`torch.std`."""
    return _variance("std", input, dim, unbiased, keepdim, correction, others)


def var_mean(
    input: Tensor, dim: Dim = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None, **others: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Variance and mean in one pass. Same contract as :func:`torch.var_mean`."""
    return _variance("var_mean", input, dim, unbiased, keepdim, correction, others)


def std_mean(
    input: Tensor, dim: Dim = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None, **others: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Standard deviation and mean in one pass. Same contract as :func:`torch.std_mean`."""
    return _variance("std_mean", input, dim, unbiased, keepdim, correction, others)


# Extrema: a NaN is higher and lower than any number; the first of equals is where they are found


def amax(input: Tensor, dim: int | tuple[int, ...] = (), keepdim: bool = False, **others: Any) -> Tensor:
    """The maximum; its gradient is shared by equals. Same contract as :func:`torch.amax`."""
    y = _reduction("amax", "ends", input, _all(dim), keepdim, others, a=1.0, apart=True)
    return torch.amax(input, dim, keepdim, **others) if y is None else y


def amin(input: Tensor, dim: int | tuple[int, ...] = (), keepdim: bool = False, **others: Any) -> Tensor:
    """The minimum; its gradient is shared by equals. Same contract as :func:`torch.amin`."""
    y = _reduction("amin", "ends", input, _all(dim), keepdim, others, a=-1.0, apart=True)
    return torch.amin(input, dim, keepdim, **others) if y is None else y


def _apart(dims: list[int], D: int) -> bool:
    """Where torch's loop has no vectors: dimensions that are no neighbours, before one that is kept."""
    return dims[-1] < D - 1 and dims[-1] - dims[0] >= len(dims)


def _all(dim: Any) -> Any:
    return None if dim == () or dim == [] else dim


def _end(name: str, sign: float, input: Tensor, dim: Any, keepdim: bool, others: dict[str, Any]) -> Any:
    of_torch: Callable[..., Any] = getattr(torch, name)
    if dim is None and not keepdim:
        y = _reduction(name, "ends", input, None, False, others, a=sign, b=1.0, kind=" (all)")
        return of_torch(input, **others) if y is None else y
    other = "two tensors" if isinstance(dim, Tensor) else _one(dim, keepdim)
    inner = " (inner)" if other is None and dim not in (-1, input.dim() - 1) else ""
    found = _reduction(name, "end", input, dim, keepdim, others, a=sign, unless=other, kind=inner)
    if found is None:
        return of_torch(input, dim, **({"keepdim": keepdim} if keepdim else {}), **others)
    return getattr(torch.return_types, name)(found)


def max(input: Tensor, dim: Any = None, keepdim: bool = False, **others: Any) -> Any:
    """The maximum, and with `dim` where it is found. Same contract as :func:`torch.max`."""
    return _end("max", 1.0, input, dim, keepdim, others)


def min(input: Tensor, dim: Any = None, keepdim: bool = False, **others: Any) -> Any:
    """The minimum, and with `dim` where it is found. Same contract as :func:`torch.min`."""
    return _end("min", -1.0, input, dim, keepdim, others)


def _where(name: str, sign: float, input: Tensor, dim: int | None, keepdim: bool, others: dict[str, Any]) -> Tensor:
    x = input.detach() if type(input) is Tensor else input
    unless = None if dim is None else _one(dim, keepdim)
    if dim is None:  # the index is one of x seen as a line
        x, of = x.reshape(-1), 0
    else:
        of = dim
    found = _reduction(name, "end", x, of, keepdim and dim is not None, others, a=sign, unless=unless)
    if found is None:
        return getattr(torch, name)(input, dim, keepdim, **others)
    index = found[1]
    return index.view([1] * input.dim()) if dim is None and keepdim else index


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False, **others: Any) -> Tensor:
    """Where the maximum is found first. Same contract as :func:`torch.argmax`."""
    return _where("argmax", 1.0, input, dim, keepdim, others)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False, **others: Any) -> Tensor:
    """Where the minimum is found first. Same contract as :func:`torch.argmin`."""
    return _where("argmin", -1.0, input, dim, keepdim, others)


def norm(
    input: Tensor,
    p: float | str | None = "fro",
    dim: Dim = None,
    keepdim: bool = False,
    out: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """(Σ |x|ᵖ)^(1/p), of any real order p or of infinite order. Same contract as :func:`torch.norm`."""
    order = 2.0 if p == "fro" or p is None else p
    unless = None if isinstance(order, (int, float)) and order == order else "no kernel for this order"
    if out is not None or dtype is not None:
        unless = "out= and dtype="
    row, a = norm_row(float(order)) if unless is None else ("norm", 2.0)
    y = _reduction("norm", row, input, dim, keepdim, {}, a=a, unless=unless)
    return torch.norm(input, p, dim, keepdim, out, dtype) if y is None else y


def norm_row(p: float) -> tuple[str, float]:
    """The row of the table for a norm of order p, and its parameter."""
    return ("norm_inf", math.copysign(1.0, p)) if p in (math.inf, -math.inf) else ("norm", p)
