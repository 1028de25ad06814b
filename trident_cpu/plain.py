"""The short way of a plain `kernel[grid](...)`: from a key's second launch on about what `trident_cpu.launch` costs.

Triton's own `JITFunction.run` parses options, specialises, and spells a key at each launch, 16 us. After it has run a
kernel on the CPU, that kernel gets a `run` of its own, which finds what Triton compiled by the key of `launch` and
returns it, as Triton does. Whatever someone may ask of Triton besides (hooks, warm-ups, another driver, a changed
source, a changed `run`) goes to Triton's `run` as before, and so does the first launch of each key.
"""

from __future__ import annotations

from typing import Any

from trident_cpu.binder import Entry, binder


def shorten(kernel: Any, launcher: Any) -> None:
    """Give a kernel, just run by Triton through a `launcher`, its own `run`; not while someone watches launches."""
    from triton.runtime.jit import JITFunction

    if type(kernel) is JITFunction and "run" not in vars(kernel) and not _hooks_set():
        kernel.run = _run_of(kernel, launcher)


def _hooks_set() -> bool:
    from triton import knobs

    hooks = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    return any(getattr(hook, "calls", True) for hook in hooks)  # a hook that is no chain of hooks is one


def _run_of(kernel: Any, launcher: Any) -> Any:
    from triton import knobs
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    runtime, triton_run, source, active = knobs.runtime, JITFunction.run, kernel.cache_key, driver._active
    enter, leave, first = runtime.launch_enter_hook, runtime.launch_exit_hook, _First(kernel, launcher)
    bind = binder(kernel, first.table, first, first.hooked)

    def run(*args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        if (
            warmup
            or driver._active is not active
            or JITFunction.run is not triton_run
            or kernel.hash is not source
            or kernel.pre_run_hooks
            or runtime.launch_enter_hook is not enter
            or runtime.launch_exit_hook is not leave
            or enter.calls
            or leave.calls
            or runtime.add_stages_inspection_hook is not None
        ):
            return JITFunction.run(kernel, *args, grid=grid, warmup=warmup, **kwargs)
        return bind(grid, *args, **kwargs)

    return run


class _First:
    """What a key's first launch takes: Triton's way, which compiles and tells its hooks of it."""

    def __init__(self, kernel: Any, launcher: Any) -> None:
        self.kernel, self.launcher = kernel, launcher
        self.table: dict[tuple[Any, ...], Entry] = {}

    def __call__(self, key: tuple[Any, ...], bound: tuple[Any, ...], given: dict[str, Any]) -> Entry:
        def through_triton(*sizes_and_values: Any) -> Any:
            compiled = self._run(sizes_and_values[:3], bound, given)
            launcher: Any = getattr(compiled, "run", None)
            if type(launcher) is self.launcher:  # else a hook kept Triton from compiling, or it is still at it
                self.table[key] = launcher.returning(compiled)
            return compiled

        return through_triton

    def hooked(self, run: Entry, grid: tuple[int, int, int], bound: Any, values: Any, given: dict[str, Any]) -> Any:
        """A hook was set between the look at the hooks and this one."""
        return self._run(grid, bound, given)

    def _run(self, grid: tuple[int, ...], bound: tuple[Any, ...], given: dict[str, Any]) -> Any:
        from triton.runtime.jit import JITFunction

        from trident_cpu.launcher import as_called

        args, kwargs = as_called(self.kernel, bound)
        return JITFunction.run(self.kernel, *args, grid=grid, warmup=False, **kwargs, **given)
