"""Operands that broadcast, for kernels that read them where they lie: a tensor in its memory's order, seen as rows of N
columns, and what each operand has a value for: each element, a column, a row, or all (lang/broadcast.py).

A vector over the last dimensions is one of columns, whatever stands before; [rows, 1] and a weight for each channel
[C, 1, 1] are ones of rows. What fits in no other way, or not beside the operands before it, is written out.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from trident.runtime.layout import lying

FEWEST = 64  # columns of a row: where it has less, tiles of rows are slower than what writes an operand out
WORTH = 1 << 18  # elements, below which it costs more to repeat a vector of a few than to write it out


class Elements(NamedTuple):
    """n elements in rows of N (None: no operand broadcasts along one); each operand, what it has a value for, and after
    how many rows one for rows repeats itself."""

    n: int
    N: int | None
    period: int | None
    operands: tuple[Tensor | None, ...]
    by: tuple[str, ...]


def fits(shape: Sequence[int], to: Sequence[int]) -> bool:
    """Does a tensor of this shape broadcast to that one?"""
    if len(shape) == len(to) and shape == to:  # len: else Python would compare the sizes of different axes first
        return True
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(shape[::-1], to[::-1], strict=False))


def elements(
    shape: Sequence[int], strides: Sequence[int], operands: Sequence[Tensor | None], columns: int | None = None
) -> Elements:
    """Operands that broadcast to `shape`, beside a result without gaps of these strides. The first is not None.

    columns: how many a row has to have, if that is not the operands' to say.
    """
    n, N, period = math.prod(shape), columns, None
    found: list[Tensor | None] = []
    by: list[str] = []
    for o in operands:
        # of fakes nothing is launched, and sizes are not to be asked for
        if o is None or isinstance(o, FakeTensor) or (o.shape == shape and o.stride() == strides):
            found.append(o)
            by.append("each")
        elif o.numel() == 1 != n:
            found.append(o)
            by.append("one")
        else:
            wide = o.expand(shape)
            how, width, rows, once = _repeats(wide.stride(), tuple(shape), tuple(strides))
            fold = 1
            if width is not None and how == "column" and width != N and columns is None:
                fold = _fold(n // width, width)
                width *= fold
            narrow = width is not None and (width < FEWEST if N is None else width != N)
            if how == "each" or narrow or (rows is not None and period not in (None, rows)):
                found.append(lying(wide, strides))
                by.append("each")
                continue
            N, period = width or N, rows or period
            o = o if once is None else wide.permute(once.order)[once.taken].contiguous()
            found.append(o if width is None or fold == 1 else o.as_strided((width // fold,), (1,)).repeat(fold))
            by.append(how)
    if "each" not in (how for how, o in zip(by, found, strict=True) if o is not None):
        first = operands[0]
        assert first is not None
        found[0], by[0] = lying(first.expand(shape), strides), "each"
    return Elements(n, N, period, tuple(found), tuple(by))


@functools.lru_cache(maxsize=4096)
def _fold(rows: int, N: int) -> int:
    """How many rows of few columns to see as one, where all read the same vector: as many as make up to 2048."""
    if N >= FEWEST or rows * N < WORTH:
        return 1
    return next((k for k in range(2048 // N, 1, -1) if rows % k == 0), 1)


class Once(NamedTuple):
    """How to take each value of an operand once, in the order of memory."""

    order: tuple[int, ...]
    taken: tuple[Any, ...]


@functools.lru_cache(maxsize=4096)
def _repeats(
    own: tuple[int, ...], shape: tuple[int, ...], strides: tuple[int, ...]
) -> tuple[str, int | None, int | None, Once | None]:
    """What a tensor of `own` strides has a value for ("each": none of these ways), what number of columns and rows that
    takes, and how to take its values (None: they lie as they are to be read)."""
    order = sorted(range(len(shape)), key=strides.__getitem__, reverse=True)
    groups: list[tuple[int, bool]] = []  # neighbours that are alike: (size, has it a value for each?)
    for a in order:
        n, each = shape[a], own[a] != 0
        if n > 1 and groups and groups[-1][1] == each:
            groups[-1] = groups[-1][0] * n, each
        elif n > 1:
            groups.append((n, each))
    expected, lies = 1, True
    for a in reversed(order):
        if shape[a] > 1 and own[a]:
            lies, expected = lies and own[a] == expected, expected * shape[a]
    once = None if lies else Once(tuple(order), tuple(slice(None) if own[a] else 0 for a in order))
    sizes = [n for n, _ in groups]
    match [each for _, each in groups]:
        case [] | [False]:
            return "one", None, None, once
        case [False, True]:
            return "column", sizes[-1], None, once
        case [True, False] | [False, True, False]:
            return "row", sizes[-1], sizes[-2], once
    return "each", None, None, None
