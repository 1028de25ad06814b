"""Trident: torch.nn with kernels written in Triton. The same results, the hardware used better."""

import importlib
from typing import TYPE_CHECKING, Any

from trident import functional as functional
from trident import nn as nn
from trident import optim as optim
from trident.optimize import enabled as enabled
from trident.optimize import optimize as optimize
from trident.optimize import restore as restore

if TYPE_CHECKING:
    from trident.backend import compile_report as compile_report
    from trident.bench.compare import compare as compare
    from trident.profiling import profile as profile

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "compare",
    "compile_report",
    "enabled",
    "functional",
    "nn",
    "optim",
    "optimize",
    "profile",
    "restore",
]

# name -> its module, which a program that only computes does not need: loaded when asked for
_LATER = {
    "compare": "trident.bench.compare",
    "compile_report": "trident.backend",
    "profile": "trident.profiling",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'trident' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
