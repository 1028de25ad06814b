"""Rows that are walked over together (emit/together.py): sums along rows of [M, N, K] of what M rows share, and over
narrow rows, in registers where these are whole, and not for each of many that are empty."""

from __future__ import annotations

import functools
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


@triton.jit
def over_rows_kernel(
    x, y, first, past, C, other, OP: tl.constexpr, MASK: tl.constexpr, M: tl.constexpr, N: tl.constexpr
):
    """y [N]: OP over rows first .. past of x [M, C]; other where the mask fails."""
    rows, cols = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :]
    if MASK == "rows":
        inside = (rows < past) & (cols < C)
    elif MASK == "band":
        inside = (rows >= first) & (rows < past) & (cols < C)
    elif MASK == "slope":
        inside = (rows + cols < past) & (cols < C)
    elif MASK == "rows that are not evenly apart":
        inside = (rows * (3 - rows) < past) & (cols < C)
    b_x = tl.load(x + rows * C + cols, inside, other=other)
    if OP == "sum":
        b_y = tl.sum(b_x, 0)
    elif OP == "max":
        b_y = tl.max(b_x, 0)
    elif OP == "xor":
        b_y = tl.xor_sum(b_x, 0)
    tl.store(y + tl.arange(0, N), b_y)


ROWS = 64
MASKS = {
    "rows": lambda rows, cols, first, past: rows < past,
    "band": lambda rows, cols, first, past: (rows >= first) & (rows < past),
    "slope": lambda rows, cols, first, past: rows + cols < past,
    "rows that are not evenly apart": lambda rows, cols, first, past: rows * (3 - rows) < past,
}


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize(("op", "other"), [("sum", 0), ("sum", 1), ("max", -3), ("max", 5), ("xor", 0), ("xor", 5)])
@pytest.mark.parametrize("columns", [64, 33, 3])
def test_rows_whole_partly_there_and_empty(mask: str, op: str, other: int, columns: int) -> None:
    """Every empty row counts where `other` changes the result; integers, so that every order gives the same."""
    torch.manual_seed(0)
    x, block = torch.randint(-9, 9, (ROWS, columns), dtype=torch.int32), triton.next_power_of_2(columns)
    rows, cols = torch.arange(ROWS)[:, None], torch.arange(block)
    for first, past in ((0, 64), (0, 0), (0, 1), (1, 63), (8, 21), (8, 24), (50, 64)):
        padded = torch.nn.functional.pad(x, (0, block - columns))
        inside = MASKS[mask](rows, cols, first, past) & (cols < columns)
        full = torch.where(inside, padded, other)
        want = full.sum(0) if op == "sum" else full.amax(0)
        if op == "xor":
            want = functools.reduce(torch.bitwise_xor, full.unbind(0))
        y = torch.full((block,), 77, dtype=torch.int32)
        launch(over_rows_kernel, (1,), x, y, first, past, columns, other, OP=op, MASK=mask, M=ROWS, N=block)
        assert torch.equal(y, want.int()), (first, past)


@pytest.mark.parametrize("other", [1.0, -0.0, float("inf"), float("nan"), 2.0**-100])
@pytest.mark.parametrize("rows", [0, 3, 8, 33, 64])
def test_empty_rows_of_floats(other: float, rows: int) -> None:
    """Among them numbers that change nothing, and one that differs from what it is added to in its sign alone."""
    x, y = torch.full((ROWS, 64), -0.0), torch.empty(64)
    launch(over_rows_kernel, (1,), x, y, 0, rows, 64, other, OP="sum", MASK="rows", M=ROWS, N=64)
    full = torch.cat([x[:rows], torch.full((ROWS - rows, 64), other)])
    torch.testing.assert_close(y, full.sum(0), rtol=1e-6, atol=0, equal_nan=True)
    assert other != other or torch.equal(y.signbit(), full.signbit().all(0))


def blocks_of(rows: int, columns: int) -> list[str]:
    """Of a sum over masked rows as LLVM optimised it."""
    text = inspect(
        over_rows_kernel, torch.empty(rows, columns), torch.empty(columns), 0, rows, columns, 0.0,
        OP="sum", MASK="rows", M=rows, N=columns,
    ).optimised_ir  # fmt: skip
    return text.split("\n\n")


def test_narrow_rows_are_added_in_registers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop of four whole rows reads them, and writes nothing; of wider ones, each alone, it writes accumulators."""
    monkeypatch.delenv("TRIDENT_CPU_SANITIZE", raising=False)
    loop = max(blocks_of(ROWS, 32), key=lambda block: block.count("fadd"))
    assert loop.count("fadd") >= 4 and "store" not in loop
    assert any("fadd" in block and "store <" in block for block in blocks_of(ROWS, 1024))
