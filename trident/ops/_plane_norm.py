"""What batch_norm, group_norm and instance_norm share above their kernels (_planes.py): autograd, and torch's way."""

from typing import Any

import torch
from torch import Tensor

from trident.ops._activation import ACTIVATIONS, FUSED
from trident.ops._planes import backward, forward
from trident.runtime import recompute, route
from trident.runtime.layout import memory_format

F = torch.nn.functional


class PlaneNorm(torch.autograd.Function):
    """y, mean, var, as `_planes.forward`. mean and var, where given, are running statistics; else the results are what
    x has."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        groups: int,
        w: Tensor | None,
        b: Tensor | None,
        residual: Tensor | None,
        given_mean: Tensor | None,
        given_var: Tensor | None,
        eps: float,
        activation: str | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, var = forward(x, groups, w, b, residual, given_mean, given_var, eps, activation, dtype)
        of_y = activation is not None and ACTIVATIONS[activation].differentiable_grad is not None
        if activation == "relu" and residual is None and x.is_cpu and x.dtype.itemsize >= 4:
            of_y = False  # the same function of z, if that is not rounded; it costs a CPU less than to read y
        z = activation is not None and not of_y  # the backward takes z again
        given = given_mean is not None
        statistics = (given_mean, given_var) if given else (mean, var)
        ctx.save_for_backward(x, w, b, y if of_y else None, residual if z or residual is None else None, *statistics)
        ctx.groups, ctx.eps, ctx.activation, ctx.given = groups, eps, activation, given
        ctx.residual = None if residual is None else residual.dtype
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        return y, mean, var

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_none: None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return (None,) * 10
        x, w, b, y, residual, mean, var = ctx.saved_tensors
        if recompute.wanted():
            return PlaneNorm._again(ctx, dy)
        needs_dx, _, needs_dw, needs_db, needs_dr, *_ = ctx.needs_input_grad
        keep = ctx.residual if needs_dr and ctx.activation is not None else None
        how = ctx.eps, ctx.activation, ctx.given, needs_dw or needs_db, keep
        dx, dz, dw, db = backward(dy, x, ctx.groups, w, b, y, residual, mean, var, *how)
        dr = None if not needs_dr else dy if keep is None else dz
        found_dw, found_db = (dw.to(w.dtype) if needs_dw else None), (db.to(b.dtype) if needs_db else None)
        return dx if needs_dx else None, None, found_dw, found_db, dr, None, None, None, None, None

    @staticmethod
    def _again(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        """The backward in torch's operators."""
        x, w, b, y, residual, mean, var = ctx.saved_tensors
        given = (mean, var) if ctx.given else None
        if y is not None:  # as the activation's own backward
            dy = ACTIVATIONS[ctx.activation].differentiable_grad(dy, y)  # type: ignore[misc]
        later = None if y is not None else ctx.activation

        def reference(x: Tensor, w: Tensor | None, b: Tensor | None, residual: Tensor | None) -> Tensor:
            return finished(normalized(x, ctx.groups, w, b, given, ctx.eps), residual, later)

        dx, dw, db, dr = recompute.gradients(reference, (x, w, b, residual), dy)
        if residual is None and ctx.needs_input_grad[4]:
            dr = dy
        return dx, None, dw, db, dr, None, None, None, None, None


def normalized(
    x: Tensor, groups: int, w: Tensor | None, b: Tensor | None, given: tuple[Tensor, Tensor] | None, eps: float
) -> Tensor:
    """x_hat * w + b in torch's operators. groups: of channels; 0: statistics of channels, x's or those `given`."""
    if groups:
        return F.group_norm(x, groups, w, b, eps)
    mean, var = given or (None, None)
    return F.batch_norm(x, mean, var, w, b, given is None, 0.0, eps)


def finished(z: Tensor, residual: Tensor | None, activation: str | None) -> Tensor:
    """f(z + residual) in torch's operators."""
    if residual is not None:
        z = z + residual
    return z if activation is None else ACTIVATIONS[activation].torch(z)


def check(function: str, input: Tensor, residual: Tensor | None, activation: str | None) -> None:
    """Raise ValueError for what only Trident takes: an activation without a kernel, a residual of another shape."""
    if activation is not None and activation not in FUSED:
        raise ValueError(f"{function}: activation is {activation!r}; expected one of {', '.join(sorted(FUSED))}")
    if residual is not None and residual.shape != input.shape:
        raise ValueError(f"{function}: residual is {list(residual.shape)}; expected input's shape {list(input.shape)}")


def name(function: str, input: Tensor, fused: bool) -> str:
    """What `tuning` knows the call as: the sizes from which kernels win differ."""
    last = input.dim() == 2 or memory_format(input) != torch.contiguous_format
    return function + " (channels last)" * last + " (fused)" * fused


def learned(*running: Tensor | None) -> bool:
    """Does a running statistic ask for a gradient? torch has none, and raises."""
    return any(t is not None and t.requires_grad for t in running)


def update(running: Tensor | None, found: Tensor, momentum: float) -> None:
    """running = (1 - momentum) * running + momentum * found, in place and outside of any operator, as torch does."""
    if running is None:
        return
    running = running.detach()  # a fifth of what torch.no_grad() costs
    if running.dtype == found.dtype:
        running.lerp_(found, momentum)
    else:
        running.copy_(torch.lerp(running.to(found.dtype), found, momentum))


def disagreement(input: Tensor, parameters: tuple[Tensor | None, ...], residual: Tensor | None) -> str | None:
    """Why the kernels cannot read these together, or None. Parameters, statistics too: all as input, or all float32
    beside an input of 16 bits. (Autocast brings operands of any dtypes.)"""
    dtype, channels = input.dtype, input.shape[1:2]
    as_input, wide = True, dtype.itemsize == 2
    for t in parameters:
        if t is not None:
            if t.shape != channels:
                return route.INVALID
            as_input, wide = as_input and t.dtype == dtype, wide and t.dtype == torch.float32
    mixed = not (as_input or wide) or (residual is not None and residual.dtype != dtype)
    return "operands of several dtypes" if mixed and not torch.is_autocast_enabled(input.device.type) else None
