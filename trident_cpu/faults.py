"""From the record that compiled code leaves behind to an exception.

The record: i64 code, index into Binary.faults, program, address, and (sanitizer) the address of the table of storages.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any, NoReturn

from trident_cpu.build import Binary

ASSERTION, OUTSIDE, UNWRITTEN, STUCK = 1, 2, 3, 4


class Report(ctypes.c_int64 * 8):  # type: ignore[misc]
    """The record, zeroed; `table` keeps what its fifth word points to alive."""

    table: Any = None


class KernelAssertion(AssertionError):
    """A tl.device_assert of a kernel failed."""


class KernelStuck(RuntimeError):
    """A loop that reads memory ran so long that it must be waiting for a program that does not run."""


class MemoryFault(RuntimeError):
    """A kernel touched memory outside its arguments' storage, or read what nothing wrote (TRIDENT_CPU_SANITIZE=1).

    kernel, where ("file:line"), access ("load", "store", "atomic_rmw", ...), program (x, y, z), argument (a name, or
    None if it cannot be told), offset (in elements, from the argument's first).
    """

    def __init__(
        self, message: str, kernel: str, where: str, access: str, program: tuple[int, int, int], argument: str | None,
        offset: int | None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.kernel, self.where, self.access, self.program = kernel, where, access, program
        self.argument, self.offset = argument, offset


def explain(kernel: str, binary: Binary, report: Report, grid: Sequence[int]) -> NoReturn:
    """Raise what the record says."""
    code, fault, number, address = report[:4]
    kind, where, text = binary.faults[fault]
    program = (number % grid[0], number // grid[0] % grid[1], number // (grid[0] * grid[1]))
    at = f"{kernel}, program {program}, {where or 'line unknown'}"
    if code == ASSERTION:
        raise KernelAssertion(f"{at}: device_assert: {text}")
    if code == STUCK:
        raise KernelStuck(f"{at}: a loop that reads memory does not end; programs run in order, none waits for a later")
    element, root = text.split()
    from trident_cpu.sanitizer import locate

    argument, offset, place = locate(address, int(root))
    verb = {"load": "loads", "store": "stores"}.get(kind, "updates (" + kind + ")")
    problem = f"{verb} {element} {place}" if code == OUTSIDE else f"{verb} {element} that nothing wrote, {place}"
    raise MemoryFault(f"{at}: {problem}", kernel, where, kind, program, argument, offset)
