"""Rows that are walked over together (`NestEmitter.jams`): sums along rows of [M, N, K] of what M rows share."""

from __future__ import annotations

import re

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import inspect, launch


@triton.jit
def shared_kernel(x, w, y, K, OP: tl.constexpr, M: tl.constexpr, N: tl.constexpr, BLOCK_K: tl.constexpr):
    """y [M, N]: OP along K of x [M, K] times w [N, K]."""
    m, n, k = tl.arange(0, M)[:, None, None], tl.arange(0, N)[None, :, None], tl.arange(0, BLOCK_K)[None, None, :]
    b_x = tl.load(x + m * K + k, k < K, 0)
    b_w = tl.load(w + n * K + k, k < K, 0)
    b_x, b_w = (b_x.to(tl.float32), b_w.to(tl.float32)) if b_x.dtype.is_floating() else (b_x, b_w)
    found = tl.sum(b_x * b_w, 2) if OP == "sum" else tl.max(b_x * b_w, 2)
    tl.store(y + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :], found)


def operands(dtype: torch.dtype, M: int, N: int, K: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    if dtype.is_floating_point:
        return torch.randn(M, K).to(dtype), torch.randn(N, K).to(dtype)
    return torch.randint(-9, 9, (M, K), dtype=dtype), torch.randint(-9, 9, (N, K), dtype=dtype)


KINDS = [(torch.float32, "sum"), (torch.float32, "max"), (torch.bfloat16, "sum"), (torch.int64, "sum")]


@pytest.mark.parametrize(("dtype", "op"), KINDS, ids=str)
@pytest.mark.parametrize(("M", "N"), [(1, 8), (2, 8), (4, 16), (16, 2)])
@pytest.mark.parametrize("K", [1024, 1023, 96])
def test_rows_that_share_what_they_read(dtype: torch.dtype, op: str, M: int, N: int, K: int) -> None:
    """Whole vectors, a last one in part, and a tile's padded end."""
    x, w = operands(dtype, M, N, K)
    products = (x.double() if dtype.is_floating_point else x)[:, None] * w[None]
    padded = torch.nn.functional.pad(products, (0, triton.next_power_of_2(K) - K))
    want = padded.sum(2) if op == "sum" else padded.amax(2)
    y = torch.empty(M, N, dtype=torch.float32 if dtype.is_floating_point else dtype)
    launch(shared_kernel, (1,), x, w, y, K, OP=op, M=M, N=N, BLOCK_K=triton.next_power_of_2(K))
    torch.testing.assert_close(y, want.to(y.dtype), rtol=1e-5, atol=1e-5 * K)


@pytest.mark.parametrize("element", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_shared_is_loaded_once(monkeypatch: pytest.MonkeyPatch, element: torch.dtype) -> None:
    """The loop over whole vectors of four rows reads five vectors, not eight."""
    monkeypatch.delenv("TRIDENT_CPU_SANITIZE", raising=False)
    x, w = operands(element, 4, 8, 1024)
    artefacts = inspect(shared_kernel, x, w, torch.empty(4, 8), 1024, OP="sum", M=4, N=8, BLOCK_K=1024)
    blocks = artefacts.optimised_ir.split("\n\n")
    widest = max(blocks, key=lambda block: block.count("fmul"))
    assert widest.count("fmul") == 4
    assert len(re.findall(r" = load <", widest)) == 5
