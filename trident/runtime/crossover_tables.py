"""What was measured of kernels beside torch's operators: the sizes and reasons that runtime/crossover.py goes by.

docs/measured.md has the numbers. LEAST and NEVER are of the first machine, AMD's Zen 4; ELSEWHERE says where other
CPUs differ from it.
"""

import math
from collections.abc import Mapping


def _each(names: str, *ways: str) -> tuple[str, ...]:
    """Each of the names, written with each ending."""
    return tuple(f"{name}{way}" for name in names.split() for way in ways)


def _dims(name: str, dims: tuple[int, ...] = (1, 2, 3), way: str = "") -> tuple[str, ...]:
    return tuple(f"{name}{n}d{way}" for n in dims)


ALONE = " (forward alone)"  # no gradient to come: measured apart for reductions, whose forwards torch tunes better
LAST = " (channels_last)"
MODES = ("constant", "reflection", "replication", "circular")
CONV_PARTS = (" (forward)", " (activation)", " (dx)", " (dw)")
CONV = tuple(
    f"{name}{kind}{part}"
    for name in (*_dims("conv"), *_dims("conv_transpose"))
    for kind in ("", *(f" (depthwise){way}{last}" for way in ("", " (wide)", " (many taps)") for last in ("", LAST)))
    for part in CONV_PARTS
)
# depthwise convolutions that were measured to be faster here, and from which size on
CONV_WIDE = {n: tuple(f"conv{n}d (depthwise) (wide){part}" for part in CONV_PARTS) for n in (1, 2)}
CONV_LONG = tuple(f"conv1d (depthwise) (many taps){part}" for part in (" (forward)", " (activation)", " (dw)"))
CONV_MANY_TAPS = tuple(f"conv2d (depthwise) (many taps){last} (dw)" for last in ("", LAST))
# products, by the number of multiplications
BFLOAT16_ROWS = (" (a row of bfloat16)", " (few rows of bfloat16)")
LINEAR, LINEAR_ACTIVATION = (
    _each(name, "", " (few rows)", " (halves)", *BFLOAT16_ROWS) for name in ("linear", "linear_activation")
)
FEWEST_PLACES = 2048  # of a grid, from which on affine_grid is not "(small)": the size of its input says nothing
RNN, RNN_WAYS = "rnn_tanh rnn_relu", ("", ALONE)  # layers over a sequence, by the number of steps
CUDNN = _each(f"gru {RNN}", *RNN_WAYS, *(f" (in steps){way}" for way in RNN_WAYS))
NEAREST = ("upsample_nearest", "_upsample_nearest_exact")

LEAST: dict[int, tuple[str, ...]] = {
    16: (*_each(f"gru {RNN}", *RNN_WAYS), "gru (in steps)"),
    2048: ("bilinear",),
    4096: ("alpha_dropout", "normalize"),
    8192: ("binary_cross_entropy", "dropout", "mish", "topk_softmax"),
    16384: (
        *("normalize (power)", "shift_gelu", "unfold"),
        *("embedding_bag (max)", "gelu_tanh", "hinge_embedding_loss", "kl_div", "masked_softmax"),
        *("multilabel_margin_loss", "pdist (power)", "softsign"),
        *("tanhshrink", "upsample_nearest2d", "_upsample_nearest_exact2d", "upsample_bilinear2d"),
        *("upsample_bicubic2d (channels_last)", *_each("std_mean var_mean", "", ALONE)),
    ),
    32768: (
        "cosine_similarity",
        "gaussian_nll_loss",
        *("gru_cell", "lstm_cell"),
        "local_response_norm",
        "pixel_shuffle",
        "rrelu",
        "tanh",
    ),
    65536: (
        *CONV_MANY_TAPS,
        *("grid_sample (3d) (forward alone)", "grid_sample (halves)", "grid_sample (learns) (bicubic)"),
        *("fold", "geglu", "swiglu"),
        "jsd_loss (one side)",
        *("celu", "elu", "gelu", "logsigmoid", "multi_margin_loss", "multilabel_soft_margin_loss"),
        "quick_gelu",
        *("poisson_nll_loss", "prelu", "scaled_dot_product_attention", "selu", "soft_margin_loss"),
        *("amax", "amin", "max (all)", "min (all)", *_each("argmax argmin logsumexp", "", ALONE)),
        *_each("prod", "", " (few columns)", " (halves)"),
        *_each("max min std var", ALONE),
        *_each("max min", f" (inner){ALONE}"),
        *("triplet_margin_loss", "triplet_margin_with_distance_loss"),
        *("adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d", *_dims("lp_pool")),
    ),
    131072: (
        *("avg_pool3d", "binary_cross_entropy_with_logits", "instance_norm", "max_pool3d", "norm"),
        *("pairwise_distance", "rms_norm", "rms_norm (residual)", "softplus", "std", "var"),
        *("cosine_embedding_loss", "margin_ranking_loss"),
        *_each("amax amin", " (apart)", f" (apart){ALONE}"),
    ),
    262144: (
        *("unfold (patches)", *CONV_WIDE[1]),
        *("batch_norm", "batch_norm (fused)", "gumbel_softmax", "l1_loss", "layer_norm (plain)"),
        *_each("max min", "", " (inner)"),
        "prod (few columns) (forward alone)",
        *_each("scaled_dot_product_attention", " (fused in torch)", " (fused in torch) (causal)"),
    ),
    524288: (
        *CONV_WIDE[2],
        *("embedding_bag (weighted)", "grid_sample (3d)", "grid_sample (3d) (nearest)"),
        *("cross_entropy", "glu", "group_norm (fused)", "group_norm (channels last) (fused)", "pixel_unshuffle"),
        *("huber_loss", "mse_loss", "smooth_l1_loss"),
        *("log_softmax", "sigmoid", "silu", "softmax", "softmin"),
        *_each("linear linear_activation", " (few rows)"),
    ),
    1048576: (
        *CONV_LONG,
        *("grid_sample (learns) (bilinear)", "softmax (inner) (gradient)"),
        *_each("linear_cross_entropy", "", " (each)"),
        *("adaptive_avg_pool2d (channels_last)", "adaptive_avg_pool3d", "adaptive_avg_pool3d (uneven)", "embedding"),
        *("mean", "norm (forward alone)", "normalize (forward alone)", "reglu", "rnn_relu_cell", "rnn_tanh_cell"),
        *("batch_norm (channels last) (fused)", "layer_norm (forward alone)", "prod (halves) (forward alone)"),
        *_each("huber_loss mse_loss smooth_l1_loss", ALONE),
        *_each("linear linear_activation", *BFLOAT16_ROWS),
        *_each("batch_norm", " (running statistics) (fused)", " (running statistics) (channels last) (fused)"),
    ),
    2097152: ("l1_loss (forward alone)",),
    4194304: ("adaptive_max_pool2d", "adaptive_max_pool3d", "linear_dpo_loss"),
    33554432: ("pdist", "pdist (greatest)"),  # of numbers that are subtracted
    536870912: ("linear", "linear_activation"),
}

# why torch's operator is preferred at every size -> which
NEVER: dict[str, tuple[str, ...]] = {
    "a vector loop at memory speed gains nothing": (
        *("hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "relu", "softshrink", "threshold"),
        *("embedding (forward alone)", "one_hot"),
        *("feature_alpha_dropout", "nll_loss", "sum", "sum (forward alone)", *_dims("dropout")),
        *_each("amax amin mean prod prelu", ALONE),
        *_each("dropout log_softmax logsigmoid max min rrelu sigmoid softmax tanh", " (gradient)"),
        "layer_norm (plain) (gradient)",
        *("max (all) (forward alone)", "min (all) (forward alone)"),
    ),
    "torch's loop was measured faster": (
        *("l1_loss (each)", "topk_softmax (many chosen)"),
        *("embedding_bag (mean)", "embedding_bag (sum)"),
        *("adaptive_avg_pool1d", "adaptive_max_pool1d", "group_norm", "group_norm (channels last)", "layer_norm"),
        *("layer_norm (residual)", "rms_norm (few rows)"),
        *_each("batch_norm", " (channels last)", " (running statistics)", " (running statistics) (channels last)"),
        *_dims("adaptive_avg_pool", way=" (one window)"),
        *("adaptive_avg_pool1d (uneven)", "adaptive_avg_pool2d (channels_last) (uneven)"),
        *(*_dims("adaptive_max_pool", way=" (one window)"), *_dims("adaptive_max_pool", (2, 3), LAST)),
        "max_pool1d (forward alone)",
        *(*_dims("max_pool", (2, 3), " (gradient)"), *_dims("adaptive_max_pool", (2, 3), " (gradient)")),
        *(*_dims("avg_pool", (2, 3), LAST), *_dims("max_pool", (2, 3), LAST), *_dims("max_unpool")),
        *(*_dims("avg_pool", way=" (far apart)"), *_dims("max_pool", way=" (far apart)")),
        *("upsample_linear1d", "upsample_trilinear3d", "upsample_trilinear3d (channels_last)", "upsample_bicubic2d"),
        *("upsample_bilinear2d (channels_last)", "channel_shuffle", "channel_shuffle (channels_last)"),
        *("pixel_shuffle (channels_last)", "pixel_unshuffle (channels_last)"),
        *(name for kind in NEAREST for name in (*_dims(kind, (1, 3)), *_dims(kind, (2, 3), LAST))),
        *(name for mode in MODES for name in _dims(f"{mode}_pad", (0, 1, 2, 3, 4))),
    ),
    "the gradient of its mask was measured slower": ("scaled_dot_product_attention (mask learns)",),
    "a row is one program's work, torch's loops are every thread's": ("rms_norm (one row)",),
    "its blocks do not divide the sizes": (
        *_each("scaled_dot_product_attention", " (padded)", " (fused in torch) (padded)"),
    ),
    "torch's products of few rows were measured faster": ("flash_attention (slices)",),
    "torch's loop of the same products was measured as fast": (
        *_each(RNN, *(f" (in steps){way}" for way in RNN_WAYS)),
        "gru (in steps) (forward alone)",
    ),
    "MKL tunes the product by hand": (
        *_each("linear linear_activation", " (halves)"),
        *("grouped_mm (full precision)", "grouped_mm (few rows)"),
    ),
    "oneDNN tunes convolutions by hand": (
        "conv_tbc",
        *(set(CONV) - {*CONV_WIDE[1], *CONV_WIDE[2], *CONV_LONG, *CONV_MANY_TAPS}),
    ),
    "torch's loop of vector gathers was measured faster": ("grid_sample", "affine_grid (small)", "fold (patches)"),
}

# what tuned.kind() says of a CPU -> what differs there; inf: torch's at every size
ELSEWHERE: Mapping[str, Mapping[float, tuple[str, ...]]] = {
    # vectors of 256 bits, where exp and erf have no table in a register (decision 105) and products of tiles are
    # slower (Zen 3)
    "narrow": {
        65536: ("silu",),
        524288: ("scaled_dot_product_attention (fused in torch) (causal)",),
        1048576: ("cross_entropy", "layer_norm (plain)", "sigmoid", "softmax"),
        math.inf: (
            *("gelu", "linear_cross_entropy (each)", "pdist (greatest)", "shift_gelu"),
            "scaled_dot_product_attention (fused in torch)",
            *_each("max min", " (inner)", " (inner) (forward alone)"),
            *_each("linear linear_activation", "", " (few rows)", *BFLOAT16_ROWS),  # not measured
        ),
    },
    # Zen 5, whose vectors of 512 bits MKL leaves alone, and whose loops are at memory speed sooner: what `python -m
    # trident tune` found, but for what an idle machine's bench said otherwise
    "zen 5": {
        1024: ("local_response_norm", "normalize"),
        16384: (
            *("argmin (forward alone)", "celu", "elu", "gaussian_nll_loss", "lp_pool1d", "multilabel_soft_margin_loss"),
            *("quick_gelu", "rrelu", "selu", *_each("std", "", ALONE)),
            "scaled_dot_product_attention (padded)",
        ),
        65536: ("grouped_mm (full precision)",),
        131072: (
            *("embedding_bag (max)", "kl_div", "softmin"),
            *_each("scaled_dot_product_attention", " (mask learns)", " (fused in torch) (causal)"),
            "scaled_dot_product_attention (fused in torch) (padded)",
        ),
        262144: (
            *("amax", "amax (forward alone)", "norm", "var"),
            *("triplet_margin_loss", "triplet_margin_with_distance_loss"),
        ),
        524288: _each("l1_loss", "", ALONE),
        1048576: ("cross_entropy", "embedding", "huber_loss", "mse_loss", "smooth_l1_loss"),
        2097152: _each("linear linear_activation", " (few rows)", " (a row of bfloat16)"),
        4194304: ("linear", "linear_activation", "softmax (inner) (gradient)", "upsample_bilinear2d"),
        8388608: ("feature_alpha_dropout",),
        math.inf: (
            *("layer_norm (forward alone)", "mean", "pdist (greatest)", "pixel_unshuffle", "reglu", "sigmoid", "silu"),
            *_each("huber_loss mse_loss smooth_l1_loss", ALONE),
            *_each("elu relu selu softplus", " (gradient)"),
            *_each("linear linear_activation", " (few rows of bfloat16)"),  # not measured
        ),
    },
    # Sapphire and Emerald Rapids: what `python -m trident tune` found, but for what an idle machine said otherwise
    "intel": {
        32: _each("rnn_tanh rnn_relu", ALONE),
        1024: ("local_response_norm", "normalize"),
        16384: (
            *("argmin (forward alone)", "gaussian_nll_loss", "lp_pool1d", "lp_pool2d", "multilabel_soft_margin_loss"),
            *("rrelu", *_each("std", "", ALONE)),
        ),
        32768: ("pixel_unshuffle",),
        131072: ("l1_loss", "prod (few columns)", "tanhshrink", *_each("elu selu softplus", " (gradient)")),
        262144: (
            *("cosine_embedding_loss", "embedding_bag (max)", "kl_div", "norm", "poisson_nll_loss", "softmin"),
            *("prod", "prod (halves)", "swiglu", "triplet_margin_loss", "var"),
        ),
        524288: ("l1_loss (forward alone)",),
        1605632: ("instance_norm",),
        3211264: ("group_norm",),
        4194304: (
            *("adaptive_max_pool1d", "batch_norm (running statistics)", "cross_entropy", "feature_alpha_dropout"),
            *("gelu", "l1_loss (each)", "layer_norm (plain)", "logsigmoid (gradient)", "max_pool1d (forward alone)"),
            *("shift_gelu", "sigmoid", "silu", "softmax", "softmax (inner) (gradient)"),
            *_each("huber_loss mse_loss smooth_l1_loss", ALONE),
            *_each("log_softmax", "", " (gradient)"),
        ),
        math.inf: (
            *("grid_sample (learns) (bilinear)", "linear_cross_entropy (each)", "tanh"),
            *_each("linear linear_activation", "", " (few rows)", *BFLOAT16_ROWS),
        ),
    },
}

ATTENTION = _each(
    "scaled_dot_product_attention",
    *("", " (mask learns)", " (padded)"),
    *(" (fused in torch)", " (fused in torch) (causal)", " (fused in torch) (padded)"),
)

# What torch's loop does faster, but for results as large as pages.LARGE, which here come in pages of 2 MB
PAGED = frozenset(
    {
        *("hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "relu", "softshrink", "threshold"),
        *_each("dropout logsigmoid rrelu sigmoid softmax tanh", " (gradient)"),
        *("layer_norm (plain) (gradient)", "shift_gelu"),
        *("batch_norm", "channel_shuffle", "constant_pad2d", "group_norm", "layer_norm", "layer_norm (forward alone)"),
        *("prelu (forward alone)", *_dims("dropout")),
    }
)
