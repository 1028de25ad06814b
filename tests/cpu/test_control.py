"""Control flow: what loops carry, branches, early returns, calls, and the order of loads and stores."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import launch


@triton.jit
def loops_kernel(x, y, n, rows, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    pointers = x + cols
    total = tl.zeros((BLOCK,), tl.float32)
    biggest = tl.full((BLOCK,), -float("inf"), tl.float32)
    before = tl.zeros((BLOCK,), tl.float32)
    scale = 1.0
    for _row in range(rows):
        b_x = tl.load(pointers, cols < n, other=0.0)
        total = total * 0.5 + b_x * scale + before
        before = b_x
        biggest = tl.maximum(biggest, total)
        scale *= 0.75
        pointers += n
    tl.store(y + cols, total, cols < n)
    tl.store(y + n + cols, biggest, cols < n)
    tl.store(y + 2 * n + cols, before, cols < n)
    tl.store(y + 3 * n, scale)


@pytest.mark.parametrize("rows", [0, 1, 2, 5])
@pytest.mark.parametrize("n", [1, 3, 16, 100, 2000])
def test_what_a_loop_carries(n: int, rows: int) -> None:
    x, y = torch.randn(max(rows, 1), n), torch.empty(3 * n + 1)
    launch(loops_kernel, (1,), x, y, n, rows, BLOCK=triton.next_power_of_2(n))
    total, before, scale = torch.zeros(n), torch.zeros(n), 1.0
    biggest = torch.full((n,), -float("inf"))
    for row in range(rows):
        total = total * 0.5 + x[row] * scale + before
        before, biggest, scale = x[row], torch.maximum(biggest, total), scale * 0.75
    torch.testing.assert_close(y, torch.cat([total, biggest, before, torch.tensor([scale])]))


@triton.jit
def swap_kernel(x, y, turns, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    a, b, c = tl.load(x + cols), tl.load(x + BLOCK + cols), tl.load(x + 2 * BLOCK + cols)
    for _ in range(turns):
        a, b, c = b + c, a, a * 0.5 + b
    tl.store(y + cols, a)
    tl.store(y + BLOCK + cols, b)
    tl.store(y + 2 * BLOCK + cols, c)


@pytest.mark.parametrize("block", [4, 64, 2048])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 6])
def test_carried_tiles_that_read_each_other(turns: int, block: int) -> None:
    x, y = torch.randn(3, block), torch.empty(3, block)
    launch(swap_kernel, (1,), x, y, turns, BLOCK=block)
    a, b, c = x
    for _ in range(turns):
        a, b, c = b + c, a, a * 0.5 + b
    torch.testing.assert_close(y, torch.stack([a, b, c]))


@triton.jit
def turn_kernel(x, y, turns, N: tl.constexpr):
    rows, cols = tl.arange(0, N)[:, None], tl.arange(0, N)[None, :]
    b_x = tl.load(x + rows * N + cols)
    for _ in range(turns):
        b_x = tl.trans(b_x) + tl.sum(b_x, 1)[:, None]
    tl.store(y + rows * N + cols, b_x)


@pytest.mark.parametrize("n", [4, 32, 64])
def test_carried_tile_whose_elements_move(n: int) -> None:
    x, y = torch.rand(n, n), torch.empty(n, n)
    launch(turn_kernel, (1,), x, y, 3, N=n)
    for _ in range(3):
        x = x.t() + x.sum(1, keepdim=True)
    torch.testing.assert_close(y, x)


@triton.jit
def nested_kernel(x, y, M, N, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK,), tl.float32)
    for i in range(M):
        inner = tl.zeros((BLOCK,), tl.float32)
        for j in range(i, N, 2):
            b_x = tl.load(x + i * N + j + cols * 0)
            if j % 3 == 0:
                inner += b_x
            else:
                inner -= b_x * 2
        acc = acc + inner * i
    tl.store(y + cols, acc)


@pytest.mark.parametrize("block", [1, 16, 1024])
def test_nested_loops_and_branches(block: int) -> None:
    M, N = 4, 9
    x, y = torch.randn(M, N), torch.empty(block)
    launch(nested_kernel, (1,), x, y, M, N, BLOCK=block)
    acc = 0.0
    for i in range(M):
        acc += i * sum((x[i, j] if j % 3 == 0 else -2 * x[i, j]) for j in range(i, N, 2))
    torch.testing.assert_close(y, acc.expand(block))


@triton.jit
def branch_kernel(x, y, flag, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    b_x = tl.load(x + cols)
    if flag > 0:
        b_y = b_x * 2
        k = flag + 1
    elif flag < 0:
        b_y = tl.cumsum(b_x, 0)
        k = -flag
    else:
        b_y = b_x
        k = 7
    tl.store(y + cols, b_y + k)


@pytest.mark.parametrize("block", [2, 512])
@pytest.mark.parametrize("flag", [-3, 0, 2])
def test_branches_give_tiles_and_scalars(flag: int, block: int) -> None:
    x, y = torch.rand(block), torch.empty(block)
    launch(branch_kernel, (1,), x, y, flag, BLOCK=block)
    want = x * 2 + flag + 1 if flag > 0 else x.cumsum(0) - flag if flag < 0 else x + 7
    torch.testing.assert_close(y, want)


@triton.jit
def while_kernel(x, y, turns, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    a, b, i = tl.load(x + cols), tl.zeros((BLOCK,), tl.float32), 0
    while (i < turns) & (tl.sum(a, 0) < 1e6):
        a, b = a + b, a
        i += 1
    tl.store(y + cols, a)
    tl.store(y + BLOCK, i)


@pytest.mark.parametrize("block", [8, 256])
@pytest.mark.parametrize("turns", [0, 1, 5, 100])
def test_while(turns: int, block: int) -> None:
    x, y = torch.rand(block), torch.empty(block + 1)
    launch(while_kernel, (1,), x, y, turns, BLOCK=block)
    a, b, i = x, torch.zeros(block), 0
    while i < turns and a.sum() < 1e6:
        a, b, i = a + b, a, i + 1
    torch.testing.assert_close(y, torch.cat([a, torch.tensor([float(i)])]))


@triton.jit(noinline=True)
def pick(a, b, k):
    if k > 3:
        return a + b
    return a - b


@triton.jit(noinline=True)
def two(a, k):
    s = 0.0
    for _i in range(k):
        s += a
    return s, k + 1


@triton.jit
def call_kernel(x, y, n, k, BLOCK: tl.constexpr):
    pid = tl.program_id(0)
    if pid >= n:
        return
    a, m = two(tl.load(x + pid), k)
    tl.store(y + pid, pick(a, 2.0, m))
    if pid == 1:
        return
    tl.store(y + n + pid, tl.sum(tl.arange(0, BLOCK) * k, 0))


def test_early_return_and_noinline_calls() -> None:
    n, k = 5, 3
    x, y = torch.randn(n), torch.zeros(2 * n)
    launch(call_kernel, (8,), x, y, n, k, BLOCK=64)
    tail = torch.full((n,), 63.0 * 32 * k)
    tail[1] = 0
    torch.testing.assert_close(y, torch.cat([x * k + 2, tail]))


@triton.jit
def shift_kernel(x, n, by, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    b_x = tl.load(x + cols, cols < n)
    tl.store(x + by + cols, b_x, cols < n)


@pytest.mark.parametrize("by", [-1, 0, 1, 5, 16, 40])
def test_a_tile_moves_within_its_tensor(by: int) -> None:
    """Every load of a tile comes before every store of the next op, whatever the overlap."""
    n = 100
    x = torch.randn(200)
    want = x.clone()
    want[50 + by : 150 + by] = x[50:150]
    launch(shift_kernel, (1,), x[50:], n, by, BLOCK=128)
    assert torch.equal(x, want)


@triton.jit
def two_pointers_kernel(x, y, n, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    tl.store(y + cols, tl.load(x + cols, cols < n) + 1.0, cols < n)


@pytest.mark.parametrize("by", [-3, 0, 1, 17, 64])
def test_two_parameters_that_overlap(by: int) -> None:
    x = torch.randn(300)
    want = x.clone()
    want[100 + by : 200 + by] = x[100:200] + 1.0
    launch(two_pointers_kernel, (1,), x[100:], x[100 + by :], 100, BLOCK=128)
    assert torch.equal(x, want)


@triton.jit
def loop_overlap_kernel(x, n, turns, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    source, target = x + cols, x + 1 + cols
    for _ in range(turns):
        tl.store(target, tl.load(source, cols < n) + 1.0, cols < n)


def test_two_pointers_into_one_tensor_in_a_loop() -> None:
    x, n = torch.randn(200), 100
    want = x.clone()
    for _ in range(3):
        want[1 : n + 1] = want[:n].clone() + 1.0
    launch(loop_overlap_kernel, (1,), x, n, 3, BLOCK=128)
    torch.testing.assert_close(x, want)


@triton.jit
def store_then_load_kernel(x, y, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    b_x = tl.load(x + cols)
    tl.store(y + cols, b_x * 2)
    b_y = tl.load(y + (BLOCK - 1) - cols)
    tl.store(x + cols, b_y)


def test_a_load_sees_the_store_before_it() -> None:
    x, y = torch.randn(256), torch.empty(256)
    want = x.flip(0) * 2
    launch(store_then_load_kernel, (1,), x, y, BLOCK=256)
    assert torch.equal(x, want)


@triton.jit
def kept_kernel(x, y, z, flag, WAY: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    """A costly row, v = exp(x), is kept by the branch that spreads it over y, and read after it or instead of it."""
    at, m = tl.arange(0, N), tl.arange(0, M)[:, None]
    tile = y + m * N + at[None, :]
    v = tl.exp(tl.load(x + at))
    if WAY == "after":
        if flag > 1:
            tl.store(tile, v[None, :] + m)
    elif WAY == "else":
        if flag > 1:
            tl.store(tile, v[None, :] + m)
        else:
            tl.store(tile, v[None, :] + 2 * m)
    elif WAY == "return":
        if flag > 1:
            tl.store(tile, v[None, :] + m)
            return
        tl.store(tile, v[None, :] + 2 * m)
    elif WAY == "scan":
        if flag > 1:
            tl.store(y + at, tl.cumsum(v, 0))
    else:
        if flag > 1:
            v2 = tl.exp(tl.load(x + m * 0 + at[None, :]))
            tl.store(tile, tl.dot(v2, tl.trans(v2)))
    tl.store(z + at, v)


@pytest.mark.parametrize("flag", [0, 3])
@pytest.mark.parametrize("way", ["after", "else", "return", "scan", "dot"])
def test_what_a_branch_keeps_is_not_read_elsewhere(way: str, flag: int) -> None:
    n = 64
    x = torch.randn(n)
    y, z = torch.zeros(n, n), torch.zeros(n)
    for used in (torch.zeros(n), torch.full((n,), torch.nan)):  # other numbers in the memory that is not to be read
        launch(kept_kernel, (1,), used, torch.zeros(n, n), torch.zeros(n), 3, WAY=way, M=n, N=n)
        launch(kept_kernel, (1,), x, y, z, flag, WAY=way, M=n, N=n)
        m, v = torch.arange(n)[:, None], x.exp()
        if way in ("else", "return"):
            torch.testing.assert_close(y, v + m * (1 if flag else 2))
        elif flag and way == "after":
            torch.testing.assert_close(y, v + m)
        elif flag and way == "scan":
            torch.testing.assert_close(y[0], v.cumsum(0))
        if not (flag and way == "return"):
            torch.testing.assert_close(z, v)
