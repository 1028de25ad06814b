"""TRIDENT_CPU_SANITIZE=1: planted faults are reported with their place, correct kernels are not."""

import pytest
import torch
import triton
import triton.language as tl

import trident_cpu
from trident_cpu import sanitizer
from trident_cpu.faults import MemoryFault

from .test_plugin import python

N = 1000


@pytest.fixture
def on(monkeypatch):
    """The sanitizer, for kernels defined in the test (a kernel keeps the mode of its first launch)."""
    monkeypatch.setenv("TRIDENT_CPU_SANITIZE", "1")
    # torch.empty stays as it is for the other tests of this process: tests of fresh memory poison by hand
    monkeypatch.setattr(sanitizer, "watch_fresh_memory", lambda: None)


def fresh(kernel):
    """The same function as a new kernel, without the code that another mode compiled."""
    return triton.jit(kernel.fn)


@triton.jit
def copy(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, at < n), at < n)


@triton.jit
def copy_unmasked_store(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, at < n, other=0))


@triton.jit
def copy_unmasked_load(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at), at < n)


def faulting(kernel, *args, grid=(4,), **constants):
    with pytest.raises(MemoryFault) as caught:
        trident_cpu.launch(fresh(kernel), grid, *args, **constants)
    return caught.value


def test_correct_kernels_pass(on):
    x, out = torch.randn(N), torch.zeros(N)
    trident_cpu.launch(fresh(copy), (triton.cdiv(N, 256),), x, out, N, BLOCK=256)
    assert torch.equal(out, x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8, torch.bool, torch.float64])
def test_out_of_bounds_store(on, dtype):
    x, out = torch.zeros(N, dtype=dtype), torch.zeros(N, dtype=dtype)
    fault = faulting(copy_unmasked_store, x, out, N, BLOCK=256)
    assert (fault.access, fault.argument, fault.offset) == ("store", "out", N)
    assert fault.program == (3, 0, 0)
    line = copy_unmasked_store.starting_line_number + 3
    assert fault.where.split(":")[:2] == [__file__, str(line)]
    assert "copy_unmasked_store" in str(fault) and "elements 0 to 999" in str(fault)


def test_out_of_bounds_load(on):
    fault = faulting(copy_unmasked_load, torch.zeros(N), torch.zeros(N), N, BLOCK=256)
    assert (fault.access, fault.argument, fault.offset) == ("load", "x", N)


def test_nothing_is_touched_outside(on):
    """The faulting lanes are switched off: the neighbours of the storage keep their values."""
    whole = torch.full((3 * N,), 7.0)
    storage = torch.zeros(N)
    fault = faulting(copy_unmasked_store, whole, storage, N, BLOCK=256)
    assert fault.argument == "out"
    assert torch.equal(storage, torch.full((N,), 7.0))


def test_negative_offset(on):
    @triton.jit
    def before(x):
        tl.store(x - 1, 0.0)

    fault = faulting(before, torch.zeros(4), grid=(1,))
    assert (fault.argument, fault.offset) == ("x", -1)


def test_views_may_reach_their_whole_storage(on):
    base = torch.arange(10.0)

    @triton.jit
    def previous(x, out):
        tl.store(out, tl.load(x - 2))

    out = torch.zeros(1)
    trident_cpu.launch(previous, (1,), base[5:], out)
    assert out.item() == 3
    assert faulting(previous, base[1:], out, grid=(1,)).offset == -2


def test_another_tensor_is_no_excuse(on):
    """Running from one tensor into its neighbour in memory is a fault too."""
    both = torch.zeros(64)
    x, y = both[:32].clone(), both[32:].clone()
    distance = (y.data_ptr() - x.data_ptr()) // 4

    @triton.jit
    def stray(x, y, distance):
        tl.store(x + distance, 1.0)

    assert faulting(stray, x, y, distance, grid=(1,)).argument == "x"


def test_an_address_that_cannot_be_checked_is_refused(on):
    @triton.jit
    def from_integer(x, address):
        pointer = address.to(tl.pointer_type(tl.float32))
        tl.store(x, tl.load(pointer))

    @triton.jit
    def from_table(x, table):
        tl.store(x, tl.load(tl.load(table).to(tl.pointer_type(tl.float32))))

    x = torch.zeros(4)
    wide = 1 << 40  # x may lie where 32 bits are enough, which Triton takes for no address
    for kernel, argument, line in ((from_integer, wide, 3), (from_table, torch.tensor([x.data_ptr()]), 2)):
        with pytest.raises(trident_cpu.UnsupportedOp, match="cannot check an address made from an integer") as error:
            trident_cpu.launch(kernel, (1,), x, argument)
        assert f"{__file__}:{kernel.starting_line_number + line}" in str(error.value)


def test_one_of_two_tensors_at_a_loaded_index(on):
    """The index is loaded, the pointer is not: it is checked against both."""

    @triton.jit
    def either(x, y, index, which):
        pointer = x if which else y
        tl.store(pointer + tl.load(index), 1.0)

    x, y = torch.zeros(4), torch.zeros(4)
    trident_cpu.launch(either, (1,), x, y, torch.tensor([3]), 0)
    assert y[3] == 1
    faulting(either, x, y, torch.tensor([1 << 40]), 0, grid=(1,))


def test_masked_off_lanes_may_point_anywhere(on):
    @triton.jit
    def wild(x, out, n, BLOCK: tl.constexpr):
        at = tl.arange(0, BLOCK)
        far = tl.where(at < n, at, 1 << 30)
        value = tl.load(x + far, at < n, other=-1.0)
        tl.store(out + at, value)
        tl.store(x + far, value, at < n)

    x, out = torch.randn(8), torch.zeros(16)
    trident_cpu.launch(wild, (1,), x, out, 5, BLOCK=16)
    assert torch.equal(out, torch.cat([x[:5], torch.full((11,), -1.0)]))


def test_rows_scalars_and_gathers(on):
    @triton.jit
    def rows(x, index, out, stride, N: tl.constexpr):
        row = tl.load(index + tl.program_id(0))
        tl.store(out + tl.program_id(0) * N + tl.arange(0, N), tl.load(x + row * stride + tl.arange(0, N)))

    x, out = torch.randn(4, 8), torch.zeros(3, 8)
    trident_cpu.launch(rows, (3,), x, torch.tensor([3, 0, 2]), out, x.stride(0), N=8)
    assert torch.equal(out, x[[3, 0, 2]])
    fault = faulting(rows, x, torch.tensor([3, 4, 2]), out, x.stride(0), grid=(3,), N=8)
    assert (fault.argument, fault.offset, fault.program) == ("x", 32, (1, 0, 0))
    fault = faulting(rows, x, torch.tensor([3, 0]), out, x.stride(0), grid=(3,), N=8)
    assert (fault.argument, fault.offset, fault.program) == ("index", 2, (2, 0, 0))


def test_atomics(on):
    @triton.jit
    def count(x, at):
        tl.atomic_add(x + at, 1)

    x = torch.zeros(4, dtype=torch.int32)
    trident_cpu.launch(count, (5,), x, 3)
    assert x.tolist() == [0, 0, 0, 5]
    fault = faulting(count, x, 4, grid=(1,))
    assert (fault.access, fault.argument, fault.offset) == ("atomic_rmw", "x", 4)


def test_loop_carried_pointers(on):
    @triton.jit
    def total(x, out, steps, BLOCK: tl.constexpr):
        sums = tl.zeros((BLOCK,), tl.float32)
        p = x + tl.arange(0, BLOCK)
        for _ in range(steps):
            sums += tl.load(p)
            p += BLOCK
        tl.store(out, tl.sum(sums))

    x, out = torch.ones(64), torch.zeros(1)
    trident_cpu.launch(total, (1,), x, out, 4, BLOCK=16)
    assert out.item() == 64
    assert faulting(total, x, out, 5, grid=(1,), BLOCK=16).offset == 64


def test_dot_operands(on):
    @triton.jit
    def square(x, out, stride, N: tl.constexpr):
        at = tl.arange(0, N)[:, None] * stride + tl.arange(0, N)[None, :]
        block = tl.load(x + at)
        tl.store(out + at, tl.dot(block, block))

    x, out = torch.randn(16, 16), torch.zeros(16, 16)
    trident_cpu.launch(square, (1,), x, out, 16, N=16)
    torch.testing.assert_close(out, x @ x, rtol=1e-5, atol=1e-5)
    assert faulting(square, x, torch.zeros(16, 32), 20, grid=(1,), N=16).argument == "x"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int32])
def test_reading_what_nothing_wrote(on, dtype):
    x, out = sanitizer.poison(torch.empty(N, dtype=dtype)), torch.zeros(N, dtype=dtype)
    x[: N - 1] = 1
    fault = faulting(copy, x, out, N, BLOCK=256)
    assert (fault.access, fault.argument, fault.offset) == ("load", "x", N - 1)
    assert "nothing wrote" in str(fault)
    x.fill_(3)  # any torch operator's write counts
    trident_cpu.launch(fresh(copy), (4,), x, out, N, BLOCK=256)
    assert torch.equal(out, x)
    fresh_out = sanitizer.poison(torch.empty(N, dtype=dtype))
    trident_cpu.launch(fresh(copy), (4,), x, fresh_out, N, BLOCK=256)  # and a kernel's
    trident_cpu.launch(fresh(copy), (4,), fresh_out, out, N, BLOCK=256)


def test_fresh_memory_is_watched():
    code = """
import torch, triton, triton.language as tl, trident_cpu
from tests.cpu.test_sanitizer import copy
x = torch.ones(8)
trident_cpu.launch(copy, (1,), x, torch.empty(8), 8, BLOCK=8)
for make in (lambda: torch.empty(8), lambda: torch.empty_like(x), lambda: x.new_empty(8),
             lambda: torch.empty_strided((8,), (1,))):
    try:
        trident_cpu.launch(copy, (1,), make(), x, 8, BLOCK=8)
        print("missed")
    except trident_cpu.MemoryFault as fault:
        print(fault.offset, end=" ")
print(torch.zeros(3).sum().item())
"""
    assert python(code, TRIDENT_CPU_SANITIZE="1") == "0 0 0 0 0.0"


def test_tuple_and_unknown_pointers(on):
    @triton.jit
    def pick(parts, choose, out):
        p = parts[0] if choose > 0 else parts[1]
        tl.store(out, tl.load(p + choose))

    x, y, out = torch.arange(4.0), torch.arange(10.0, 14.0), torch.zeros(1)
    trident_cpu.launch(pick, (1,), (x, y), 3, out)
    assert out.item() == 3
    fault = faulting(pick, (x, y), 1 << 20, out, grid=(1,))
    assert fault.access == "load"


def test_plain_launch_is_checked(on):
    from triton.runtime import driver as config

    before = config._active
    if not trident_cpu.install():
        pytest.skip("a GPU driver is active on this machine")
    try:
        kernel = fresh(copy_unmasked_store)
        with pytest.raises(MemoryFault, match="argument 'out'"):
            kernel[(4,)](torch.zeros(N), torch.zeros(N), N, BLOCK=256)
    finally:
        config._active = before


def test_option_without_the_environment_is_refused():
    with pytest.raises(ValueError, match="TRIDENT_CPU_SANITIZE=1"):
        trident_cpu.launch(fresh(copy), (1,), torch.zeros(4), torch.zeros(4), 4, BLOCK=4, sanitize=True)
