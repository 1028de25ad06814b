"""What torch.autocast does to an operator, read from torch's own lists (ATen/autocast_mode.h).

Under autocast torch casts the inputs. Trident casts nothing that it need not: an operator of the float32 list reads
its input as it is and writes a float32 output. `tests/test_autocast.py` compares these tables with torch's dispatcher.
"""

import torch
from torch import Tensor

from trident.runtime.launch import device_type

UPSAMPLES = (
    *(f"{kind}{n}d" for kind in ("upsample_nearest", "_upsample_nearest_exact") for n in (1, 2, 3)),
    *("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"),
)

# Trident's name -> the ATen operator whose rule it follows
ATEN = {
    "adaptive_avg_pool3d": "adaptive_avg_pool3d",
    "adaptive_max_pool3d": "adaptive_max_pool3d",
    "avg_pool3d": "avg_pool3d",
    "binary_cross_entropy": "binary_cross_entropy",
    "binary_cross_entropy_with_logits": "binary_cross_entropy_with_logits",
    **{f"conv{n}d": f"conv{n}d" for n in (1, 2, 3)},
    "conv_tbc": "conv_tbc",
    "conv_transpose1d": "conv_transpose1d",
    "conv_transpose2d": "conv_transpose2d.input",
    "conv_transpose3d": "conv_transpose3d.input",
    "cosine_embedding_loss": "cosine_embedding_loss",
    "cosine_similarity": "cosine_similarity",
    "cross_entropy": "cross_entropy_loss",
    "grid_sample": "grid_sampler",
    "group_norm": "group_norm",
    "gru_cell": "gru_cell",
    "hinge_embedding_loss": "hinge_embedding_loss",
    "huber_loss": "huber_loss",
    "kl_div": "kl_div",
    "l1_loss": "l1_loss",
    "layer_norm": "layer_norm",
    "linear": "linear",
    "lstm_cell": "lstm_cell",
    "log_softmax": "log_softmax.int",
    "logsumexp": "logsumexp",
    "margin_ranking_loss": "margin_ranking_loss",
    "max_pool3d": "max_pool3d",
    "max_unpool1d": "max_unpool2d",
    "max_unpool2d": "max_unpool2d",
    "max_unpool3d": "max_unpool3d",
    "mse_loss": "mse_loss",
    "multi_margin_loss": "multi_margin_loss",
    "multilabel_margin_loss": "multilabel_margin_loss",
    "nll_loss": "nll_loss",
    "norm": "norm.ScalarOpt_dim",
    "normalize": "linalg_vector_norm",
    "poisson_nll_loss": "poisson_nll_loss",
    "prelu": "prelu",
    "prod": "prod.dim_int",
    "rms_norm": "rms_norm",
    "rnn_relu_cell": "rnn_relu_cell",
    "rnn_tanh_cell": "rnn_tanh_cell",
    "scaled_dot_product_attention": "scaled_dot_product_attention",
    "smooth_l1_loss": "smooth_l1_loss",
    "soft_margin_loss": "soft_margin_loss",
    "softmax": "softmax.int",
    "softplus": "softplus",
    "sum": "sum.dim_IntList",
    "triplet_margin_loss": "triplet_margin_loss",
    **{f"reflection_pad{n}d": f"reflection_pad{n}d" for n in (1, 2, 3)},
    **{f"replication_pad{n}d": f"replication_pad{n}d" for n in (1, 2, 3)},
    **{name: name for name in UPSAMPLES},
}

LOSSES = (
    frozenset({"binary_cross_entropy_with_logits", "huber_loss", "kl_div", "l1_loss", "mse_loss"})
    | frozenset(
        {"poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss", "cosine_embedding_loss", "hinge_embedding_loss"}
    )
    | frozenset({"margin_ranking_loss", "multi_margin_loss", "multilabel_margin_loss", "triplet_margin_loss"})
)
FLOAT32: dict[str, frozenset[str]] = {
    "cuda": frozenset({"cross_entropy", "group_norm", "layer_norm", "log_softmax", "nll_loss"})
    | frozenset(
        {
            "cosine_similarity",
            "grid_sample",
            "logsumexp",
            "norm",
            "normalize",
            "prod",
            "rms_norm",
            "softmax",
            "softplus",
        }
    )
    | frozenset({"sum", *UPSAMPLES})
    | LOSSES,
    "cpu": frozenset({"binary_cross_entropy", "cross_entropy", "grid_sample", "nll_loss", "prod"})
    | frozenset({"adaptive_avg_pool3d", "adaptive_max_pool3d", "avg_pool3d", "max_pool3d"})
    | frozenset({"max_unpool1d", "max_unpool2d", "max_unpool3d"})
    | frozenset({"reflection_pad1d", "reflection_pad2d"})
    | frozenset({"replication_pad1d", "replication_pad2d", "replication_pad3d"})
    | LOSSES,
}
_LOWER = frozenset({"linear", "prelu", "scaled_dot_product_attention", "conv_tbc"}) | frozenset(
    f"{kind}{n}d" for kind in ("conv", "conv_transpose") for n in (1, 2, 3)
)
# on CPUs a cell's products are lowered, its state is not
_CELLS = frozenset({"gru_cell", "lstm_cell", "rnn_relu_cell", "rnn_tanh_cell"})
LOWER: dict[str, frozenset[str]] = {"cuda": _LOWER | _CELLS, "cpu": _LOWER}

REFUSED: dict[str, frozenset[str]] = {"cuda": frozenset({"binary_cross_entropy"}), "cpu": frozenset()}


_PROMOTED = frozenset().union(*FLOAT32.values())  # by no device means: asked first, a call costs 0.4 us less


def refused(name: str, x: Tensor) -> str | None:
    """Why torch raises for this operator under autocast, or None."""
    device = device_type(x)
    if name in REFUSED.get(device, ()) and torch.is_autocast_enabled(device):
        return "torch refuses it under autocast"
    return None


def active(x: Tensor) -> bool:
    """Is autocast on where `x` lives?"""
    device = device_type(x)
    return device in FLOAT32 and torch.is_autocast_enabled(device)


def output_dtype(name: str, x: Tensor) -> torch.dtype:
    """The dtype that torch's operator would return for `x`: float32 if autocast promotes it, else x's own."""
    if name not in _PROMOTED:
        return x.dtype
    device = device_type(x)
    if x.dtype != torch.float64 and name in FLOAT32.get(device, ()) and torch.is_autocast_enabled(device):
        return torch.float32
    return x.dtype


def lowered(name: str, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """The inputs of an operator of the lower-precision list, cast to the autocast dtype (differentiably)."""
    device = next(t for t in tensors if t is not None).device.type
    if name not in LOWER.get(device, ()) or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(t.to(dtype) if t is not None and t.dtype != torch.float64 else t for t in tensors)
