"""Trident: torch.nn with kernels written in Triton."""

__version__ = "0.1.0"
