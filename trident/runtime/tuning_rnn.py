"""Tiles of a step of a recurrent cell, per device."""

import torch

from trident.runtime.tuning import Plan, aligned, cdiv, heuristic, power_of_2


@heuristic
def step(M: int, H: int, dtype: torch.dtype, device: torch.device) -> Plan:
    """[M, H], for each element of which a step computes up to five exponentials: grid (tiles of rows, of columns)."""
    gpu = device.type == "cuda"
    # GPU: 8 elements a thread of two warps, 16 bytes of a 16-bit type; few, as a step of 64x512 is to fill a card.
    # CPU: a tile of an LSTM takes 20 us, five times what it costs to start the other threads
    tile = (256 if dtype == torch.float64 else 512) if gpu else 4096
    block_n = min(power_of_2(H), tile)
    block_m = max(1, min(tile // block_n, power_of_2(M)))
    meta = {"ALIGN": aligned(H, device), "BLOCK_M": block_m, "BLOCK_N": block_n, **({"num_warps": 2} if gpu else {})}
    return Plan((cdiv(M, block_m), cdiv(H, block_n)), meta)


def in_one_kernel(H: int, dtype: torch.dtype, device: torch.device) -> bool:
    """Is a layer faster so than with a product and a kernel for each step: of few weights, in a tile of a power of two
    that is not half empty?"""
    block_h = power_of_2(H)
    # CPU, torch's time over the kernel's, 64 steps of 32 rows (docs/measured.md): float32 of 512 1.4, of 64 2.3;
    # bfloat16, which MKL multiplies at twice the rate and the kernel does not, of 256 1.3, of 512 0.8
    most = 512 if dtype.itemsize > 2 else 256
    return device.type != "cuda" and most >= H and (block_h <= 64 or block_h**2 <= 2 * H**2)


@heuristic
def layer(B: int, H: int, dtype: torch.dtype, device: torch.device) -> Plan:
    """All steps of a layer in one kernel, BLOCK_B of B rows of the batch a program; `loops` where not in one."""
    block_h = power_of_2(H)
    if not in_one_kernel(H, dtype, device):
        return Plan((1,), {}, loops=True)
    # twice as many rows as the product's kernel keeps in registers, for whom weights are read once
    block_b = min(power_of_2(B), 16)
    return Plan((cdiv(B, block_b),), {"BLOCK_B": block_b, "BLOCK_H": block_h})
