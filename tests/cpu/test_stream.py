"""Results larger than the cache are written past it, where rows are aligned: same values, nothing beside them."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import inspect, launch, threads


@triton.jit
def rows_kernel(x, y, z, M, N, stride, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    cols = tl.arange(0, BLOCK)[None, :]
    at, inside = rows * stride + cols, (rows < M) & (cols < N)
    b_x = tl.load(x + at, inside)
    tl.store(y + at, b_x + 1, inside)
    tl.store(z + at, b_x, inside)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.float64], ids=str)
@pytest.mark.parametrize("columns", [512, 500, 33])
@pytest.mark.parametrize("offset", [0, 1, 16])
@pytest.mark.parametrize("stride", [512, 517])
def test_same_values(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, columns: int, offset: int, stride: int
) -> None:
    monkeypatch.setattr(threads, "cache_bytes", lambda: 0)
    base = torch.randint(-100, 100, (16 * stride + 64,)).to(dtype)
    x = base[:-64].view(16, stride)
    results = [torch.zeros(16 * stride + 64, dtype=dtype) for _ in "yz"]
    y, z = (r[offset:] for r in results)
    launch(rows_kernel, (4,), x, y, z, 15, columns, stride, ROWS=4, BLOCK=512)
    want = torch.zeros(16, stride, dtype=dtype)
    want[:15, :columns] = x[:15, :columns]
    assert torch.equal(z[: 16 * stride].view(16, stride), want)
    want[:15, :columns] += 1
    assert torch.equal(y[: 16 * stride].view(16, stride), want)
    assert not any(r[:offset].any() or r[offset + 16 * stride :].any() for r in results)


def test_there_is_such_code() -> None:
    x = torch.empty(4, 512)
    text = inspect(rows_kernel, x, x.clone(), x.clone(), 4, 512, 512, ROWS=4, BLOCK=512).llvm_ir
    assert "!nontemporal" in text


@triton.jit
def asking_kernel(x, y, N, HINT: tl.constexpr, BLOCK: tl.constexpr):
    for start in range(0, N, BLOCK):
        at = start + tl.arange(0, BLOCK)
        tl.store(y + at, tl.load(x + at, at < N) + 1, at < N, cache_modifier=HINT)


@pytest.mark.parametrize("offset", [0, 1])
def test_a_kernel_may_ask_for_it(offset: int) -> None:
    """Whatever the launch says, which counts a loop once: same values, by stores past the cache."""
    x = torch.randn(5000)
    result = torch.zeros(5064)
    y = result[offset:]
    launch(asking_kernel, (1,), x, y, 4999, HINT=".cs", BLOCK=1024)
    assert torch.equal(y[:4999], x[:4999] + 1) and not result[:offset].any() and not y[4999:].any()
    for hint in (".cs", ""):
        text = inspect(asking_kernel, x, y, 4999, HINT=hint, BLOCK=1024).llvm_ir
        assert "!nontemporal" in text and ("and i1 %stream" in text) != bool(hint)
