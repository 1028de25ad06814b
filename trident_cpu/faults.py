"""From the record that compiled code leaves behind to an exception."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

from trident_cpu.build import Binary


class MemoryFault(RuntimeError):
    """A kernel touched memory that is not its arguments' (TRIDENT_CPU_SANITIZE=1)."""


def explain(kernel: str, names: Sequence[str], values: tuple[Any, ...], binary: Binary, report: Any) -> NoReturn:
    """Raise for a fault record: i64 code, fault id, program, address, ..."""
    code, fault, program = report[0], report[1], report[2]
    kind, where, text = binary.faults[fault]
    raise RuntimeError(f"{kernel}: {kind} at {where}, program {program}: {text} (code {code})")
