"""Trident: torch.nn with kernels written in Triton. The same results, the hardware used better."""

from trident import functional as functional
from trident import nn as nn
from trident.optimize import enabled as enabled
from trident.optimize import optimize as optimize
from trident.optimize import restore as restore

__version__ = "0.1.0"
__all__ = ["__version__", "enabled", "functional", "nn", "optimize", "restore"]
