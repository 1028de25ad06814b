"""The rest of the language: tensor descriptors, tuples, wide ranks, exchanges in every type, what is refused."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice
from triton.tools.tensor_descriptor import TensorDescriptor

from trident_cpu import launch
from trident_cpu.errors import CompileError


@triton.jit
def made_descriptor_kernel(x, y, M, N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    source = tl.make_tensor_descriptor(x, [M, N], [N, 1], [BLOCK_M, BLOCK_N])
    target = tl.make_tensor_descriptor(y, [M, N], [N, 1], [BLOCK_M, BLOCK_N])
    m, n = tl.program_id(0) * BLOCK_M, tl.program_id(1) * BLOCK_N
    target.store([m, n], source.load([m, n]) * 2)


@triton.jit
def passed_descriptor_kernel(source, target, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    m, n = tl.program_id(0) * BLOCK_M, tl.program_id(1) * BLOCK_N
    target.store([m, n], source.load([m, n]) + 1)


@pytest.mark.parametrize("shape", [(8, 16), (20, 52), (1, 4)], ids=str)
def test_tensor_descriptors(shape: tuple[int, int]) -> None:
    """Edges read as 0 and are not written."""
    x = torch.randn(shape)
    grid = (triton.cdiv(shape[0], 8), triton.cdiv(shape[1], 16))
    y = torch.full((shape[0] + 1, shape[1]), -1.0)
    launch(made_descriptor_kernel, grid, x, y, *shape, BLOCK_M=8, BLOCK_N=16)
    assert torch.equal(y[:-1], x * 2) and (y[-1] == -1).all()
    z = torch.empty(shape)
    blocks = [TensorDescriptor.from_tensor(t, [8, 16]) for t in (x, z)]
    launch(passed_descriptor_kernel, grid, *blocks, BLOCK_M=8, BLOCK_N=16)
    assert torch.equal(z, x + 1)


@triton.jit
def swap_pair(pair):
    a, b = pair
    return b, a


@triton.jit
def tuple_kernel(tensors, sizes, BLOCK: tl.constexpr):
    x, y = tensors
    at = tl.arange(0, BLOCK)
    a, b = swap_pair((tl.load(x + at, at < sizes[0]), at.to(tl.float32) * sizes[1]))
    tl.store(y + at, a - b, at < sizes[0])


def test_tuples() -> None:
    x, y = torch.randn(2, 50)
    launch(tuple_kernel, (1,), (x, y), (50, 3), BLOCK=64)
    assert torch.equal(y, torch.arange(50.0) * 3 - x)


@triton.jit
def rank5_kernel(x, y, ORDER: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    b_x = tl.reshape(tl.load(x + at), (2, 4, 2, 8, 2))
    tl.store(y + at, tl.reshape(tl.permute(b_x, ORDER[0], ORDER[1], ORDER[2], ORDER[3], ORDER[4]), (N,)))


@pytest.mark.parametrize("order", [(4, 3, 2, 1, 0), (1, 0, 3, 2, 4), (0, 4, 1, 3, 2)], ids=str)
def test_permute_of_rank_five(order: tuple[int, ...]) -> None:
    x = torch.arange(256)
    y = torch.empty_like(x)
    launch(rank5_kernel, (1,), x, y, ORDER=order, N=256)
    assert torch.equal(y, x.view(2, 4, 2, 8, 2).permute(order).reshape(-1))


@triton.jit
def exchange_kernel(x, old, new, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(old + at, tl.atomic_xchg(x + at, tl.load(new + at, at < n), at < n), at < n)


@triton.jit
def swap_if_equal_kernel(x, old, expected, new):
    at = tl.program_id(0)
    tl.store(old + at, tl.atomic_cas(x + at, tl.load(expected + at), tl.load(new + at)))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64, torch.float32, torch.float64, torch.float16], ids=str)
def test_exchanges(dtype: torch.dtype) -> None:
    x, new = torch.arange(20).to(dtype), torch.arange(20).to(dtype) + 50
    old, start = torch.empty_like(x), x.clone()
    if dtype != torch.float16:  # Triton's exchange takes 32 and 64 bits
        launch(exchange_kernel, (1,), x, old, new, 20, BLOCK=32)
        assert torch.equal(old, start) and torch.equal(x, new)
    x, expected = start.clone(), start.clone()
    expected[::2] += 1
    launch(swap_if_equal_kernel, (20,), x, old, expected, new)
    assert torch.equal(old, start)
    assert torch.equal(x, torch.where(start == expected, new, start))


@triton.jit
def lock_kernel(lock, total, n):
    """A critical section: every program adds 1 to two cells that are not atomic."""
    while tl.atomic_cas(lock, 0, 1) == 1:
        pass
    tl.store(total, tl.load(total) + 1)
    tl.store(total + 1, tl.load(total + 1) + tl.load(total))
    tl.debug_barrier()
    tl.atomic_xchg(lock, 0)


def test_a_spin_lock_excludes() -> None:
    lock, total = torch.zeros(1, dtype=torch.int32), torch.zeros(2, dtype=torch.int64)
    launch(lock_kernel, (500,), lock, total, 500)
    assert total.tolist() == [500, 500 * 501 // 2]


@triton.jit
def assembly_kernel(x, y):
    at = tl.arange(0, 16)
    b_y = tl.inline_asm_elementwise("not.b32 $0, $1;", "=r,r", [tl.load(x + at)], tl.int32, True, 1)
    tl.store(y + at, b_y)


@triton.jit
def bessel_kernel(x, y):
    tl.store(y + tl.arange(0, 16), libdevice.cyl_bessel_i0(tl.load(x + tl.arange(0, 16))))


@pytest.mark.parametrize(
    ("kernel", "names"),
    [(assembly_kernel, r"inline_asm at .*test_language\.py:\d+"), (bessel_kernel, r"test_language\.py:\d+.*bessel")],
    ids=["assembly", "libdevice"],
)
def test_refused_by_name_and_line(kernel, names: str) -> None:
    x = torch.zeros(16, dtype=torch.int32 if kernel is assembly_kernel else torch.float32)
    with pytest.raises(CompileError, match=names):
        launch(kernel, (1,), x, x)


@triton.jit
def select_pointer_kernel(x, y, z, flag, BLOCK: tl.constexpr):
    """Pointers as values: chosen by a condition, carried by a loop, kept through a branch."""
    at = tl.arange(0, BLOCK)
    p = tl.where(at % 2 == 0, x + at, y + at)
    if flag > 0:
        p += 1
    total = tl.zeros((BLOCK,), tl.float32)
    for i in range(3):
        total += tl.load(p)
        p += at % 2 + i
    tl.store(z + at, total)


@pytest.mark.parametrize("flag", [0, 1])
def test_pointers_as_values(flag: int) -> None:
    x, y, z = torch.randn(64), torch.randn(64), torch.empty(32)
    launch(select_pointer_kernel, (1,), x, y, z, flag, BLOCK=32)
    at = torch.arange(32)
    place, want = at + flag, torch.zeros(32)
    for i in range(3):
        want += torch.where(at % 2 == 0, x[place], y[place])
        place = place + at % 2 + i
    torch.testing.assert_close(z, want)


@triton.jit
def big_kernel(x, y, n, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    b_x = tl.load(x + at, at < n, other=0.0)
    b_x = b_x - tl.sum(b_x, 0) / n
    tl.store(y + at, b_x / tl.sqrt(tl.sum(b_x * b_x, 0) / n), at < n)


def test_a_tile_of_a_million_elements() -> None:
    n = (1 << 20) - 5
    x, y = torch.randn(n), torch.empty(n)
    launch(big_kernel, (1,), x, y, n, BLOCK=1 << 20)
    torch.testing.assert_close(y, x / x.std(correction=0), rtol=1e-3, atol=2e-3)
