"""Loops that wait: a `while` that reads memory is given up after so many rounds, so that a launch never hangs.

Programs run in order on each thread (`trident_cpu.parallel`), so waiting for an earlier program ends. Waiting for a
later one, or for a lock that nobody will release, would not; such a loop is left when its rounds are used up, or when
another has already reported the same, and the launch raises `faults.KernelStuck`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trident_cpu.ir import Op

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

STUCK = 4  # the report's code
_ATOMICS = frozenset({"tt.atomic_rmw", "tt.atomic_cas"})
# An atomic takes 5 ns and more: ten seconds or so. A loop of plain loads may do real work, in fewer than 2^33 rounds.
ROUNDS = {"atomics": 1 << 30, "loads": 1 << 33}
_LOOK = 1 << 16  # rounds between looks at the report


class Patience:
    """Counts the rounds of one loop; `still(condition)` is the condition, false once they are used up."""

    def __init__(self, fe: FunctionEmitter, loop: Op) -> None:
        names = {op.name for region in loop.regions for op in region.walk()}
        kind = "atomics" if names & _ATOMICS else "loads" if "tt.load" in names else None
        self.fe, self.rounds = fe, ROUNDS[kind] if kind else 0
        if self.rounds:
            self.fault = fe.new_fault("loop", fe.where(loop), "")
            self.count, self.go = fe.b.alloca("i64", 8), fe.b.alloca("i1", 8)
            fe.b.emit(f"store i64 0, ptr {self.count}")
            fe.b.emit(f"store i1 true, ptr {self.go}")

    def still(self, condition: str) -> str:
        if not self.rounds:
            return condition
        b = self.fe.b
        round_ = b.value(f"add i64 {b.value(f'load i64, ptr {self.count}')}, 1")
        b.emit(f"store i64 {round_}, ptr {self.count}")

        def look() -> None:
            spent = b.value(f"icmp uge i64 {round_}, {self.rounds}")
            b.when(spent, lambda: self.fe.report(self.fault, "null", STUCK))
            code = b.value("load atomic i64, ptr %report monotonic, align 8")
            b.emit(f"store i1 {b.value(f'icmp eq i64 {code}, 0')}, ptr {self.go}")

        b.when(b.value(f"icmp eq i64 {b.value(f'and i64 {round_}, {min(_LOOK, self.rounds) - 1}')}, 0"), look)
        return b.value(f"and i1 {condition}, {b.value(f'load i1, ptr {self.go}')}")
