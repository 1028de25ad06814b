"""Trident: torch.nn with kernels written in Triton. The same results, the hardware used better."""

from trident import functional as functional
from trident import nn as nn
from trident.optimize import optimize as optimize
from trident.optimize import restore as restore


def __getattr__(name: str) -> object:
    """What few programs use is imported when it is asked for."""
    if name == "profile":
        from trident.profiling import profile

        return profile
    raise AttributeError(f"module 'trident' has no attribute {name!r}")


__version__ = "0.1.0"
__all__ = ["__version__", "functional", "nn", "optimize", "profile", "restore"]
