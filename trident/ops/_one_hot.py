"""y[..., c] = 1 where index[...] is c, else 0: written once, where torch fills with zeros and scatters."""

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from trident.lang.tile import matrix_tile, multiple
from trident.runtime import route, tuning
from trident.runtime.launch import asserting, launch
from trident.runtime.op import op


@triton.jit
def _kernel(y, index, T, C, ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    C = multiple(C, ALIGN)
    tiles = tl.cdiv(C, BLOCK_N)
    rows, cols, inside = matrix_tile(tl.program_id(0) // tiles, tl.program_id(0) % tiles, T, C, BLOCK_M, BLOCK_N)
    c = tl.load(index + rows, mask=rows < T, other=0)
    tl.device_assert((c >= 0) & (c < C), "class value out of bounds")
    tl.store(y + rows * C + cols, (cols == c).to(tl.int64), inside)


def _check(index: Tensor, C: int) -> None:
    """On a CPU: RuntimeError, as torch, if a class is outside 0 <= class < C. On a GPU the kernel checks."""
    if index.device.type != "cpu" or isinstance(index, FakeTensor):
        return
    least, most = torch.aminmax(index)
    if least < 0:
        raise RuntimeError("Class values must be non-negative.")
    if most >= C:
        raise RuntimeError("Class values must be smaller than num_classes.")


@op("one_hot")
def _one_hot(index: Tensor, C: int) -> Tensor:
    _check(index, C)
    index = index.contiguous()
    y = index.new_empty([*index.shape, C])
    plan = tuning.resampled(index.numel(), C, index.device)
    launch(_kernel, plan.grid, y, index, index.numel(), C, **plan.meta, **asserting(index.device.type))
    return y


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """Same contract as :func:`torch.nn.functional.one_hot`: int64 [*] -> int64 [*, num_classes].

    Without num_classes the largest class says it, for which a GPU must be waited for. Errors: RuntimeError for a class
    out of bounds on a CPU; on a GPU a device-side assert.
    """
    reason = None if num_classes > 0 or num_classes == -1 else route.INVALID
    if num_classes == -1 and (tensor.numel() == 0 or tensor.is_meta or isinstance(tensor, FakeTensor)):
        reason = route.INVALID
    elif num_classes == -1 and torch.compiler.is_compiling():
        reason = "the number of classes is data"
    work = tensor.numel() * max(1, num_classes)
    if route.to_torch("one_hot", tensor, unless=reason, dtypes=frozenset({torch.int64}), work=work):
        return torch.nn.functional.one_hot(tensor, num_classes)
    y: Tensor = _one_hot(tensor, num_classes if num_classes > 0 else int(tensor.max()) + 1)
    return y
