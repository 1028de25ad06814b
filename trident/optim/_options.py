"""What an optimizer was asked for that kernels lack: torch's own step then does it."""

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trident.runtime import route

# Where torch's own step is faster on a CPU: lists of fewer tensors that have fewer elements together. A launch for a
# list costs 40 us of Python and saves 20 us a tensor of AdamW, 5 of SGD with momentum, 1 of clipping; torch's step of
# SGD without momentum and decay is one pass over memory already (docs/measured.md).
FEWEST = {
    "Adam": (3, 32768),
    "AdamW": (3, 32768),
    "Adafactor": (4, 131072),
    "SGD": (12, 131072),
    "SGD (plain)": (sys.maxsize, sys.maxsize),
    "clip_grad_norm_": (40, 1048576),
}


def slower(name: str, tensors: Sequence[Tensor]) -> str | None:
    """Why a list goes to torch for speed."""
    if route.policy != "auto" or not tensors or name not in FEWEST or not tensors[0].is_cpu:
        return None
    count, elements = FEWEST[name]
    if len(tensors) >= count or sum(map(Tensor.numel, tensors)) >= elements:
        return None
    return f"torch steps {len(tensors)} tensors of this size faster"


def reason(name: str, optimizer: torch.optim.Optimizer, group: dict[str, Any], tensors: Sequence[Tensor]) -> str | None:
    """Why the parameters of a group go to torch, all of them. `name`: what FEWEST knows the step by."""
    for option in ("foreach", "fused"):
        if group.get(option) is not None:
            return f"{option}={group[option]} names one of torch's implementations"
    for option in ("capturable", "differentiable", "amsgrad"):
        if group.get(option):
            return f"no kernel for {option}=True"
    if getattr(optimizer, "grad_scale", None) is not None or getattr(optimizer, "found_inf", None) is not None:
        return "gradients that are still scaled"
    for option in ("lr", "weight_decay", "betas"):
        value = group.get(option)
        for part in value if isinstance(value, tuple) else (value,):
            if isinstance(part, Tensor) and (type(part) is not Tensor or not part.is_cpu or part.requires_grad):
                return f"{option} is a tensor that the host cannot read at once"
    return slower(name, tensors)
