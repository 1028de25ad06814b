"""Launching a kernel: `launch` for anyone, `TritonLauncher` for plain `kernel[grid](...)` under Triton's own driver.

Code is compiled when a call's key is new, with the specialisation that Triton itself makes (types, integers that are
1, None, constexpr values), less divisibility by 16, which buys nothing on a CPU and would compile a kernel anew for
each kind of size.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from trident_cpu import jit
from trident_cpu.arguments import argument_slots, value_of
from trident_cpu.binder import Entry, binder, entry
from trident_cpu.build import Binary, build
from trident_cpu.cache import CorruptEntry
from trident_cpu.compiler import CPUBackend, CPUOptions, host_target
from trident_cpu.faults import Report
from trident_cpu.plain import shorten


def launch(kernel: Any, grid: Any, /, *args: Any, **kwargs: Any) -> None:
    """Run a @triton.jit function on CPU tensors: `launch(kernel, grid, *args, **constexprs_and_options)`.

    `grid`: one to three sizes, or a function of the dict of arguments that returns them. Raises ValueError, naming
    the argument, for a tensor that is not on the CPU.
    """
    try:
        bind = kernel._trident_cpu_bind
    except AttributeError:
        bind = _attach(kernel)
    bind(grid, *args, **kwargs)


def prepared(kernel: Any) -> Entry:
    """`launch` with its kernel fixed, 0.4 us faster: `prepared(kernel)(grid, *args, **kwargs)`."""
    return getattr(kernel, "_trident_cpu_bind", None) or _attach(kernel)


def _attach(kernel: Any) -> Entry:
    """Give a kernel its binder; what wraps a kernel (heuristics, autotuner, interpreter) gets its own way in."""
    from triton.runtime.jit import JITFunction

    from trident_cpu.wrappers import wrapper

    with jit.lock:
        if isinstance(kernel, JITFunction):
            misses = _Misses(kernel)
            kernel._trident_cpu_bind = binder(kernel, misses.table, misses, misses.hooked)
        else:
            kernel._trident_cpu_bind = wrapper(kernel)
        return kernel._trident_cpu_bind


class _Misses:
    """The entries of one kernel, compiled as their keys turn up."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.table: dict[tuple[Any, ...], Entry] = {}

    def __call__(self, key: tuple[Any, ...], bound: tuple[Any, ...], given: dict[str, Any]) -> Entry:
        with jit.lock:
            if key not in self.table:
                args, kwargs = as_called(self.kernel, bound)
                source, options = specialise(self.kernel, args, {**kwargs, **given})
                binary = build(source, options)
                runtime = [p.num for p in self.kernel.params if not p.is_constexpr]
                self.table[key] = _entry(self.kernel, source.signature, binary, runtime)
            return self.table[key]

    def hooked(self, run: Entry, grid: tuple[int, int, int], bound: Any, values: Any, given: dict[str, Any]) -> None:
        """A launch between the hooks that someone (a profiler) has set, called as Triton calls them."""
        from triton import knobs
        from triton.compiler.compiler import LazyDict

        args, kwargs = as_called(self.kernel, bound)
        for hook in self.kernel.pre_run_hooks:
            hook(*args, **kwargs, **given)
        enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
        metadata = LazyDict({"name": self.kernel.__name__, "function": None, "stream": 0})
        if self.kernel.launch_metadata is not None:
            arguments = dict(zip(self.kernel.arg_names, bound, strict=True))
            metadata.add(self.kernel.launch_metadata, (grid, None, arguments))
        if enter is not None:
            enter(metadata)
        run(*grid, *values)
        if leave is not None:
            leave(metadata)


def as_called(kernel: Any, bound: tuple[Any, ...]) -> tuple[list[Any], dict[str, Any]]:
    """Values in the order of a kernel's parameters -> (args, kwargs) of a call."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for (name, parameter), value in zip(kernel.signature.parameters.items(), bound, strict=True):
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            args += value
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            kwargs[name] = value
        else:
            args.append(value)
    return args, kwargs


def specialise(kernel: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, CPUOptions]:
    """(ASTSource, options) of a call, by Triton's own rules."""
    from triton import knobs
    from triton.compiler import ASTSource
    from triton.runtime.jit import create_function_from_signature

    backend = CPUBackend(host_target())
    kwargs = {**kwargs, "debug": kwargs.get("debug", kernel.debug) or knobs.runtime.debug}
    bind = create_function_from_signature(kernel.signature, kernel.params, backend)
    bound, specialization, given = bind(*args, **kwargs)
    options, signature, constants, _ = kernel._pack_args(backend, kwargs, bound, specialization, given)
    return ASTSource(kernel, signature, constants, {}), options


def _entry(kernel: Any, signature: dict[str, Any], binary: Binary, runtime: list[int], result: object = None) -> Entry:
    """The entry of a binary, taking the values of the parameters numbered in `runtime`; it returns `result`."""
    # Slots count all parameters; the entry's values leave the constexprs out.
    rank = {number: at for at, number in enumerate(runtime)}
    slots = [type(slot)((rank[slot.path[0]], *slot.path[1:]), slot.type) for slot in argument_slots(signature)]
    names = [kernel.arg_names[number] for number in runtime]

    new_report: Callable[[], Report] = Report
    if binary.sanitized:
        from trident_cpu import sanitizer

        new_report = functools.partial(sanitizer.report, argument_slots(signature))
    return entry(kernel.__name__, names, slots, binary, new_report, result)


class TritonLauncher:
    """What Triton's JITFunction.run calls: built from a compiled kernel's source and metadata."""

    def __init__(self, source: Any, metadata: Any) -> None:
        self._source, self._metadata = source, metadata
        self._run: Entry | None = None
        # A name can be in the signature and folded all the same; those that are constexpr have no value to read.
        self._runtime = [at for at, kind in enumerate(source.signature.values()) if kind != "constexpr"]

    def __call__(
        self, gx: int, gy: int, gz: int, stream: int, function: bytes, packed: Any, metadata: Any,
        enter: Any, leave: Any, *args: Any,
    ) -> None:  # fmt: skip
        run = self._run
        if run is None:
            self._binary = self._thaw(function)
            run = self._run = _entry(self._source.fn, self._source.signature, self._binary, self._runtime)
        if self._metadata.sanitize:
            from trident_cpu import sanitizer

            sanitizer.remember(self._source.fn.arg_names, args)
        if enter is not None:
            enter(metadata)
        run(gx, gy, gz, *[value_of(args[at]) for at in self._runtime])
        if leave is not None:
            leave(metadata)
        if not self._metadata.sanitize:
            shorten(self._source.fn, type(self))

    def returning(self, result: object) -> Entry:
        """The entry of the code, which has been launched before, for `binder`: it takes the values of all parameters
        but the constexprs, also of those that are folded (1, None), and returns `result`."""
        runtime = [p.num for p in self._source.fn.params if not p.is_constexpr]
        return _entry(self._source.fn, self._source.signature, self._binary, runtime, result)

    def _thaw(self, code: bytes) -> Binary:
        """Triton's cache keeps no checksum: code that ours finds damaged is compiled again."""
        try:
            return Binary.thaw(code)
        except CorruptEntry:
            known = CPUOptions.__dataclass_fields__
            options = CPUOptions(**{k: v for k, v in self._metadata._asdict().items() if k in known})
            return build(self._source, options)
