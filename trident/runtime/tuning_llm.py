"""Launch shapes of attention and of other operators of language models."""

from typing import Any

import torch

from trident.runtime import tuning, tuning_products
from trident.runtime.exporting import left_open
from trident.runtime.tuning import Plan, cdiv, heuristic, power_of_2


@heuristic
def rotary(B: int, heads: int, L: int, R: int, E: int, device: torch.device) -> Plan:
    """Programs over BLOCK_M positions (axis 0) of HEADS heads (axis 1) of a batch (axis 2), see ops/_rotary.py."""
    gpu = device.type == "cuda"
    block_r = max(1, power_of_2(R // 2))
    # GPU: 8 elements of each half a thread, 16 bytes of bfloat16. CPU: tables and heads stay in the L1 cache
    block_m = max(1, min((1024 if gpu else 2048) // block_r, power_of_2(L)))
    # GPU: heads share the tables, yet programs should be many. CPU: a program takes 64k elements if it can
    each = 4 if gpu else max(1, 65536 // (block_m * E))
    meta: dict[str, Any] = {"HEADS": min(heads, each), "BLOCK_M": block_m, "BLOCK_R": block_r}
    meta["BLOCK_REST"] = power_of_2(E - R) if E > R else 0
    if gpu:
        meta["num_warps"] = 4
    return Plan((cdiv(L, block_m), cdiv(heads, meta["HEADS"]), B), meta)


@heuristic
def choices(M: int, N: int, dtype: torch.dtype, device: torch.device) -> Plan:
    """Programs over BLOCK_M whole rows of up to 4096 numbers (ops/_topk_softmax.py), four tiles of which they hold."""
    gpu = device.type == "cuda"
    block_n = power_of_2(N)
    # GPU: 8 elements a thread of each tile, 4 of float64. CPU: tiles are walked over k times, in the L1 cache
    tile = (1024 if dtype.itemsize < 8 else 512) if gpu else 2048
    block_m = max(1, min(tile // block_n, power_of_2(M)))
    meta: dict[str, Any] = {"BLOCK_M": block_m, "BLOCK_N": block_n}
    if gpu:
        meta["num_warps"] = max(4, min(16, block_m * block_n // 256))
    return Plan((cdiv(M, block_m),), meta)


def _product(M: int, N: int, K: int, dtype: torch.dtype, tf32: bool, device: torch.device) -> dict[str, Any]:
    meta = tuning_products.matmul(M, N, K, dtype, tf32, False, tuning_products.ENOUGH, device).meta
    return {name: value for name, value in meta.items() if name not in ("STEPS", "GROUP_M", "EVEN_K")}


@heuristic
def grouped(S: int, G: int, N: int, K: int, dtype: torch.dtype, tf32: bool, device: torch.device) -> Plan:
    """Tiles of S rows in G groups, and of N columns (ops/_grouped_mm.py): as a product of as many rows as a group has
    on average, more tiles of rows than there can be."""
    meta = _product(cdiv(S, G), N, K, dtype, tf32, device)
    tiles = (S // meta["BLOCK_M"] + G + 1) * cdiv(N, meta["BLOCK_N"])
    meta |= {"EVEN_K": K % meta["BLOCK_K"] == 0, "BLOCK_G": power_of_2(G + 1), "GROUP_M": 8}
    return Plan((tiles,), meta)


@heuristic
def grouped_sums(S: int, G: int, M: int, N: int, dtype: torch.dtype, tf32: bool, device: torch.device) -> Plan:
    """Tiles of [M, N] (axis 0) of each group (axis 1)."""
    meta = _product(M, N, cdiv(S, G), dtype, tf32, device)
    return Plan((cdiv(M, meta["BLOCK_M"]) * cdiv(N, meta["BLOCK_N"]), G), meta)


def scatters_choices(device: torch.device) -> bool:
    """Is the gradient of topk_softmax written twice at what was chosen? CPU: a program's stores keep their order."""
    return device.type == "cpu"


# (BLOCK_L, BLOCK_S, warps, stages) of attention's kernels on a GPU, by the bytes of an element and by the power of two
# that holds a head. At most 99 KB of shared memory, which every GPU since sm_80 has; registers do not spill (test_aot)
ATTENTION = {
    "forward": {
        **{(2, 64): (128, 64, 8, 3), (2, 128): (128, 64, 8, 2), (2, 256): (64, 32, 8, 1)},
        **{(4, 64): (64, 32, 8, 3), (4, 128): (32, 32, 8, 1)},
        **{(8, 64): (32, 16, 4, 1), (8, 128): (16, 16, 4, 1)},
    },
    "keys": {
        **{(2, 64): (32, 64, 4, 2), (2, 128): (32, 64, 8, 1), (2, 256): (32, 32, 8, 1)},
        **{(4, 64): (32, 16, 4, 1), (4, 128): (32, 16, 8, 1)},
        **{(8, 64): (16, 16, 4, 1), (8, 128): (16, 16, 4, 1)},
    },
    "queries": {
        **{(2, 64): (32, 64, 4, 2), (2, 128): (32, 64, 8, 1), (2, 256): (32, 32, 8, 1)},
        **{(4, 64): (32, 32, 8, 1), (4, 128): (16, 32, 8, 1)},
        **{(8, 64): (16, 16, 8, 1), (8, 128): (16, 16, 4, 1)},
    },
}


def longest_head(dtype: torch.dtype, device: torch.device) -> int:
    """Elements of a head that attention's kernels hold: on GPUs float32 and float64 of more would spill registers."""
    return 256 if device.type == "cpu" or dtype.itemsize == 2 else 128


def _attention_meta(
    way: str, L: int, S: int, E: int, V: int, dtype: torch.dtype, tf32: bool, device: torch.device
) -> dict[str, Any]:
    e, d = max(16, power_of_2(E)), max(16, power_of_2(V))  # 16: the least that tl.dot sums over
    meta: dict[str, Any] = {"BLOCK_E": e, "BLOCK_V": d, "PRECISION": "ieee"}
    if device.type == "cuda":
        block_l, block_s, warps, stages = ATTENTION[way][dtype.itemsize, max(64, e, d)]
        meta |= {"num_warps": warps, "num_stages": stages}
        if dtype == torch.float32 and not torch.version.hip:
            meta["PRECISION"] = "tf32" if tf32 else "tf32x3"  # three products in tensor cores: float32's precision
    else:
        block_l = block_s = 128  # tiles of 64 KB stay in the L2 cache
        if way == "forward" and L % 256 == 0 and L >= 1024:
            block_l = 256  # the keys are packed half as often: 4% faster
    return meta | {"BLOCK_L": max(16, min(block_l, power_of_2(L))), "BLOCK_S": max(16, min(block_s, power_of_2(S)))}


LEAST_CAUSAL = 64  # elements of a head, from which on causal calls gain more than others (docs/measured.md)


def attention_kind(L: int, S: int, E: int, V: int, fused: bool, causal: bool = False) -> str:
    """The name under which `faster_in_torch` knows such a call. fused: torch has a fused kernel for it."""
    name = "scaled_dot_product_attention (fused in torch)" if fused else "scaled_dot_product_attention"
    if any(isinstance(n, torch.SymInt) for n in (L, S, E, V)) or left_open(L, S, E, V):
        return name
    # what is computed over what is needed, on a CPU; torch's formula of many operators is slow enough to allow more
    rows, columns = (cdiv(n, block) * block for n in (L, S) for block in (min(128, max(16, power_of_2(n))),))
    head = max(16, power_of_2(E)) + max(16, power_of_2(V))
    padded = rows * columns * head / (L * S * (E + V)) > (1.15 if fused else 1.35)
    if padded:
        return f"{name} (padded)"
    return f"{name} (causal)" if fused and causal and min(E, V) >= LEAST_CAUSAL else name


def _blocks(n: int, block: int, sequences: int) -> int:
    """Programs over n rows, or at most that many over sequences that lie one after another in them."""
    return n // block + sequences if sequences else cdiv(n, block)


def _parts(programs: int, S: int, block_s: int, device: torch.device) -> int:
    """In how many parts keys are walked over, where there are few queries: decoding."""
    # a part of fewer keys does not pay for joining; CPU: a fixed count, so that sums do not depend on the thread count
    enough, least = (2 * tuning.multiprocessors(device), 8 * block_s) if device.type == "cuda" else (4, 1024)
    return max(1, min(cdiv(enough, programs), S // least, 64)) if programs < enough else 1


@heuristic
def attention(
    heads: int, L: int, S: int, E: int, V: int, sequences: int, dtype: torch.dtype, tf32: bool, device: torch.device
) -> Plan:
    """Programs over blocks of queries and heads, that walk over the keys, or over parts of them. sequences: so many lie
    one after another in L and S (0: L and S are one)."""
    each = max(1, sequences)
    meta = _attention_meta("forward", cdiv(L, each), cdiv(S, each), E, V, dtype, tf32, device)
    blocks = _blocks(L, meta["BLOCK_L"], sequences)
    parts = 1 if sequences or blocks > 1 else _parts(heads, S, meta["BLOCK_S"], device)
    return Plan((blocks, heads, parts), meta | {"EVEN_S": S % meta["BLOCK_S"] == 0, "PARTS": parts})


@heuristic
def attention_queries(
    heads: int, L: int, S: int, E: int, V: int, sequences: int, dtype: torch.dtype, tf32: bool, device: torch.device
) -> Plan:
    each = max(1, sequences)
    meta = _attention_meta("queries", cdiv(L, each), cdiv(S, each), E, V, dtype, tf32, device)
    return Plan((_blocks(L, meta["BLOCK_L"], sequences), heads), meta)


@heuristic
def attention_keys(
    heads: int, L: int, S: int, E: int, V: int, sequences: int, dtype: torch.dtype, tf32: bool, device: torch.device
) -> Plan:
    """Programs over blocks of keys and heads, that walk over the queries; `loops`: over all blocks of keys as well."""
    each = max(1, sequences)
    meta = _attention_meta("keys", cdiv(L, each), cdiv(S, each), E, V, dtype, tf32, device)
    # CPU: saves 2 of 7 products, while torch too has no more than one thread a head here
    whole = device.type != "cuda" and heads * each > 1
    return Plan((each if whole else _blocks(S, meta["BLOCK_S"], sequences), heads), meta, loops=whole)


@heuristic
def attention_delta(heads: int, L: int, V: int, device: torch.device) -> Plan:
    block_v = power_of_2(V)
    block_l = max(1, min(power_of_2(L), 2048 // block_v))  # 16 elements a thread of both operands, on GPUs
    return Plan((cdiv(L, block_l), heads), {"BLOCK_L": block_l, "BLOCK_V": block_v})


@heuristic
def attention_dropout(heads: int, L: int, S: int, device: torch.device) -> Plan:
    block_s = min(128, power_of_2(S))
    block_l = min(power_of_2(L), (2048 if device.type == "cuda" else 16384) // block_s)
    return Plan((cdiv(L, block_l), cdiv(S, block_s), heads), {"BLOCK_L": block_l, "BLOCK_S": block_s})
