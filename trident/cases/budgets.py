"""What kernels may cost on GPUs, where it is more than the default: data that `python -m trident inspect` and CI hold
them to, each with its reason. A budget that nothing needs any more is to be deleted.
"""

from typing import NamedTuple


class Spills(NamedTuple):
    most: int  # instructions that store a register to a thread's stack; nothing else may have any
    reason: str


_PARKED = "ptxas parks a few values of the prologue in memory where that lets one more program run"
_NOT_TUNED = "tiles are not tuned for AMD, where attention goes to torch (runtime/crossover.py)"

# (case or its name before the dot, kernel, target)
SPILLS: dict[tuple[str, str, str], Spills] = {
    ("prelu", "_forward_kernel", "sm_90"): Spills(4, _PARKED),
    ("prelu", "_forward_kernel", "sm_100"): Spills(4, _PARKED),
    ("conv2d.depthwise_stride", "depthwise_kernel", "sm_80"): Spills(3, _PARKED),
    ("rms_norm", "_backward_kernel", "sm_90"): Spills(1, _PARKED),
    ("layer_norm", "_backward_kernel", "sm_90"): Spills(1, f"Triton 3.6 only: {_PARKED}"),
    ("scaled_dot_product_attention", "forward_kernel", "sm_90"): Spills(1, _PARKED),
    ("scaled_dot_product_attention", "forward_kernel", "sm_100"): Spills(2, _PARKED),
    ("scaled_dot_product_attention", "forward_kernel", "gfx942"): Spills(40, _NOT_TUNED),
    ("scaled_dot_product_attention", "keys_kernel", "gfx942"): Spills(200, _NOT_TUNED),
    ("scaled_dot_product_attention", "queries_kernel", "gfx942"): Spills(70, _NOT_TUNED),
}


def spills(case: str, kernel: str, target: str) -> int:
    """The most that a kernel may have."""
    found = SPILLS.get((case, kernel, target)) or SPILLS.get((case.split(".")[0], kernel, target))
    return found.most if found else 0


_UNPROVEN = "addresses are quotients of run-time sizes: neighbours in memory, which the compiler cannot know"
_SPANNING = "lines of less than 64 neighbours: a tile spans outer indices and is read element by element (tuning.lines)"
_PRODUCT = "the transposed operand of a gradient, and rows of few results"
_POOLS = ("max_pool1d", "avg_pool1d", "lp_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")

# (case or its name before the dot, kernel) -> why operands are accessed in less than 16 bytes a thread though they lie
# in whole segments of 16
NARROW: dict[tuple[str, str], str] = {
    **{(name, "_backward_kernel"): _UNPROVEN for name in _POOLS},
    **{(f"max_unpool{n}d", kernel): _UNPROVEN for n in (1, 2, 3) for kernel in ("_scatter_kernel", "_gather_kernel")},
    **{(f"adaptive_avg_pool{n}d", "_expand_kernel"): _UNPROVEN for n in (2, 3)},
    ("lp_pool1d", "_forward_kernel"): _UNPROVEN,
    ("adaptive_max_pool1d", "wide_forward_kernel"): _UNPROVEN,
    ("adaptive_avg_pool1d", "_windows_kernel"): _UNPROVEN,
    ("pixel_shuffle", "_permute_kernel"): _UNPROVEN,
    ("pixel_unshuffle", "_permute_kernel"): _UNPROVEN,
    ("interpolate", "_resample_kernel"): _UNPROVEN,
    **{(name, "_forward_kernel"): _SPANNING for name in ("sum", "mean", "amax", "norm")},
    **{(name, "_backward_kernel"): _SPANNING for name in ("var", "amax", "norm")},
    ("linear", "_matmul_kernel"): _PRODUCT,
    ("group_norm", "_means_kernel"): "a weight a channel, read by group",
}


def narrow(case: str, kernel: str, operand: str) -> str | None:
    """Why an operand may be accessed in less than 16 bytes a thread; None if it may not."""
    return NARROW.get((case, kernel)) or NARROW.get((case.split(".")[0], kernel))


class Bytes(NamedTuple):
    most: float  # counted bytes over compulsory ones, without partial results
    reason: str


FORWARD = Bytes(1.05, "each input read once, each result written once, and a statistic a row")
BACKWARD = Bytes(1.1, "the same, and what the forward saved")

# reason -> case, or its name before the dot -> the most forward, backward; None: the default
_BYTES: dict[str, dict[str, tuple[float | None, float | None]]] = {
    "statistics over more elements than a program holds: x is read for them, and again for the result": {
        **{
            "batch_norm": (1.75, 1.8),
            "group_norm": (1.8, 1.7),
            "instance_norm": (1.55, 1.7),
            "softmax.0": (1.55, 1.7),
            "normalize.sum": (1.55, 1.7),
        },
        **{"layer_norm.2d": (1.4, 3.3), "rms_norm.2d": (1.4, 2.9)},  # a whole matrix is one row of these
    },
    "blocks of queries, and tiles of a product, read the other operand again: from the L2 cache": {
        **{"scaled_dot_product_attention": (6.3, 15.0), "linear.wide": (5.7, 5.2)},
    },
    "windows overlap: what two of them hold is read for each, from a cache": {
        **{"local_response_norm": (4.1, 3.5), "interpolate.bilinear": (2.1, 3.5), "interpolate.bicubic": (5.7, 12.5)},
        **{"max_pool1d": (1.6, 1.6), "max_pool2d": (2.1, 1.95), "max_pool3d": (1.1, None)},
        **{"avg_pool1d": (1.4, 1.5), "avg_pool2d": (2.05, 1.7), "avg_pool3d": (3.8, 3.1), "lp_pool1d": (1.4, 1.4)},
        **{"adaptive_max_pool2d": (1.2, None), "adaptive_max_pool3d": (1.1, None)},
        **{"adaptive_avg_pool2d": (1.2, None), "pad": (1.15, None)},
    },
    "the case makes targets or weights of its input by torch's operators, which count": {
        **{"soft_margin_loss": (29.0, None), "hinge_embedding_loss": (29.0, None), "margin_ranking_loss": (15.0, 1.25)},
        **{"cosine_embedding_loss": (1.2, None), "binary_cross_entropy": (1.75, 1.5), "poisson_nll_loss": (1.75, 1.6)},
        **{"binary_cross_entropy_with_logits": (1.9, 1.8), "multilabel_soft_margin_loss": (1.75, 1.5)},
        **{"pairwise_distance.one": (2.1, 1.75), "masked_softmax.1": (1.6, None)},
        **{"rotary_embedding": (2.6, None)},
        **{"argmax": (2.1, 3.1), "argmin": (2.1, 3.0)},  # a gather, to have what can be differentiated
    },
    "results of a kernel are summed or combined by torch's operators, and few elements are asked for": {
        **{"triplet_margin_loss": (2.15, 1.6), "triplet_margin_with_distance_loss": (1.4, 1.25)},
        **{"gaussian_nll_loss": (1.75, 1.4), "cross_entropy": (1.25, None)},
        **{
            "max_unpool1d": (1.65, None),
            "max_unpool2d": (1.45, None),
            "max_unpool3d": (1.3, None),
        },  # indices are checked
    },
    "few elements are needed, beside which the check of the targets counts, which is made where they are on a CPU": {
        "nll_loss": (700.0, None)
    },
    "gradients of sums over inner dimensions are made contiguous": {"var": (None, 1.35), "amax": (None, 1.25)},
    "partial results of long lines, one a program": {
        **{"prod.inner": (1.1, None), "std": (1.15, None), "min": (1.1, None), "norm.inf": (1.1, None)},
    },
    "the slopes that were drawn are written for the backward": {"rrelu": (1.55, None)},
}
BYTES: dict[tuple[str, str], Bytes] = {
    (case, direction): Bytes(most, reason)
    for reason, cases in _BYTES.items()
    for case, both in cases.items()
    for direction, most in zip(("forward", "backward"), both, strict=True)
    if most is not None
}


def ratio(case: str, direction: str) -> float:
    """The most that counted bytes may be over compulsory ones."""
    default = FORWARD if direction == "forward" else BACKWARD
    return (BYTES.get((case, direction)) or BYTES.get((case.split(".")[0], direction)) or default).most
