"""Other people's libraries in the tests."""

import functools

import torch


@functools.cache
def mend_torchvision() -> None:
    """timm and transformers import torchvision where it is installed; PyPI's is built for CUDA, and where torch is not,
    its operators are missing: their names alone let it import. Nothing here calls them."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")
