"""The kinds of kernels that Triton's tutorials teach, written afresh, against torch.

Vector add and fused softmax are in test_launcher.py and test_reduce.py, fused attention in test_dot_layout.py.
"""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import launch


@triton.jit
def leaky(x):
    return tl.where(x >= 0, x, 0.01 * x)


@triton.jit
def tile_of(pid, rows, cols, GROUP: tl.constexpr):
    """Tiles in groups of GROUP rows, so that a group's columns of B stay in the cache."""
    first = pid // (GROUP * cols) * GROUP
    height = min(rows - first, GROUP)
    inside = pid % (GROUP * cols)
    return first + inside % height, inside // height


@triton.jit
def product(a, b, m, n, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rows, cols, k = m * BM + tl.arange(0, BM), n * BN + tl.arange(0, BN), tl.arange(0, BK)
    pa, pb = a + (rows % M)[:, None] * K + k[None, :], b + k[:, None] * N + (cols % N)[None, :]
    acc = tl.zeros((BM, BN), tl.float32)
    for at in range(0, K, BK):
        b_a = tl.load(pa, k[None, :] < K - at, other=0.0)
        b_b = tl.load(pb, k[:, None] < K - at, other=0.0)
        acc = tl.dot(b_a, b_b, acc)
        pa += BK
        pb += BK * N
    return acc, rows[:, None] * N + cols[None, :], (rows[:, None] < M) & (cols[None, :] < N)


@triton.jit
def matmul_kernel(a, b, c, M, N, K, ACT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    m, n = tile_of(tl.program_id(0), tl.cdiv(M, BM), tl.cdiv(N, BN), 4)
    acc, at, inside = product(a, b, m, n, M, N, K, BM, BN, BK)
    if ACT:
        acc = leaky(acc)
    tl.store(c + at, acc.to(c.dtype.element_ty), inside)


@triton.jit
def persistent_kernel(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """A few programs walk over all tiles."""
    rows, cols = tl.cdiv(M, BM), tl.cdiv(N, BN)
    for tile in range(tl.program_id(0), rows * cols, tl.num_programs(0)):
        m, n = tile_of(tile, rows, cols, 2)
        acc, at, inside = product(a, b, m, n, M, N, K, BM, BN, BK)
        tl.store(c + at, acc.to(c.dtype.element_ty), inside)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(1, 1, 1), (100, 70, 50), (128, 64, 96), (33, 129, 257)], ids=str)
@pytest.mark.parametrize("kind", ["plain", "activation", "persistent"])
def test_matmul(kind: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    M, N, K = shape
    a, b = torch.randn(M, K).to(dtype), torch.randn(K, N).to(dtype)
    c = torch.empty(M, N, dtype=dtype)
    if kind == "persistent":
        launch(persistent_kernel, (3,), a, b, c, M, N, K, BM=32, BN=32, BK=32)
    else:
        grid = (triton.cdiv(M, 32) * triton.cdiv(N, 64),)
        launch(matmul_kernel, grid, a, b, c, M, N, K, ACT=kind == "activation", BM=32, BN=64, BK=16)
    want = a.double() @ b.double()
    if kind == "activation":
        want = torch.nn.functional.leaky_relu(want, 0.01)
    tolerance = max(1e-4, 2 * torch.finfo(dtype).eps)
    torch.testing.assert_close(c.double(), want, rtol=tolerance, atol=tolerance * K**0.5)


@triton.jit
def grouped_kernel(addresses, sizes, groups, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    """Many products in one launch; the operands' addresses come from memory."""
    tile, passed = tl.program_id(0), 0
    for g in range(groups):
        M, N, K = tl.load(sizes + 3 * g), tl.load(sizes + 3 * g + 1), tl.load(sizes + 3 * g + 2)
        tiles = tl.cdiv(M, BM) * tl.cdiv(N, BN)
        while (tile >= passed) & (tile < passed + tiles):
            a = tl.load(addresses + 3 * g).to(tl.pointer_type(tl.float32))
            b = tl.load(addresses + 3 * g + 1).to(tl.pointer_type(tl.float32))
            c = tl.load(addresses + 3 * g + 2).to(tl.pointer_type(tl.float32))
            m, n = (tile - passed) // tl.cdiv(N, BN), (tile - passed) % tl.cdiv(N, BN)
            acc, at, inside = product(a, b, m, n, M, N, K, BM, BN, BK)
            tl.store(c + at, acc, inside)
            tile += tl.num_programs(0)
        passed += tiles


def test_grouped_matmul() -> None:
    shapes = [(20, 40, 30), (64, 64, 64), (1, 5, 9), (50, 16, 100)]
    a = [torch.randn(m, k) for m, n, k in shapes]
    b = [torch.randn(k, n) for m, n, k in shapes]
    c = [torch.empty(m, n) for m, n, k in shapes]
    addresses = torch.tensor([t.data_ptr() for group in zip(a, b, c, strict=True) for t in group])
    launch(grouped_kernel, (4,), addresses, torch.tensor(shapes).int(), len(shapes), BM=16, BN=16, BK=16)
    for x, y, z in zip(a, b, c, strict=True):
        torch.testing.assert_close(z, x @ y, rtol=1e-4, atol=1e-4)


@triton.jit
def dropout_kernel(x, y, n, p, seed, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    keep = tl.rand(seed, at) > p
    tl.store(y + at, tl.where(keep, tl.load(x + at, at < n) / (1 - p), 0.0), at < n)


def test_dropout_from_a_seed() -> None:
    x = torch.rand(10_000) + 1
    y, again, other = torch.empty(3, 10_000)
    for out, seed, block in [(y, 5, 256), (again, 5, 1024), (other, 6, 256)]:
        launch(dropout_kernel, (triton.cdiv(10_000, block),), x, out, 10_000, 0.3, seed, BLOCK=block)
    assert torch.equal(y, again) and not torch.equal(y, other)
    kept = y != 0
    assert 0.67 < kept.float().mean() < 0.73
    torch.testing.assert_close(y[kept], x[kept] / 0.7)


@triton.jit
def norm_kernel(x, w, b, y, mean, rstd, N, eps, BLOCK: tl.constexpr):
    row, total = tl.program_id(0), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, N, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        total += tl.load(x + row * N + cols, cols < N, other=0.0)
    mu = tl.sum(total, 0) / N
    square = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, N, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        centered = tl.where(cols < N, tl.load(x + row * N + cols, cols < N, other=0.0) - mu, 0.0)
        square += centered * centered
    r = 1 / tl.sqrt(tl.sum(square, 0) / N + eps)
    tl.store(mean + row, mu)
    tl.store(rstd + row, r)
    for start in range(0, N, BLOCK):
        cols = start + tl.arange(0, BLOCK)
        inside = cols < N
        x_hat = (tl.load(x + row * N + cols, inside) - mu) * r
        tl.store(y + row * N + cols, x_hat * tl.load(w + cols, inside) + tl.load(b + cols, inside), inside)


@triton.jit
def norm_backward_kernel(dy, x, w, mean, rstd, dx, dw, db, lock, N, GROUPS: tl.constexpr, BLOCK: tl.constexpr):
    """dx of a row; dw and db added up in GROUPS buffers, each behind a lock and a `was written` flag."""
    row, cols = tl.program_id(0), tl.arange(0, BLOCK)
    inside = cols < N
    b_dy = tl.load(dy + row * N + cols, inside, other=0.0)
    x_hat = (tl.load(x + row * N + cols, inside, other=0.0) - tl.load(mean + row)) * tl.load(rstd + row)
    x_hat = tl.where(inside, x_hat, 0.0)
    wdy = b_dy * tl.load(w + cols, inside, other=0.0)
    c1, c2 = tl.sum(x_hat * wdy, 0) / N, tl.sum(wdy, 0) / N
    tl.store(dx + row * N + cols, (wdy - (x_hat * c1 + c2)) * tl.load(rstd + row), inside)
    group = row % GROUPS
    part_dw, part_db = b_dy * x_hat, b_dy
    while tl.atomic_cas(lock + group, 0, 1) == 1:
        pass
    if tl.load(lock + GROUPS + group) == 0:
        tl.atomic_xchg(lock + GROUPS + group, 1)
    else:
        part_dw += tl.load(dw + group * N + cols, inside)
        part_db += tl.load(db + group * N + cols, inside)
    tl.store(dw + group * N + cols, part_dw, inside)
    tl.store(db + group * N + cols, part_db, inside)
    tl.debug_barrier()
    tl.atomic_xchg(lock + group, 0)


@pytest.mark.parametrize("n", [1, 33, 500])
def test_layer_norm_with_locks(n: int) -> None:
    M, groups = 40, 4
    x = torch.randn(M, n, requires_grad=True)
    w, b = torch.randn(n, requires_grad=True), torch.randn(n, requires_grad=True)
    y, mean, rstd = torch.empty(M, n), torch.empty(M), torch.empty(M)
    eps = 0.1  # a row of one element is pure cancellation, which a small eps would amplify
    launch(norm_kernel, (M,), x.detach(), w.detach(), b.detach(), y, mean, rstd, n, eps, BLOCK=128)
    want = torch.nn.functional.layer_norm(x, (n,), w, b, eps)
    torch.testing.assert_close(y, want.detach(), rtol=1e-4, atol=1e-5)
    dy = torch.randn(M, n)
    dx, dw, db = torch.empty(M, n), torch.full((groups, n), torch.nan), torch.full((groups, n), torch.nan)
    lock = torch.zeros(2 * groups, dtype=torch.int32)
    block = triton.next_power_of_2(n)
    args = (dy, x.detach(), w.detach(), mean, rstd, dx, dw, db, lock, n)
    launch(norm_backward_kernel, (M,), *args, GROUPS=groups, BLOCK=block)
    want.backward(dy)
    for got, leaf in ((dx, x), (dw.sum(0), w), (db.sum(0), b)):
        torch.testing.assert_close(got, leaf.grad, rtol=1e-3, atol=1e-4)
