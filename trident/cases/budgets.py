"""What kernels may cost on GPUs, where it is more than the default: data that `python -m trident inspect` and CI hold
them to, each with its reason. A budget that nothing needs any more is to be deleted.
"""

from typing import NamedTuple


class Spills(NamedTuple):
    most: int  # instructions that store a register to a thread's stack; nothing else may have any
    reason: str


# (case, kernel, target)
SPILLS: dict[tuple[str, str, str], Spills] = {}


def spills(case: str, kernel: str, target: str) -> int:
    """The most that a kernel may have."""
    found = SPILLS.get((case, kernel, target))
    return found.most if found else 0


# (case, kernel, operand) -> why it is accessed in less than 16 bytes a thread though it lies in whole segments of 16
NARROW: dict[tuple[str, str, str], str] = {}


class Bytes(NamedTuple):
    most: float  # counted bytes over compulsory ones, without partial results
    reason: str


FORWARD = Bytes(1.05, "each input read once, each result written once, and a statistic a row")
BACKWARD = Bytes(1.1, "the same, and what the forward saved")

# (case, or its name before the dot; direction) -> its budget
BYTES: dict[tuple[str, str], Bytes] = {}


def ratio(case: str, direction: str) -> float:
    """The most that counted bytes may be over compulsory ones."""
    default = FORWARD if direction == "forward" else BACKWARD
    return (BYTES.get((case, direction)) or BYTES.get((case.split(".")[0], direction)) or default).most
