"""Launching what Triton wraps around a @triton.jit function: heuristics, the autotuner, the interpreter."""

from __future__ import annotations

from typing import Any

from trident_cpu.binder import Entry


def wrapper(kernel: Any) -> Entry:
    """`bind(grid, *args, **kwargs)` for a kernel that is no JITFunction. Raises TypeError for an unknown wrapper."""
    from triton.runtime.autotuner import Autotuner, Heuristics
    from triton.runtime.interpreter import InterpretedFunction

    if isinstance(kernel, InterpretedFunction):
        return lambda grid, /, *args, **kwargs: kernel[grid](*args, **kwargs)
    if isinstance(kernel, Heuristics):
        return _heuristics(kernel)
    if isinstance(kernel, Autotuner):
        return _autotuned(kernel)
    raise TypeError(f"trident_cpu.launch runs @triton.jit functions, not {type(kernel).__name__}: {kernel!r}")


def _heuristics(kernel: Any) -> Entry:
    from trident_cpu.launcher import launch

    def bind(grid: Any, /, *args: Any, **kwargs: Any) -> None:
        for name, choose in kernel.values.items():
            kwargs[name] = choose({**dict(zip(kernel.arg_names, args, strict=False)), **kwargs})
        launch(kernel.fn, grid, *args, **kwargs)

    return bind


class _ThroughLaunch:
    """Stands in for the autotuner's inner kernel, so that its benchmarks and its calls take `launch`."""

    def __init__(self, kernel: Any) -> None:
        self._kernel = kernel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernel, name)

    def run(self, *args: Any, grid: Any, warmup: bool = False, **kwargs: Any) -> None:
        from trident_cpu.launcher import launch

        if not warmup:
            launch(self._kernel, grid, *args, **kwargs)


def _autotuned(kernel: Any) -> Entry:
    import copy

    from trident_cpu.driver import benchmark

    # A copy: the same autotuner may serve a GPU, with other timings and other choices.
    tuner = copy.copy(kernel)
    tuner.cache = {}
    tuner.fn = _ThroughLaunch(kernel.fn)
    tuner.__dict__["do_bench"] = benchmark
    tuner.cache_results = False  # Triton's disk cache of choices asks for an active driver
    return lambda grid, /, *args, **kwargs: tuner.run(*args, grid=grid, **kwargs)
