"""Compile-only analysis: what each kernel will do on a GPU, on a machine without one (`python -m trident inspect`)."""

from trident.inspect.command import main as main
