"""Triton's view of the machine: `CPUDriver`. Imported by `import triton`, so it imports little.

It is the active driver of a machine without a GPU. Where a GPU driver is active it stays out of the way: CPU tensors
then go through `trident_cpu.launch`, which needs no driver.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from trident_cpu.compiler import NAME, CPUBackend, host_target

DEVICE = -1  # the key of Triton's per-device kernel caches: never a GPU's index


class _Utils:
    """What `CompiledKernel` asks of a driver: to load code, and to tell the device's limits."""

    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[Any, Any, int, int, int]:
        """(module, function, registers, spills, most threads). The launcher links: it can rebuild damaged code."""
        return kernel, kernel, 0, 0, 1 << 30

    def unload_module(self, module: Any) -> None:
        """Code is freed with the launcher that holds it."""

    def get_device_properties(self, device: int) -> dict[str, Any]:
        return {
            "max_shared_mem": 1 << 30,
            "multiprocessor_count": os.cpu_count() or 1,
            "max_num_regs": 0,
            "warpSize": 1,
            "arch": host_target().arch,
        }


class CPUDriver(DriverBase):
    """Driver of the CPU as device -1."""

    _asking = threading.local()

    def __init__(self) -> None:
        super().__init__()
        self.utils = _Utils()

    @property
    def launcher_cls(self) -> type:
        from trident_cpu.launcher import TritonLauncher

        return TritonLauncher

    @classmethod
    def is_active(cls) -> bool:
        """True where no other driver is. Asks each of them what Triton itself asks, no more."""
        from triton.backends import backends

        if getattr(cls._asking, "now", False):
            return False  # another plug-in asks all drivers as well
        cls._asking.now = True
        try:
            return not any(other.driver.is_active() for other in backends.values() if other.driver is not cls)
        finally:
            cls._asking.now = False

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_current_target(self) -> GPUTarget:
        return host_target()

    def get_current_device(self) -> int:
        return DEVICE

    def set_current_device(self, device: int) -> None:
        """There is one."""

    def get_current_stream(self, device: int | None = None) -> int:
        return 0

    def get_active_torch_device(self) -> Any:
        import torch

        return torch.device("cpu")

    def get_device_interface(self) -> Any:
        import torch

        return torch.cpu

    def get_benchmarker(self) -> Callable[..., Any]:
        return benchmark

    def get_empty_cache_for_benchmark(self) -> Any:
        import torch

        return torch.empty(1 << 26, dtype=torch.int8)

    def clear_cache(self, cache: Any) -> None:
        cache.zero_()


def benchmark(
    call: Callable[[], Any],
    *,
    quantiles: Sequence[float] = (0.5,),
    warmup: float = 5,
    rep: float = 100,
    **gpu_settings: Any,
) -> list[float]:
    """Milliseconds of `call` at each quantile, over `rep` milliseconds and at least five calls: Triton's autotuner."""
    from statistics import quantiles as cut

    def timed() -> float:
        start = time.perf_counter()
        call()
        return (time.perf_counter() - start) * 1e3

    until = time.perf_counter() + warmup / 1e3
    timed()
    while time.perf_counter() < until:
        timed()
    until, times = time.perf_counter() + rep / 1e3, [timed() for _ in range(5)]
    while time.perf_counter() < until and len(times) < 1000:
        times.append(timed())
    points = [min(times), *cut(times, n=100, method="inclusive"), max(times)]
    return [points[round(100 * q)] for q in quantiles or (0.5,)]


_front_end = threading.local()


@contextlib.contextmanager
def compiling_for_cpu() -> Iterator[None]:
    """`triton.language.target_info` answers for the CPU in this thread: a kernel may ask whether it runs on CUDA.

    Only needed where a GPU driver is active; there, Triton's `current_target` is wrapped once, and answers as
    before outside this context and in other threads.
    """
    from triton.language import target_info

    answer = target_info.current_target
    if not hasattr(answer, "_trident_cpu"):

        def current_target() -> GPUTarget | None:
            return _front_end.target if getattr(_front_end, "target", None) else answer()

        current_target.__triton_builtin__ = True  # type: ignore[attr-defined]
        current_target._trident_cpu = True  # type: ignore[attr-defined]
        target_info.current_target = current_target
    outer = getattr(_front_end, "target", None)
    _front_end.target = host_target()
    try:
        yield
    finally:
        _front_end.target = outer


def install() -> bool:
    """Register the backend with Triton, and make it active unless a GPU driver is; returns whether it is active.

    The package's entry point does the first at `import triton`; this is for a source tree that is not installed.
    """
    from triton.backends import Backend, backends
    from triton.runtime import driver

    backends.setdefault(NAME, Backend(CPUBackend, CPUDriver))
    if CPUDriver.is_active() and not isinstance(driver._active, CPUDriver):
        driver.set_active(CPUDriver())
    return isinstance(driver._active, CPUDriver)
