"""How many bytes does a call hold at most, above what was there before?"""

import contextlib
from collections.abc import Iterator

import torch

from trident.bench.timing import Call


def peak(call: Call, device: str) -> int | None:
    """On GPUs by torch's caching allocator, on CPUs from its profiler's record of allocations (which is private:
    None on a torch without it)."""
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        result = call()
        torch.cuda.synchronize()
        del result
        return torch.cuda.max_memory_allocated() - before
    changes: list[int] = []
    with _recorded(changes) as recorded:
        if not recorded:
            return None
        call()
    held = most = 0
    for change in changes:
        held += change
        most = max(most, held)
    return most


@contextlib.contextmanager
def _recorded(changes: list[int]) -> Iterator[bool]:
    """Bytes allocated (freed, where negative) within the block, one after the other. The legacy profiler writes
    nothing to the terminal, as Kineto does."""
    autograd = torch.autograd
    needed = "_enable_profiler_legacy", "_disable_profiler_legacy", "ProfilerConfig", "ProfilerState"
    if not all(hasattr(autograd, name) for name in needed):
        yield False
        return
    config = autograd.ProfilerConfig(
        autograd.ProfilerState.CPU,
        False,
        True,  # memory
        False,
        False,
        False,
        torch._C._profiler._ExperimentalConfig(),
    )
    autograd._enable_profiler_legacy(config)
    try:
        yield True
    finally:
        threads = autograd._disable_profiler_legacy()
        changes += [e.cpu_memory_usage() for thread in threads for e in thread if e.kind() == "memory_alloc"]
