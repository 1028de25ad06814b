"""Tensors that share memory: what one program does is in program order, whole tile after whole tile.

Elements that a single store writes to one address all hold the same value here; anything else is open in Triton too.
"""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import launch

SHIFTS = [-40, -16, -3, -1, 0, 1, 5, 16, 64, 200]


@triton.jit
def two_stores_kernel(x, y, z, n, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    b_x = tl.load(x + cols, cols < n)
    tl.store(y + cols, b_x + 1, cols < n)
    tl.store(z + cols, b_x * 2, cols < n)


@pytest.mark.parametrize("by", SHIFTS)
@pytest.mark.parametrize("n", [1, 16, 100, 128])
def test_the_later_store_stays(n: int, by: int) -> None:
    x, out = torch.randn(n), torch.zeros(600)
    want = out.clone()
    want[200 : 200 + n] = x + 1
    want[200 + by : 200 + by + n] = x * 2
    launch(two_stores_kernel, (1,), x, out[200:], out[200 + by :], n, BLOCK=128)
    assert torch.equal(out, want)


@pytest.mark.parametrize("y_by", [-3, 0, 1, 17, 300])
@pytest.mark.parametrize("z_by", [-2, 0, 1, 16, 400])
def test_outputs_over_an_input(y_by: int, z_by: int) -> None:
    n, data = 100, torch.randn(600)
    want = data.clone()
    want[50 + y_by : 150 + y_by] = data[50:150] + 1
    want[50 + z_by : 150 + z_by] = data[50:150] * 2
    launch(two_stores_kernel, (1,), data[50:], data[50 + y_by :], data[50 + z_by :], n, BLOCK=128)
    assert torch.equal(data, want)


@pytest.mark.parametrize("by", [-8, -1, 0, 1, 2, 7, 64])
@pytest.mark.parametrize("kinds", [(torch.float32, torch.int16), (torch.int8, torch.float64)], ids=str)
def test_outputs_of_two_types(kinds: tuple[torch.dtype, torch.dtype], by: int) -> None:
    """Element sizes differ, so equal pointers do not mean equal places."""
    n, (first, second) = 64, kinds
    x, raw = torch.arange(n, dtype=torch.float32), torch.zeros(4096, dtype=torch.int8)
    y, z = raw[1024:].view(first), raw[1024 + by * second.itemsize :].view(second)
    want = raw.clone()
    want[1024:].view(first)[:n] = (x + 1).to(first)
    want[1024 + by * second.itemsize :].view(second)[:n] = (x * 2).to(second)
    launch(two_stores_kernel, (1,), x, y, z, n, BLOCK=64)
    assert torch.equal(raw, want)


@triton.jit
def three_stores_kernel(x, y, z, w, n, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    b_x = tl.load(x + cols, cols < n)
    tl.store(y + cols, b_x + 1, cols < n)
    tl.store(z + cols, b_x * 2, cols < n)
    tl.store(w + cols, b_x - 7, cols < n)


@pytest.mark.parametrize("by", [(0, 0), (1, 2), (-1, 1), (0, 5), (300, 3), (3, 300)], ids=str)
def test_three_outputs(by: tuple[int, int]) -> None:
    n = 77
    x, out = torch.randn(n), torch.zeros(800)
    want = out.clone()
    want[100 : 100 + n] = x + 1
    want[100 + by[0] : 100 + by[0] + n] = x * 2
    want[100 + by[1] : 100 + by[1] + n] = x - 7
    launch(three_stores_kernel, (1,), x, out[100:], out[100 + by[0] :], out[100 + by[1] :], n, BLOCK=128)
    assert torch.equal(out, want)


@triton.jit
def planes_kernel(x, y, z, s_m, s_n, t_m, t_n, M: tl.constexpr, N: tl.constexpr):
    rows, cols = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :]
    b_x = tl.load(x + rows * N + cols)
    tl.store(y + rows * s_m + cols * s_n, b_x + 1)
    tl.store(z + rows * t_m + cols * t_n, b_x * 2)


@pytest.mark.parametrize("turned", [(False, False), (False, True), (True, False), (True, True)], ids=str)
@pytest.mark.parametrize("by", [0, 1, 16, 33, 5000])
@pytest.mark.parametrize("shape", [(4, 32), (32, 4), (16, 16)], ids=str)
def test_planes_that_overlap(shape: tuple[int, int], by: int, turned: tuple[bool, bool]) -> None:
    m, n = shape
    x, out = torch.randn(m, n), torch.zeros(8000)
    want = out.clone()
    strides = [(1, m + 1) if t else (n + 1, 1) for t in turned]
    torch.as_strided(want, shape, strides[0], 0).copy_(x + 1)
    torch.as_strided(want, shape, strides[1], by).copy_(x * 2)
    launch(planes_kernel, (1,), x, out, out[by:], *strides[0], *strides[1], M=m, N=n)
    assert torch.equal(out, want)


@triton.jit
def scatter_kernel(x, index, y, z, N: tl.constexpr):
    at = tl.arange(0, N)
    b_i = tl.load(index + at)
    b_x = tl.load(x + at)
    tl.store(y + b_i, b_x + 1)
    tl.store(z + b_i, b_x * 2)


@pytest.mark.parametrize("by", [0, 1, 7, 16, 100])
def test_scatters_that_overlap(by: int) -> None:
    n = 64
    x, index, out = torch.randn(n), torch.randperm(n), torch.zeros(300)
    want = out.clone()
    want[index] = x + 1
    want[by:][index] = x * 2
    launch(scatter_kernel, (1,), x, index, out, out[by:], N=n)
    assert torch.equal(out, want)


# -- one address for several elements of a tile


@triton.jit
def crowded_kernel(x, N: tl.constexpr, K: tl.constexpr):
    at = x + tl.arange(0, N) % K
    tl.store(at, tl.load(at) + 1)


@pytest.mark.parametrize("k", [1, 4, 16, 64, 128])
def test_a_column_read_before_it_is_written(k: int) -> None:
    x = torch.randn(128)
    want = x.clone()
    want[:k] += 1
    launch(crowded_kernel, (1,), x, N=128, K=k)
    assert torch.equal(x, want)


@triton.jit
def crowded_rows_kernel(x, y, stride, M: tl.constexpr, N: tl.constexpr):
    rows, cols = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :]
    at = rows * stride + cols
    tl.store(y + at, tl.load(x + at) * 2)


@pytest.mark.parametrize("stride", [0, 1, 8, 32, 33, -32])
@pytest.mark.parametrize("shape", [(4, 32), (32, 2)], ids=str)
@pytest.mark.parametrize("by", [0, 1, 32, 2000])
def test_rows_that_overlap(shape: tuple[int, int], stride: int, by: int) -> None:
    """In place where by is 0: a run-time stride of less than a row, as of an expanded tensor."""
    m, n = shape
    x = torch.ones(6000)
    want = x.clone()
    places = 2000 + torch.arange(m)[:, None] * stride + torch.arange(n)
    want[by + places] = x[places] * 2
    launch(crowded_rows_kernel, (1,), x[2000:], x[2000 + by :], stride, M=m, N=n)
    assert torch.equal(x, want)


@triton.jit
def crowded_scatter_kernel(x, index, N: tl.constexpr):
    at = x + tl.load(index + tl.arange(0, N))
    tl.store(at, tl.load(at) + 1)


def test_an_index_that_repeats() -> None:
    x, index = torch.randn(8), torch.arange(128) % 8
    want = x + 1
    launch(crowded_scatter_kernel, (1,), x, index, N=128)
    assert torch.equal(x, want)


@triton.jit
def crowded_stores_kernel(x, y, K: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(y + at % K, tl.load(x + at % K) * 3)
    tl.store(y + at % K, tl.load(x + K + at % K))


@pytest.mark.parametrize("n", [128, 512])  # unrolled, and in loops
@pytest.mark.parametrize("k", [1, 4, 16, 64])
def test_the_later_store_stays_in_a_crowd(k: int, n: int) -> None:
    x, y = torch.randn(128), torch.zeros(64)
    launch(crowded_stores_kernel, (1,), x, y, K=k, N=n)
    assert torch.equal(y[:k], x[k : 2 * k])


@triton.jit
def kept_places_kernel(x, y, z, index, K: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    places = at % K if index is None else tl.load(index + at)
    tl.store(y + at, tl.load(x + places) * 3)
    tl.store(z + tl.arange(0, N), places)  # another nest, if it is a part of another tensor


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("n", [64, 512])
def test_places_that_a_later_loop_wants_too(n: int, given: bool) -> None:
    """The copy that a load makes of its tile comes before them."""
    x, y, z = torch.randn(64), torch.zeros(n), torch.zeros(n)
    want = torch.arange(n) % 4
    launch(kept_places_kernel, (1,), x, y, z, want if given else None, K=4, N=n)
    assert torch.equal(y, x[want] * 3) and torch.equal(z, want.float())
    both = torch.zeros(2 * n)
    launch(kept_places_kernel, (1,), x, both, both[n:], want if given else None, K=4, N=n)
    assert torch.equal(both, torch.cat([x[want] * 3, want.float()]))


@triton.jit
def loop_kernel(x, y, z, n, turns, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    source, first, second = x + cols, y + cols, z + cols
    for _ in range(turns):
        b_x = tl.load(source, cols < n, other=0.0)
        tl.store(first, b_x + 1, cols < n)
        tl.store(second, b_x * 2, cols < n)
        source += BLOCK
        first += BLOCK
        second += BLOCK


@pytest.mark.parametrize("by", [(300, 301), (0, 300), (3, 5), (-1, 64), (64, 300), (300, 300)], ids=str)
@pytest.mark.parametrize("n", [64, 50])
def test_pointers_that_move_in_a_loop(n: int, by: tuple[int, int]) -> None:
    data = torch.randn(1200)
    want = data.clone()
    for turn in range(3):
        part = want[100 + 64 * turn :][:n].clone()
        want[100 + by[0] + 64 * turn :][:n] = part + 1
        want[100 + by[1] + 64 * turn :][:n] = part * 2
    launch(loop_kernel, (1,), data[100:], data[100 + by[0] :], data[100 + by[1] :], n, 3, BLOCK=64)
    assert torch.equal(data, want)


# -- tiles that later passes read again


@triton.jit
def passes_kernel(x, y, z, n, HOW: tl.constexpr, BLOCK: tl.constexpr):
    """b_x is what x was when it was loaded, whatever is written before its last use."""
    cols = tl.arange(0, BLOCK)
    b_x = tl.load(x + cols, cols < n, other=0.0)
    total = tl.sum(b_x, 0)
    if HOW == "tile":
        tl.store(y + cols, b_x + total, cols < n)
    elif HOW == "scalar":
        tl.store(y + 3, total)
    elif HOW == "atomic":
        tl.atomic_add(y + cols, total, cols < n)
    elif HOW == "exchange":
        tl.atomic_xchg(y + 5, total)
    elif HOW == "loop":
        for i in range(n // 2):
            tl.store(y + 2 * i, total)
    tl.store(z + cols, b_x * 2, cols < n)


@pytest.mark.parametrize("how", ["tile", "scalar", "atomic", "exchange", "loop"])
@pytest.mark.parametrize("y_by", [0, 1, -5, 64, 5000])
@pytest.mark.parametrize("z_by", [0, 16, 10000])
def test_a_tile_is_what_it_was_when_loaded(how: str, y_by: int, z_by: int) -> None:
    n, data = 1000, torch.randint(-9, 9, (20000,)).float()
    want, x = data.clone(), data[100:1100].clone()
    total, y = x.sum(), want[100 + y_by :]
    if how == "tile":
        y[:n] = x + total
    elif how == "scalar":
        y[3] = total
    elif how == "atomic":
        y[:n] += total
    elif how == "exchange":
        y[5] = total
    else:
        y[:n:2] = total
    want[100 + z_by :][:n] = x * 2
    launch(passes_kernel, (1,), data[100:], data[100 + y_by :], data[100 + z_by :], n, HOW=how, BLOCK=1024)
    assert torch.equal(data, want)


@triton.jit
def softmax_kernel(x, y, s_x, s_y, n, BLOCK: tl.constexpr):
    row, cols = tl.program_id(0), tl.arange(0, BLOCK)
    b_x = tl.load(x + row * s_x + cols, cols < n, other=-float("inf"))
    e = tl.exp(b_x - tl.max(b_x, 0))
    tl.store(y + row * s_y + cols, e / tl.sum(e, 0), cols < n)


@pytest.mark.parametrize("by", [0, 1, -7, 16])
def test_softmax_over_its_own_input(by: int) -> None:
    n, data = 3000, torch.randn(4000)
    want = data.clone()
    want[100 + by :][:n] = torch.softmax(data[100:3100].clone(), 0)
    launch(softmax_kernel, (1,), data[100:], data[100 + by :], 0, 0, n, BLOCK=4096)
    torch.testing.assert_close(data, want)
