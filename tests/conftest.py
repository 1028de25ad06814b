"""Tests run every kernel (speed decisions are off), and memory that was never written is NaN."""

import gc
import os

os.environ["TRIDENT_TUNED"] = "0"  # what the user's own machine was tuned to decides nothing here
# Inductor's pool of processes, each of which imports torch, for the one or two kernels of a test: 5 CPU seconds
os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"

import pytest

WORKER = "PYTEST_XDIST_WORKER" in os.environ


def pytest_configure(config):
    if config.getoption("numprocesses", None) and not WORKER:
        return  # it hands out tests and runs none: the workers, which it starts next, need not wait for its torch
    import torch

    torch.use_deterministic_algorithms(True, warn_only=True)  # torch then fills torch.empty with NaN
    assert torch.utils.deterministic.fill_uninitialized_memory
    if WORKER:
        torch.set_num_threads(1)  # the workers share the cores; tests of threads set their own number
    if not torch.accelerator.is_available():
        # torch.manual_seed keeps its stack as text for the day when a GPU is found: 1 ms, some six times in a test
        for backend in (torch.cuda, torch.xpu, torch.mtia):
            backend.manual_seed_all = lambda seed: None


@pytest.fixture(autouse=True)
def kernels():
    import torch

    from trident.runtime import route

    torch.manual_seed(0)
    with route.forced("kernels"):
        yield


def pytest_collection_finish():
    """What is alive now stays (torch, Triton, ten thousand tests): looking it through was 8% of test_compiles_whole."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)  # of 700, 10, 10: 5% of some laws' time, now 3%; no more memory


def pytest_unconfigure():
    gc.unfreeze()  # for nanobind, which prints what is not collected in the end
