"""What losses over classes share: which inputs they take, and their second stage.

A loss over lines x of V classes, seen as [outer, V, inner] (lang/lines.py), with a target class each, or a target
probability for each class; its mean divides by the total weight of the targets.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from trident.lang.lines import along
from trident.lang.tile import load
from trident.ops._pointwise_loss import REDUCTIONS
from trident.runtime import route, tuning
from trident.runtime.launch import launch

INPUTS = route.HALF_TO_DOUBLE | {torch.int64, torch.uint8}


@triton.jit
def _reduce_kernel(y, total, losses, totals, n, BLOCK_N: tl.constexpr):
    """The sum of n partial losses; where there are partial totals, divided by their sum, which is kept."""
    b_loss = tl.zeros((1, BLOCK_N), losses.dtype.element_ty)
    b_total = tl.zeros((1, BLOCK_N), losses.dtype.element_ty)
    for chunk in range(0, tl.cdiv(n, BLOCK_N)):
        at = along(chunk, 1, BLOCK_N)
        b_loss += load(losses + at, at < n)
        if totals is not None:
            b_total += load(totals + at, at < n)
    b_y = tl.sum(b_loss)
    if totals is not None:
        b_y = b_y / tl.sum(b_total)
        tl.store(total, tl.sum(b_total))
    tl.store(y, b_y)


def reduced(losses: Tensor, totals: Tensor | None, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """From partial sums: the loss; the total weight that it is divided by (empty, if there are no totals)."""
    loss = losses.new_empty([], dtype=dtype)
    total = losses.new_empty([] if totals is not None else 0)
    plan = tuning.whole(losses.device, 1 if totals is None else 2)
    launch(_reduce_kernel, plan.grid, loss, total, losses, totals, losses.numel(), **plan.meta)
    return loss, total


def unfit(input: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> str | None:
    """Why the kernels cannot take these, or None. input: [V], [N, V] or [N, V, *]; target: without V, or as input."""
    if weight is not None and weight.requires_grad and torch.is_grad_enabled():
        return "the gradient of the weight"
    if input.dim() == 0 or not input.is_floating_point() or reduction not in REDUCTIONS:
        return route.INVALID
    dim = min(1, input.dim() - 1)
    shape = input.shape if target.is_floating_point() else (*input.shape[:dim], *input.shape[dim + 1 :])
    if target.shape != shape or (weight is not None and weight.shape != (input.shape[dim],)):
        return route.INVALID
    floats = [t for t in (target, weight) if t is not None and t.is_floating_point()]
    if any(t.dtype != input.dtype for t in floats) and not torch.is_autocast_enabled(input.device.type):
        return "operands of several dtypes"
    return None


def check_classes(target: Tensor, V: int, ignored: int) -> None:
    """On a CPU: IndexError, as torch, if a class is outside 0 <= class < V. On a GPU the kernel checks (`class_of`)."""
    if target.device.type != "cpu" or isinstance(target, FakeTensor):
        return
    low, high = (t.item() for t in target.aminmax()) if target.numel() else (0, 0)
    if low >= 0 and high < V:  # a third of the time, where nothing is ignored
        return
    wrong = target[((target < 0) | (target >= V)) & (target != ignored)]
    if wrong.numel():
        raise IndexError(f"Target {wrong[0].item()} is out of bounds.")
