"""Tiles of products of matrices, per device, and slices of their sums."""

import torch

from trident.runtime import tuning
from trident.runtime.tuning import Plan, cdiv, heuristic, power_of_2

# [BLOCK_M, BLOCK_N, BLOCK_K] of a product on a GPU by the operands' bytes (4: not rounded to tf32). Three stages of
# operands take at most 96 KB of shared memory, which every GPU since sm_80 has, and no variant spills registers
PRODUCT_TILES = {2: (128, 128, 64), 4: (128, 64, 16), 8: (64, 64, 16)}
TF32_TILE = (128, 128, 32)
TF32_UNEVEN = (128, 64, 32)  # where masks of a last, shorter step take registers, too

# [BLOCK_M, BLOCK_N] of a product on a CPU -> the share of the fastest one's rate that they have (docs/measured.md)
CPU_TILES = {
    **{(256, 256): 1.0, (256, 128): 0.98, (128, 256): 0.98, (128, 128): 0.93, (256, 64): 0.9, (64, 256): 0.9},
    **{(128, 64): 0.88, (64, 128): 0.88, (64, 64): 0.83},
}
LARGEST = 256 * 256 * 4  # bytes of a tile of sums: more leaves the L2 cache
FEW_ROWS_BYTES = 16384  # of all rows of a, half of the L1 cache
ENOUGH = 4  # tiles of a CPU, below which sums are sliced: fixed, so that they do not depend on the thread count


@heuristic
def matmul(
    M: int, N: int, K: int, dtype: torch.dtype, tf32: bool, may_slice: bool, threads: int, device: torch.device
) -> Plan:
    """Tiles [BLOCK_M, BLOCK_N] of a product [M, N]; slices of its sum over K if it may and tiles are too few."""
    gpu = device.type == "cuda"
    if gpu:
        of_tf32 = TF32_UNEVEN if K % TF32_TILE[2] else TF32_TILE
        block_m, block_n, block_k = of_tf32 if tf32 else PRODUCT_TILES[dtype.itemsize]
        enough = tuning.multiprocessors(device)
        block_m, block_n = (max(16, min(block, power_of_2(size))) for block, size in ((block_m, M), (block_n, N)))
        while cdiv(M, block_m) * cdiv(N, block_n) < enough and max(block_m, block_n) > 64:
            block_m, block_n = (block_m // 2, block_n) if block_m >= block_n else (block_m, block_n // 2)
        tiles = least_tiles = cdiv(M, block_m) * cdiv(N, block_n)
    else:
        enough, least_tiles = ENOUGH, cdiv(M, 128) * cdiv(N, 128)
        block_k = 64 if K % 128 and K < 1024 else 128  # of long sums a padded step is little
    block_k = max(16, min(block_k, power_of_2(K)))
    steps, slices = cdiv(K, block_k), 1
    if may_slice and least_tiles < enough:
        slices = max(1, min(32, cdiv(enough, least_tiles), steps // 4))  # fewer steps would not pay for adding them
    each = cdiv(steps, slices)
    slices = cdiv(steps, each)
    if not gpu:
        block_m, block_n = _cpu_tile(M, N, slices, dtype, threads)
        tiles = cdiv(M, block_m) * cdiv(N, block_n)
    meta = {"STEPS": each, "EVEN_K": K % block_k == 0}
    meta |= {"BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCK_K": block_k, "GROUP_M": 8}
    if gpu:
        # sums of float64 take two registers each, and with 4 warps some of a result of odd rows were spilled
        meta["num_warps"] = max(4, min(8, block_m * block_n * max(1, dtype.itemsize // 4) // 1024))
    return Plan((tiles, slices), meta)


@heuristic
def few_rows(M: int, N: int, K: int, dtype: torch.dtype, device: torch.device) -> Plan:
    """BLOCK_N rows of w [N, K] for each program of a product of M rows, in steps of BLOCK_K (docs/measured.md)."""
    # whole rows, so that w is read from its first byte to its last, while all of a stays in the L1 cache beside them
    block_k = power_of_2(K) if M * K * dtype.itemsize <= FEW_ROWS_BYTES else 256
    block_n = 4 if block_k > 1024 else 8
    meta = {"EVEN_K": K % block_k == 0, "BLOCK_M": power_of_2(M), "BLOCK_N": block_n, "BLOCK_K": block_k}
    return Plan((cdiv(N, block_n),), meta)


def _cpu_tile(M: int, N: int, slices: int, dtype: torch.dtype, threads: int) -> tuple[int, int]:
    """The one with which the last thread is done first: what a tile computes beyond [M, N] counts, too."""

    def time(tile: tuple[int, int]) -> float:
        block_m, block_n = _within(tile, M, N)
        tiles = cdiv(M, block_m) * cdiv(N, block_n) * slices
        return block_m * block_n * cdiv(tiles, threads) / CPU_TILES[tile]

    bytes_of_sum = max(4, dtype.itemsize)
    return _within(min((t for t in CPU_TILES if t[0] * t[1] * bytes_of_sum <= LARGEST), key=time), M, N)


def _within(tile: tuple[int, int], M: int, N: int) -> tuple[int, int]:
    return max(16, min(tile[0], power_of_2(M))), max(16, min(tile[1], power_of_2(N)))


def tf32(x: torch.Tensor) -> bool:
    """May float32 products be rounded to tf32? Read where a kernel is launched, as torch does."""
    return x.dtype == torch.float32 and x.device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32
