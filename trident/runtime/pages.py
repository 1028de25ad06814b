"""Memory of results on CPUs: large ones ask Linux for pages of 2 MB, and what a step frees stays for the next step.

A result of 64 MB is new memory in every call, and 16,384 faults of 4 KB took three times as long as the kernel that
writes it (docs/measured.md). `TRIDENT_HUGE_PAGES=0` leaves memory as torch's allocator got it. Smaller ones malloc
serves from memory that it has, but gives the end of it back to the system whenever much is free there, as after every
backward, and the next step pays for each page anew: `keep` (docs/decisions/066).
"""

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from trident.runtime.exporting import surely
from trident.runtime.op import constant

FEWEST_ELEMENTS = 1 << 20  # of a tensor, below which a page of 2 MB is not worth a call (1 us)
LARGE = 1 << 25  # bytes of a tensor, from which on malloc maps new memory for each: faults then are most of a fast call
PAGE = 1 << 21  # bytes; where pages are larger, as on some ARM systems, the kernel does what it can
SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MADV_HUGEPAGE = 14  # linux/mman.h
KEPT = 1 << 30  # bytes that may be free before malloc gives any back; glibc's own limit is 64 MB at most
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
TUNABLES = ("trim_threshold", "mmap_threshold", "mmap_max", "top_pad")  # glibc's own names of what `keep` is about


@functools.cache
def _madvise() -> Callable[[int, int, int], int] | None:
    """The system call, where it changes anything: not where such pages are always or never given."""
    if os.environ.get("TRIDENT_HUGE_PAGES") == "0" or not SETTING.exists() or "[madvise]" not in SETTING.read_text():
        return None
    call = ctypes.CDLL(None).madvise
    call.argtypes, call.restype = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int), ctypes.c_int
    return call


@constant  # the setting is a file
def _given() -> bool:
    return _madvise() is not None


def large(t: Tensor) -> bool:
    """May a result like `t` cost so many faults that its pages matter, and can they be had?"""
    return not surely(t.numel() * t.itemsize < LARGE) and _given()


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


@functools.cache
def keep() -> bool:
    """Have malloc keep up to KEPT bytes that were freed, from now on in this process; has it been asked to?

    Not where somebody has told it otherwise, where it is not glibc's, or with `TRIDENT_KEEP_MEMORY=0`. What lies in
    mappings of its own (LARGE and more) is given back as ever.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    told = any(f"MALLOC_{name.upper()}_" in os.environ or f"malloc.{name}" in tunables for name in TUNABLES)
    if told or os.environ.get("TRIDENT_KEEP_MEMORY") == "0":
        return False
    if not hasattr(os, "confstr") or "CS_GNU_LIBC_VERSION" not in os.confstr_names:
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE) and mallopt(M_TRIM_THRESHOLD, KEPT))
