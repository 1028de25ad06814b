"""The kernels of benchmarks/cpu_kernels.py: as one would write them for a GPU, block sizes aside."""

import triton
import triton.language as tl


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, at < n) + tl.load(y + at, at < n), at < n)


@triton.jit
def silu(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b_x = tl.load(x + at, at < n).to(tl.float32)
    tl.store(out + at, b_x / (1 + tl.exp(-b_x)), at < n)


@triton.jit
def softmax(x, out, stride, N, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    b_x = tl.load(x + row * stride + cols, cols < N, other=-float("inf")).to(tl.float32)
    e = tl.exp(b_x - tl.max(b_x, 0))
    tl.store(out + row * stride + cols, e * (1 / tl.sum(e, 0)), cols < N)


@triton.jit
def layer_norm(x, w, b, out, mean, rstd, N, eps, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    inside = cols < N
    b_x = tl.load(x + row * N + cols, inside, other=0).to(tl.float32)
    b_mean = tl.sum(b_x, 0) / N
    centred = tl.where(inside, b_x - b_mean, 0)
    b_rstd = tl.rsqrt(tl.sum(centred * centred, 0) / N + eps)
    tl.store(mean + row, b_mean)
    tl.store(rstd + row, b_rstd)
    b_w = tl.load(w + cols, inside).to(tl.float32)
    b_b = tl.load(b + cols, inside).to(tl.float32)
    tl.store(out + row * N + cols, centred * b_rstd * b_w + b_b, inside)


@triton.jit
def row_mean(x, out, N, BLOCK: tl.constexpr):
    """out[row] = mean(x[row, :N])"""
    row = tl.program_id(0).to(tl.int64)
    cols = tl.arange(0, BLOCK)
    tl.store(out + row, tl.sum(tl.load(x + row * N + cols, cols < N, other=0), 0) / N)


@triton.jit
def strip_pool(x, out, H, W, SIZE: tl.constexpr, WINDOW: tl.constexpr, OUT: tl.constexpr):
    """Row `program % SIZE` of one plane's SIZE x SIZE means of WINDOW x WINDOW squares."""
    plane, row = tl.program_id(0) // SIZE, tl.program_id(0) % SIZE
    windows, cols = tl.arange(0, OUT), tl.arange(0, WINDOW)
    inside = (windows < SIZE)[:, None] & (cols < WINDOW)[None, :]
    total = tl.zeros([OUT, WINDOW], tl.float32)
    at = x + plane.to(tl.int64) * H * W + row * WINDOW * W
    for line in range(0, WINDOW):
        total += tl.load(at + line * W + windows[:, None] * WINDOW + cols[None, :], inside, other=0)
    tl.store(out + tl.program_id(0) * SIZE + windows, tl.sum(total, 1) / (WINDOW * WINDOW), windows < SIZE)


@triton.jit
def matmul(
    a, b, c, M, N, K, a_m, a_k, b_k, b_n, c_m, c_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """c = a @ b"""
    blocks = tl.cdiv(N, BLOCK_N)
    rows = tl.program_id(0) // blocks * BLOCK_M + tl.arange(0, BLOCK_M)
    cols = tl.program_id(0) % blocks * BLOCK_N + tl.arange(0, BLOCK_N)
    ks = tl.arange(0, BLOCK_K)
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for start in range(0, K, BLOCK_K):
        at = start + ks
        left_inside, right_inside = (rows < M)[:, None] & (at < K)[None, :], (at < K)[:, None] & (cols < N)[None, :]
        left = tl.load(a + rows[:, None] * a_m + at[None, :] * a_k, left_inside, other=0)
        right = tl.load(b + at[:, None] * b_k + cols[None, :] * b_n, right_inside, other=0)
        total = tl.dot(left, right, total)
    tl.store(c + rows[:, None] * c_m + cols[None, :] * c_n, total, (rows < M)[:, None] & (cols < N)[None, :])
