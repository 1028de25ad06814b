"""Tiles turned round in registers: vectors along the last dimension but one, stored along the last.

A square has as many rows as a register has 32-bit elements, and takes log2 of that many shuffles a row: squares of
4 x 4 within the 128-bit parts of the registers first, then the parts as if they were elements.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from trident_cpu.emit.buffers import View
from trident_cpu.emit.pointwise import Call
from trident_cpu.emit.types import llvm, size
from trident_cpu.emit.values import Context, Val, evaluate, lanes_of, view_address
from trident_cpu.ir import Value

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

PART = 4  # 32-bit elements of 128 bits


def side(fe: FunctionEmitter) -> int:
    """Rows and columns of a square."""
    return fe.features.vector_bits // 32


def fits(fe: FunctionEmitter, view: View) -> bool:
    """Can a tile be stored to this view in squares?"""
    n = side(fe)
    return (
        size(view.element) == 4
        and len(view.shape) >= 2
        and min(view.shape[-2:]) >= n
        and view.shape[-2] % n == view.shape[-1] % n == 0
        and view.strides[-1] == 1
        and (view.panel is None or view.panel % n == 0)
    )


def store_turned(fe: FunctionEmitter, view: View, corner: list[str], columns: list[Val]) -> None:
    """Store the square at `corner`, given its columns; converts to the view's element type."""
    n, dim = len(columns), len(view.shape) - 2
    texts = []
    for val in columns:
        text = lanes_of(fe, val, n)
        if val.element != view.element:
            name = "tt.fp_to_fp" if val.element not in ("i8", "i16") else "arith.extsi"
            text = fe.pointwise(n).cast(Call(name, (val.element,), view.element, {}), text)
        texts.append(text)
    for k, text in enumerate(turned(fe, view.element, texts)):
        index = list(corner)
        index[dim] = fe.b.add(index[dim], str(k))
        ctx = Context(view.shape, index, dim + 1, n)
        address, _ = view_address(fe, view, ctx.identity, ctx)
        fe.b.emit(f"store <{n} x {llvm(view.element)}> {text}, ptr {address}, align {size(view.element)}")


def turned(fe: FunctionEmitter, element: str, rows: list[str]) -> list[str]:
    """The columns of a square of n rows of n 32-bit elements."""
    n = len(rows)

    def both(a: str, b: str, low: list[int], high: list[int]) -> tuple[str, str]:
        return fe.b.shuffle(element, a, n, low, b), fe.b.shuffle(element, a, n, high, b)

    def in_parts(first: int, second: int, *, pairs: bool) -> list[int]:
        """Elements `first` and `second` of each part of both registers, alternating or one after the other."""
        here, there = (first, second), (n + first, n + second)
        picks = [*here, *there] if pairs else [here[0], there[0], here[1], there[1]]
        return [at + p for at in range(0, n, PART) for p in picks]

    singles = in_parts(0, 1, pairs=False), in_parts(2, 3, pairs=False)
    pairs = in_parts(0, 1, pairs=True), in_parts(2, 3, pairs=True)
    parts: list[list[str]] = []  # [group of 4 rows][column within a part]
    for at in range(0, n, PART):
        low, high = both(rows[at], rows[at + 1], *singles)
        low2, high2 = both(rows[at + 2], rows[at + 3], *singles)
        parts.append([*both(low, low2, *pairs), *both(high, high2, *pairs)])
    columns = [_turned_parts(fe, element, n, [group[c] for group in parts]) for c in range(PART)]
    return [columns[k % PART][k // PART] for k in range(n)]


def _turned_parts(fe: FunctionEmitter, element: str, n: int, rows: list[str]) -> list[str]:
    """The same of a square whose elements are the parts of registers."""

    def joined(a: str, b: str, *parts: int) -> str:
        return fe.b.shuffle(element, a, n, [PART * p + i for p in parts for i in range(PART)], b)

    if len(rows) == 1:
        return rows
    first, second, *rest = rows
    if not rest:
        return [joined(first, second, 0, 2), joined(first, second, 1, 3)]
    third, fourth = rest
    low, high = joined(first, second, 0, 1, 4, 5), joined(first, second, 2, 3, 6, 7)
    low2, high2 = joined(third, fourth, 0, 1, 4, 5), joined(third, fourth, 2, 3, 6, 7)
    halves = (low, low2), (high, high2)
    return [joined(a, b, k, k + 2, k + 4, k + 6) for a, b in halves for k in (0, 1)]


def squares(fe: FunctionEmitter, shape: tuple[int, ...], body: Callable[[list[str]], None]) -> None:
    """Run `body` for the index of the first corner of every square of a tile."""
    n, index = side(fe), ["0"] * len(shape)

    def level(dims: list[int]) -> None:
        if not dims:
            body(list(index))
            return
        dim, step = dims[0], n if dims[0] >= len(shape) - 2 else 1

        def at(i: str) -> None:
            index[dim] = i
            level(dims[1:])

        if shape[dim] == step:
            at("0")
        else:
            fe.b.loop("0", str(shape[dim]), step, at)

    *outer, down, right = range(len(shape))
    level([*outer, right, down])


def column(fe: FunctionEmitter, shape: tuple[int, ...], index: list[str], k: int) -> Context:
    """The vector along the last dimension but one that is the k-th column of the square at `index`."""
    return Context(shape, [*index[:-1], fe.b.add(index[-1], str(k))], len(shape) - 2, side(fe))


def store_everywhere_turned(fe: FunctionEmitter, value: Value, view: View) -> None:
    """Evaluate a tile into a view of its shape, in vectors along the last dimension but one."""
    shape = value.type.shape

    def square(index: list[str]) -> None:
        columns = []
        for k in range(side(fe)):
            ctx = column(fe, shape, index, k)
            columns.append(evaluate(fe, value, ctx.identity, ctx))
        store_turned(fe, view, index, columns)

    squares(fe, shape, square)
