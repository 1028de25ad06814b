"""Launch shapes: every block size, warp count and program count of the library, per device, with its reason."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch


class Plan(NamedTuple):
    """How a kernel is launched: `launch(kernel, plan.grid, ..., **plan.meta)`."""

    grid: tuple[int, ...]
    meta: dict[str, int]


TRACED = Plan((1,), {})


def heuristic(fn: Callable[..., Plan]) -> Callable[..., Plan]:
    """Cache a heuristic by its sizes. While torch.compile traces symbolic sizes nothing is launched, so any plan does:
    asking `fn` would specialize the graph on those sizes (and sympy takes minutes over a next_power_of_2)."""
    cached = functools.lru_cache(maxsize=4096)(fn)

    @functools.wraps(fn)
    def plan(*args: object) -> Plan:
        if any(isinstance(a, torch.SymInt) for a in args):
            return TRACED
        return cached(*args)

    return plan


def power_of_2(n: int) -> int:
    """The least power of two that is not less than n (1 for n < 1)."""
    return 1 << max(0, n - 1).bit_length()


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


@functools.lru_cache
def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


@heuristic
def flat(n: int, device: torch.device) -> Plan:
    """One program per BLOCK elements of a flat tensor."""
    if device.type == "cuda":
        block = 1024  # 8 elements a thread: two 16-byte loads of float32 in flight, one of bfloat16
        return Plan((cdiv(n, block),), {"BLOCK": block, "num_warps": 4})
    # a program costs a few hundred ns of index arithmetic; 16k elements hide it and stay in the L1/L2 caches
    block = min(16384, max(256, power_of_2(n)))
    return Plan((cdiv(n, block),), {"BLOCK": block})


LONGEST_ROW = 32768  # elements of a row that one program holds at once: 64 a thread with 16 warps; longer rows loop


@heuristic
def long_rows(M: int, N: int, device: torch.device) -> Plan:
    """One program per row, walking over it in chunks of BLOCK_N: for rows longer than LONGEST_ROW."""
    return Plan((M,), {"BLOCK_N": 8192, **({"num_warps": 16} if device.type == "cuda" else {})})


def _row_meta(M: int, N: int, device: torch.device) -> dict[str, int]:
    """Whole rows per program; narrow rows share one until it holds about 4096 (CPU: 16384) elements."""
    block_n = power_of_2(N)
    if device.type == "cuda":
        block_m = max(1, min(16, 4096 // block_n))
        return {"BLOCK_M": block_m, "BLOCK_N": block_n, "num_warps": min(16, max(4, block_m * block_n // 1024))}
    return {"BLOCK_M": max(1, min(64, 16384 // block_n, power_of_2(M))), "BLOCK_N": block_n}


@heuristic
def rows(M: int, N: int, device: torch.device) -> Plan:
    """One program per BLOCK_M whole rows of [M, N]."""
    meta = _row_meta(M, N, device)
    return Plan((cdiv(M, meta["BLOCK_M"]),), meta)


@heuristic
def row_groups(M: int, N: int, device: torch.device) -> Plan:
    """Few programs, each walking over many tiles of rows: for kernels that sum over M into one partial per program."""
    meta = _row_meta(M, N, device)
    # GPU: 4 programs per multiprocessor fill it. CPU: a fixed count, so that sums do not depend on the thread count
    most = 4 * multiprocessors(device) if device.type == "cuda" else 16
    return Plan((min(most, cdiv(M, meta["BLOCK_M"])),), meta)


@heuristic
def flat_groups(n: int, device: torch.device) -> Plan:
    """Few programs, each walking over many blocks of a flat tensor: for sums with one partial per program."""
    if device.type == "cuda":
        plan = flat(n, device)
        return Plan((min(8 * multiprocessors(device), plan.grid[0]),), plan.meta)
    # 4096 sums in float32 stay in the L1 cache; a fixed count, so that sums do not depend on the thread count
    return Plan((min(16, cdiv(n, 4096)),), {"BLOCK": 4096})


@heuristic
def bands(M: int, N: int, by_row: bool, device: torch.device) -> Plan:
    """[M, N] in bands of rows (else of columns): grid (bands, programs that share a band and walk along it)."""
    tile = 2048 if device.type == "cuda" else 16384  # GPU: 16 elements a thread, two 16-byte loads in flight
    block_n = min(power_of_2(N), tile)
    block_m = min(power_of_2(M), tile // block_n)
    count, steps = cdiv(M, block_m), cdiv(N, block_n)
    if not by_row:
        count, steps = steps, count
    # GPU: 8 programs per multiprocessor fill it. CPU: a fixed count, so that sums do not depend on the thread count
    most = 8 * multiprocessors(device) if device.type == "cuda" else 16
    meta = {"BLOCK_M": block_m, "BLOCK_N": block_n, **({"num_warps": 4} if device.type == "cuda" else {})}
    return Plan((count, max(1, min(steps, most // count))), meta)


def faster_in_torch(name: str, executor: str, numel: int) -> str | None:
    """The measured reason (docs/measured.md) to prefer torch's operator for an input of `numel` elements, or None."""
    least = FEWEST_ELEMENTS.get((executor, name))
    if least is not None and numel < least:
        return f"faster in torch below {least} elements"
    return None


# (executor, operator) -> the size below which torch's operator was measured faster
FEWEST_ELEMENTS: dict[tuple[str, str], int] = {}
