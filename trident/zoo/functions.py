"""Functions of other libraries' own files that Trident has, told by their source and that of what they call.

`rewired` copies a function with others in the place of those that it calls by a global name. The library's module is
not touched: who does not optimize a model keeps its own. The copy sees the module's globals as they were then.
"""

import functools
import types
from collections.abc import Callable
from typing import Any

from torch import Tensor

from trident import functional as F
from trident.zoo.adapter import digest_of, unwatched

Function = Callable[..., Any]
ROTATED = 24576  # elements of q and k from which on one kernel is faster than theirs on CPUs (docs/measured.md)


def rotary(theirs: Function) -> Function:
    """q cos + rotate(q) sin, and so of k: one kernel. Tables of another dtype would promote: theirs does that."""

    @functools.wraps(theirs)
    def ours(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> Any:
        if unwatched() and q.is_cpu and q.numel() + k.numel() < ROTATED:
            return theirs(q, k, cos, sin, unsqueeze_dim)
        alike = q.dtype == k.dtype == cos.dtype == sin.dtype and q.dim() == k.dim() == 4 and cos.dim() == 3
        if not alike or unsqueeze_dim not in (1, 2) or cos.shape[0] not in (1, q.shape[0]) or cos.shape != sin.shape:
            return theirs(q, k, cos, sin, unsqueeze_dim)
        return F.rotary_embedding(q, k, cos, sin, sequence_dim=-2 if unsqueeze_dim == 1 else -3)

    return ours


# name in the file, what it calls there -> {digest of their sources: ours}
FUNCTIONS: dict[tuple[str, str], dict[str, Callable[[Function], Function]]] = {
    ("apply_rotary_pos_emb", "rotate_half"): {
        "9b7060d7d257": rotary,  # of Llama and 120 more: the whole head
        "e198cae58ccb": rotary,  # of GPT-NeoX and 15 more: its first elements
        "dbe5e1562cbc": rotary,  # of Phi 3: the same in two lines
        "730cf07c648d": rotary,  # of Olmo and 6 more: as Llama's, cast back
    },
}


def replacement(name: str, namespace: dict[str, Any]) -> Function | None:
    """Trident's function for the one of that name in a module's globals."""
    for (own, called), known in FUNCTIONS.items():
        if name == own:
            make = known.get(digest_of([namespace.get(own), namespace.get(called)]) or "")
            return None if make is None else make(namespace[own])
    return None


def rewired(function: Any) -> Function | None:
    """A copy that calls Trident's functions, also below decorators that keep what they wrap in a closure; or None."""
    if not isinstance(function, types.FunctionType):
        return None
    names = (name for name in function.__code__.co_names if name in function.__globals__)
    ours = {name: found for name in names if (found := replacement(name, function.__globals__))}
    inner = getattr(function, "__wrapped__", None)
    below = rewired(inner) if inner is not None else None
    if below is None and not ours:
        return None
    cells = function.__closure__ or ()
    kept = tuple(types.CellType(below) if below and _holds(cell, inner) else cell for cell in cells)
    if below is not None and kept == cells:
        return None  # it calls what it wraps by another way
    namespace = {**function.__globals__, **ours} if ours else function.__globals__
    copy: Any = types.FunctionType(function.__code__, namespace, function.__name__, function.__defaults__, kept or None)
    copy.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(copy, function)
    if below is None:
        del copy.__wrapped__
    else:
        copy.__wrapped__ = below
    return copy


def _holds(cell: types.CellType, value: Any) -> bool:
    try:
        return cell.cell_contents is value
    except ValueError:  # an empty cell
        return False
