"""Threads, fork and the memory that each thread works in."""

import ctypes
import multiprocessing
import os
import threading

import pytest
import torch
import triton
import triton.language as tl
from torch.utils.data import DataLoader, Dataset

import trident_cpu
from trident_cpu import threads

N = 1 << 18


@pytest.fixture(autouse=True)
def fresh_limit(monkeypatch):
    """Whatever else runs on this machine."""
    monkeypatch.setattr(threads, "limit", threads.Limit())


@triton.jit
def square(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, at < n)
    tl.store(out + at, value * value, at < n)


def squared(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    trident_cpu.launch(square, (triton.cdiv(x.numel(), 1024),), x, out, x.numel(), BLOCK=1024)
    return out


class Squares(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, at):
        return squared(torch.full((N,), float(at)))


def test_dataloader_workers():
    """Forked workers launch kernels after the parent used its pool, which they do not have."""
    squared(torch.ones(N))
    batches = list(DataLoader(Squares(), batch_size=2, num_workers=2, timeout=60))
    assert [float(row[0]) for batch in batches for row in batch] == [0, 1, 4, 9]


THREES = torch.full((N,), 3.0)  # made before the fork: torch's own parallel operators hang in a child


def _in_child(queue):
    torch.utils.deterministic.fill_uninitialized_memory = False  # a parallel operator of torch, too
    queue.put((threads.team_size(), float(squared(THREES)[-1])))


def test_forked_child_is_serial():
    torch.ones(N).add_(1)
    squared(torch.ones(N))
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_in_child, args=(queue,))
    child.start()
    try:
        assert queue.get(timeout=60) == (1, 9.0)
    finally:
        child.join(10)
        child.kill()
    threads.limit = threads.Limit()  # the parent's launch may have found this machine busy
    assert threads.team_size() == torch.get_num_threads() or not threads.gomp_parallel()


def test_fork_while_another_thread_compiles():
    """The child can compile: no lock is left held, no LLVM half-changed."""
    busy, stop = threading.Event(), threading.Event()

    def compile_again_and_again():
        while not stop.is_set():
            for n in range(1, 5):
                trident_cpu.inspect(square, THREES, THREES, N, BLOCK=1 << n)
                busy.set()

    thread = threading.Thread(target=compile_again_and_again)
    thread.start()
    busy.wait(60)
    context = multiprocessing.get_context("fork")
    try:
        for _ in range(5):
            queue = context.Queue()
            child = context.Process(target=_compiles_in_child, args=(queue,))
            child.start()
            assert queue.get(timeout=60) == 9.0
            child.join(10)
    finally:
        stop.set()
        thread.join()


def _compiles_in_child(queue):
    out = torch.empty(64)
    trident_cpu.launch(triton.jit(square.fn), (1,), THREES, out, 64, BLOCK=64)
    trident_cpu.inspect(square, THREES, out, 64, BLOCK=32)
    queue.put(float(out[0]))


def test_torchs_thread_count_is_asked_at_each_call():
    before = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            threads.limit = threads.Limit()
            assert threads.team_size() == (count if threads.gomp_parallel() else 1)
            assert torch.equal(squared(torch.ones(N)), torch.ones(N))
    finally:
        torch.set_num_threads(before)


def test_openmp_is_torchs():
    """One pool in the process: a launch starts no second set of threads."""
    torch.ones(1 << 22).sin()
    before = len(os.listdir("/proc/self/task"))
    for _ in range(3):
        squared(torch.ones(1 << 22))
    assert threads.gomp_parallel() != 0
    assert len(os.listdir("/proc/self/task")) <= max(before, torch.get_num_threads() + threading.active_count())


def test_without_openmp(monkeypatch):
    monkeypatch.setattr(threads, "gomp_parallel", lambda: 0)
    assert threads.team_size() == 1
    assert torch.equal(squared(torch.ones(N) * 2), torch.ones(N) * 4)


def test_scratch_is_the_threads_own_and_grows():
    first = threads.scratch(1000)
    assert first % 4096 == 0
    assert threads.scratch(10) == first
    threads.scratch(1 << 20)
    found = []
    other = threading.Thread(target=lambda: found.append(threads.scratch(1000)))
    other.start()
    other.join()
    assert found[0] != threads.scratch(1000)


def test_teams_shrink_while_threads_are_missing(monkeypatch):
    """Halved by each launch that waited, tried again after a pause, which doubles while the wait goes on."""
    now, sizes = [100.0], []
    monkeypatch.setattr(threads, "gomp_parallel", lambda: 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(threads.time, "monotonic", lambda: now[0])
    assert threads.team_size() == 8
    for _ in range(2):
        threads.missed(100)
        sizes.append(threads.team_size())
    for _ in range(3):
        now[0] += threads.limit.pause + 0.001
        sizes.append(threads.team_size())
    assert sizes == [4, 2, 4, 8, 8]
    threads.missed(100)
    assert threads.limit.pause == 4 * threads.RETRY[0]
    for _ in range(20):
        threads.missed(100)
    assert threads.limit.pause == threads.RETRY[1]
    now[0] += 100
    threads.missed(100)
    assert threads.limit.pause == threads.RETRY[0]


def test_a_launch_notices_a_thread_that_came_too_late(monkeypatch):
    """An OpenMP whose second thread starts when the first has done everything."""

    def one_after_the_other(function, context, team, flags):
        for _ in range(team):
            ctypes.CFUNCTYPE(None, ctypes.c_void_p)(function)(context)

    gomp = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(one_after_the_other)
    x, out = torch.full((N,), 2.0), torch.empty(N)
    monkeypatch.setattr(threads, "gomp_parallel", lambda: ctypes.cast(gomp, ctypes.c_void_p).value)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    trident_cpu.launch(slow_square, (N // 1024,), x, out, 300, BLOCK=1024)
    assert threads.limit.threads == 1
    assert torch.equal(out, torch.full((N,), 2.0))


@triton.jit
def slow_square(x, out, rounds, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at)
    for _ in range(rounds):
        value = tl.sqrt(value * value)
    tl.store(out + at, value)
