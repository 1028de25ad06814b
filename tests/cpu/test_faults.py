"""What kernels say and how they fail: device_print, device_assert, and waiting without end."""

import time

import pytest
import torch
import triton
import triton.language as tl

import trident_cpu
from trident_cpu.emit import patience
from trident_cpu.faults import KernelAssertion, KernelStuck


def printed(capfd, kernel, grid, *args, **constants):
    trident_cpu.launch(kernel, grid, *args, **constants)
    return [line for line in capfd.readouterr().out.splitlines() if line.startswith("pid")]


def test_print_of_scalars_and_tiles(capfd):
    @triton.jit
    def show(x, N: tl.constexpr):
        value = tl.load(x + tl.arange(0, N))
        tl.device_print("value", value, tl.program_id(0))

    lines = printed(capfd, show, (2,), torch.tensor([1.5, -2.0]), N=2)
    assert sorted(lines) == [
        "pid (0, 0, 0) idx (0) value: 1.500000 (operand 0)",
        "pid (0, 0, 0) idx (1) value: -2.000000 (operand 0)",
        "pid (0, 0, 0) value: 0 (operand 1)",
        "pid (1, 0, 0) idx (0) value: 1.500000 (operand 0)",
        "pid (1, 0, 0) idx (1) value: -2.000000 (operand 0)",
        "pid (1, 0, 0) value: 1 (operand 1)",
    ]


def test_print_of_types(capfd):
    @triton.jit
    def show(half, signed, byte):
        tl.device_print("half", tl.load(half))
        tl.device_print("signed", tl.load(signed))
        tl.device_print("hexed", tl.load(signed), hex=True)
        tl.device_print("byte", tl.load(byte))
        tl.device_print("truth", tl.load(byte) > 3)
        tl.device_print("100% plain")

    args = torch.tensor([2.5], dtype=torch.bfloat16), torch.tensor([-3], dtype=torch.int32), torch.tensor([200]).byte()
    assert [line.removeprefix("pid (0, 0, 0) ") for line in printed(capfd, show, (1,), *args)] == [
        "half: 2.500000", "signed: -3", "hexed: 0xfffffffd", "byte: 200", "truth: 1", "100% plain",
    ]  # fmt: skip


def test_print_of_a_matrix_gives_its_indices(capfd):
    @triton.jit
    def show(x):
        tl.device_print("m", tl.load(x + tl.arange(0, 2)[:, None] * 4 + tl.arange(0, 4)[None, :]))

    lines = printed(capfd, show, (1,), torch.arange(8, dtype=torch.int32))
    assert sorted(lines) == sorted(f"pid (0, 0, 0) idx ({i}, {j}) m: {4 * i + j}" for i in range(2) for j in range(4))


@pytest.mark.parametrize("tile", [False, True])
def test_device_assert(tile):
    @triton.jit(debug=True)
    def positive(x, N: tl.constexpr, TILE: tl.constexpr):
        if TILE:
            tl.device_assert(tl.load(x + tl.arange(0, N)) > 0, "not positive")
        else:
            tl.device_assert(tl.load(x + tl.program_id(0)) > 0, "not positive")

    x = torch.ones(32)
    trident_cpu.launch(positive, (32,), x, N=32, TILE=tile)
    x[7] = -1
    with pytest.raises(KernelAssertion, match="not positive") as caught:
        trident_cpu.launch(positive, (32,), x, N=32, TILE=tile)
    assert tile or "(7, 0, 0)" in str(caught.value)
    assert f"test_faults.py:{positive.starting_line_number + (3 if tile else 5)}" in str(caught.value)


@triton.jit
def wait_for(flags, which):
    me = tl.program_id(0)
    while tl.atomic_add(flags + which, 0) == 0:
        pass
    tl.atomic_add(flags + me, 1)


def test_waiting_for_an_earlier_program_works():
    @triton.jit
    def chain(flags):
        me = tl.program_id(0)
        if me > 0:
            while tl.atomic_add(flags + me - 1, 0) == 0:
                pass
        tl.atomic_xchg(flags + me, 1)

    flags = torch.zeros(50_000, dtype=torch.int32)
    trident_cpu.launch(chain, (50_000,), flags)
    assert flags.sum().item() == 50_000


def test_a_lock_works_between_threads():
    @triton.jit
    def locked(lock, total, N: tl.constexpr):
        while tl.atomic_cas(lock, 0, 1) == 1:
            pass
        at = tl.arange(0, N)
        tl.store(total + at, tl.load(total + at) + 1)
        tl.debug_barrier()
        tl.atomic_xchg(lock, 0)

    lock, total = torch.zeros(1, dtype=torch.int32), torch.zeros(64, dtype=torch.int32)
    trident_cpu.launch(locked, (20_000,), lock, total, N=64)
    assert (total == 20_000).all()


def test_waiting_for_nobody_raises(tmp_path, monkeypatch):
    """Here after fewer rounds than usual; every other waiting program gives up with the first."""
    monkeypatch.setenv("TRIDENT_CPU_CACHE_DIR", str(tmp_path))
    monkeypatch.setitem(patience.ROUNDS, "atomics", 1 << 20)
    start = time.monotonic()
    with pytest.raises(KernelStuck, match="wait_for"):
        trident_cpu.launch(wait_for, (1000,), torch.zeros(2000, dtype=torch.int32), 1999)
    assert time.monotonic() - start < 20
