"""torch.nn.utils, with Trident's `clip_grad_norm_`."""

from typing import Any

import torch

from trident.optim.clip import clip_grad_norm_ as clip_grad_norm_


def __getattr__(name: str) -> Any:
    return getattr(torch.nn.utils, name)
