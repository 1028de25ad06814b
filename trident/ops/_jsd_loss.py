"""Generalised Jensen-Shannon divergence (Agarwal et al. 2024, arXiv:2306.13649) of log-probabilities x and t.

    m  = log(β exp(t) + (1 - β) exp(x))
    l  = β exp(t) (t - m) + (1 - β) exp(x) (x - m)
    dx = (1 - β) exp(x) (x - m)
    dt = β exp(t) (t - m)

At the ends, where this is 0, β = 0 stands for the divergence exp(t) (t - x), and β = 1 for exp(x) (x - t), as in
distillation. A row of the table of ops/_pointwise_loss.py, whose kernels these are.
"""

from torch import Tensor

from trident.ops._pointwise_loss import LOSSES, REDUCTIONS, Options, by_kernel
from trident.runtime import autocast, route


def jsd_loss(input: Tensor, target: Tensor, beta: float = 0.5, reduction: str = "mean") -> Tensor:
    """The divergence of two distributions given as log-probabilities, elementwise, or reduced as kl_div's is.

    beta: the target's share in the mixture that both are compared with. reduction: "none", "mean" (of all elements),
    "sum", "batchmean" (the sum over the first size). Both sides may need gradients.
    Shapes: input and target alike; the result as they are for "none", else a scalar.
    Dtypes: float16, bfloat16, float32, float64; float32 under autocast, as kl_div's.
    ValueError: beta outside [0, 1], another reduction, different shapes.
    """
    if not 0 <= beta <= 1:
        raise ValueError(f"jsd_loss: beta is {beta}; expected 0 <= beta <= 1")
    if reduction not in (*REDUCTIONS, "batchmean"):
        raise ValueError(f"jsd_loss: reduction is {reduction!r}; expected none, mean, sum or batchmean")
    if input.shape != target.shape:
        raise ValueError(f"jsd_loss: input is {list(input.shape)}, target {list(target.shape)}; expected one shape")
    per_batch = reduction == "batchmean"
    how = "sum" if per_batch else reduction
    row = "jsd_loss" if 0 < beta < 1 else "kl_div.log"
    x, t = (target, input) if beta == 1 else (input, target)
    dtype = autocast.output_dtype("kl_div", input)
    if route.to_torch("jsd_loss" if 0 < beta < 1 else "jsd_loss (one side)", input, target):
        y = LOSSES[row].torch(x.to(dtype), t.to(dtype), None, Options(None, how, beta, 0.0))
    else:
        y = by_kernel(row, x, t, how, dtype, beta, 0.0)
    return y / input.shape[0] if per_batch and input.dim() else y
