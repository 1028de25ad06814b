"""Gradients of gradients: when somebody asks for them, the backward is recomputed through torch's own operator.

A Trident backward is a kernel, and autograd cannot look into it. With `create_graph=True` autograd runs backward
functions with gradients enabled: then `gradients` builds the same result from torch's operator, which can be
differentiated again, any number of times.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def wanted() -> bool:
    """Inside a backward: will its result be differentiated? (torch.compile traces first-order backwards only.)"""
    return torch.is_grad_enabled() and not torch.compiler.is_compiling()


def gradients(
    reference: Callable[..., Tensor | tuple[Tensor, ...]], inputs: Sequence[Tensor | None], *dys: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The gradient of `reference(*inputs)` for each input, differentiable; None where an input needs none.

    dys: one for each result of `reference`, None where nobody uses it.
    """
    with torch.enable_grad():
        # an alias each, so that a tensor passed as two inputs gets the gradient of each place once
        aliases = [None if t is None else t.view_as(t) for t in inputs]
        needed = [t for t in aliases if t is not None and t.requires_grad]
        ys = reference(*aliases)
        used = [
            (y, dy.to(y.dtype))
            for y, dy in zip((ys,) if isinstance(ys, Tensor) else ys, dys, strict=True)
            if dy is not None
        ]
        ys, dys = zip(*used, strict=True)
        found = iter(torch.autograd.grad(ys, needed, dys, create_graph=True, materialize_grads=True))
    return tuple(next(found) if t is not None and t.requires_grad else None for t in aliases)
