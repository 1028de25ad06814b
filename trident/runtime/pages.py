"""Large results on CPUs: Linux is asked to back them by pages of 2 MB, which it then does in one fault each.

A result of 64 MB is new memory in every call, and 16,384 faults of 4 KB took three times as long as the kernel that
writes it (docs/measured.md). `TRIDENT_HUGE_PAGES=0` leaves memory as torch's allocator got it.
"""

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

FEWEST_ELEMENTS = 1 << 20  # of a tensor, below which a page of 2 MB is not worth a call (1 us)
PAGE = 1 << 21  # bytes; where pages are larger, as on some ARM systems, the kernel does what it can
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MADV_HUGEPAGE = 14  # linux/mman.h


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The system call, where it changes anything: not where such pages are always or never given."""
    if os.environ.get("TRIDENT_HUGE_PAGES") == "0" or not SETTING.exists() or "[madvise]" not in SETTING.read_text():
        return None
    call = ctypes.CDLL(None).madvise
    call.argtypes, call.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return call


def advise(t: Tensor) -> None:
    """Ask for large pages in the place of a dense tensor on a CPU: those that lie within it, so it grows by nothing.

    Advice: where the kernel does not take it, nothing is wrong, and nothing said.
    """
    call = _madvise()
    if call is None:
        return
    begin = t.data_ptr()
    first, past = -(-begin // PAGE) * PAGE, (begin + t.nbytes) // PAGE * PAGE
    if past > first:
        call(first, past - first, MADV_HUGEPAGE)
