"""What the compiler raises. Every error names the op and, where the TTIR carries locations, the Python line."""

from __future__ import annotations


class CompileError(Exception):
    """The kernel cannot be compiled to native code."""


class ParseError(CompileError):
    """A line of TTIR has a form that the parser does not know."""

    def __init__(self, line: str, reason: str) -> None:
        super().__init__(f"trident_cpu: cannot parse TTIR ({reason}): {line.strip()[:300]}")


class UnsupportedOp(CompileError, NotImplementedError):
    """An op, type or attribute outside the whitelist of `trident_cpu.ops`."""

    def __init__(self, op: str, reason: str, where: str = "") -> None:
        at = f" at {where}" if where else ""
        super().__init__(f"trident_cpu: {op}{at}: {reason}")
        self.op, self.reason, self.where = op, reason, where
