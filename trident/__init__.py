"""Trident: torch.nn with kernels written in Triton. The same results, the hardware used better."""

from typing import TYPE_CHECKING, Any

from trident import functional as functional
from trident import nn as nn
from trident.optimize import optimize as optimize
from trident.optimize import restore as restore

if TYPE_CHECKING:
    from trident.bench.compare import compare as compare

__version__ = "0.1.0"
__all__ = ["__version__", "compare", "functional", "nn", "optimize", "restore"]


def __getattr__(name: str) -> Any:
    """`compare` brings the bench with it, which a program that computes does not need: loaded when asked for."""
    if name != "compare":
        raise AttributeError(f"module 'trident' has no attribute {name!r}")
    from trident.bench.compare import compare

    return compare
