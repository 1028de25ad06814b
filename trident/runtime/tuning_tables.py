"""Launch shapes of operators over tables of rows: embeddings and their gradients."""

import torch

from trident.runtime.launch import INTERPRETED
from trident.runtime.tuning import TRACED, Plan, aligned, cdiv, heuristic, power_of_2


@heuristic
def key_runs(T: int, N: int, device: torch.device) -> Plan:
    """Programs over chunks of S of T sorted positions (axis 0) and blocks of N columns (axis 1), see ops/_segments.py.

    A run may go through all chunks, and one program then walks over their parts: S is at least the root of T.
    """
    if device.type == "cuda":  # 4 elements a thread; 32 rows hide a program's start
        block_n, least, warps = min(512, power_of_2(N)), 32, {"num_warps": max(1, min(4, power_of_2(N) // 128))}
    else:
        # 64k elements a program; 4096 sums in float32 stay in the L1 cache
        block_n, warps = min(4096, power_of_2(N)), {}
        least = max(16, 65536 // block_n)
    S = max(least, power_of_2(int(T**0.5)))
    return Plan((cdiv(T, S), cdiv(N, block_n)), {"S": S, "BLOCK_N": block_n, **warps})


@heuristic
def key_turns(V: int, T: int, N: int, dtype: torch.dtype, threads: int, device: torch.device) -> Plan:
    """Programs over ranges of V keys (axis 0) and blocks of N columns (axis 1), that walk over T positions; `loops` if
    that is the better way (ops/_segments.py). The sums do not depend on the ranges, so those may on the threads."""
    # a table of float32 beside a bfloat16 one costs more than the sort where it is large
    if device.type != "cpu" or INTERPRETED or (dtype.itemsize == 2 and V > T):
        return TRACED
    block_n = min(4096, power_of_2(N))
    ranges = max(1, min(2 * threads // cdiv(N, block_n), V)) if threads > 1 else 1
    return Plan((ranges, cdiv(N, block_n)), {"RANGE": cdiv(V, ranges), "BLOCK_N": block_n}, loops=True)


@heuristic
def bags(B: int, T: int, N: int, device: torch.device) -> Plan:
    """Programs over EACH of B bags with T rows of N elements in all (axis 0), and blocks of columns (axis 1)."""
    if device.type == "cuda":  # 4 elements a thread
        block_n = min(512, power_of_2(N))
        return Plan((B, cdiv(N, block_n)), {"EACH": 1, "BLOCK_N": block_n, "num_warps": max(1, min(4, block_n // 128))})
    block_n = min(4096, power_of_2(N))
    each = max(1, min(B, 65536 * B // (max(T, B) * block_n)))  # 64k elements a program
    return Plan((cdiv(B, each), cdiv(N, block_n)), {"EACH": each, "BLOCK_N": block_n})


@heuristic
def row_dots(T: int, N: int, device: torch.device) -> Plan:
    """Programs over BLOCK_M of T rows, that walk over N elements in blocks of BLOCK_N."""
    gpu = device.type == "cuda"
    block_n = min(power_of_2(N), 1024)
    block_m = max(1, min(power_of_2(T), (2048 if gpu else 16384) // block_n))
    meta = {"ALIGN": aligned(N, device), "BLOCK_M": block_m, "BLOCK_N": block_n, **({"num_warps": 4} if gpu else {})}
    return Plan((cdiv(T, block_m),), meta)


@heuristic
def token_chunks(N: int, K: int, V: int, dtype: torch.dtype, device: torch.device) -> Plan:
    """EACH of N tokens, whose logits over V classes are held at a time (ops/_linear_cross_entropy.py)."""
    # GPU: logits as large as x, and enough rows for a product to fill it. CPU: 256 rows are enough for MKL
    gpu = device.type == "cuda"
    each = max(1024, power_of_2(cdiv(N * K, V))) if gpu else max(64, min(256, 8388608 // V))
    return Plan((cdiv(N, each),), {"EACH": each})


@heuristic
def pairs(N: int, M: int, device: torch.device) -> Plan:
    """Programs over EACH of N rows (axis 0) and blocks of columns (axis 1), that walk over N rows (ops/_pdist.py)."""
    gpu = device.type == "cuda"
    block_m = min(power_of_2(M), 128 if gpu else 1024)
    block_j = max(1, min(power_of_2(N), (2048 if gpu else 4096) // block_m))
    # GPU: a row a program; CPU: 256k differences
    each = 1 if gpu else max(1, min(N, 262144 // (N * M)))
    meta = {"EACH": each, "BLOCK_J": block_j, "BLOCK_M": block_m, **({"num_warps": 4} if gpu else {})}
    return Plan((cdiv(N, each), cdiv(M, block_m)), meta)


@heuristic
def outer_rows(N: int, O: int, J: int, device: torch.device) -> Plan:  # noqa: E741
    """Programs over each of N (axis 0) and blocks of J columns (axis 1), that walk over O rows in blocks of BLOCK_M."""
    gpu = device.type == "cuda"
    block_n = min(power_of_2(J), 256 if gpu else 2048)
    block_m = max(1, min(power_of_2(O), (2048 if gpu else 16384) // block_n))
    meta = {"ALIGN": aligned(J, device), "BLOCK_M": block_m, "BLOCK_N": block_n, **({"num_warps": 4} if gpu else {})}
    return Plan((N, cdiv(J, block_n)), meta)
