"""How _reduce.py walks over a dense tensor: its dimensions in memory's order, in groups of reduced and of kept ones.

A launch reduces the innermost reduced group, seen as [outer, N, inner]. Where lines are too few to fill the device each
is shared out among programs, whose parts are then the outermost reduced group of what is left: [parts, outer, inner].
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from trident.runtime import tuning

Groups = list[tuple[int, bool]]  # neighbours that are all reduced, or all kept, are one: (size, reduced?)


def memory_order(x: Tensor) -> tuple[int, ...] | None:
    """The dimensions from the slowest to the fastest one; None for those of a contiguous tensor."""
    return None if x.is_contiguous() else tuple(sorted(range(x.dim()), key=x.stride, reverse=True))


def grouped(order: tuple[int, ...] | None, dims: Sequence[int], shape: Sequence[int]) -> Groups:
    groups: Groups = []
    for a in range(len(shape)) if order is None else order:
        n, reduced = shape[a], a in dims
        if type(n) is int and n == 1:
            continue
        if groups and groups[-1][1] == reduced:
            groups[-1] = groups[-1][0] * n, reduced
        else:
            groups.append((n, reduced))
    if not any(reduced for _, reduced in groups):
        groups.append((1, True))
    return groups


def innermost(groups: Groups) -> tuple[int, int, int, int]:
    """The place of the innermost reduced group, and the tensor as [outer, N, inner] about it."""
    sizes = [n for n, _ in groups]
    at = next(i for i in reversed(range(len(groups))) if groups[i][1])
    return at, math.prod(sizes[:at]), sizes[at], math.prod(sizes[at + 1 :])


@tuning.heuristic
def passes(
    live: int,
    live_later: int,
    dims: tuple[int, ...],
    order: tuple[int, ...] | None,
    in_order: bool,
    device: torch.device,
    *shape: int,
) -> tuning.Plan:
    """meta["launches"]: of each launch the number of lines, N, inner and its plan; the last one leaves one part a line.

    live: registers an element, of the tensor and of the states that later launches read. in_order: the elements of a
    line must be merged in their order, else few columns are folded into more (`tuning.fold`).
    """
    groups, launches = grouped(order, dims, shape), []
    while any(reduced for _, reduced in groups):
        at, outer, N, inner = innermost(groups)
        fold = 1 if in_order else tuning.fold(N, inner)
        N, inner = N // fold, inner * fold
        plan = tuning.reduced_lines(outer, N, inner, device, live)
        launches.append((outer * inner, N, inner, plan))
        groups[at : at + 1] = [(fold, True)] if fold > 1 else []
        if plan.grid[1] > 1:
            groups.insert(0, (plan.grid[1], True))
        live = live_later
    return tuning.Plan((len(launches),), {"launches": launches})


def turned(order: tuple[int, ...] | None, dims: Sequence[int]) -> list[int] | None:
    """How to permute the kept dimensions from memory's order into their own; None if they are in it."""
    if order is None:
        return None
    kept = [a for a in order if a not in dims]
    turn = sorted(range(len(kept)), key=kept.__getitem__)
    return None if turn == list(range(len(kept))) else turn


def in_memory_order(t: Tensor, shape: Sequence[int], order: tuple[int, ...] | None, dims: Sequence[int]) -> Tensor:
    """A value for each line, [kept dimensions] as results are, in the order of the lines in memory."""
    if (turn := turned(order, dims)) is not None:
        back = sorted(range(len(turn)), key=turn.__getitem__)
        t = t.reshape([n for a, n in enumerate(shape) if a not in dims]).permute(back)
    return t.contiguous()


def beside(groups: Groups, *values: Tensor | None) -> tuple[int | None, list[Tensor | None]]:
    """Values of results, [results] or [parts, results], for each line [outer, inner] of the innermost group: after how
    many lines they repeat themselves (None: never), and the values, written out where they repeat in another way."""
    at = innermost(groups)[0]
    others = [group for i, group in enumerate(groups) if i != at]
    reduced = [i for i, group in enumerate(others) if group[1]]
    if reduced in ([], [0]):
        return math.prod(n for n, _ in others[1:]) if reduced else None, list(values)
    shape, full = [1 if reduced else n for n, reduced in others], [n for n, _ in others]
    return None, [None if t is None else t.reshape(-1, *shape).expand(-1, *full).contiguous() for t in values]
