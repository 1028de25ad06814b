"""The precision that kernels compute in: one rule for statistics, partial sums and slices."""

import torch
from torch import Tensor


def compute_dtype(x: Tensor) -> torch.dtype:
    """float32, whatever x is stored as; float64 for float64."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32
