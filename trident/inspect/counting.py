"""Bytes and operations that the kernels of an operator ask for, counted while Triton's interpreter runs them.

Kernels have the tiles, masks and grids that `tuning` plans for a GPU. The interpreter is slow, so of a grid with more
than `PER_LAUNCH` programs that many are run, spread evenly, and stand for the others (all, where a launch has no
more). Runs in a process with TRITON_INTERPRET=1, which `count` starts.
"""

import contextlib
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch

from trident.cases import CASES, Case
from trident.inspect.watch import Direction, Event, nbytes, storage, watched
from trident.runtime.interpreter import mend

Wanted = tuple[str, Sequence[int], str]  # a case, the shape of its input, a dtype
PER_LAUNCH = 32  # programs of a grid that are run
ACCESSES = 256  # ... fewer where they do much: about so many loads and stores of tiles in all,
FEWEST = 4  # but so many at least
SEGMENT = 16  # bytes that a thread can read at once
LARGE = 1 << 23  # elements of the largest input that is made to count


@dataclass
class Traffic:
    """What a launch does to one operand, in bytes."""

    size: int
    loaded: float = 0.0
    stored: float = 0.0
    narrow: float = 0.0  # of these: bytes that no thread can access 16 at a time, see `_aligned`
    few: float = 0.0  # of these: bytes of accesses that have less than 16 for each thread


@dataclass
class LaunchCount:
    kernel: str  # or the operator of torch
    ours: bool
    operands: dict[str, Traffic]
    flops: float = 0.0
    matrix: dict[str, float] = field(default_factory=dict)  # how matrix units multiply -> flop

    def traffic(self) -> float:
        """Bytes of memory: small operands (weights, statistics) stay in a cache and come from memory once."""
        large = max((t.size for t in self.operands.values()), default=0)
        total = 0.0
        for t in self.operands.values():
            small = t.size * 16 <= large
            total += sum(min(way, t.size) if small else way for way in (t.loaded, t.stored))
        return total


@dataclass
class DirectionCount:
    case: str
    direction: str
    shape: list[int]
    dtype: str
    launches: list[LaunchCount]
    compulsory: int  # bytes: each input that is read, once, and each result, once
    between: float  # bytes of partial results that one of our kernels hands to a later kernel
    exact: bool  # every program was run

    def counted(self) -> float:
        return sum(launch.traffic() for launch in self.launches)

    def ratio(self) -> float:
        """Counted over compulsory bytes, less what partial results cost."""
        return (self.counted() - self.between) / max(1, self.compulsory)


class Meter:
    """Counts the accesses and operations of the launch that is running."""

    def __init__(self, programs: int) -> None:
        self.programs, self.accesses_most = programs, ACCESSES * programs // PER_LAUNCH
        self.accesses = 0  # of the programs that ran last
        self.launch: LaunchCount | None = None
        self.ranges: list[tuple[int, int, str]] = []
        self.threads = 128
        self.scale = 1.0
        self.exact = True

    def run(self, event: Event) -> None:
        """Run a launch, or a sample of its programs, and attach what was counted."""
        operands = {name: Traffic(nbytes(t)) for name, t in event.reads.items()}
        self.launch = LaunchCount(event.name, True, operands)
        tensors = [(name, t) for name, t in event.reads.items() if t.numel()]
        self.ranges = [(t.data_ptr(), t.data_ptr() + _extent(t), name) for name, t in tensors]
        self.threads = 32 * event.meta.get("num_warps", 4)
        grid = (*event.grid, 1, 1)[:3]
        count = math.prod(grid)
        chosen = [(nth, 1.0) for nth in range(count)]
        if count > FEWEST:
            self._programs(event, grid, [(count // 2, 0.0)])  # a look at one: how much does it do?
            chosen = sample(count, min(self.programs, max(FEWEST, self.accesses_most // max(1, self.accesses))))
        self.exact &= len(chosen) == count
        self._programs(event, grid, chosen)
        event.counted, self.launch = self.launch, None

    def _programs(self, event: Event, grid: tuple[int, ...], chosen: Sequence[tuple[int, float]]) -> None:
        """Run programs of a grid, (number, what it counts for) each."""
        from triton.runtime.interpreter import interpreter_builder as builder

        def place(x: int, y: int, z: int) -> None:
            nth, self.scale = chosen[x]
            builder.grid_idx = nth // (grid[1] * grid[2]), nth // grid[2] % grid[1], nth % grid[2]

        self.accesses = 0
        with (
            mock.patch.object(builder, "set_grid_dim", lambda *_: setattr(builder, "grid_dim", grid)),
            mock.patch.object(builder, "set_grid_idx", place),
        ):
            event.kernel[(len(chosen),)](*event.args, **event.meta)

    def access(self, way: str, pointers: Any, mask: Any) -> None:
        """Lanes at `pointers`, where `mask`: distinct bytes, as lanes of one access that read the same ask once."""
        assert self.launch is not None
        self.accesses += 1
        lanes = pointers.data.astype(np.int64, copy=False)
        active = np.broadcast_to(mask.data, lanes.shape)
        at = lanes[active]
        if not at.size:
            return
        steps = np.diff(at)
        if (steps <= 0).any():
            at = np.unique(at)
        width = _width(pointers)
        name = next((name for begin, end, name in self.ranges if begin <= at[0] < end), None)
        if name is None:
            raise IndexError(f"{self.launch.kernel}: an access at {at[0]:#x}, in no argument's memory")
        traffic, total = self.launch.operands[name], at.size * width * self.scale
        setattr(traffic, way, getattr(traffic, way) + total)
        if lanes.size * width < SEGMENT * self.threads:
            traffic.few += total
        traffic.narrow += total * (1 - _aligned(lanes, active, width))

    def operations(self, count: float, how: str = "") -> None:
        if self.launch is None:
            return
        if how:
            self.launch.matrix[how] = self.launch.matrix.get(how, 0.0) + count * self.scale
        else:
            self.launch.flops += count * self.scale


def sample(count: int, programs: int) -> list[tuple[int, float]]:
    """(number, weight) of programs spread evenly over a grid; the last, which may do less, stands for itself."""
    if programs >= count:
        return [(nth, 1.0) for nth in range(count)]
    spread = np.linspace(0, count - 2, programs - 1).astype(int)
    return [*((int(nth), (count - 1) / (programs - 1)) for nth in spread), (count - 1, 1.0)]


def _aligned(at: np.ndarray, active: np.ndarray, width: int) -> float:
    """The share of a tile's active lanes that neighbours along one of its axes make whole, aligned segments with: from
    the first lane on, as a thread would hold them. Others, as of rows of odd length, no hint can make one access."""
    group, most = SEGMENT // width, 0
    for axis in range(at.ndim):
        if at.shape[axis] % group == 0:
            lanes, exist = (np.moveaxis(a, axis, -1).reshape(-1, group) for a in (at, active))
            whole = exist.all(1) & (lanes[:, 0] % SEGMENT == 0) & (np.diff(lanes, axis=1) == width).all(1)
            most = max(most, int(whole.sum()) * group)
    return most / int(active.sum())


def _extent(t: torch.Tensor) -> int:
    return (sum((n - 1) * s for n, s in zip(t.shape, t.stride(), strict=True)) + 1) * t.element_size()


def _width(pointers: Any) -> int:
    return max(1, pointers.get_element_ty().primitive_bitwidth // 8)


ONE_OPERATION = (
    *("create_fadd", "create_fsub", "create_fmul", "create_fdiv", "create_precise_divf", "create_approx_divf"),
    *("create_exp", "create_exp2", "create_log", "create_log2", "create_sqrt", "create_precise_sqrt", "create_rsqrt"),
    *("create_erf", "create_sin", "create_cos", "create_minimumf", "create_maximumf", "create_minnumf"),
    *("create_maxnumf", "create_clampf"),
)


@contextlib.contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """Within the block every program that Triton's interpreter runs is counted by `meter`."""
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder

    def noting(method: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            note(*args)
            return method(*args, **kwargs)

        return noted

    def dot(a: Any, b: Any, d: Any, precision: Any, *_: Any) -> None:
        how = "half" if a.dtype.primitive_bitwidth == 16 else str(precision).rsplit(".", 1)[-1].lower()
        meter.operations(2.0 * a.data.size * b.data.shape[-1], how)

    def elementwise(*operands: Any) -> None:
        meter.operations(max(o.data.size for o in operands if hasattr(o, "data")))

    notes: dict[str, Callable[..., None]] = {
        **dict.fromkeys(ONE_OPERATION, elementwise),
        "create_fma": lambda *operands: meter.operations(2 * max(o.data.size for o in operands)),
        "create_masked_load": lambda pointers, mask, *_: meter.access("loaded", pointers, mask),
        "create_masked_store": lambda pointers, value, mask, *_: meter.access("stored", pointers, mask),
        "create_atomic_rmw": lambda _op, pointers, _value, mask, *_: meter.access("stored", pointers, mask),
        "create_dot": dot,
    }
    reduced = interpreter.ReduceOps.apply_impl

    def reduce(self: Any, values: Any) -> Any:
        first = values[0] if isinstance(values, tuple) else values
        if self.combine_fn.fn.__module__ != "triton.language.standard":  # then the interpreter goes element by element
            meter.accesses += first.handle.data.size // 64
        if first.dtype.is_floating():
            meter.operations(first.handle.data.size)
        return reduced(self, values)

    mend()
    with contextlib.ExitStack() as patches:
        for name, note in notes.items():
            if hasattr(builder, name):
                patches.enter_context(mock.patch.object(builder, name, noting(getattr(builder, name), note)))
        patches.enter_context(mock.patch.object(interpreter.ReduceOps, "apply_impl", reduce))
        yield


def _of_torch(event: Event) -> LaunchCount:
    """An operator of torch reads its operands once and writes its results once."""
    operands = {name: Traffic(nbytes(t), loaded=nbytes(t)) for name, t in event.reads.items()}
    for name, t in event.writes.items():
        operands[name] = Traffic(nbytes(t), stored=nbytes(t))
    return LaunchCount(event.name, False, operands)


def summed(case: str, shape: Sequence[int], dtype: torch.dtype, direction: Direction, exact: bool) -> DirectionCount:
    """What was counted in one direction, and what could not be less."""
    results = {storage(t) for t in direction.results}
    made: dict[int, bool] = {}  # storages that this direction wrote -> by a kernel of ours
    compulsory: dict[int, float] = defaultdict(float)
    between = 0.0
    launches = []
    for event in direction.events:
        launch = event.counted or _of_torch(event)
        launches.append(launch)
        for name, t in {**event.reads, **event.writes}.items():
            traffic, place = launch.operands[name], storage(t)
            if traffic.loaded and place not in made:
                compulsory[place] = max(compulsory[place], min(traffic.size, traffic.loaded))
            elif traffic.loaded and made[place] and place not in results:
                between += traffic.loaded + traffic.size
            if traffic.stored:
                made.setdefault(place, launch.ours)
    least = sum(compulsory.values()) + sum({storage(t): nbytes(t) for t in direction.results}.values())
    return DirectionCount(
        case, direction.name, list(shape), str(dtype).removeprefix("torch."), launches, int(least), between, exact
    )


def counting_shape(case: Case) -> tuple[int, ...]:
    """The largest shape that a case is timed at and the interpreter gets through."""
    shapes = [tuple(s) for s in case.bench or case.shapes]
    return max((s for s in shapes if math.prod(s) <= LARGE), key=math.prod, default=shapes[0])


def count_case(
    name: str, case: Case, shape: Sequence[int], dtype: torch.dtype, programs: int = PER_LAUNCH
) -> list[DirectionCount]:
    """Forward and backward of a case. Only in a process with TRITON_INTERPRET=1."""
    torch.manual_seed(0)
    meter = Meter(programs)
    with metered(meter), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # of numpy over masked lanes
        found = watched(case, shape, dtype, "cpu", meter.run)
    return [summed(name, shape, dtype, direction, meter.exact) for direction in found]


def find(name: str) -> Case:
    """A case of Trident by its name, or anybody's as "module:NAME". KeyError, ModuleNotFoundError, AttributeError."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute) if attribute else CASES[name]


def count(wanted: Sequence[Wanted], programs: int = PER_LAUNCH) -> Iterator[list[DirectionCount]]:
    """Count cases in a process of their own: the directions of each of them, as they are done.

    Raises RuntimeError with that process's words where it fails.
    """
    work = json.dumps({"programs": programs, "wanted": [[name, list(shape), dtype] for name, shape, dtype in wanted]})
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from trident.inspect.counting import main; main()"]
    with tempfile.TemporaryFile("w+") as words:
        process = subprocess.Popen(
            command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=words
        )
        with process:
            assert process.stdin and process.stdout
            try:
                process.stdin.write(work)
                process.stdin.close()
                for line in process.stdout:
                    yield [revived(entry) for entry in json.loads(line)]
            except BaseException:
                process.kill()
                raise
        if process.returncode:
            words.seek(0)
            raise RuntimeError(f"counting failed:\n{words.read()}")


def revived(entry: dict[str, Any]) -> DirectionCount:
    launches = [
        LaunchCount(**{**one, "operands": {name: Traffic(**t) for name, t in one["operands"].items()}})
        for one in entry.pop("launches")
    ]
    return DirectionCount(**entry, launches=launches)


def main() -> None:
    work = json.load(sys.stdin)
    for name, shape, dtype in work["wanted"]:
        counts = count_case(name, find(name), shape, getattr(torch, dtype), work["programs"])
        print(json.dumps([asdict(c) for c in counts]), flush=True)
