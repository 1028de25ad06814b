"""tt.dot, and the ops that rearrange tiles."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import inspect, launch


@triton.jit
def dot_kernel(a, b, c, d, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, OUT: tl.constexpr):
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    b_a, b_b = tl.load(a + m[:, None] * K + k[None, :]), tl.load(b + k[:, None] * N + n[None, :])
    b_c = tl.load(c + m[:, None] * N + n[None, :])
    tl.store(d + m[:, None] * N + n[None, :], tl.dot(b_a, b_b, b_c, out_dtype=OUT))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8], ids=str)
@pytest.mark.parametrize(
    "shape", [(16, 16, 16), (1, 16, 32), (64, 128, 32), (32, 2, 64), (4, 8, 1), (128, 64, 16)], ids=str
)
def test_dot(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    M, N, K = shape
    a, b = torch.randint(-8, 9, (M, K)).to(dtype), torch.randint(-8, 9, (K, N)).to(dtype)
    out = {torch.int8: torch.int32, torch.float64: torch.float64}.get(dtype, torch.float32)
    c = torch.randint(-8, 9, (M, N)).to(out)
    d = torch.empty_like(c)
    kind = {torch.int32: tl.int32, torch.float64: tl.float64, torch.float32: tl.float32}[out]
    launch(dot_kernel, (1,), a, b, c, d, M=M, N=N, K=K, OUT=kind)
    assert torch.equal(d, (a.double() @ b.double() + c.double()).to(out))


@triton.jit
def turned_kernel(
    a, b, d, M, N, K, LEFT: tl.constexpr, RIGHT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr
):
    m, n, k = tl.arange(0, BM), tl.arange(0, BN), tl.arange(0, BK)
    if LEFT == "trans":
        b_a = tl.trans(tl.load(a + k[:, None] * M + m[None, :], (k < K)[:, None] & (m < M)[None, :], other=0))
    elif LEFT == "columns":
        b_a = tl.load(a + k[None, :] * M + m[:, None], (k < K)[None, :] & (m < M)[:, None], other=0)
    else:
        b_a = tl.load(a + m[:, None] * K + k[None, :], (k < K)[None, :] & (m < M)[:, None], other=0)
    if RIGHT == "trans":
        b_b = tl.trans(tl.load(b + n[:, None] * K + k[None, :], (n < N)[:, None] & (k < K)[None, :], other=0))
    elif RIGHT == "columns":
        b_b = tl.load(b + n[None, :] * K + k[:, None], (n < N)[None, :] & (k < K)[:, None], other=0)
    else:
        b_b = tl.load(b + k[:, None] * N + n[None, :], (n < N)[None, :] & (k < K)[:, None], other=0)
    OUT: tl.constexpr = tl.int32 if b.dtype.element_ty == tl.int8 else d.dtype.element_ty
    tl.store(d + m[:, None] * N + n[None, :], tl.dot(b_a, b_b, out_dtype=OUT), (m < M)[:, None] & (n < N)[None, :])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int8], ids=str)
@pytest.mark.parametrize("shape", [(16, 16, 16), (5, 19, 30), (100, 128, 64)], ids=str)
@pytest.mark.parametrize(
    ("left", "right"),
    [("rows", "trans"), ("rows", "columns"), ("columns", "columns"), ("trans", "columns"), ("trans", "rows")],
)
def test_turned_operands(left: str, right: str, shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    M, N, K = shape
    a, b = torch.randint(-8, 9, (M, K)).to(dtype), torch.randint(-8, 9, (K, N)).to(dtype)
    d = torch.zeros(M, N, dtype={torch.int8: torch.int32, torch.float64: torch.float64}.get(dtype, torch.float32))
    given = (a if left == "rows" else a.t().contiguous()), (b if right == "rows" else b.t().contiguous())
    block = {f"B{name}": max(16, triton.next_power_of_2(n)) for name, n in zip("MNK", shape, strict=True)}
    launch(turned_kernel, (1,), *given, d, M, N, K, LEFT=left, RIGHT=right, **block)
    assert torch.equal(d, (a.double() @ b.double()).to(d.dtype))


def test_operands_that_lie_otherwise_are_loaded_apart():
    """Tiles of one shape, a in rows and b in columns: one nest of both would gather one of them by elements."""
    a, d = torch.zeros(64, 64), torch.zeros(64, 64)
    ways = {"LEFT": "rows", "RIGHT": "columns", "BM": 64, "BN": 64}
    texts = [inspect(turned_kernel, a, a, d, 64, 64, k, **ways, BK=k).llvm_ir for k in (64, 32)]
    assert not any("gather" in text for text in texts)


@triton.jit
def shared_kernel(x, y, p, q, r, steps, N: tl.constexpr):
    """p = sum e x, q = sum eᵀ x, r = sum e, of e = exp(y + step): e is multiplied from both sides."""
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    b_x = tl.load(x + at)
    b_p, b_q, b_r = tl.zeros((N, N), tl.float32), tl.zeros((N, N), tl.float32), tl.zeros((N, N), tl.float32)
    for step in range(steps):
        b_e = tl.exp(tl.dot(b_x, tl.trans(tl.load(y + at))) + step)
        b_p = tl.dot(b_e, b_x, b_p)
        b_q = tl.dot(tl.trans(b_e), b_x, b_q)
        b_r += b_e
    tl.store(p + at, b_p)
    tl.store(q + at, b_q)
    tl.store(r + at, b_r)


@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("n", [16, 64])
def test_operand_of_several_products(n: int, steps: int) -> None:
    x, y = torch.randn(2, n, n) / n**0.5
    p, q, r = (torch.full((n, n), torch.nan) for _ in range(3))
    launch(shared_kernel, (1,), x, y, p, q, r, steps, N=n)
    e = sum((torch.exp(x.double() @ y.double().T + step) for step in range(steps)), torch.zeros(n, n).double())
    for ours, theirs in ((p, e @ x.double()), (q, e.T @ x.double()), (r, e)):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-4, atol=1e-4)


@triton.jit
def half_dot_kernel(a, b, d, N: tl.constexpr):
    at = tl.arange(0, N)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(d + at, tl.dot(tl.load(a + at), tl.load(b + at), out_dtype=tl.float16))


def test_half_accumulator() -> None:
    a, b = torch.randn(32, 32).half(), torch.randn(32, 32).half()
    d = torch.empty(32, 32, dtype=torch.float16)
    launch(half_dot_kernel, (1,), a, b, d, N=32)
    torch.testing.assert_close(d, (a.float() @ b.float()).half(), rtol=2e-3, atol=2e-3)


@triton.jit
def batched_kernel(a, b, d, B: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, B)[:, None, None] * N * N + tl.arange(0, N)[None, :, None] * N + tl.arange(0, N)[None, None, :]
    tl.store(d + at, tl.dot(tl.load(a + at), tl.load(b + at)))


@pytest.mark.parametrize("n", [16, 64])
def test_batched_dot(n: int) -> None:
    a, b = torch.randn(4, n, n), torch.randn(4, n, n)
    d = torch.empty_like(a)
    launch(batched_kernel, (1,), a, b, d, B=4, N=n)
    torch.testing.assert_close(d, a @ b)


@triton.jit
def attention_kernel(
    q, k, v, o, n, scale, CAUSAL: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, D: tl.constexpr
):
    rows, d = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, D)
    b_q = tl.load(q + rows[:, None] * D + d[None, :], rows[:, None] < n, other=0.0)
    top = tl.full((BLOCK_M,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    acc = tl.zeros((BLOCK_M, D), tl.float32)
    for start in range(0, n, BLOCK_N):
        cols = start + tl.arange(0, BLOCK_N)
        b_k = tl.load(k + cols[None, :] * D + d[:, None], cols[None, :] < n, other=0.0)
        s = tl.dot(b_q, b_k) * scale
        seen = cols[None, :] < n
        if CAUSAL:
            seen = seen & (cols[None, :] <= rows[:, None])
        s = tl.where(seen, s, -1e30)
        new_top = tl.maximum(top, tl.max(s, 1))
        p = tl.exp(s - new_top[:, None])
        alpha = tl.exp(top - new_top)
        total = total * alpha + tl.sum(p, 1)
        b_v = tl.load(v + cols[:, None] * D + d[None, :], cols[:, None] < n, other=0.0)
        acc = tl.dot(p.to(b_v.dtype), b_v, acc * alpha[:, None])
        top = new_top
    tl.store(o + rows[:, None] * D + d[None, :], acc / total[:, None], rows[:, None] < n)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("n", [1, 50, 128])
def test_attention(n: int, causal: bool) -> None:
    D = 32
    q, k, v = torch.randn(3, n, D)
    o = torch.empty(n, D)
    launch(attention_kernel, (triton.cdiv(n, 32),), q, k, v, o, n, D**-0.5, CAUSAL=causal, BLOCK_M=32, BLOCK_N=16, D=D)
    want = torch.nn.functional.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=causal)[0]
    torch.testing.assert_close(o, want, rtol=1e-4, atol=1e-5)


@triton.jit
def layout_kernel(x, y, OP: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    b_x = tl.load(x + at)
    if OP == "reshape":
        b_y = tl.reshape(tl.trans(tl.reshape(b_x + 1, (N // 8, 8))), (N,))
    elif OP == "permute":
        b_y = tl.reshape(tl.permute(tl.reshape(b_x, (4, N // 8, 2)), (2, 0, 1)), (N,))
    elif OP == "permute4":
        b_y = tl.reshape(tl.permute(tl.reshape(b_x, (2, 4, N // 16, 2)), (3, 1, 0, 2)), (N,))
    elif OP == "split":
        a, b = tl.split(tl.reshape(b_x, (N // 2, 2)))
        b_y = tl.interleave(b, a * 2)
    elif OP == "cat":
        a, b = tl.split(tl.reshape(b_x, (N // 2, 2)))
        b_y = tl.cat(a, b, can_reorder=True)
    elif OP == "gather":
        b_y = tl.gather(b_x, (at * 7 + 3) % N, 0)
    elif OP == "sort":
        b_y = tl.sort(b_x)
    elif OP == "sort_down":
        b_y = tl.sort(b_x, descending=True)
    elif OP == "flip":
        b_y = tl.flip(b_x, 0)  # 0: Triton before 3.9 knows no default
    tl.store(y + at, b_y)


LAYOUT = {
    "reshape": lambda x: (x + 1).view(-1, 8).t().reshape(-1),
    "permute": lambda x: x.view(4, -1, 2).permute(2, 0, 1).reshape(-1),
    "permute4": lambda x: x.view(2, 4, -1, 2).permute(3, 1, 0, 2).reshape(-1),
    "split": lambda x: torch.stack([x[1::2], x[::2] * 2], 1).view(-1),
    "cat": lambda x: torch.cat([x[::2], x[1::2]]),
    "gather": lambda x: x[(torch.arange(len(x)) * 7 + 3) % len(x)],
    "sort": lambda x: x.sort().values, "sort_down": lambda x: x.sort(descending=True).values,
    "flip": lambda x: x.flip(0),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64, torch.float16, torch.int8], ids=str)
@pytest.mark.parametrize("n", [16, 64, 512])
@pytest.mark.parametrize("op", LAYOUT)
def test_layout(op: str, n: int, dtype: torch.dtype) -> None:
    x = torch.randperm(n).to(dtype)
    y = torch.empty_like(x)
    launch(layout_kernel, (1,), x, y, OP=op, N=n)
    assert torch.equal(y, LAYOUT[op](x))


@triton.jit
def topk_kernel(x, y, N: tl.constexpr, K: tl.constexpr):
    tl.store(y + tl.arange(0, K), tl.topk(tl.load(x + tl.arange(0, N)), K))


@pytest.mark.parametrize("k", [1, 4, 16])
def test_topk(k: int) -> None:
    if k == 1 and triton.__version__ < "3.9":
        pytest.skip("Triton before 3.9 cannot compile the top one of a single row: it reshapes a scalar")
    x, y = torch.randn(64), torch.empty(k)
    launch(topk_kernel, (1,), x, y, N=64, K=k)
    assert torch.equal(y, x.topk(k).values)


@triton.jit
def histogram_kernel(x, y, n, N: tl.constexpr, BINS: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(y + tl.arange(0, BINS), tl.histogram(tl.load(x + at, at < n), BINS, at < n))


@pytest.mark.parametrize("n", [1, 100, 128])
def test_histogram(n: int) -> None:
    x, y = torch.randint(0, 16, (n,), dtype=torch.int32), torch.empty(16, dtype=torch.int32)
    launch(histogram_kernel, (1,), x, y, n, N=128, BINS=16)
    assert torch.equal(y.long(), torch.bincount(x, minlength=16))


@triton.jit
def shifted_kernel(x, y, BY: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(y + at, tl.gather(tl.load(x + at), at + BY, 0), at + BY < N)


@pytest.mark.parametrize("n", [8, 16, 64, 512])
@pytest.mark.parametrize("by", [0, 1, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.int8, torch.float64, torch.bool], ids=str)
def test_gather_of_a_shifted_tile(dtype: torch.dtype, by: int, n: int) -> None:
    x = torch.randn(n).to(dtype)
    y = torch.zeros_like(x)
    launch(shifted_kernel, (1,), x, y, BY=by, N=n)
    assert torch.equal(y[: n - by], x[by:])


PLACES = {
    "windows of 2": lambda at, n: at * n // (n // 2 + 1),
    "windows of 3.5": lambda at, n: at * 7 // 2 % n,
    "downwards": lambda at, n: n - 1 - at,
    "about 64 apart": lambda at, n: (at % 2 * 63 + at // 16) % n,
    "one further": lambda at, n: (at % 2 * 64 + at // 16) % n,
    "anywhere": lambda at, n: torch.randint(0, n, at.shape),
}


@triton.jit
def gather1_kernel(x, index, y, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(y + at, tl.gather(tl.load(x + at), tl.load(index + at), 0))


@pytest.mark.parametrize("n", [32, 64, 128, 512])
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
def test_gather_of_a_row(dtype: torch.dtype, places: str, n: int) -> None:
    x, index = torch.randn(n), PLACES[places](torch.arange(n), n).clamp(0, n - 1)
    y = torch.empty_like(x)
    launch(gather1_kernel, (1,), x, index.to(dtype), y, N=n)
    assert torch.equal(y, x[index])


@triton.jit
def gather2_kernel(x, index, y, AXIS: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    tl.store(y + at, tl.gather(tl.load(x + at), tl.load(index + at), AXIS))


@pytest.mark.parametrize("axis", [0, 1])
def test_gather_of_a_plane(axis: int) -> None:
    x = torch.randn(8, 32)
    index = torch.randint(0, x.shape[axis], x.shape)
    y = torch.empty_like(x)
    launch(gather2_kernel, (1,), x, index, y, AXIS=axis, M=8, N=32)
    assert torch.equal(y, x.gather(axis, index))


@triton.jit
def interleave_kernel(y, a, b, M: tl.constexpr, N: tl.constexpr):
    rows, cols = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :]
    pair = tl.interleave(tl.load(a + rows * N + cols), tl.load(b + rows * N + cols))
    tl.store(y + rows * 2 * N + tl.arange(0, 2 * N)[None, :], pair)


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64, torch.bfloat16, torch.int8, torch.bool), ids=str)
@pytest.mark.parametrize("shape", ((1, 64), (4, 32), (16, 2), (64, 1), (2, 8)), ids=str)
def test_interleave(shape: tuple[int, int], dtype: torch.dtype) -> None:
    a, b = (torch.randint(0, 2 if dtype == torch.bool else 100, shape).to(dtype) for _ in range(2))
    y = torch.zeros(shape[0], 2 * shape[1], dtype=dtype)
    launch(interleave_kernel, (1,), y, a, b, M=shape[0], N=shape[1])
    assert torch.equal(y, torch.stack([a, b], -1).flatten(1))


@triton.jit
def single_kernel(x, y, N: tl.constexpr):
    total = tl.sum(tl.load(x + tl.arange(0, N))[None, :], 1).reshape([])  # tt.unsplat
    tl.store(y, total * 2)
    tl.store(y + 1 + tl.arange(0, N), tl.load(x + tl.arange(0, N)) - total)


def test_a_tile_of_one_element_becomes_a_scalar():
    x, y = torch.arange(8.0), torch.zeros(9)
    launch(single_kernel, (1,), x, y, N=8)
    assert y.tolist() == [56.0, *(i - 28.0 for i in range(8))]


@triton.jit
def stored_factor_kernel(x, w, p, q, y, N, M: tl.constexpr, K: tl.constexpr):
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, K)[None, :]
    first, second = tl.load(x + at), tl.load(x + at + K)
    a = 1 / (1 + tl.exp(-first))
    b = a * tl.exp(-second)
    tl.store(p + at, a)
    tl.store(p + at + K, b)
    tl.store(q + at, a)
    tl.store(q + at + K, b)
    square = tl.arange(0, K)[:, None] * K + tl.arange(0, K)[None, :]
    total = tl.dot(a, tl.load(w + square), input_precision="ieee")
    total = tl.dot(b, tl.load(w + K * K + square), total, input_precision="ieee")
    tl.store(y + tl.arange(0, M)[:, None] * K + tl.arange(0, K)[None, :], total)


def test_factors_that_were_stored_before() -> None:
    """A product's operand that an earlier loop nest keeps for another reader is not made again, from what is gone."""
    M, K, N = 4, 8, 17
    x, w = torch.randn(M, N), torch.randn(2, K, K)
    p, q, y = torch.zeros(M, N), torch.zeros(M, N), torch.empty(M, K)
    launch(stored_factor_kernel, (1,), x, w, p, q, y, N, M=M, K=K)
    a = x[:, :K].sigmoid()
    b = a * (-x[:, K : 2 * K]).exp()
    for stored in (p, q):
        torch.testing.assert_close(stored[:, : 2 * K], torch.cat([a, b], 1))
    torch.testing.assert_close(y, a @ w[0] + b @ w[1])
