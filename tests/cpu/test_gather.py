"""tl.gather that waits for its reader: what it reads must be what it was at its place in the program."""

import pytest
import torch
import triton
import triton.language as tl

import trident_cpu


@triton.jit
def spread(y, x, index, N: tl.constexpr, M: tl.constexpr):
    b = tl.load(x + tl.arange(0, N))
    found = tl.gather(b, tl.load(index + tl.arange(0, M)), 0)
    tl.store(y + tl.arange(0, M), found * 2.0)


@triton.jit
def rounds(y, x, index, turns, N: tl.constexpr):
    """Source and index are changed by the loop, after the gather and before what it found is used."""
    at = tl.arange(0, N)
    b, places, total = tl.load(x + at), tl.load(index + at), tl.zeros((N,), tl.float32)
    for _ in range(turns):
        found = tl.gather(b, places, 0)
        b = b * 2.0 + 1.0
        places = (places * 5 + 3) % N
        total = total * 0.5 + tl.where(places > 3, found, -found)
    tl.store(y + at, total)


@triton.jit
def by_rows(y, x, index, N: tl.constexpr, ROWS: tl.constexpr):
    """What is found is spread over rows, where no lane follows the gather's own axis."""
    at = tl.arange(0, N)
    found = tl.gather(tl.load(x + at), tl.load(index + at), 0) + 1.0
    rows = tl.arange(0, ROWS)[None, :] + tl.zeros((N, ROWS), tl.float32)
    tl.store(y + at[:, None] * ROWS + tl.arange(0, ROWS)[None, :], found[:, None] * rows)


def places(kind, n, m):
    if kind == "near":  # a new window each 16 places
        return (torch.arange(m) * 2 % n + torch.randint(0, 2, (m,))).clamp(max=n - 1)
    if kind == "nearby":
        return (torch.arange(m) * 3 % n + torch.randint(0, 9, (m,))).clamp(max=n - 1)
    return torch.randint(0, n, (m,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("index", [torch.int32, torch.int64])
@pytest.mark.parametrize(("n", "m"), [(16, 4), (32, 64), (512, 256), (1024, 1024)])
@pytest.mark.parametrize("kind", ["near", "nearby", "far"])
def test_any_places(dtype, index, n, m, kind):
    torch.manual_seed(n + m)
    x, at = torch.randn(n).to(dtype), places(kind, n, m)
    y = torch.empty(m, dtype=dtype)
    trident_cpu.launch(spread, (1,), y, x, at.to(index), N=n, M=m)
    assert torch.equal(y, x[at] * 2)


@pytest.mark.parametrize("n", [16, 64, 512])
def test_sources_and_places_that_loops_change(n):
    torch.manual_seed(n)
    x, at = torch.randn(n), torch.randint(0, n, (n,), dtype=torch.int32)
    y = torch.empty(n)
    trident_cpu.launch(rounds, (1,), y, x, at, 4, N=n)
    total = torch.zeros(n)
    for _ in range(4):
        found = x[at.long()]
        x, at = x * 2 + 1, (at * 5 + 3) % n
        total = total * 0.5 + torch.where(at > 3, found, -found)
    torch.testing.assert_close(y, total)


@pytest.mark.parametrize(("n", "rows"), [(16, 32), (64, 4), (128, 64)])
def test_spread_over_rows(n, rows):
    torch.manual_seed(n)
    x, at = torch.randn(n), torch.randint(0, n, (n,), dtype=torch.int32)
    y = torch.empty(n, rows)
    trident_cpu.launch(by_rows, (1,), y, x, at, N=n, ROWS=rows)
    torch.testing.assert_close(y, (x[at.long()] + 1)[:, None] * torch.arange(rows, dtype=torch.float32))
