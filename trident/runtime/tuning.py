"""Launch shapes: every block size, warp count and program count of the library, per device, with its reason."""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import SymInt

from trident.runtime.launch import INTERPRETED
from trident.runtime.tuned import vector_bits


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


def _few(device: torch.device, each: int) -> int:
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
def long_rows(M: int, N: int, device: torch.device, live: int = 1) -> Plan:
    """One program per row, walking over it in chunks of BLOCK_N; `live` registers an element."""
    if device.type == "cuda":  # 16 registers of a thread hold the chunk; 8 elements are 16 bytes of bfloat16
        return Plan((M,), {"BLOCK_N": max(4096, 8192 // power_of_2(live)), "num_warps": 16}, loops=True)
    return Plan((M,), {"BLOCK_N": 8192}, loops=True)


# Elements of a tile of rows on a CPU: 8 KiB of float32, so that what a kernel reads again or keeps between its
# reductions stays in the L1 cache (softmax backward 256x1024: 44 us against 60 at 16384). The interpreter pays per
# program instead.
CPU_ROWS = 16384 if INTERPRETED else 2048


def _row_meta(M: int, N: int, device: torch.device, live: int, on_cpu: int = CPU_ROWS) -> dict[str, int]:
    """Whole rows per program; narrow rows share one until it holds about 4096 (CPU: `on_cpu`) elements."""
    block_n = power_of_2(N)
    if device.type == "cuda":
        live = power_of_2(live)
        block_m = max(1, min(16, 4096 // (block_n * live)))
        # 32 registers a thread for the data, 64 with 16 warps
        warps = min(16, max(4, block_m * block_n * live // 1024))
        return {"BLOCK_M": block_m, "BLOCK_N": block_n, "num_warps": warps}
    return {"BLOCK_M": max(1, min(on_cpu // block_n, power_of_2(M))), "BLOCK_N": block_n}


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
    most = _few(device, 4)
    return Plan((min(most, cdiv(M, meta["BLOCK_M"])),), meta)


@heuristic
def flat_groups(n: int, device: torch.device) -> Plan:
    """Few programs, each walking over many blocks of a flat tensor: for sums with one partial per program."""
    if device.type == "cuda":
        plan = flat(n, device)
        return Plan((min(_few(device, 8), plan.grid[0]),), plan.meta)
    # 4096 sums in float32 stay in the L1 cache
    return Plan((min(_few(device, 8), cdiv(n, 4096)),), {"BLOCK": 4096})


def _in_rows(plan: Plan, n: int, N: int | None) -> tuple[int, dict[str, int]]:
    """The tiles of n elements in rows of N columns (None: one row) that are as large as the blocks of a flat plan: how
    many programs it has then, and their sizes."""
    meta = dict(plan.meta)
    block = meta.pop("BLOCK")
    if N is None:
        return plan.grid[0], {"BLOCK_M": 1, "BLOCK_N": block, **meta}
    block_n = _columns(N, block)
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
    return Plan((min(_few(device, 8), tiles),), meta)


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
    return Plan((columns, groups), {"BLOCK_M": block_m, "BLOCK_N": block_n, **warps})


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
    meta: dict[str, Any] = {"BLOCK_M": block_m, "BLOCK_N": block_n, "AXIS": 0, "SPAN": span}
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


def folded(S: int, C: int, device: torch.device) -> int:
    """How many rows of [S, C] to see as one, whose columns then are so many channels: a power of two that divides S."""
    # CPU: as few as make 64 columns, below which `lines` spans rows. More cost: 16x64x56x56 2.1 ms, eight folded 5.5;
    # C = 32 two 0.9, none 1.9; C = 16 four 0.35, eight 0.38, two 0.75, none 1.43 (docs/measured.md).
    # GPU: a tile's threads are what they are
    if device.type == "cuda" or isinstance(S, torch.SymInt) or isinstance(C, torch.SymInt):
        return 1
    return next((f for f in (1, 2, 4, 8) if f * C >= 64 and S % f == 0 and (f == 1 or 32 * f <= S)), 1)


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
    return Plan((tiles, cdiv(chunks, each)), {**meta, "CHUNKS": each, "ALIGN": aligned(inner, device)})


@heuristic
def whole_lines(outer: int, N: int, device: torch.device, live: int) -> Plan:
    """As `reduced_lines` of contiguous lines, each one program's."""
    plan = reduced_lines(outer, N, 1, device, live)
    kept = ("BLOCK_M", "BLOCK_N", "num_warps")
    return Plan(plan.grid[:1], {key: value for key, value in plan.meta.items() if key in kept})


@heuristic
def line_tiles(outer: int, N: int, inner: int, device: torch.device, live: int) -> Plan:
    """As `lines`, for kernels that need no sum along a line: grid (tiles of lines, chunks of BLOCK_N elements)."""
    longest = 4096 if device.type == "cuda" else 16384  # as in `lines` where inner > 1
    while longest * live > LONGEST_ROW:
        longest //= 2
    plan = lines(outer, min(N, longest), inner, device, live)
    return Plan((plan.grid[0], cdiv(N, plan.meta["BLOCK_N"])), plan.meta)


@heuristic
def line_groups(outer: int, N: int, device: torch.device, live: int) -> Plan:
    """As `line_tiles` of contiguous lines, by few programs, each walking over many tiles: for sums over lines, one
    partial per program."""
    plan = line_tiles(outer, N, 1, device, live)
    tiles, chunks = plan.grid
    most = _few(device, 4)
    return Plan((max(1, min(tiles, most // chunks)), chunks), {"ALIGN": 1, **plan.meta})


@heuristic
def plane_tiles(outer: int, N: int, inner: int, device: torch.device, live: int) -> Plan:
    """As `line_tiles`, for kernels that keep no tile: larger ones on CPUs."""
    if device.type == "cuda" or inner > 1:
        return line_tiles(outer, N, inner, device, live)
    # batch_norm 16x64x56x56, writing y: 1024 programs of 4096 elements 0.92 ms, 128 of 32768 0.66 ms
    block_n = min(power_of_2(N), 16384)
    block_m = min(power_of_2(outer), 32768 // block_n)
    meta = {"BLOCK_M": block_m, "BLOCK_N": block_n, "AXIS": 1, "SPAN": False}
    return Plan((cdiv(outer, block_m), cdiv(N, block_n)), meta)


@heuristic
def line_parts(outer: int, N: int, inner: int, device: torch.device, live: int) -> Plan:
    """As `plane_tiles`, for sums along lines: grid (tiles of lines, parts), a part being STEP chunks of BLOCK_N."""
    plan = plane_tiles(outer, N, inner, device, live)
    tiles, chunks = plan.grid
    most = _few(device, 4)
    step = cdiv(chunks, max(1, min(chunks, most // tiles)))
    return Plan((tiles, cdiv(chunks, step)), {"STEP": step, **plan.meta})


@heuristic
def plane_rows(R: int, J: int, S: int, strided: bool, device: torch.device, live: int) -> Plan:
    """R statistics over J planes of S elements, each one program's work: GPUs keep the planes in registers, CPUs walk
    over them (ROWS statistics a program) in their cache. `loops` where there are too many elements, or too few rows.
    strided: the planes of a statistic do not follow one another in memory."""
    block_j, block_s = power_of_2(J), power_of_2(S)
    if device.type == "cuda":
        tile = block_j * block_s
        if tile * live > LONGEST_ROW or (multiprocessors(device) > R and tile > 4096):
            return Plan((1,), {}, loops=True)
        warps = min(16, max(1, tile * power_of_2(live) // 1024))
        return Plan((R,), {"ALIGN": aligned(S, device), "BLOCK_J": block_j, "BLOCK_S": block_s, "num_warps": warps})
    # 65536 float32 of x and as many of y fill half of a 1 MB cache
    # strided planes are better read in order: batch_norm 16x64x56x56 forward 1.17 ms in three kernels, 1.43 in one
    if J * S > 65536 or (R < 8 and J * S > 8192) or (strided and J > 1 and R * J * S > 262144):
        return Plan((1,), {}, loops=True)
    each = max(1, min(16384 // (J * S), R))
    block_s = min(block_s, 4096)
    meta = {"ROWS": each, "CACHE": store_hint(R * J * S, device), "BLOCK_J": min(block_j, 16384 // block_s)}
    return Plan((cdiv(R, each),), {**meta, "BLOCK_S": block_s})


def store_hint(numel: int, device: torch.device) -> str:
    """How to store a result of so many elements: past the cache, where much of it would be gone from there anyway."""
    # CPU, 8 MB of float32: an L3 cache of 32 MB has neighbours; copying 16 MB moves 27 GB/s, past the cache 34
    return ".cs" if device.type != "cuda" and type(numel) is int and numel >= 1 << 21 else ""


def keeps_gradient(activation: str, dtype: torch.dtype, device: torch.device) -> bool:
    """May f'(z) dy wait in dx, of this dtype, between two walks? On CPUs, where f' takes longer than to read it again
    (16x64x56x56, silu on AVX2: backward 6.9 ms, so 4.6; gelu on AVX-512 3.4, so 2.6, but silu 2.2 instead of 2.0); GPUs
    take it while they wait for memory."""
    if device.type == "cuda" or dtype.itemsize < 4 or activation == "relu":
        return False
    return activation != "silu" or vector_bits() < 512


@heuristic
def plane_samples(N: int, S: int, C: int, K: int, fold: int, device: torch.device) -> Plan:
    """N samples of [S, C], whose groups have K channels, each one program's work on a CPU: seen as rows of `fold` C."""
    # enough samples to share out, which a core's part of the L3 cache holds: 2 MB of float32
    if device.type == "cuda" or N < 8 or S * C > 1 << 19 or C * fold > 4096:
        return Plan((1,), {}, loops=True)
    block_m = min(power_of_2(C * fold), 1024)
    meta = {"FOLD": fold, "BLOCK_M": block_m, "BLOCK_N": max(1, min(16384 // block_m, power_of_2(S // fold)))}
    return Plan((N,), {**meta, "BLOCK_G": power_of_2(C // K), "BLOCK_J": power_of_2(K * fold)})


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
    most = _few(device, 8)
    meta = {"BLOCK_M": block_m, "BLOCK_N": block_n, **({"num_warps": 4} if device.type == "cuda" else {})}
    return Plan((count, max(1, min(steps, most // count))), meta)


@heuristic
def windows(n: int, C: int, KD: int, KH: int, KW: int, device: torch.device) -> Plan:
    """Sums over n windows of at most [KD, KH, KW, C] elements: programs of (BLOCK_O windows by BLOCK_C channels, a
    share of STEPS of the window's steps), a step being BLOCK_K columns of one row."""
    gpu = device.type == "cuda"
    block_c = min(power_of_2(C), 256)
    # more than 16 channels fill a cache line, so columns are better walked over than masked
    block_k = 1 if block_c > 16 else _columns(KW, (1024 if gpu else 4096) // block_c)
    lanes = block_k * block_c
    steps = KD * KH * cdiv(KW, block_k)
    if gpu:
        least, slice_least, enough, most_slices = 512, 2048, 2 * multiprocessors(device), 256
        tile = 2048  # 16 elements a thread with 4 warps: four 16-byte loads of float32 in flight
    else:
        least, slice_least, enough, most_slices = 2048, 16384, 4, 16  # fixed: sums do not depend on the thread count
        tile = min(16384, max(least, power_of_2(65536 // steps)))  # 64k elements a program, sums in the L1 cache
    block_o = max(1, min(tile // lanes, power_of_2(n)))
    while cdiv(n, block_o) * cdiv(C, block_c) < enough and block_o > 1 and block_o * lanes > least:
        block_o //= 2
    programs = cdiv(n, block_o) * cdiv(C, block_c)

    slices = 1
    if programs < enough:  # a slice of fewer than slice_least elements does not pay for the second launch
        slices = max(1, min(most_slices, cdiv(2 * enough, programs), steps * block_o * lanes // slice_least))
    each = cdiv(steps, slices)
    meta = {"STEPS": each, "BLOCK_O": block_o, "BLOCK_K": block_k, "BLOCK_C": block_c, "UNROLL": 1}
    if gpu:
        meta |= {"UNROLL": 4 if each >= 8 else 1, "num_warps": max(1, min(4, block_o * lanes // 128))}
    return Plan((programs, cdiv(steps, each)), meta)


def _columns(K: int, most: int) -> int:
    """Columns of a step through rows of K: the next power of two up to 32, beyond it as many as waste least lanes."""
    if K <= 32:
        return power_of_2(K)
    sizes = [size for size in (16, 32, 64, 128, 256, 512, 1024, 2048, 4096) if size <= most]
    return max(size for size in sizes if cdiv(K, size) * size <= 1.2 * K or size == 16)


@heuristic
def pool_tiles(M: int, N: int, device: torch.device, live: int = 1) -> Plan:
    """[M, N] in tiles of windows, N side by side: one program each, which walks over the elements of its windows, of
    `live` registers each."""
    if device.type == "cuda":
        # 8 windows a thread: the best, its code, and what is being read of each; 2 of float64, of which 8 spill
        tile, widest = 1024 // power_of_2(live), 128
    else:
        tile, widest = (16384 if INTERPRETED else 4096), 1024  # what was found of the windows stays in the L1 cache
    block_n = min(power_of_2(N), widest)
    block_m = max(1, min(tile // block_n, power_of_2(M)))
    meta = {"BLOCK_M": block_m, "BLOCK_N": block_n, **({"num_warps": 4} if device.type == "cuda" else {})}
    return Plan((cdiv(N, block_n) * cdiv(M, block_m),), meta)


@heuristic
def resampled(M: int, N: int, device: torch.device) -> Plan:
    """Programs over BLOCK_M rows by BLOCK_N columns of [M, N] (ops/_resample.py), tiles of rows one after another."""
    gpu = device.type == "cuda"
    # GPU: 8 elements a thread, and at most 128 rows, whose indices take registers; for CPUs see `flat`
    tile, most = (1024, 128) if gpu else (16384, 16384)
    block_n = _columns(N, 1024 if gpu else 4096)
    block_m = max(1, min(tile // block_n, power_of_2(M), most))
    meta = {"ALIGN": aligned(N, device), "BLOCK_M": block_m, "BLOCK_N": block_n}
    if gpu:
        meta["num_warps"] = max(1, block_m * block_n // 256)
    return Plan((cdiv(M, block_m) * cdiv(N, block_n),), meta)


@heuristic
def pooled_rows(M: int, numel: int, W: int, OW: int, device: torch.device) -> Plan:
    """Programs over ROWS of M rows of windows, of an x of numel elements with rows of W, if rows are worth adding."""
    # CPU: 512x512 -> 7 27 us where windows took 96; rows of 4096 leave the L1 cache: 6.2 ms where windows took 3.8.
    # GPU: a program reads its windows from memory, all lanes of them; gathering has not been timed
    if device.type == "cuda" or max(W, OW) > 2048:
        return Plan((), {})
    programs = max(1, min(M, numel // 32768))  # as many elements hide the index arithmetic of a program
    rows = cdiv(M, programs)
    return Plan((cdiv(M, rows),), {"ROWS": rows, "BLOCK_W": power_of_2(W), "BLOCK_O": power_of_2(OW)})


@heuristic
def wide_windows(M: int, K: int, device: torch.device, live: int = 1) -> Plan:
    """M windows with rows of K elements: BLOCK_M windows a program, walked over in steps of BLOCK_N columns."""
    gpu = device.type == "cuda"
    # as in `pool_tiles`; a GPU reads 16 elements a thread, 4 of float64
    tile = 2048 // power_of_2(live) if gpu else 16384 if INTERPRETED else 4096
    block_n = _columns(K, min(tile, 1024) if gpu else 4096)
    block_m = max(1, min(tile // block_n, power_of_2(M)))
    meta = {"BLOCK_M": block_m, "BLOCK_N": block_n, **({"num_warps": 4} if gpu else {})}
    return Plan((cdiv(M, block_m),), meta)


@heuristic
def add_slices(slices: int, n: int, device: torch.device) -> Plan:
    """Sums of n columns of `slices` (at most 256) rows, one program per BLOCK columns."""
    block_s = power_of_2(slices)
    block = max(1, min(power_of_2(n), 4096 // block_s))
    return Plan((cdiv(n, block),), {"BLOCK_S": block_s, "BLOCK": block})
