"""Tiles in memory: buffers of the per-thread scratch arena, and views of them.

A buffer's offset in the arena is chosen when the whole function is emitted: two buffers may share bytes when their
first and last uses, counted in emitted lines, do not overlap. Loops stretch the last use of what they read.
Buffers of at most SMALL bytes are stack slots, which LLVM turns into registers when their loops are unrolled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from trident_cpu.emit.builder import Builder
from trident_cpu.emit.types import size, stored

SMALL = 1024
ALIGN = 64


@dataclass(eq=False)
class Buffer:
    bytes: int
    name: str
    first: int
    last: int
    in_arena: bool


@dataclass(frozen=True)
class View:
    """Element [i, j, ...] lies at offset + i * strides[0] + ...; with `panel` P the last dimension is cut in panels of
    P columns that lie one after another (what the dot kernel reads)."""

    buffer: Buffer
    element: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    panel: int | None = None

    @property
    def is_row_major(self) -> bool:
        return self.strides == dense_strides(self.shape)

    @property
    def is_dense(self) -> bool:
        return self.panel is None and self.offset == 0 and self.is_row_major


def dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[k + 1 :]) for k in range(len(shape)))


@dataclass
class Arena:
    """The buffers of one function."""

    b: Builder
    buffers: list[Buffer] = field(default_factory=list)
    loops: list[tuple[int, int]] = field(default_factory=list)  # spans of lines that run repeatedly

    def new(self, element: str, shape: tuple[int, ...], panel: int | None = None) -> View:
        count = prod(shape)
        total = max(count * size(element), 1)
        now = len(self.b.lines)
        small = total <= SMALL
        name = self.b.alloca(f"[{count} x {stored(element)}]") if small else self.b.name("buffer")
        buffer = Buffer(total, name, now, now, not small)
        self.buffers.append(buffer)
        return View(buffer, element, shape, dense_strides(shape), 0, panel)

    def touch(self, buffer: Buffer) -> None:
        buffer.last = len(self.b.lines)

    def layout(self, base: int = 0) -> tuple[list[str], int]:
        """The instructions that define the arena's buffer names from %scratch, and the bytes used."""
        placed: list[tuple[int, Buffer]] = []
        lines = []
        total = base
        arena = [x for x in self.buffers if x.in_arena]
        for buffer in arena:
            for start, end in sorted(self.loops, key=lambda span: span[1] - span[0]):
                if buffer.first < start <= buffer.last < end:
                    buffer.last = end
        for buffer in sorted(arena, key=lambda x: -x.bytes):
            taken = sorted(
                (at, at + other.bytes)
                for at, other in placed
                if other.first <= buffer.last and buffer.first <= other.last
            )
            offset = base
            for start, end in taken:
                if offset + buffer.bytes <= start:
                    break
                offset = max(offset, -(-end // ALIGN) * ALIGN)
            placed.append((offset, buffer))
            total = max(total, offset + buffer.bytes)
            lines.append(f"  {buffer.name} = getelementptr inbounds i8, ptr %scratch, i64 {offset}")
        return lines, -(-total // ALIGN) * ALIGN
