"""Group normalization (Wu and He 2018, arXiv:1803.08494): a mean and a variance for each group of channels of a sample.

The kernels are those of _planes.py, whose statistics are groups. An activation is part of them: y = f(x_hat * w + b).
"""

from torch import Tensor

from trident.ops._plane_norm import F, PlaneNorm, check, disagreement, finished, name
from trident.ops._planes import forward
from trident.runtime import autocast, route
from trident.runtime.autograd import apply


def group_norm(
    input: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
    *,
    activation: str | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """As :func:`torch.nn.functional.group_norm`, then + residual and the activation of that name, in the same kernel.

    Shapes: input [N, C, *], C a multiple of num_groups; weight and bias, if given, [C]; residual as input; the result
    as input, channels_last if input is (torch loses that on CUDA). activation: one of `_activation.FUSED`, else
    ValueError.
    """
    fused = activation is not None or residual is not None
    known = name("group_norm", input, fused)
    check("group_norm", input, residual, activation)

    def unfit() -> str | None:
        fits = input.dim() >= 2 and num_groups > 0 and input.shape[1] % num_groups == 0
        # torch refuses a single value per group
        fits = fits and input.numel() != num_groups and eps >= 0
        return disagreement(input, (weight, bias), residual) if fits else route.INVALID

    if route.to_torch(known, input, weight, bias, residual, unless=unfit, mixed=True):
        return finished(F.group_norm(input, num_groups, weight, bias, eps), residual, activation)
    dtype = autocast.output_dtype("group_norm", input)
    args = input, num_groups, weight, bias, residual, None, None, eps, activation, dtype
    return apply(PlaneNorm, *args, unrecorded=forward)[0]
