"""Instance normalization (Ulyanov et al. 2016, arXiv:1607.08022): a mean and a variance for each plane of x [N, C, *].

It is group_norm with groups of one channel; with running statistics that are used it is batch_norm. Running statistics,
[C], move by the means of the planes' over the samples.
"""

import math

from torch import Tensor

from trident.ops._plane_norm import F, PlaneNorm, disagreement, learned, update
from trident.ops._planes import forward
from trident.runtime import route
from trident.runtime.autograd import apply


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Same contract as :func:`torch.nn.functional.instance_norm`.

    Shapes: input [N, C, *]; running statistics, weight and bias, if given, [C]; the result as input, contiguous.
    use_input_stats: running_mean and running_var, where given, are updated in place; else they are used.
    """
    parameters = (weight, bias, running_mean, running_var)
    S = math.prod(input.shape[2:])

    def unfit() -> str | None:
        fits = input.dim() >= 3 and input.numel() > 0 and eps > 0 and (running_mean is None) == (running_var is None)
        fits = fits and (S != 1 if use_input_stats else running_mean is not None)
        fits = fits and not learned(running_mean, running_var)
        return disagreement(input, parameters, None) if fits else route.INVALID

    if route.to_torch("instance_norm", input, *parameters, unless=unfit, mixed=True):
        return F.instance_norm(input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps)
    N, C = input.shape[:2]
    x = input.contiguous()  # as torch's result
    groups, *given = (C, None, None) if use_input_stats else (0, running_mean, running_var)
    args = x, groups, weight, bias, None, *given, eps, None, input.dtype
    y, mean, var = apply(PlaneNorm, *args, unrecorded=forward)
    if use_input_stats and running_mean is not None:
        update(running_mean, mean.view(N, C).mean(0), momentum)
        update(running_var, var.view(N, C).mean(0) * (S / (S - 1)), momentum)
    return y
