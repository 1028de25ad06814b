"""A Triton backend for CPUs: any @triton.jit kernel as native, vectorised, multi-threaded code.

`launch(kernel, grid, *args, **constexprs)` runs a kernel on CPU tensors, whether or not this package is the active
Triton driver; `inspect(kernel, *args, **constexprs)` returns every stage of its compilation; `install()` makes plain
`kernel[grid](...)` run on the CPU of a machine that has no GPU, as the installed entry point does by itself.

Triton imports this package when it starts, so nothing else of it is imported before it is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Before any module of ours: Triton imports `compiler` and `driver` while it starts, and must find them whole.
import triton as _triton  # noqa: F401

if TYPE_CHECKING:
    from trident_cpu.driver import install as install
    from trident_cpu.errors import UnsupportedOp as UnsupportedOp
    from trident_cpu.faults import MemoryFault as MemoryFault
    from trident_cpu.fixed import fixed as fixed
    from trident_cpu.inspection import inspect as inspect
    from trident_cpu.launcher import launch as launch
    from trident_cpu.launcher import prepared as prepared

_HOME = {
    "launch": "trident_cpu.launcher",
    "fixed": "trident_cpu.fixed",
    "inspect": "trident_cpu.inspection",
    "prepared": "trident_cpu.launcher",
    "install": "trident_cpu.driver",
    "MemoryFault": "trident_cpu.faults",
    "UnsupportedOp": "trident_cpu.errors",
}
__all__ = ["MemoryFault", "UnsupportedOp", "fixed", "inspect", "install", "launch", "prepared"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'trident_cpu' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value
