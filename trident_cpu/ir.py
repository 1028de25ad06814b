"""The small IR that TTIR text is parsed into: types, values, ops, blocks, regions, functions.

A tile is a value whose type has a shape; a scalar has the empty shape. Values are compared by identity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any


@dataclass(frozen=True)
class Type:
    """`shape` () for a scalar. `element`: "i1".."i64", "f16", "bf16", "f32", "f64", an f8 name, or "ptr:" + pointee."""

    shape: tuple[int, ...]
    element: str

    @property
    def is_tile(self) -> bool:
        return bool(self.shape)

    @property
    def is_pointer(self) -> bool:
        return self.element.startswith("ptr:")

    @property
    def pointee(self) -> str:
        return self.element[4:]

    @property
    def size(self) -> int:
        return prod(self.shape)

    def __str__(self) -> str:
        return "x".join([*map(str, self.shape), self.element])


class Value:
    """One SSA value. `op` is the op that defines it; None for block arguments and function parameters."""

    __slots__ = ("name", "op", "type")

    def __init__(self, name: str, type: Type, op: Op | None = None) -> None:
        self.name, self.type, self.op = name, type, op

    def __repr__(self) -> str:
        return f"{self.name}:{self.type}"


class Op:
    """One operation. `successors` is used by cf branches only: (block label, passed values)."""

    __slots__ = ("attrs", "loc", "name", "operands", "regions", "results", "successors")

    def __init__(self, name: str, operands: list[Value], attrs: dict[str, Any] | None = None, loc: str = "") -> None:
        self.name, self.operands, self.loc = name, operands, loc
        self.attrs: dict[str, Any] = attrs or {}
        self.results: list[Value] = []
        self.regions: list[Region] = []
        self.successors: list[tuple[str, list[Value]]] = []

    @property
    def result(self) -> Value:
        (value,) = self.results
        return value

    def __repr__(self) -> str:
        return f"{self.results} = {self.name}({self.operands}) {self.attrs}"

    def walk(self) -> Iterator[Op]:
        """This op and every op nested in its regions."""
        yield self
        for region in self.regions:
            yield from region.walk()


@dataclass
class Block:
    label: str
    args: list[Value] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)


@dataclass
class Region:
    blocks: list[Block] = field(default_factory=list)

    @property
    def block(self) -> Block:
        (block,) = self.blocks
        return block

    def walk(self) -> Iterator[Op]:
        for block in self.blocks:
            for op in block.ops:
                yield from op.walk()


@dataclass
class Function:
    name: str
    params: list[Value]
    results: list[Type]
    body: Region
    public: bool
    loc: str = ""


_CALLSITE = re.compile(r"callsite\((\S+|.*?) at (.*)\)$")
_NAMED = re.compile(r'"[^"]*"\((.*)\)$')
_PLACE = re.compile(r'"([^"]*)":(\d+):\d+')


@dataclass
class Module:
    functions: dict[str, Function]
    locations: dict[str, str]  # "#loc12" -> the text inside its loc(...)
    places: dict[str, str] = field(default_factory=dict)  # what `where` has found

    @property
    def kernel(self) -> Function:
        (kernel,) = [f for f in self.functions.values() if f.public]
        return kernel

    def where(self, op: Op) -> str:
        """The file:line of an op: the innermost frame outside Triton's own library, "" without locations."""
        place = self.places.get(op.loc)
        if place is None:
            frames = self._frames(op.loc, 0)
            own = [f for f in frames if "/triton/language/" not in f]
            place = self.places[op.loc] = (own or frames or [""])[0]
        return place

    def _frames(self, loc: str, depth: int) -> list[str]:
        if depth > 40 or not loc:
            return []
        loc = self.locations.get(loc, loc)
        if call := _CALLSITE.match(loc):
            return self._frames(call[1], depth + 1) + self._frames(call[2], depth + 1)
        if named := _NAMED.match(loc):
            return self._frames(named[1], depth + 1)
        if place := _PLACE.match(loc):
            return [f"{place[1]}:{place[2]}"]
        return []
