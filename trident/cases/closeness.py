"""When is a result right? Each element within the rounding of its dtype and of the sums behind it, against float64.

The law of the tests and of the bench, which prints no ratio of a result that breaks it.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

NOISE = 1000 * torch.finfo(torch.float64).eps  # of the float64 reference itself, where the exact result is 0


def close(actual: Sequence[Tensor], exact: Sequence[Tensor], dtype: torch.dtype, terms: int = 1) -> None:
    """Each element within the rounding of its dtype and of a float32 sum of `terms` terms, relative to the data."""
    if wrong := difference(actual, exact, dtype, terms):
        raise AssertionError(wrong)


def difference(
    actual: Sequence[Tensor], exact: Sequence[Tensor], dtype: torch.dtype, terms: int = 1, slack: float = 1
) -> str | None:
    """What is wrong with the first result that is not `close`, allowing `slack` times as much; None if all are."""
    if len(actual) != len(exact):
        return f"{len(actual)} results, expected {len(exact)}"
    for i, (a, e) in enumerate(zip(actual, exact, strict=True)):
        if a.shape != e.shape:
            return f"result {i}: shape {a.shape}, expected {e.shape}"
        if not e.is_floating_point():  # indices
            if a.dtype != e.dtype or not torch.equal(a, e):
                return f"result {i}: {a}, expected {e}"
        elif e.numel() and (wrong := _elements(a.double(), e.double(), dtype, terms, slack)):
            return f"result {i}: {wrong}"
    return None


def _elements(a: Tensor, e: Tensor, dtype: torch.dtype, terms: int, slack: float) -> str | None:
    inner = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps
    scale = e[e.isfinite()].abs().amax().item() if e.isfinite().any() else 0.0
    info = torch.finfo(dtype)
    bound = info.eps * (2 * e.abs() + scale + info.tiny) + 8 * inner * math.sqrt(terms) * scale + NOISE
    overflowed = (a == e.to(dtype)) & a.isinf()
    wrong = ~((a - e).abs() <= slack * bound) & (a != e) & ~(a.isnan() & e.isnan()) & ~overflowed
    if not wrong.any():
        return None
    worst = torch.where(wrong, ((a - e).abs() / bound).nan_to_num(math.inf), 0).argmax()
    got, want = a.flatten()[worst].item(), e.flatten()[worst].item()
    return f"{wrong.sum()} of {e.numel()} wrong; at {worst}: {got}, expected {want}"
