"""`launch`: the one door to a kernel. Where the tensors live decides what runs it.

cuda (and hip)   Triton's own compiler and driver
cpu              trident_cpu: the same kernel as native code
any              Triton's interpreter, if TRITON_INTERPRET=1 was set before Triton was imported (the tests' oracle)
"""

import functools
import importlib
import importlib.util
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from triton import knobs

from trident.runtime import interpreter, pages

INTERPRETED: bool = knobs.runtime.interpret  # fixed when kernels were decorated
if INTERPRETED:
    interpreter.mend()


def _cpu_executor() -> str | None:
    if INTERPRETED:
        return "interpreter"
    installed = importlib.util.find_spec("trident_cpu") and importlib.util.find_spec("llvmlite")
    return "native" if installed else None


# what runs kernels on tensors of a device type; torch runs what is not here
EXECUTORS: dict[str, str] = {"cuda": "interpreter" if INTERPRETED else "gpu", "meta": "nothing"}
if _cpu := _cpu_executor():
    EXECUTORS["cpu"] = _cpu


def device_type(x: Tensor) -> str:
    """x.device.type, which takes a quarter of a microsecond, in a fifth of that for tensors of the CPU."""
    return "cpu" if x.is_cpu else x.device.type


def executor(device_type: str) -> str | None:
    """What runs kernels there: "gpu", "native", "interpreter"; "nothing" for meta; None if nothing can."""
    return EXECUTORS.get(device_type)


def asserting(device_type: str) -> dict[str, bool]:
    """Launch options under which a kernel's tl.device_assert is compiled in, on GPUs: as torch, no word to the host."""
    return {"debug": True, "sanitize_overflow": False} if executor(device_type) == "gpu" else {}


@functools.cache
def _native() -> Callable[..., None]:
    """trident_cpu is imported at the first launch on a CPU: programs that never launch there never load LLVM."""
    return importlib.import_module("trident_cpu").launch


def _launch_native(kernel: Any, grid: tuple[int, ...], args: tuple[Any, ...], meta: dict[str, Any]) -> None:
    try:  # what trident_cpu attaches to a kernel that it has launched before
        bind = kernel._trident_cpu_bind
    except AttributeError:
        bind = functools.partial(_native(), kernel)
    bind(grid, *args, **meta)


def _check_devices(kernel: Any, args: tuple[Any, ...], device: Any) -> None:
    for a in args:
        if isinstance(a, Tensor) and a.device != device:
            raise RuntimeError(
                f"{kernel.__name__}: expected all tensors on the same device, but found {device} and {a.device}"
            )


def launch(kernel: Any, grid: tuple[int, ...], *args: Any, **meta: Any) -> None:
    """Run `kernel` on `grid`; do nothing where there is nothing to do: an empty grid, tensors without data.

    The first argument is a tensor, or None where the kernel leaves that result out. Raises RuntimeError if tensors live
    on several devices.
    """
    first = args[0]
    if first is None:
        first = next(a for a in args if a is not None)
    if isinstance(first, FakeTensor) or 0 in grid:
        return
    how = executor(device_type(first))
    if how == "native":
        if first.numel() >= pages.FEWEST_ELEMENTS:  # first: by convention what the kernel writes
            pages.advise(first)
        try:
            return _launch_native(kernel, grid, args, meta)
        except ValueError:
            _check_devices(kernel, args, first.device)
            raise
    device = first.device
    _check_devices(kernel, args, device)
    if how == "gpu" and device.index != torch.cuda.current_device():
        with torch.cuda.device(device):
            kernel[grid](*args, enable_fp_fusion=True, **meta)
    elif how == "gpu":
        kernel[grid](*args, enable_fp_fusion=True, **meta)
    elif how == "interpreter":
        kernel[grid](*args, **meta)
    elif how is None:
        raise RuntimeError(f"{kernel.__name__}: no executor for {device}; install llvmlite for CPU tensors")


def launch_planned(kernel: Any, plan: Any, *tensors: Tensor | None) -> None:
    """`launch(kernel, plan.grid, *tensors, **plan.meta)` for a plan of `tuning`, which keeps what a CPU's launch of it
    needs besides the tensors: 1 us where `launch` takes 5 for a kernel of twenty arguments. The first is a tensor."""
    first = tensors[0]
    if type(first) is not Tensor:  # fakes have no memory
        return launch(kernel, plan.grid, *tensors, **plan.meta)
    run = plan.ready.get(id(kernel)) if plan.ready is not None else None
    if run is None:
        run = functools.partial(_launch_with, kernel, plan)
        if plan.ready is not None and executor(device_type(first)) == "native":
            run = importlib.import_module("trident_cpu").fixed(kernel, plan.grid, len(tensors), run, **plan.meta)
            plan.ready[id(kernel)] = run
    if first.is_cpu and first.numel() >= pages.FEWEST_ELEMENTS and type(run) is not functools.partial:
        pages.advise(first)  # as `launch` does
    run(*tensors)


def _launch_with(kernel: Any, plan: Any, *tensors: Tensor | None) -> None:
    launch(kernel, plan.grid, *tensors, **plan.meta)
