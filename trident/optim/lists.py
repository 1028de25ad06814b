"""Lists of tensors: which of them a kernel takes, and one launch for all that are alike (docs/decisions/036)."""

import importlib
import itertools
import operator
import struct
from array import array
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trident.optim import rules
from trident.runtime import route, tuning
from trident.runtime.launch import executor, launch

PLAIN_TYPES = frozenset((torch.nn.Parameter, Tensor))
STRIDED = {torch.strided}
LAYOUT, DTYPE, DEVICE = map(operator.attrgetter, ("layout", "dtype", "device"))
NUMBERS = len(rules.NUMBERS)
Row = tuple[Tensor, ...]  # what a rule reads of one parameter: itself, its gradient, its states
Kind = tuple[object, ...]  # rows of one kind fit into one launch


def refuses() -> str | None:
    """Why no kernel may run now, whatever the tensors are."""
    if route.policy == "torch":
        return "TRIDENT_ROUTE=torch"
    if torch.compiler.is_compiling():
        return "torch.compile"
    if torch._C._len_torch_dispatch_stack():
        return "a dispatch mode watches"
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        return "captured into a graph"
    return None


def local(row: Sequence[Tensor]) -> Sequence[Tensor] | None:
    """This process's shards of a row of DTensors that are spread alike; None for anything else that is not plain.

    What is done element by element to whole tensors is done to their shards, if none of them is a sum yet to be made.
    """
    distributed = importlib.import_module("torch.distributed.tensor") if torch.distributed.is_available() else None
    if distributed is None or not all(isinstance(t, distributed.DTensor) for t in row):
        return None
    first: Any = row[0]
    for t in row:
        spread: Any = t
        if spread.device_mesh != first.device_mesh or spread.placements != first.placements or t.shape != first.shape:
            return None
    if any(placement.is_partial() for placement in first.placements):
        return None
    return [t.to_local() for t in row]  # type: ignore[attr-defined]


def kind(row: Sequence[Tensor]) -> Kind | str:
    """What rows must have in common to fit into one launch; or the reason why this one goes to torch."""
    first = row[0]
    device, contiguous, dtypes = first.device, True, []
    for t in row:
        if type(t) not in PLAIN_TYPES:
            return f"{type(t).__name__} is not a plain tensor"
        if t.layout is not torch.strided:
            return f"no kernel for {t.layout}"
        if t.device != device:
            return "tensors on several devices"
        dtypes.append(t.dtype)
        contiguous &= t.is_contiguous()
    if not contiguous:
        if any(t.stride() != first.stride() or t.shape != first.shape for t in row):
            return "tensors that lie differently in memory"
        if torch.empty_like(first, device="meta").stride() != first.stride():  # it keeps those of dense tensors
            return "a tensor with gaps"
    if any(dtype not in route.HALF_TO_DOUBLE for dtype in dtypes):
        return f"no kernel for {next(dtype for dtype in dtypes if dtype not in route.HALF_TO_DOUBLE)}"
    if row[-1].is_neg() or first.is_neg() or (len(row) > 1 and row[1].is_neg()):
        return "a lazily negated tensor"
    if executor(device.type) not in ("native", "gpu", "interpreter"):
        return f"no executor for {device.type}"
    return (device, *dtypes)


class Taken(NamedTuple):
    """Rows of one kind, and for each what the caller holds beside it."""

    rows: Sequence[Row]
    beside: Sequence[tuple[Any, ...]]


def alike(lists: Sequence[Sequence[Tensor]]) -> bool:
    """Are all rows of one kind that a kernel takes? What `kind` asks of one row, asked of all at once: loops in C."""
    flat = [*itertools.chain.from_iterable(lists)]
    return (
        PLAIN_TYPES.issuperset(map(type, flat))
        and {*map(LAYOUT, flat)} == STRIDED
        and len({*map(Tensor.get_device, flat)}) == 1
        and all(len({*map(DTYPE, column)}) == 1 for column in lists)
        and all(map(Tensor.is_contiguous, flat))
        and not any(map(Tensor.is_neg, flat))
        and len({*map(DEVICE, lists[0])}) == 1
        and not isinstance(kind([column[0] for column in lists]), str)
    )


def take(
    name: str,
    reason: str | None,
    lists: Sequence[list[Any]],
    beside: Sequence[list[Any]] = (),
    shards: bool = True,
) -> Iterable[Taken]:
    """Take out of `lists` (as torch's `_init_group` fills them: one tensor of each for a parameter) the parameters that
    kernels step, by their kinds. What stays in the lists, and in those beside them, is torch's.

    reason: why all of them are, if the caller found one. shards: what is done to a tensor may be done to its shards.
    """
    if not lists[0]:
        return ()
    reason = reason or refuses()
    if reason is None and not route.WATCHERS and alike(lists):
        taken = Taken([*zip(*lists, strict=True)], [*zip(*beside, strict=True)])
        for column in (*lists, *beside):
            column.clear()
        return (taken,)
    return _sorted(name, reason, lists, beside, shards)


def _sorted(
    name: str, reason: str | None, lists: Sequence[list[Any]], beside: Sequence[list[Any]], shards: bool
) -> Iterable[Taken]:
    """`take`, row by row."""
    found: dict[Kind, Taken] = {}
    rest = []
    for i, row in enumerate(zip(*lists, strict=True)):
        answer = reason or kind(row)
        if reason is None and shards and type(row[0]) not in PLAIN_TYPES and (parts := local(row)) is not None:
            row = tuple(parts)
            answer = kind(row)
        why = answer if isinstance(answer, str) else None
        for watcher in route.WATCHERS:
            watcher(name, row, why)
        if isinstance(answer, str):
            rest.append(i)
            continue
        taken = found.setdefault(answer, Taken([], []))
        taken.rows.append(row)  # type: ignore[attr-defined]
        taken.beside.append(tuple(column[i] for column in beside))  # type: ignore[attr-defined]
    for column in (*lists, *beside):
        column[:] = [column[i] for i in rest]
    return found.values()


# -- launches


class Table(NamedTuple):
    """What kernels know of a list of rows: addresses and sizes, and the chunks that programs work on."""

    addresses: Tensor  # [rows, tensors of a row + 1]
    chunks: Tensor  # [programs, 2]
    aligned: bool  # every address to 16 bytes


def current_stream(device: torch.device) -> int:
    """Of which cached tables are: on another one a copy to the device may not have been made yet."""
    return torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0


@lru_cache(maxsize=256)
def _chunks(sizes: tuple[int, ...], chunk: int, device: torch.device, stream: int) -> Tensor:
    numels = torch.tensor(sizes, device="cpu")
    programs = (numels + chunk - 1) // chunk
    rows = torch.repeat_interleave(torch.arange(len(sizes), device="cpu"), programs)
    first = (programs.cumsum(0) - programs)[rows]
    return torch.stack([rows, (torch.arange(len(rows), device="cpu") - first) * chunk], 1).to(device)


@lru_cache(maxsize=64)
def addresses(content: bytes, device: torch.device, stream: int) -> Tensor:
    """The table on its device. Cached: a step's tensors are mostly where they were in the step before."""
    return torch.frombuffer(bytearray(content), dtype=torch.int64).to(device)


def table(rows: Sequence[Row], width: int, chunk: int) -> Table:
    """Of rows of one kind, each of at most `width` tensors."""
    device = rows[0][0].device
    columns = [[*map(Tensor.data_ptr, column)] for column in zip(*rows, strict=True)]
    sizes = (*map(Tensor.numel, next(zip(*rows, strict=True))),)
    missing = [[0] * len(rows)] * (width - len(columns))
    content = array("q", itertools.chain.from_iterable(zip(*columns, *missing, sizes, strict=True)))
    aligned = device.type == "cuda" and not any(at % 16 for column in columns for at in column)
    stream = current_stream(device)
    return Table(addresses(content.tobytes(), device, stream), _chunks(sizes, chunk, device, stream), aligned)


@cache
def sanitizing(device_type: str) -> bool:
    """Are accesses checked there? Then each tensor has to be an argument of the launch."""
    return executor(device_type) == "native" and importlib.import_module("trident_cpu.compiler").sanitizing()


def step(rule: Any, rows: Sequence[Row], numbers: Sequence[float]) -> None:
    """`rule` (of rules.py) on rows of one kind, with the numbers of the step, in place."""
    device = rows[0][0].device
    meta = tuning.lists(device).meta
    s = struct.unpack(f"<{NUMBERS}q", struct.pack(f"<{NUMBERS}d", *numbers, *(0.0,) * (NUMBERS - len(numbers))))
    absent = (None,) * (4 - len(rows[0]))
    if sanitizing(device.type):
        for row in rows:
            grid = (tuning.cdiv(row[0].numel(), meta["CHUNK"]),)
            launch(rules.tensor_kernel, grid, *row, *absent, row[0].numel(), *s, RULE=rule, **meta)
        return
    lists = table(rows, 4, meta["CHUNK"])
    grid = (lists.chunks.shape[0],)
    launch(
        rules.list_kernel, grid, lists.addresses, lists.chunks, *rows[0], *absent, *s,
        RULE=rule, ALIGNED=lists.aligned, **meta,
    )  # fmt: skip
