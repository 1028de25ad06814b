"""Launch shapes of convolutions (ops/_conv.py, ops/_conv_depthwise.py) and of sampling (ops/_grid_sample.py)."""

import torch
import triton

from trident.runtime import tuning
from trident.runtime.launch import INTERPRETED
from trident.runtime.tuning import Plan, cdiv, flat, heuristic, power_of_2
from trident.runtime.tuning_products import PRODUCT_TILES, TF32_TILE


def _conv_blocks(P: int, CO: int, K: int, dtype: torch.dtype, tf32: bool, device: torch.device) -> tuple[int, int, int]:
    """Tiles [positions, channels of y] and steps of a product, of which no side is longer than it need be."""
    if device.type == "cuda":
        block_p, block_o, block_k = TF32_TILE if tf32 else PRODUCT_TILES[dtype.itemsize]
    else:
        block_p, block_o, block_k = 128, 128, 64
    # 16: the least that matrix units take
    return tuple(max(16, min(b, power_of_2(n))) for b, n in ((block_p, P), (block_o, CO), (block_k, K)))  # type: ignore[return-value]


MOST_GATHERED = 4096  # elements of a tile of x on a GPU: 16 a thread, each with an address; of 32 some are spilled


def _warps(sums: int, gathered: int, least: int) -> int:
    """Of a tile of so many sums, whose x is `gathered` element by element, so many bytes: addresses take two registers
    each, and masks more, so that 128 bytes a thread spill some on sm_90."""
    return max(least, min(8, max(sums // 1024, gathered // 1024)))


# Where the compiler knows of neither axis of a tile that it is contiguous, as of gathered ones, the lanes of a warp lie
# along the last one since Triton 3.7, before along the first (docs/decisions/119). Drop with Triton 3.6
TIES_GO_DOWN = tuple(map(int, triton.__version__.split(".")[:2])) < (3, 7)


def _flat(C: int, taps: int, block_k: int) -> bool:
    """Channels that fill a step less than 3/4 are better walked over together with the taps."""
    return taps > 1 and cdiv(C, block_k) * block_k * 3 > C * 4


@heuristic
def conv(P: int, CO: int, C: int, taps: int, last: bool, dtype: torch.dtype, tf32: bool, device: torch.device) -> Plan:
    """Tiles of P positions by CO channels, summed over `taps` taps of C channels (ops/_conv.py)."""
    block_p, block_o, block_k = _conv_blocks(P, CO, C * taps, dtype, tf32, device)
    flat = _flat(C, taps, block_k)
    meta = {"FLAT": flat, "DOWN": last, "BLOCK_P": block_p, "BLOCK_O": block_o, "BLOCK_K": block_k}
    if device.type == "cuda":
        # lanes then lie along positions, or channels if they are last: neighbours in memory
        meta |= {"DOWN": last != TIES_GO_DOWN, "num_warps": _warps(block_p * block_o, 0, 4)}
        if flat:
            # channels of one tap have addresses that differ by a number; pairs of taps and channels do not. Of tiles
            # that are small, those of two steps ahead are spilled
            block_k = min(block_k, MOST_GATHERED // block_p)
            warps = _warps(block_p * block_o, block_p * block_k * dtype.itemsize, 4)
            meta |= {"BLOCK_K": block_k, "num_warps": warps, "num_stages": 2}
    return Plan((cdiv(P, block_p) * cdiv(CO, block_o),), meta)


@heuristic
def conv_weight(
    P: int, CO: int, C: int, taps: int, groups: int, dtype: torch.dtype, tf32: bool, device: torch.device
) -> Plan:
    """Tiles of CO channels by C channels of `taps` taps, summed over P positions in slices where tiles are few."""
    block_o, block_k, block_p = _conv_blocks(CO, C * taps, P, dtype, tf32, device)
    flat = _flat(C, taps, block_k)
    if device.type == "cuda":
        block_p = max(16, min(block_p, MOST_GATHERED // block_k))
    walk = cdiv(C * taps, block_k) if flat else taps * cdiv(C, block_k)
    tiles, steps = cdiv(CO, block_o) * walk, cdiv(P, block_p)
    # CPU: a fixed count, so that sums do not depend on the thread count
    enough = 2 * tuning.multiprocessors(device) if device.type == "cuda" else 4
    slices = max(1, min(64, cdiv(enough, tiles * groups), steps // 4))  # fewer steps would not pay for adding slices
    each = cdiv(steps, slices)
    meta = {"STEPS": each, "FLAT": flat, "BLOCK_P": block_p, "BLOCK_O": block_o, "BLOCK_K": block_k}
    if device.type == "cuda":
        meta["num_warps"] = _warps(block_o * block_k, block_p * block_k * dtype.itemsize, 2)
    return Plan((tiles, groups, cdiv(steps, each)), meta)


@heuristic
def depthwise_weight(M: int, N: int, C: int, last: bool, taps: int, device: torch.device, live: int = 1) -> Plan:
    """Sums over M rows for each of C channels, N of them side by side (`last`), else over N columns as well: programs
    over channels and slices of the tiles of [M, N]."""
    gpu = device.type == "cuda"
    # dy is read again for each tap: from registers (`live` an element), or L1
    tile = 2048 // power_of_2(live) if gpu else 16384 if INTERPRETED else 8192
    room = power_of_2(taps)
    widest = max(1, min(4096 // room, 64 if gpu else 256)) if last else 1024  # [taps, channels] stay in registers
    block_n = min(power_of_2(N), widest)
    block_m = max(1, min(tile // block_n, power_of_2(M)))
    programs = cdiv(C, block_n) if last else C
    steps = cdiv(M, block_m) * (1 if last else cdiv(N, block_n))
    # CPU: a fixed count, so that sums do not depend on the thread count
    enough = 4 * tuning.multiprocessors(device) if gpu else 8
    slices = max(1, min(64, cdiv(enough, programs), steps // 4))
    each = cdiv(steps, slices)
    meta = {"STEPS": each, "TAPS": room, "BLOCK_M": block_m, "BLOCK_N": block_n, **({"num_warps": 4} if gpu else {})}
    return Plan((programs, cdiv(steps, each)), meta)


@heuristic
def sampled(P: int, C: int, L: int, taps: int, gradient: bool, device: torch.device) -> Plan:
    """Programs over BLOCK_Q of P places of a grid, whose C channels are walked over in blocks of BLOCK_C; `taps`
    neighbours along each axis are read, of L elements. LAST: channels are to lie side by side."""
    if device.type == "cuda":
        # of 1024 the weights of four taps an axis spill, and those of two beside their slopes
        block = 1024 // (2 if taps > 2 else 1) // (2 if gradient else 1)
        return Plan((cdiv(P, block),), {"LAST": False, "BLOCK_Q": block, "BLOCK_C": 1, "num_warps": 4})
    if C >= 8 and C * max(L, P) < 2**31:
        block_c = min(power_of_2(C), 64)
        block_q = min(16384 // block_c, power_of_2(P))
        return Plan((cdiv(P, block_q),), {"LAST": True, "BLOCK_Q": block_q, "BLOCK_C": block_c})
    plan = flat(P, device)
    return Plan(plan.grid, {"LAST": False, "BLOCK_Q": plan.meta["BLOCK"], "BLOCK_C": 1})


@heuristic
def sample_keys(P: int, taps: int, device: torch.device) -> Plan:
    """Programs over BLOCK_Q of P places, whose taps are written down."""
    plan = sampled(P, 1, 1, taps, True, device)
    return Plan(plan.grid, {key: n for key, n in plan.meta.items() if key in ("BLOCK_Q", "num_warps")})


@heuristic
def added_taps(N: int, C: int, device: torch.device) -> Plan:
    """CPU: programs over N images and blocks of BLOCK_C of C channels, that walk over an image's places; `loops` if
    that is the better way. Sums do not depend on the blocks."""
    if device.type != "cpu" or INTERPRETED:
        return tuning.TRACED
    block_c = min(64, power_of_2(C))
    while block_c > 16 and N * cdiv(C, block_c) < 8:  # 16: a vector, and a line of the cache
        block_c //= 2
    return Plan((N, cdiv(C, block_c)), {"BLOCK_C": block_c}, loops=True)


def images_at_once(N: int, C: int, L: int, device: torch.device) -> int:
    """Of N images of C by L elements, whose gradient is made in a buffer: on CPUs 4 MB, which stays in a cache."""
    if device.type != "cpu" or any(isinstance(n, torch.SymInt) for n in (N, C, L)):
        return N
    return max(1, min(N, (1 << 20) // (C * L)))


def turns(N: int, R: int, S: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Is [N, R, S] turned round faster here than by torch's copy (ops/_turned.py)?"""
    # 1x64x4096 75 us, torch's 373; 4x4096x16 90, 86; float64 has no squares
    if device.type != "cpu" or INTERPRETED or dtype.itemsize > 4 or not dtype.is_floating_point:
        return False
    return all(type(n) is int for n in (N, R, S)) and R >= 16 and S >= 4 * R and N * R * S >= 32768


@heuristic
def turned(R: int, S: int, device: torch.device) -> Plan:
    """Tiles of BLOCK_R by BLOCK_S of [R, S]: 16, the side of a square."""
    return Plan((cdiv(R, 16) * cdiv(S, 256),), {"BLOCK_R": 16, "BLOCK_S": 256})


@heuristic
def affine_sums(N: int, R: int, W: int, device: torch.device) -> Plan:
    """Parts of STEPS tiles of BLOCK_M of R rows, BLOCK_N of whose W elements are added at a time, for each of N."""
    gpu = device.type == "cuda"
    block_n = min(power_of_2(W), 256 if gpu else 1024)
    block_m = max(1, min(power_of_2(R), (1024 if gpu else 4096) // block_n))
    tiles = cdiv(R, block_m)
    # CPU: a fixed count, so that sums do not depend on the thread count
    enough = 2 * tuning.multiprocessors(device) if gpu else 8
    steps = cdiv(tiles, max(1, min(tiles, cdiv(enough, N))))
    meta = {"STEPS": steps, "BLOCK_M": block_m, "BLOCK_N": block_n, **({"num_warps": 4} if gpu else {})}
    return Plan((cdiv(tiles, steps),), meta)
