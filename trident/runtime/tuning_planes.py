"""Launch shapes of normalisation over planes: statistics of [N, C, *L] by channels, groups or samples."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch

from trident.runtime import tuning
from trident.runtime.layout import remembered
from trident.runtime.tuned import core_cache, vector_bits
from trident.runtime.tuning import Plan, aligned, cdiv, few, heuristic, power_of_2


def folded(S: int, C: int, device: torch.device) -> int:
    """How many rows of [S, C] to see as one, whose columns then are so many channels: a power of two that divides S."""
    # CPU: as few as make 64 columns, below which `lines` spans rows. More cost: 16x64x56x56 2.1 ms, eight folded 5.5;
    # C = 32 two 0.9, none 1.9; C = 16 four 0.35, eight 0.38, two 0.75, none 1.43 (docs/measured.md).
    # GPU: a tile's threads are what they are
    if device.type == "cuda" or isinstance(S, torch.SymInt) or isinstance(C, torch.SymInt):
        return 1
    return next((f for f in (1, 2, 4, 8) if f * C >= 64 and S % f == 0 and (f == 1 or 32 * f <= S)), 1)


@heuristic
def plane_tiles(outer: int, N: int, inner: int, device: torch.device, live: int) -> Plan:
    """As `line_tiles`, for kernels that keep no tile: larger ones on CPUs."""
    if device.type == "cuda" or inner > 1:
        return tuning.line_tiles(outer, N, inner, device, live)
    # batch_norm 16x64x56x56, writing y: 1024 programs of 4096 elements 0.92 ms, 128 of 32768 0.66 ms
    block_n = min(power_of_2(N), 16384)
    block_m = min(power_of_2(outer), 32768 // block_n)
    meta = {"ALIGN": aligned(N, device), "BLOCK_M": block_m, "BLOCK_N": block_n, "AXIS": 1, "SPAN": False}
    return Plan((cdiv(outer, block_m), cdiv(N, block_n)), meta)


@heuristic
def line_parts(outer: int, N: int, inner: int, device: torch.device, live: int) -> Plan:
    """As `plane_tiles`, for sums along lines: grid (tiles of lines, parts), a part being STEP chunks of BLOCK_N."""
    plan = plane_tiles(outer, N, inner, device, live)
    tiles, chunks = plan.grid
    most = few(device, 4)
    step = cdiv(chunks, max(1, min(chunks, most // tiles)))
    return Plan((tiles, cdiv(chunks, step)), {"STEP": step, **plan.meta})


@heuristic
def part_lines(outer: int, N: int, inner: int, device: torch.device, live: int) -> Plan:
    """As `lines`, of a table of such parts: too few to be told what divides a row."""
    plan = tuning.lines(outer, N, inner, device, live)
    return plan._replace(meta={key: value for key, value in plan.meta.items() if key != "ALIGN"})


@heuristic
def plane_rows(R: int, J: int, S: int, strided: bool, device: torch.device, live: int) -> Plan:
    """R statistics over J planes of S elements, each one program's work: GPUs keep the planes in registers, CPUs walk
    over them (ROWS statistics a program) in their cache. `loops` where there are too many elements, or too few rows.
    strided: the planes of a statistic do not follow one another in memory."""
    block_j, block_s = power_of_2(J), power_of_2(S)
    if device.type == "cuda":
        tile = block_j * block_s
        if tile * live > tuning.LONGEST_ROW or (tuning.multiprocessors(device) > R and tile > 4096):
            return Plan((1,), {}, loops=True)
        warps = min(16, max(1, tile * power_of_2(live) // 1024))
        return Plan((R,), {"ALIGN": aligned(S, device), "BLOCK_J": block_j, "BLOCK_S": block_s, "num_warps": warps})
    # 65536 float32 of x and as many of y fill half of a 1 MB cache. There strided planes are better read in order:
    # batch_norm 16x64x56x56 forward 1.17 ms in three kernels, 1.43 in one. Two MB, Intel's since 2023, hold four times
    # as many, strided or not: 1.67 in three, 1.33 in one, backward 3.95 and 1.6 (docs/measured.md)
    large = core_cache() >= 2 << 20
    each, most = J * S, 262144 if large else 65536
    if each > most or (R < 8 and each > 8192) or (strided and J > 1 and R * each > 262144 and not large):
        return Plan((1,), {}, loops=True)
    rows = max(1, min(16384 // each, R))
    block_s = min(block_s, 4096)
    meta = {"ROWS": rows, "CACHE": store_hint(R * J * S, device), "BLOCK_J": min(block_j, 16384 // block_s)}
    return Plan((cdiv(R, rows),), {**meta, "BLOCK_S": block_s})


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


@dataclass(eq=False)
class Planes:
    """x [N, C, *] as the kernels of ops/_planes.py see it: P planes of S elements, of C channels; R statistics over J
    planes each; K channels a group, None where a statistic is a channel."""

    P: int
    S: int
    C: int
    K: int | None
    R: int
    J: int
    last: bool  # channels are the last axis in memory: planes interleave
    form: torch.memory_format  # of x, for it to be seen so
    device: torch.device
    cache: str  # how a result as large is stored
    fold: int = 1  # so many rows of channels are seen as one: a plane then is as many lines
    # launches that ops/_planes.py has planned: here, so that symbols of a traced graph do not outlive it
    planned: dict[tuple[Any, ...], tuple[Any, Plan]] = field(default_factory=dict)

    @cached_property
    def lines(self) -> tuple[int, int, int]:
        """outer, N, inner of the planes as lines along S."""
        return (self.P // self.C, self.S // self.fold, self.C * self.fold) if self.last else (self.P, self.S, 1)

    @cached_property
    def sizes(self) -> tuple[int, int, int]:
        """Lines, their elements, C."""
        return self.P * self.fold, self.S // self.fold, self.C

    def parts(self, splits: int) -> tuple[int, int, int]:
        """outer, N, inner of the table of parts as lines along what one statistic is taken over."""
        each = splits * self.fold * self.J
        return (1, each, self.C) if self.K is None else (self.R, each, 1)

    def rows(self, live: int) -> tuning.Plan:
        """The plan of kernels for which a statistic is one program's work (_plane_rows.py)."""
        return plane_rows(self.R, self.J, self.S, self.K is None, self.device, live)

    def samples(self) -> tuning.Plan:
        """The plan of kernels for which a sample is one program's work (_plane_samples.py)."""
        assert self.K is not None
        return plane_samples(self.P // self.C, self.S, self.C, self.K, self.fold, self.device)

    @cached_property
    def steps(self) -> tuple[int, int]:
        """From one statistic's first plane to the next one's; from a plane of a statistic to the next."""
        return (1, self.C) if self.K is None else (self.K, 1)


@remembered
def seen(groups: int, shape: torch.Size, form: torch.memory_format, device: torch.device) -> Planes:
    """How x of that shape is seen. groups: of channels; 0: a statistic is a channel."""
    N, C = shape[:2]
    S = math.prod(shape[2:])
    last, where = form != torch.contiguous_format, (form, device, store_hint(N * C * S, device))
    if groups:
        fold = folded(S, C, device) if last else 1
        return Planes(N * C, S, C, C // groups, N * groups, C // groups, last, *where, fold)
    if last or S == 1:  # [N, C] is [rows, channels] in memory, and so is [N, S, C]
        return Planes(C, N * S, C, None, C, 1, True, *where, folded(N * S, C, device))
    return Planes(N * C, S, C, None, C, N, False, *where)
