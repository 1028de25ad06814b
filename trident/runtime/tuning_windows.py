"""Launch shapes of windows: of elements that pooling, fold and depthwise convolutions sum, search or scatter."""

import torch

from trident.runtime import tuning
from trident.runtime.launch import INTERPRETED
from trident.runtime.tuning import Plan, cdiv, columns, heuristic, power_of_2


@heuristic
def windows(n: int, C: int, KD: int, KH: int, KW: int, device: torch.device) -> Plan:
    """Sums over n windows of at most [KD, KH, KW, C] elements: programs of (BLOCK_O windows by BLOCK_C channels, a
    share of STEPS of the window's steps), a step being BLOCK_K columns of one row."""
    gpu = device.type == "cuda"
    block_c = min(power_of_2(C), 256)
    # more than 16 channels fill a cache line, so columns are better walked over than masked
    block_k = 1 if block_c > 16 else columns(KW, (1024 if gpu else 4096) // block_c)
    lanes = block_k * block_c
    steps = KD * KH * cdiv(KW, block_k)
    if gpu:
        least, slice_least, enough, most_slices = 512, 2048, 2 * tuning.multiprocessors(device), 256
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


@heuristic
def window_tiles(M: int, N: int, device: torch.device, live: int) -> Plan:
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
def wide_windows(M: int, K: int, device: torch.device, live: int) -> Plan:
    """M windows with rows of K elements: BLOCK_M windows a program, walked over in steps of BLOCK_N columns."""
    gpu = device.type == "cuda"
    # as in `window_tiles`; a GPU reads 16 elements a thread, 4 of float64
    tile = 2048 // power_of_2(live) if gpu else 16384 if INTERPRETED else 4096
    block_n = columns(K, min(tile, 1024) if gpu else 4096)
    block_m = max(1, min(tile // block_n, power_of_2(M)))
    meta = {"BLOCK_M": block_m, "BLOCK_N": block_n, **({"num_warps": 4} if gpu else {})}
    return Plan((cdiv(M, block_m),), meta)
