"""What this machine can do at most: the rate of a copy, and of a matrix product. Measured in the run that uses them."""

import functools

import torch

from trident.bench.timing import CLOCKS, Timer, best

COPIED = {"cpu": 1 << 27, "cuda": 1 << 30}  # bytes: far past any cache
PRODUCT = {"cpu": 1024, "cuda": 8192}


def timer_of(device: str, clock: str) -> Timer:
    if device == "cuda":
        from trident.bench.gpu import events

        return events
    return CLOCKS[clock]


@functools.cache
def copy_rate(device: str, clock: str, threads: int) -> float:
    """Bytes per second, read and written, of torch's copy of a tensor far larger than the cache. An operator that
    mostly reads, or whose small output stays in the cache, may exceed it."""
    source = torch.ones(COPIED[device] // 4, device=device)
    target = torch.empty_like(source)
    return 2 * COPIED[device] / best(lambda: target.copy_(source), timer_of(device, clock), rounds=7)


@functools.cache
def product_rate(device: str, clock: str, threads: int, dtype: torch.dtype) -> float:
    """Operations per second of torch's matrix product in `dtype`, two for each multiply-add."""
    size = PRODUCT[device]
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    return 2 * size**3 / best(lambda: torch.mm(a, b, out=out), timer_of(device, clock), rounds=5)
