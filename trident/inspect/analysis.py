"""Everything known of an operator without a GPU: its launches compiled, its bytes counted, its time estimated."""

import functools
import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

import trident
from trident.cases import Case, budgets
from trident.inspect import counting
from trident.inspect.compiled import Compiled, compiled
from trident.inspect.counting import DirectionCount, LaunchCount, Wanted
from trident.inspect.launches import Launch, described
from trident.inspect.targets import CARDS, TARGETS, roofline
from trident.inspect.watch import Direction, Event, nbytes, watched

# shares of an operand's bytes: that a thread could access 16 at a time, from which on narrow is the kernel's fault
WHOLE = 0.9
WIDE = 16  # bytes that a thread reads at once


@dataclass
class KernelRow:
    """A launch, compiled for one architecture."""

    kernel: str
    arch: str
    programs: int
    configuration: dict[str, object]
    registers: int = 0
    spills: int = 0
    shared: int = 0
    warps: int = 0
    occupancy: float = 0.0
    limit: str = ""
    widths: dict[str, int] = field(default_factory=dict)  # operand -> bytes of its widest access
    narrow: list[str] = field(default_factory=list)  # operands read or written in less than 16 bytes where 16 could be
    matrix: dict[str, int] = field(default_factory=dict)  # instructions of matrix units
    error: str = ""


@dataclass
class Row:
    """One direction of a case. Bytes and operations are of `shape`; counted where `counted_at` says."""

    case: str
    direction: str
    shape: list[int]
    dtype: str
    counted_at: list[int]
    exact: bool
    launches: int
    torch_operators: list[str]
    compulsory: float
    bytes: float
    ratio: float  # bytes counted over compulsory ones, without `between`
    between: float  # bytes of partial results, from one kernel to the next
    flops: float
    matrix_flops: float
    times: dict[str, float]  # card -> seconds of the roofline
    kernels: list[KernelRow]
    problems: list[str] = field(default_factory=list)

    @property
    def intensity(self) -> float:
        return (self.flops + self.matrix_flops) / max(1.0, self.bytes)


class UnfitShape(ValueError):
    """A case does not take a shape."""


def inspect(
    names: Sequence[str],
    arches: Sequence[str],
    dtype: torch.dtype,
    shape: Sequence[int] | None = None,
    programs: int = counting.PER_LAUNCH,
    note: Callable[[], None] = lambda: None,
) -> list[Row]:
    """Rows of the named cases, two a case. `note` is called as often as `steps` says, for a progress bar. Raises
    UnfitShape for a shape that a case does not take."""
    cases = {name: counting.find(name) for name in names}
    shapes = {name: tuple(shape or inspected_shape(case)) for name, case in cases.items()}
    wanted = [(name, _countable(cases[name], shapes[name]), str(dtype).removeprefix("torch.")) for name in names]
    seen = {name: _seen(name, case, shapes[name], dtype) for name, case in cases.items()}
    with ThreadPoolExecutor(2) as pool:  # compilers and the counting process are processes, so threads do
        counts = pool.submit(_counts, wanted, programs, note)
        launched = dict.fromkeys(_described(event) for found in seen.values() for d in found for event in _launches(d))
        jobs = [(launch, arch) for launch in launched for arch in arches]

        def compile_one(job: tuple[Launch, str]) -> Compiled | Exception:
            try:
                return compiled(job[0], TARGETS[job[1]])
            except Exception as error:  # whatever the compiler raises is the finding
                return error
            finally:
                note()

        results = dict(zip(jobs, pool.map(compile_one, jobs), strict=True))
        counted = {(c.case, c.direction): c for c in counts.result()}
    rows = []
    for name, (_, at, _) in zip(names, wanted, strict=True):
        alike = _kinds(seen[name] if at == shapes[name] else _seen(name, cases[name], at, dtype))
        for direction in seen[name]:
            row = _row(name, shapes[name], dtype, direction, counted[name, direction.name], results, arches)
            for kernel, event in zip(row.kernels, (e for e in _launches(direction) for _ in arches), strict=True):
                if _kind(event) not in alike:
                    kernel.narrow = []  # sizes that 16 does not divide: what was counted does not say how this lies
            row.problems = problems(row)
            rows.append(row)
    return rows


def _seen(name: str, case: Case, shape: tuple[int, ...], dtype: torch.dtype) -> list[Direction]:
    """What a case does, before anything is compiled or counted: not every case takes a shape that somebody asks for."""
    try:
        return watched(case, shape, dtype)
    except Exception as error:  # whatever the operator says of it
        raise UnfitShape(f"inspect: {name} does not take the shape {list(shape)}: {error}") from error


def _launches(direction: Direction) -> list[Event]:
    return [event for event in direction.events if event.kernel is not None]


def _kind(event: Event) -> tuple[str, frozenset[str]]:
    """A kernel, and which of its arguments are multiples of 16."""
    return event.name, _described(event).aligned


def _kinds(directions: Sequence[Direction]) -> set[tuple[str, frozenset[str]]]:
    return {_kind(event) for direction in directions for event in _launches(direction)}


def inspected_shape(case: Case) -> tuple[int, ...]:
    return tuple((case.bench or case.shapes)[-1])


def _countable(case: Case, shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape if math.prod(shape) <= counting.LARGE else counting.counting_shape(case)


def _described(event: Event) -> Launch:
    return described(event.kernel, event.args, event.meta)


def _row(
    name: str,
    shape: tuple[int, ...],
    dtype: torch.dtype,
    direction: Direction,
    count: DirectionCount,
    results: dict[tuple[Launch, str], Compiled | Exception],
    arches: Sequence[str],
) -> Row:
    pairs = list(_paired(direction.events, count))
    scales = [_scale(event, launch) for event, launch in pairs]
    by_bytes = [launch.traffic() * scale for (_, launch), scale in zip(pairs, scales, strict=True)]
    total, flops = sum(by_bytes), sum(launch.flops * s for (_, launch), s in zip(pairs, scales, strict=True))
    matrix: dict[str, float] = {}
    for (_, launch), scale in zip(pairs, scales, strict=True):
        for how, amount in launch.matrix.items():
            matrix[how] = matrix.get(how, 0.0) + amount * scale
    kernels = [
        _kernel_row(event, launch, arch, results[_described(event), arch])
        for event, launch in pairs
        if event.kernel is not None
        for arch in arches
    ]
    share = count.between / max(1.0, count.counted())
    return Row(
        name, direction.name, list(shape), count.dtype, count.shape, count.exact,
        sum(event.kernel is not None for event in direction.events),
        [event.name for event in direction.events if event.kernel is None],
        (total - share * total) / count.ratio() if count.ratio() else 0.0, total, count.ratio(), share * total,
        flops, sum(matrix.values()),
        {card: roofline(c, total, flops, matrix, dtype == torch.float64) for card, c in CARDS.items()},
        kernels,
    )  # fmt: skip


def _paired(events: Sequence[Event], count: DirectionCount) -> list[tuple[Event, LaunchCount]]:
    """Each event beside what was counted of it: the next of its name, else the last. What was not launched at the
    counted shape (on a CPU torch multiplies) is taken to read each of its operands once, of unknown width."""
    left = list(count.launches)
    by_name = {launch.kernel: launch for launch in left}
    found = []
    for event in events:
        at = next((i for i, launch in enumerate(left) if launch.kernel == event.name), None)
        launch = left.pop(at) if at is not None else by_name.get(event.name)
        if launch is None:
            sizes = {name: nbytes(t) for name, t in event.reads.items()}
            operands = {name: counting.Traffic(n, loaded=n, narrow=n) for name, n in sizes.items()}
            launch = LaunchCount(event.name, event.kernel is not None, operands)
        found.append((event, launch))
    return found


def _scale(event: Event, launch: LaunchCount) -> float:
    """From the shape that was counted at to the shape of the event: by the operands' bytes."""
    counted = sum(t.size for t in launch.operands.values())
    return sum(nbytes(t) for t in {**event.reads, **event.writes}.values()) / counted if counted else 1.0


def _kernel_row(event: Event, launch: LaunchCount, arch: str, result: Compiled | Exception) -> KernelRow:
    numbers: dict[str, object] = {name: value for name, value in event.meta.items() if isinstance(value, int | str)}
    row = KernelRow(event.name, arch, math.prod(event.grid), numbers)
    if isinstance(result, Exception):
        row.error = f"{type(result).__name__}: {result}"
        return row
    row.registers, row.spills, row.shared, row.warps = result.registers, result.spills, result.shared, result.warps
    row.occupancy, row.limit = result.occupancy
    row.matrix = dict(result.matrix)
    for access in result.accesses:
        row.widths[access.operand] = max(row.widths.get(access.operand, 0), access.width)
    row.narrow = [
        name
        for name, t in launch.operands.items()
        if (total := t.loaded + t.stored) and t.narrow < (1 - WHOLE) * total and t.few < (1 - WHOLE) * total
        if row.widths.get(name, WIDE) < WIDE
    ]
    return row


def problems(row: Row) -> list[str]:
    """What exceeds the budgets (trident/cases/budgets.py)."""
    found = []
    timed = bool(counting.find(row.case).bench)  # others are counted at the small, odd shapes of the tests
    for k in row.kernels:
        what = f"{row.case} {row.direction}: {k.kernel} for {k.arch}"
        if k.error:
            found.append(f"{what}: {k.error}")
        if k.spills > (most := budgets.spills(row.case, k.kernel, k.arch)) and row.dtype != "float64":
            found.append(f"{what}: {k.spills} registers spilled, budget {most}")
        found += [
            f"{what}: {operand} is accessed in {k.widths[operand]} bytes, where 16 could be"
            for operand in k.narrow
            if timed
        ]
    if timed and row.ratio > (most_bytes := budgets.ratio(row.case, row.direction, row.dtype)):
        found.append(f"{row.case} {row.direction}: {row.ratio:.3f} of the compulsory bytes, budget {most_bytes}")
    return found


# -- counts are kept: the same sources count the same


COUNTED = ("cases/*.py", "lang/*.py", "ops/*.py", "runtime/*.py", "inspect/counting.py", "inspect/watch.py")


@functools.cache
def _sources() -> str:
    """A hash of what counts depend on."""
    digest = hashlib.sha256(torch.__version__.encode())
    root = Path(trident.__file__).parent
    for path in sorted(path for pattern in COUNTED for path in root.glob(pattern)):
        if path.name != "budgets.py":
            digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _kept(wanted: Wanted, programs: int) -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "trident" / "inspect"
    name, shape, dtype = wanted
    return folder / f"{_sources()}-{name}-{'x'.join(map(str, shape))}-{dtype}-{programs}.json"


def _counts(wanted: Sequence[Wanted], programs: int, note: Callable[[], None]) -> list[DirectionCount]:
    found: list[DirectionCount] = []
    missing = []
    for one in wanted:
        path = _kept(one, programs)
        if path.exists() and ":" not in one[0]:  # other people's sources are not in the hash
            found += [counting.revived(entry) for entry in json.loads(path.read_text())]
            note()
        else:
            missing.append(one)
    if missing:
        for one, fresh in zip(missing, counting.count(missing, programs), strict=True):
            path = _kept(one, programs)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps([asdict(c) for c in fresh]))
            found += fresh
            note()
    return found
