"""Launch shapes of operators of language models."""

from typing import Any

import torch

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
