"""The host's side of TRIDENT_CPU_SANITIZE=1: which storages a launch may touch, and fresh memory made recognisable.

Compiled code checks every access against a table of the arguments' storages (`emit/guard.py`). To find reads of what
nothing wrote, memory that `torch.empty` and its kin hand out is filled with a pattern that real data never hold; a
load that meets it is reported. Whatever writes over it, a kernel or a torch operator, thereby marks it as written.
"""

from __future__ import annotations

import ctypes
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

from trident_cpu.arguments import Slot
from trident_cpu.emit.guard import CANARY
from trident_cpu.faults import Report

_launch = threading.local()  # arguments and slots of this thread's running launch


def remember(names: Sequence[str], arguments: Sequence[Any]) -> None:
    """Keep the arguments of the launch that this thread is about to make."""
    _launch.names, _launch.arguments = names, arguments


def _tensors(slots: Sequence[Slot]) -> list[tuple[str, Any]]:
    """(name, tensor) of each slot; None for slots that hold no pointer."""
    found = []
    for slot in slots:
        name, value = _launch.names[slot.path[0]], _launch.arguments[slot.path[0]]
        for step in slot.path[1:]:
            if hasattr(value, "base") and not isinstance(value, tuple):  # a host tensor descriptor
                value = value.base
                break
            value, name = value[step], f"{name}[{step}]"
        if hasattr(value, "base") and not hasattr(value, "untyped_storage"):  # a tensor under another dtype
            value = value.base
        found.append((name, value if slot.type.startswith("*") else None))
    return found


def report(slots: Sequence[Slot]) -> Report:
    """A record whose table holds (first, past-the-end) addresses of each parameter's storage."""
    _launch.tensors = _tensors(slots)
    table = (ctypes.c_int64 * (1 + 2 * len(slots)))(len(slots))
    for at, (_, tensor) in enumerate(_launch.tensors):
        if tensor is not None:
            storage = tensor.untyped_storage()
            table[1 + 2 * at] = storage.data_ptr()
            table[2 + 2 * at] = storage.data_ptr() + storage.nbytes()
    record = Report()
    record.table = table
    record[4] = ctypes.addressof(table)
    return record


def locate(address: int, root: int) -> tuple[str | None, int | None, str]:
    """(argument, offset in elements, words for both) of an address in the launch that has just ended.

    `root`: the parameter it was computed from, or negative if the compiler could not tell.
    """
    tensors = [(name, t) for name, t in _launch.tensors if t is not None]
    chosen = _launch.tensors[root] if root >= 0 else None
    if chosen is None:
        holds = [(name, t) for name, t in tensors if _bounds(t)[0] <= address < _bounds(t)[1]]
        if not holds:
            return None, None, f"at {address:#x}, which is in no argument's storage"
        chosen = holds[0]
    name, tensor = chosen
    if tensor is None:
        return name, None, f"through argument {name!r}, which is no tensor"
    begin, end = _bounds(tensor)
    offset, width = (address - tensor.data_ptr()) // tensor.element_size(), tensor.element_size()
    place = f"at element {offset} of argument {name!r}"
    if not begin <= address < end:
        limits = f"elements {(begin - tensor.data_ptr()) // width} to {(end - tensor.data_ptr()) // width - 1}"
        place += f", whose storage holds {limits}"
    return name, offset, f"{place} ({str(tensor.dtype).removeprefix('torch.')}, shape {tuple(tensor.shape)})"


def _bounds(tensor: Any) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.data_ptr() + storage.nbytes()


# -- fresh memory


def poison(tensor: Any) -> Any:
    """Fill a tensor's storage with the pattern, if it is plain CPU memory; returns the tensor."""
    import torch

    if type(tensor) is torch.Tensor and tensor.device.type == "cpu" and tensor.layout is torch.strided:
        storage = tensor.untyped_storage()
        if storage.nbytes() >= 2:
            halves = torch.tensor([], dtype=torch.int16, device=tensor.device).set_(
                storage, 0, (storage.nbytes() // 2,), (1,)
            )
            halves.fill_(CANARY)
    return tensor


@functools.cache
def watch_fresh_memory() -> None:
    """From now on torch.empty and its kin return poisoned memory; done once, when the first sanitised kernel is met."""
    import torch
    from torch.utils import _device

    _device._device_constructors()  # `torch.device` makes this list once, and looks functions up by identity

    def poisoned(allocate: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(allocate)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            tensor = allocate(*args, **kwargs)
            return tensor if torch.compiler.is_compiling() else poison(tensor)

        return wrapper

    for home, name in (
        (torch, "empty"), (torch, "empty_like"), (torch, "empty_strided"), (torch.Tensor, "new_empty"),
        (torch.Tensor, "new_empty_strided"),
    ):  # fmt: skip
        setattr(home, name, poisoned(getattr(home, name)))
