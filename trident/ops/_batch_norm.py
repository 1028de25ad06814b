"""Batch normalization (Ioffe and Szegedy 2015, arXiv:1502.03167): a mean and a variance per channel of x [N, C, *].

training    y = (x - mean) / sqrt(var + eps) * w + b, mean and var those of the batch, which then move the running
            statistics: running = (1 - momentum) * running + momentum * found, with the unbiased variance
else        the same with the running statistics

The kernels are those of _planes.py, whose statistics are channels. An activation and a residual before it are
part of them: y = f(... + residual).
"""

from torch import Tensor

from trident.ops._plane_norm import F, PlaneNorm, check, disagreement, finished, learned, name, update
from trident.ops._planes import forward
from trident.runtime import route
from trident.runtime.autograd import apply


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """As :func:`torch.nn.functional.batch_norm`, then + residual and the activation of that name, in the same kernel.

    Shapes: input [N, C, *]; running statistics, weight and bias, if given, [C]; residual as input; the result as input,
    channels_last if input is. activation: one of `_activation.FUSED`, else ValueError. training: running_mean and
    running_var, where given, are updated in place. float16 and bfloat16 inputs may come with float32 parameters.
    """
    fused = activation is not None or residual is not None
    known = name("batch_norm" if training else "batch_norm (running statistics)", input, fused)
    check("batch_norm", input, residual, activation)
    parameters = (weight, bias, running_mean, running_var)

    def unfit() -> str | None:
        fits = _fits(input, parameters, training, eps)
        return disagreement(input, parameters, residual) if fits else route.INVALID

    if route.to_torch(known, input, *parameters, residual, unless=unfit, mixed=True):
        y = F.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
        return finished(y, residual, activation)
    given = (None, None) if training else (running_mean, running_var)
    args = input, 0, weight, bias, residual, *given, eps, activation, input.dtype
    y, mean, var = apply(PlaneNorm, *args, unrecorded=forward)
    if training:
        n = input.numel() // input.shape[1]
        update(running_mean, mean, momentum)
        update(running_var, var * (n / (n - 1)), momentum)
    return y


def _fits(input: Tensor, parameters: tuple[Tensor | None, ...], training: bool, eps: float) -> bool:
    """Does torch accept the call?"""
    if input.dim() < 2 or input.numel() == 0 or learned(*parameters[2:]):
        return False
    if training:
        return eps > 0 and input.numel() != input.shape[1]  # one value has no variance
    return eps >= 0 and parameters[2] is not None and parameters[3] is not None
