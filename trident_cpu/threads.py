"""Threads and their scratch memory: torch's OpenMP pool, torch's thread count, safe after fork."""

from __future__ import annotations

import ctypes
import functools
import mmap
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

_forked = False  # an OpenMP pool does not survive fork: its threads are gone, and the child would wait for them


def _after_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_after_fork)


@functools.cache
def gomp_parallel() -> int:
    """Address of GOMP_parallel in the OpenMP library that torch is linked with; 0 where there is none (serial)."""
    import torch

    library = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    try:
        # A lookup through a library's handle searches what that library depends on: exactly torch's own OpenMP,
        # whatever its file is called and however many others (numpy's, scikit-learn's) are loaded.
        function = ctypes.CDLL(str(library)).GOMP_parallel
    except (OSError, AttributeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


RETRY = (0.05, 2.0)  # seconds until larger teams are tried again: at first, and at most


@dataclass
class Limit:
    """Of the size of teams, while some of their threads are kept from running by other programs."""

    threads: int = 1 << 30
    until: float = 0.0  # then twice as many are tried
    pause: float = RETRY[0]  # doubles while that fails


limit = Limit()


def team_size() -> int:
    """How many threads a launch may use now: torch's number, 1 in a forked child or without OpenMP; fewer for a while
    after threads were missing."""
    import torch

    if _forked or not gomp_parallel():
        return 1
    size = torch.get_num_threads()
    if limit.threads >= size:
        return size
    now = time.monotonic()
    if now > limit.until:
        limit.threads, limit.until = 2 * limit.threads, now + limit.pause
    return min(size, limit.threads)


def missed(programs: int) -> None:
    """A launch of so many programs had to wait for a thread that others kept from running: halve the next teams.

    The wait is the scheduler's time slice, milliseconds, for a kernel of microseconds, and comes with every launch.
    """
    import torch

    now, team = time.monotonic(), min(limit.threads, torch.get_num_threads(), programs)
    again = now < limit.until + 2 * limit.pause
    limit.pause = min(2 * limit.pause, RETRY[1]) if again else RETRY[0]
    limit.threads, limit.until = max(1, team // 2), now + limit.pause


@functools.cache
def cache_bytes() -> int:
    """Size of the last-level cache: results larger than this are gone from it before anyone reads them."""
    try:
        text = Path("/sys/devices/system/cpu/cpu0/cache/index3/size").read_text().strip()
        return int(text[:-1]) << {"K": 10, "M": 20, "G": 30}[text[-1]]
    except (OSError, ValueError, KeyError, IndexError):  # hidden by a container, or not told
        return 32 << 20


class _Arena(threading.local):
    memory: mmap.mmap | None = None
    address = 0
    size = 0


_arena = _Arena()
_PAGE = mmap.PAGESIZE


def scratch(size: int) -> int:
    """Address of at least `size` bytes, page aligned, that belong to the calling Python thread until its next call."""
    if size > _arena.size:
        size = -(-size // _PAGE) * _PAGE
        memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        _arena.memory, _arena.size = memory, size
        _arena.address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    return _arena.address
