"""Launch shapes: every block size, warp count and program count of the library, per device, with its reason."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import SymInt

from trident.runtime.launch import INTERPRETED


class Plan(NamedTuple):
    """How a kernel is launched: `launch(kernel, plan.grid, ..., **plan.meta)`."""

    grid: tuple[int, ...]
    meta: dict[str, Any]
    loops: bool = False  # a row does not fit into a tile: the kernel walks over it in chunks of BLOCK_N
    ready: dict[int, Callable[..., None]] | None = None  # by a kernel's id: see `launch_planned`


TRACED = Plan((1,), {})


def heuristic(fn: Callable[..., Plan]) -> Callable[..., Plan]:
    """Cache a heuristic by its sizes. While torch.compile traces symbolic sizes nothing is launched, so any plan does:
    asking `fn` would specialize the graph on those sizes (and sympy takes minutes over a next_power_of_2)."""
    cached = functools.lru_cache(maxsize=4096)(lambda *args: fn(*args)._replace(ready={}))

    @functools.wraps(fn)
    def plan(*args: object) -> Plan:
        for a in args:  # any() of a generator takes 0.7 us, of a call of 10
            if type(a) is SymInt:
                return TRACED
        return cached(*args)

    return plan


def power_of_2(n: int) -> int:
    """The least power of two that is not less than n (1 for n < 1)."""
    return 1 << max(0, n - 1).bit_length()


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def aligned(n: int, device: torch.device) -> int:
    """ALIGN of a kernel with rows of n elements, an argument, for `lang.tile.multiple`: 4 or 8 where they divide n.
    Plans of rows and lines say it, of what is a row in memory: N elements, or `inner` where lines lie so far apart.

    1 elsewhere: Triton sees multiples of 16 itself, two elements are 16 bytes in float64 alone (fewer variants are
    compiled), and on CPUs vectors need not be aligned.
    """
    if device.type != "cuda" or type(n) is SymInt:
        return 1
    found = math.gcd(n, 16)
    return found if found in (4, 8) else 1


def all_aligned(device: torch.device, *numbers: int) -> tuple[int, ...] | None:
    """`aligned` of sizes and strides, one after the other: ALIGN of products. None where nothing is known of any."""
    if device.type != "cuda":
        return None
    found = tuple([aligned(n, device) for n in numbers])
    return found if max(found) > 1 else None


@functools.lru_cache
def multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


def few(device: torch.device, each: int) -> int:
    """Programs that each walk over many tiles. GPU: `each` per multiprocessor, which fill it. CPU: a fixed count, so
    that sums do not depend on the thread count."""
    return each * multiprocessors(device) if device.type == "cuda" else 16


@heuristic
def flat(n: int, device: torch.device) -> Plan:
    """One program per BLOCK elements of a flat tensor."""
    if device.type == "cuda":
        block = 1024  # 8 elements a thread: two 16-byte loads of float32 in flight, one of bfloat16
        return Plan((cdiv(n, block),), {"BLOCK": block, "num_warps": 4})
    # a program costs a few hundred ns of index arithmetic; 16k elements hide it and stay in the L1/L2 caches
    block = min(16384, max(256, power_of_2(n)))
    return Plan((cdiv(n, block),), {"BLOCK": block})


@heuristic
def lists(device: torch.device) -> Plan:
    """A list of tensors, CHUNK elements of one of them a program; the grid is the list's."""
    if device.type == "cuda":
        return Plan(
            (), {"CHUNK": 8192, "BLOCK": 1024, "num_warps": 4 if torch.version.hip else 8}
        )  # 4 elements a thread
    if INTERPRETED:
        return Plan((), {"CHUNK": 16384, "BLOCK": 16384})
    # two vectors: for all the compiler knows what addresses of a table point at overlaps: stores wait for the loads of
    # a block, in registers (AdamW of 5 million elements: 3.3 ms; 4.0 in blocks of 128, 7.3 in whole chunks)
    return Plan((), {"CHUNK": 4096, "BLOCK": 32})


@heuristic
def factors(device: torch.device) -> Plan:
    """Matrices of a list in factored passes: CHUNK elements a program, read twice, the second time from L2."""
    if device.type == "cuda":
        return Plan((), {"CHUNK": 32768, "BLOCK_M": 4, "BLOCK_N": 256, "num_warps": 4})
    if INTERPRETED:
        return Plan((), {"CHUNK": 16384, "BLOCK_M": 16, "BLOCK_N": 128})
    return Plan((), {"CHUNK": 32768, "BLOCK_M": 1, "BLOCK_N": 32})


def keeps_numbers(device: torch.device) -> bool:
    """Is what was drawn, or costly to compute, kept for the backward? CPU: again it takes twice as long as to read it;
    GPUs compute while they wait."""
    return device.type != "cuda"


# Elements of a row that a program holds at once, if it keeps one float32 of each: 64 registers a thread of 16 warps
# (which have 128). Kernels that keep several, or float64, hold shorter rows. Longer rows are walked in chunks.
LONGEST_ROW = 32768


def registers(dtype: torch.dtype, arrays: int) -> int:
    """32-bit registers per element of a kernel that holds `arrays` tiles of `dtype`: float64 has 2, and temporaries."""
    return arrays * (3 if dtype == torch.float64 else 1)


@heuristic
def whole(device: torch.device, live: int) -> Plan:
    """One program, walking over all elements in chunks of BLOCK_N; `live` registers an element."""
    if device.type == "cuda":  # 16 registers of a thread hold the chunk; 8 elements are 16 bytes of bfloat16
        return Plan((1,), {"BLOCK_N": max(4096, 8192 // power_of_2(live)), "num_warps": 16}, loops=True)
    return Plan((1,), {"BLOCK_N": 8192}, loops=True)


@heuristic
def long_rows(M: int, N: int, device: torch.device, live: int = 1) -> Plan:
    """One program per row, as `whole`."""
    return Plan((M,), {"ALIGN": aligned(N, device), **whole(device, live).meta}, loops=True)


# Elements of a tile of rows on a CPU: 8 KiB of float32, so that what a kernel reads again or keeps between its
# reductions stays in the L1 cache (softmax backward 256x1024: 44 us against 60 at 16384). The interpreter pays per
# program instead.
CPU_ROWS = 16384 if INTERPRETED else 2048


def _row_meta(M: int, N: int, device: torch.device, live: int, on_cpu: int = CPU_ROWS) -> dict[str, int]:
    """Whole rows per program; narrow rows share one until it holds about 4096 (CPU: `on_cpu`) elements."""
    block_n, align = power_of_2(N), aligned(N, device)
    if device.type == "cuda":
        live = power_of_2(live)
        block_m = max(1, min(16, 4096 // (block_n * live)))
        # 32 registers a thread for the data, 64 with 16 warps
        warps = min(16, max(4, block_m * block_n * live // 1024))
        return {"ALIGN": align, "BLOCK_M": block_m, "BLOCK_N": block_n, "num_warps": warps}
    return {"ALIGN": align, "BLOCK_M": max(1, min(on_cpu // block_n, power_of_2(M))), "BLOCK_N": block_n}


@heuristic
def rows(M: int, N: int, device: torch.device, live: int = 1) -> Plan:
    """One program per BLOCK_M whole rows of [M, N]; per row, in chunks, where it does not fit into registers."""
    if power_of_2(N) * live > LONGEST_ROW:
        return long_rows(M, N, device, live)
    meta = _row_meta(M, N, device, live)
    return Plan((cdiv(M, meta["BLOCK_M"]),), meta)


@heuristic
def row_groups(M: int, N: int, device: torch.device, live: int = 1) -> Plan:
    """Few programs, each walking over many tiles of rows: for kernels that sum over M into one partial per program.
    Where rows do not fit into registers: as `rows`, and those sums are another kernel's (`column_groups`)."""
    if power_of_2(N) * live > LONGEST_ROW:
        return long_rows(M, N, device, live)
    # CPU: running sums are read and written once a tile, so tall ones cost less: layer_norm's backward 512x2048 0.59 ms
    # in tiles of four rows, 1.15 ms row by row
    meta = _row_meta(M, N, device, live, 4 * CPU_ROWS)
    most = few(device, 4)
    return Plan((min(most, cdiv(M, meta["BLOCK_M"])),), meta)


@heuristic
def flat_groups(n: int, device: torch.device) -> Plan:
    """Few programs, each walking over many blocks of a flat tensor: for sums with one partial per program."""
    if device.type == "cuda":
        plan = flat(n, device)
        return Plan((min(few(device, 8), plan.grid[0]),), plan.meta)
    # 4096 sums in float32 stay in the L1 cache
    return Plan((min(few(device, 8), cdiv(n, 4096)),), {"BLOCK": 4096})


def _in_rows(plan: Plan, n: int, N: int | None) -> tuple[int, dict[str, int]]:
    """The tiles of n elements in rows of N columns (None: one row) that are as large as the blocks of a flat plan: how
    many programs it has then, and their sizes."""
    meta = dict(plan.meta)
    block = meta.pop("BLOCK")
    if N is None:
        return plan.grid[0], {"BLOCK_M": 1, "BLOCK_N": block, **meta}
    block_n = columns(N, block)
    block_m = max(1, min(block // block_n, power_of_2(n // N)))
    return cdiv(n // N, block_m) * cdiv(N, block_n), {"BLOCK_M": block_m, "BLOCK_N": block_n, **meta}


@heuristic
def elements(n: int, N: int | None, device: torch.device) -> Plan:
    """As `flat`, for n elements in rows of N columns (lang/broadcast.py); N None: in one row."""
    tiles, meta = _in_rows(flat(n, device), n, N)
    return Plan((tiles,), meta)


@heuristic
def element_groups(n: int, N: int | None, device: torch.device) -> Plan:
    """As `flat_groups`, for n elements in rows of N columns."""
    tiles, meta = _in_rows(flat_groups(n, device), n, N)
    return Plan((min(few(device, 8), tiles),), meta)


@heuristic
def column_groups(M: int, N: int, device: torch.device) -> Plan:
    """Programs over blocks of columns (axis 0) and groups of rows (axis 1): sums over M where N is large."""
    if device.type == "cuda":
        # 256 bytes of a row of bfloat16; 16 elements a thread, so that the running sums stay in registers
        block_m, block_n, most, warps = 16, 128, 4 * multiprocessors(device), {"num_warps": 4}
    else:
        block_m, block_n, most, warps = 8, 2048, 16, {}
    columns = cdiv(N, block_n)
    groups = min(cdiv(M, block_m), max(1, most // columns))
    return Plan((columns, groups), {"ALIGN": aligned(N, device), "BLOCK_M": block_m, "BLOCK_N": block_n, **warps})


@heuristic
def lines(outer: int, N: int, inner: int, device: torch.device, live: int) -> Plan:
    """Programs over BLOCK_M lines of N elements that lie `inner` apart (lang/lines.py); `live` registers an element."""
    if inner == 1:
        plan = rows(outer, N, device, live)
        return Plan(plan.grid, {"BLOCK_M": 1, "AXIS": 1, "SPAN": False, **plan.meta}, plan.loops)
    # 64 lines are whole 128-byte segments in every dtype. Where inner is shorter a tile spans outer indices instead
    span = inner < 64
    many = power_of_2(outer * inner if span else inner)
    if device.type == "cuda":
        # spanning tiles are read element by element: smaller ones, for more programs
        tile, least = (1024 if span else 4096 if live <= 2 else 2048), 64
    else:
        tile, least = 16384, 256  # long vector loops over the lines; see `flat` for the size
    block_n = min(power_of_2(N), max(1, tile // min(least, many)))
    block_m = min(max(1, tile // block_n), many, 1024)
    meta = {"ALIGN": aligned(inner, device), "BLOCK_M": block_m, "BLOCK_N": block_n, "AXIS": 0, "SPAN": span}
    if device.type == "cuda":
        meta["num_warps"] = min(8, max(1, block_m * block_n * power_of_2(live) // 512))
    tiles = cdiv(outer * inner, block_m) if span else outer * cdiv(inner, block_m)
    return Plan((tiles,), meta, loops=block_n < N)


def fold(N: int, inner: int) -> int:
    """How many neighbouring rows of [N, inner] to take for one when sums run over N: as many as make a row of up to
    2048 elements, where it has fewer than the 64 that `lines` wants and at least 8 such rows are left."""
    if not 1 < inner < 64 or N * inner < 16384:  # a launch of less is all overhead
        return 1
    return next((k for k in range(min(2048 // inner, N // 8), 1, -1) if N % k == 0), 1)


@heuristic
def reduced_lines(outer: int, N: int, inner: int, device: torch.device, live: int) -> Plan:
    """As `lines`, for reductions: grid (tiles of lines, parts of a line), CHUNKS chunks of BLOCK_N elements a part."""
    plan = lines(outer, N, inner, device, live)
    meta = dict(plan.meta)
    if device.type == "cuda":  # 4 programs per multiprocessor fill it; a part of fewer elements is all latency
        enough, least = 4 * multiprocessors(device), 4096
    else:  # fixed: sums do not depend on the thread count. A second launch costs 4 us, as 64k elements do
        enough, least = 16, 65536
        if inner == 1:  # elements are read once, so tiles need not stay in a cache, and long loops cost least
            meta["BLOCK_N"] = min(power_of_2(N), 16384)
            meta["BLOCK_M"] = max(1, min(16384 // meta["BLOCK_N"], power_of_2(outer)))
    tiles = cdiv(outer, meta["BLOCK_M"]) if inner == 1 else plan.grid[0]
    chunks = cdiv(N, meta["BLOCK_N"])
    each = max(cdiv(chunks, max(1, enough // tiles)), cdiv(least, meta["BLOCK_M"] * meta["BLOCK_N"]))
    each = min(each, chunks)
    return Plan((tiles, cdiv(chunks, each)), {**meta, "CHUNKS": each})


@heuristic
def whole_lines(outer: int, N: int, device: torch.device, live: int) -> Plan:
    """As `reduced_lines` of contiguous lines, each one program's."""
    plan = reduced_lines(outer, N, 1, device, live)
    kept = ("ALIGN", "BLOCK_M", "BLOCK_N", "num_warps")
    return Plan(plan.grid[:1], {key: value for key, value in plan.meta.items() if key in kept})


@heuristic
def line_tiles(outer: int, N: int, inner: int, device: torch.device, live: int) -> Plan:
    """As `lines`, for kernels that need no sum along a line: grid (tiles of lines, chunks of BLOCK_N elements)."""
    longest = 4096 if device.type == "cuda" else 16384  # as in `lines` where inner > 1
    while longest * live > LONGEST_ROW:
        longest //= 2
    plan = lines(outer, min(N, longest), inner, device, live)
    meta = plan.meta if inner > 1 else {**plan.meta, "ALIGN": aligned(N, device)}  # not what divides the part
    return Plan((plan.grid[0], cdiv(N, meta["BLOCK_N"])), meta)


@heuristic
def line_groups(outer: int, N: int, device: torch.device, live: int) -> Plan:
    """As `line_tiles` of contiguous lines, by few programs, each walking over many tiles: for sums over lines, one
    partial per program."""
    plan = line_tiles(outer, N, 1, device, live)
    tiles, chunks = plan.grid
    most = few(device, 4)
    return Plan((max(1, min(tiles, most // chunks)), chunks), plan.meta)


@heuristic
def bands(M: int, N: int, by_row: bool, device: torch.device, live: int = 1) -> Plan:
    """[M, N] in bands of rows (else of columns): grid (bands, programs that share a band and walk along it)."""
    # GPU: 16 elements a thread, two 16-byte loads in flight; fewer of float64, whose exp and erf take many registers
    tile = 2048 // power_of_2(live) if device.type == "cuda" else 16384
    block_n = min(power_of_2(N), tile)
    block_m = min(power_of_2(M), tile // block_n)
    count, steps = cdiv(M, block_m), cdiv(N, block_n)
    if not by_row:
        count, steps = steps, count
    most = few(device, 8)
    meta = {"ALIGN": aligned(N, device), "BLOCK_M": block_m, "BLOCK_N": block_n}
    if device.type == "cuda":
        meta["num_warps"] = 4
    return Plan((count, max(1, min(steps, most // count))), meta)


def columns(K: int, most: int) -> int:
    """Columns of a step through rows of K: the next power of two up to 32, beyond it as many as waste least lanes."""
    if K <= 32:
        return power_of_2(K)
    sizes = [size for size in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096) if size <= most]
    return max(size for size in sizes if cdiv(K, size) * size <= 1.2 * K or size == 16)


@heuristic
def resampled(M: int, N: int, device: torch.device) -> Plan:
    """Programs over BLOCK_M rows by BLOCK_N columns of [M, N] (ops/_resample.py), tiles of rows one after another."""
    gpu = device.type == "cuda"
    # GPU: 8 elements a thread, and at most 128 rows, whose indices take registers; for CPUs see `flat`
    tile, most = (1024, 128) if gpu else (16384, 16384)
    block_n = columns(N, 1024 if gpu else 4096)
    block_m = max(1, min(tile // block_n, power_of_2(M), most))
    meta = {"ALIGN": aligned(N, device), "BLOCK_M": block_m, "BLOCK_N": block_n}
    if gpu:
        meta["num_warps"] = max(1, block_m * block_n // 256)
    return Plan((cdiv(M, block_m) * cdiv(N, block_n),), meta)


@heuristic
def add_slices(slices: int, n: int, device: torch.device) -> Plan:
    """Sums of n columns of `slices` (at most 256) rows, one program per BLOCK columns."""
    block_s = power_of_2(slices)
    block = max(1, min(power_of_2(n), 4096 // block_s))
    return Plan((cdiv(n, block),), {"BLOCK_S": block_s, "BLOCK": block})
