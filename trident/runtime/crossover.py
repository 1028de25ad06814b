"""From which size on a kernel is faster than torch's operator: measured, not guessed (docs/measured.md).

A key is what an operator calls itself when it asks `route.to_torch`: its name, and in brackets the way in which the
call is special where that was measured apart. What `python -m trident tune` measured here (runtime/tuned.py) comes
before what is written here; it is read when the first question is asked.
"""

import functools
import logging
import math
import os

from trident.runtime import pages, tuned


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
FEWEST_PLACES = 16384  # of a grid, from which on affine_grid is not "(small)": the size of its input says nothing
NEAREST = ("upsample_nearest", "_upsample_nearest_exact")

_LEAST_NATIVE = {
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
        "local_response_norm",
        "pixel_shuffle",
        "pixel_unshuffle",
        "rrelu",
        "tanh",
    ),
    65536: (
        *CONV_MANY_TAPS,
        *("fold", "geglu", "swiglu"),
        "jsd_loss (one side)",
        *("celu", "elu", "embedding", "gelu", "logsigmoid", "multi_margin_loss", "multilabel_soft_margin_loss"),
        "quick_gelu",
        *("poisson_nll_loss", "prelu", "scaled_dot_product_attention", "selu", "silu", "soft_margin_loss"),
        *("amax", "amin", "max (all)", "min (all)", "prod", *_each("argmax argmin logsumexp", "", ALONE)),
        *_each("max min std var", ALONE),
        *_each("max min", f" (inner){ALONE}"),
        *("adaptive_avg_pool2d", "avg_pool1d", "avg_pool2d", "max_pool1d", "max_pool2d", *_dims("lp_pool")),
    ),
    131072: (
        *("avg_pool3d", "binary_cross_entropy_with_logits", "instance_norm", "l1_loss", "max_pool3d", "norm"),
        *("pairwise_distance", "rms_norm", "rms_norm (residual)", "softplus", "std", "var"),
        *("cosine_embedding_loss", "margin_ranking_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss"),
    ),
    262144: (
        *("grid_sample (3d)", "unfold (patches)", *CONV_WIDE[1]),
        *("batch_norm", "batch_norm (fused)", "cross_entropy", "layer_norm (plain)", "log_softmax"),
        "gumbel_softmax",
        *_each("max min", "", " (inner)"),
        *("sigmoid", "softmax", "softmin"),
        *_each("scaled_dot_product_attention", " (fused in torch)", " (fused in torch) (causal)"),
    ),
    524288: (
        *CONV_WIDE[2],
        "embedding_bag (weighted)",
        *("glu", "group_norm (fused)", "group_norm (channels last) (fused)", "huber_loss", "mse_loss"),
        "smooth_l1_loss",
    ),
    1048576: (
        *CONV_LONG,
        "softmax (inner) (gradient)",
        *_each("linear_cross_entropy", "", " (each)"),
        *("adaptive_avg_pool2d (channels_last)", "adaptive_avg_pool3d", "adaptive_avg_pool3d (uneven)"),
        *("mean", "norm (forward alone)", "normalize (forward alone)", "reglu"),
        *("batch_norm (channels last) (fused)", "layer_norm (forward alone)"),
        *_each("batch_norm", " (running statistics) (fused)", " (running statistics) (channels last) (fused)"),
    ),
    4194304: ("adaptive_max_pool2d", "adaptive_max_pool3d", "linear_dpo_loss"),
    33554432: ("pdist", "pdist (greatest)"),  # of numbers that are subtracted
}

# Vectors of 256 bits, where exp and erf have no table in a register (decision 105) and products of tiles are slower:
# what differs there (Zen 3)
NARROW = tuned.vector_bits() < 512
_LEAST_NARROW = {
    524288: ("scaled_dot_product_attention (fused in torch) (causal)",),
    1048576: ("cross_entropy", "layer_norm (plain)", "sigmoid", "softmax"),
}
_NEVER_NARROW = (
    *("gelu", "linear_cross_entropy (each)", "pdist (greatest)", "shift_gelu"),
    "scaled_dot_product_attention (fused in torch)",
    *_each("max min", " (inner)", " (inner) (forward alone)"),
)

# (executor, operator) -> the size below which torch's operator was measured faster
FEWEST_ELEMENTS: dict[tuple[str, str], int] = {
    ("native", name): least
    for table in (_LEAST_NATIVE, _LEAST_NARROW if NARROW else {})
    for least, names in table.items()
    for name in names
}

_NEVER_NATIVE = {
    "a vector loop at memory speed gains nothing": (
        *("hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "relu", "softshrink", "threshold"),
        *("embedding (forward alone)", "one_hot"),
        *("feature_alpha_dropout", "nll_loss", "sum", "sum (forward alone)", *_dims("dropout")),
        *_each("amax amin mean prod prelu", ALONE),
        *_each("dropout logsigmoid max min rrelu sigmoid softmax tanh", " (gradient)"),
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
    "its blocks do not divide the sizes": (
        *_each("scaled_dot_product_attention", " (padded)", " (fused in torch) (padded)"),
    ),
    "torch's products of few rows were measured faster": ("flash_attention (slices)",),
    "MKL tunes the product by hand": (
        *("linear", "linear_activation", "grouped_mm (full precision)", "grouped_mm (few rows)"),
    ),
    "oneDNN tunes convolutions by hand": (
        "conv_tbc",
        *(set(CONV) - {*CONV_WIDE[1], *CONV_WIDE[2], *CONV_LONG, *CONV_MANY_TAPS}),
    ),
    "torch's loop of vector gathers was measured faster": ("grid_sample", "affine_grid (small)", "fold (patches)"),
}
# Intel's CPUs with vectors of 512 bits: what `python -m trident tune` found to differ there (Sapphire Rapids), but for
# what an idle machine said otherwise
_INTEL: dict[float, tuple[str, ...]] = {
    1024: ("local_response_norm", "normalize"),
    16384: (
        *("argmin (forward alone)", "gaussian_nll_loss", "lp_pool1d", "lp_pool2d", "multilabel_soft_margin_loss"),
        *("rrelu", "std (forward alone)"),
    ),
    131072: ("kl_div", "tanhshrink"),
    262144: ("embedding_bag (max)", "triplet_margin_loss"),
    4194304: (
        *("adaptive_max_pool1d", "batch_norm (running statistics)", "cross_entropy", "feature_alpha_dropout"),
        *("l1_loss (each)", "layer_norm (plain)", "logsigmoid (gradient)", "max_pool1d (forward alone)", "sigmoid"),
        *("silu", "softmax", "softmax (inner) (gradient)"),
    ),
    math.inf: ("linear_cross_entropy (each)", "tanh"),
}

_ATTENTION = _each(
    "scaled_dot_product_attention",
    *("", " (mask learns)", " (padded)"),
    *(" (fused in torch)", " (fused in torch) (causal)", " (fused in torch) (padded)"),
)

# (executor, operator) -> why torch's operator is preferred at every size
HAND_TUNED: dict[tuple[str, str], str] = {
    ("gpu", "linear"): "cuBLAS tunes a plain product by hand",
    **{("gpu", name): "torch's fused kernels are tuned by hand; ours are not yet timed" for name in _ATTENTION},
    **{("gpu", name): "cuDNN tunes convolutions by hand; ours are not yet timed" for name in ("conv_tbc", *CONV)},
    ("interpreter", "linear"): "torch tunes a plain product by hand",
    **{("native", name): reason for reason, names in _NEVER_NATIVE.items() for name in names},
    **{("native", name): "torch's loop was measured faster in vectors of 256 bits" for name in _NEVER_NARROW if NARROW},
}


def decide(name: str, least: float, reason: str) -> None:
    """Operator `name` has its kernel from `least` elements on, on a CPU; inf: never, for the reason."""
    at = "native", name
    HAND_TUNED.pop(at, None)
    FEWEST_ELEMENTS.pop(at, None)
    if math.isinf(least):
        HAND_TUNED[at] = reason
    else:
        FEWEST_ELEMENTS[at] = int(least)


for _least, _names in _INTEL.items() if tuned.intel_512() else ():
    for _name in _names:
        decide(_name, _least, "torch's loop was measured faster on an Intel CPU")


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


# operators that are in no table: their kernels are called at any size
ALWAYS = frozenset({"flash_attention", "grouped_mm", "multi_head_attention_forward", "rotary_embedding"})
HERE = " (tuned on this machine)"
_SHIPPED = dict(FEWEST_ELEMENTS), dict(HAND_TUNED)
_OPERATORS = ALWAYS | {name.split(" (")[0] for _, name in (*FEWEST_ELEMENTS, *HAND_TUNED)}
_tuned_here: set[str] = set()
_settled = False
log = logging.getLogger("trident.route")


def known(key: str) -> bool:
    return key.split(" (")[0] in _OPERATORS


def settle() -> bool:
    """Read what was tuned on this machine, once."""
    global _settled
    if not _settled:
        _settled = True
        file = tuned.path()
        if file is not None and os.path.isfile(file):  # which raises nothing, as exists() may
            try:
                for name, decision in tuned.read(file, known).keys.items():
                    decide(name, decision.least, f"torch's loop was measured faster{HERE}")
                    _tuned_here.add(name)
            except ValueError as error:
                log.info("trident: %s is ignored: %s", file, error)
    return True


# torch.compiler.assume_constant_result, which imports all of dynamo: the file is read while a call is traced
settle._dynamo_marked_constant = True  # type: ignore[attr-defined]


def shipped(name: str) -> float:
    """Elements from which on operator `name` has its kernel on a CPU, before anything is tuned; inf: never."""
    least, never = _SHIPPED
    return math.inf if ("native", name) in never else least.get(("native", name), 0)


def forget() -> None:
    """What was tuned, and that it was read."""
    global _settled
    _settled = False
    _tuned_here.clear()
    hand_tuned.cache_clear()
    least, never = _SHIPPED
    FEWEST_ELEMENTS.clear()
    FEWEST_ELEMENTS.update(least)
    HAND_TUNED.clear()
    HAND_TUNED.update(never)


def faster_in_torch(name: str, executor: str, numel: int) -> str | None:
    """The measured reason to prefer torch's operator for an input of `numel` elements, or None."""
    settle()
    asked = executor, name
    if reason := HAND_TUNED.get(asked):
        return reason
    least = FEWEST_ELEMENTS.get(asked)
    if least is not None and numel < least:
        return f"faster in torch below {least} elements{HERE if name in _tuned_here else ''}"
    return None


@functools.cache
def hand_tuned(names: tuple[str, ...], executor: str) -> bool:
    """Is torch's operator preferred at every size, for each name?"""
    settle()
    return all((executor, name) in HAND_TUNED and name not in PAGED for name in names)


# functions of trident.functional that ask by other names than their own -> how those begin
ASKED_AS = {
    "conv_tbc": ("conv_tbc", "conv1d"),
    "gelu": ("gelu", "gelu_tanh"),
    "smooth_l1_loss": ("smooth_l1_loss", "l1_loss"),
    "interpolate": (
        *(f"{kind}{n}d" for kind in NEAREST for n in (1, 2, 3)),
        *("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "upsample_bicubic2d"),
    ),
    "pad": tuple(f"{mode}_pad{n}d" for mode in MODES for n in (0, 1, 2, 3, 4)),
}
ASKED_BY_WORK = frozenset(
    {
        *("affine_grid", "bilinear", "embedding", "embedding_bag", "grouped_mm", "linear_cross_entropy", "one_hot"),
        "pdist",
    }
)


def _begins(key: str, name: str) -> bool:
    return key == name or key.startswith(f"{name} (")


def asked_by(function: str, key: str) -> bool:
    """Is it trident.functional.<function> that asks by this key, and not another that it calls?"""
    return any(_begins(key, name) for name in ASKED_AS.get(function, (function,)))


def least(function: str, executor: str) -> float:
    """Elements of the first argument below which each way of calling trident.functional.<function> is torch's; 0 if
    that is not known. inf: at any size."""
    settle()
    return least_shipped(function, executor)


def least_shipped(function: str, executor: str) -> float:
    """The same, by what the tables say now: before the first question, what comes with Trident."""
    keys = [key for how, key in (*FEWEST_ELEMENTS, *HAND_TUNED) if how == executor]
    asked = [key for key in keys if asked_by(function, key)]
    asked = [key for key in asked if not key.endswith(" (gradient)")]
    found = min((_size(key, executor) for key in asked), default=0)
    return 0 if function in ASKED_BY_WORK else found


def size(name: str, executor: str) -> float:
    """Elements below which operator `name` is torch's; inf: at any size."""
    settle()
    return _size(name, executor)


def _size(name: str, executor: str) -> float:
    found = math.inf if (executor, name) in HAND_TUNED else FEWEST_ELEMENTS.get((executor, name), 0)
    return min(found, pages.LARGE // 8) if name in PAGED else found  # 8: bytes of the largest elements
