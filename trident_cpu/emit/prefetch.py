"""Rows that several passes walk over are asked for a tile ahead.

The first pass of softmax, say, finds the maximum of a row, and the passes after it read the row from the L1 cache: no
memory is read meanwhile, and processors' own prefetchers, which stop at the end of a page, have nothing to go by. So
each pass asks for what lies a whole tile further on, which in most kernels is the next program's. (Each: a processor
that has too many requests already drops one more.)
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from trident_cpu.emit.types import size
from trident_cpu.emit.values import Val
from trident_cpu.ir import Value
from trident_cpu.plan import Nest

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

LINE = 64  # bytes
LEAST, MOST = 2048, 65536  # bytes of a tile: less is soon done, of more the L2 cache has no room for two


def worth(nest: Nest, vector_dim: int) -> dict[Value, int]:
    """What the nest loads and later ones read again, and how many bytes ahead to ask for more."""
    if not any(op.name == "tt.reduce" and op.attrs["axis"] == vector_dim for op in nest.members):
        return {}
    again = {*nest.keep, *(value for value, _ in nest.again)}
    loaded = [op.results[0] for op in nest.members if op.name == "tt.load" and op.results[0] in again]
    tiles = {value: prod(nest.shape) * size(value.type.element) for value in loaded}
    return {value: tile for value, tile in tiles.items() if LEAST <= tile <= MOST}


def fetch(fe: FunctionEmitter, value: Value, address: Val, lanes: int) -> None:
    """Ask for the lanes of a loaded tile's successor, given the address of its own."""
    ahead, width = fe.ahead.get(value), lanes * size(value.type.element)
    if ahead is None or address.form != "affine" or address.stride != 1 or width < LINE // 4:
        return
    for offset in range(0, width, LINE):
        place = fe.b.value(f"getelementptr i8, ptr {address.text}, i64 {ahead + offset}")
        fe.b.call("prefetch", "void", ("ptr", place), ("i32", "0"), ("i32", "3"), ("i32", "1"), suffix="p0")
