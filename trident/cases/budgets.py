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
    ("conv2d.depthwise", "depthwise_weight_kernel", "sm_80"): Spills(4, _PARKED),
    ("conv2d.depthwise_stride", "depthwise_weight_kernel", "sm_80"): Spills(2, _PARKED),
    ("scaled_dot_product_attention", "forward_kernel", "sm_100"): Spills(2, _PARKED),
    ("scaled_dot_product_attention", "forward_kernel", "gfx942"): Spills(40, _NOT_TUNED),
    ("scaled_dot_product_attention", "keys_kernel", "gfx942"): Spills(200, _NOT_TUNED),
    ("scaled_dot_product_attention", "queries_kernel", "gfx942"): Spills(70, _NOT_TUNED),
}


def spills(case: str, kernel: str, target: str) -> int:
    """The most that a kernel may have."""
    found = SPILLS.get((case, kernel, target)) or SPILLS.get((case.split(".")[0], kernel, target))
    return found.most if found else 0


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
            "gumbel_softmax.hard": (None, 1.7),
        },
        **{"layer_norm.2d": (1.3, 3.3), "rms_norm.2d": (1.4, 2.9)},  # a whole matrix is one row of these
    },
    "a row is read beside each of the others, from a cache": {"pdist": (91.5, 87.0)},
    "blocks of queries, and tiles of a product, read the other operand again: from the L2 cache": {
        **{"flash_attention": (3.1, 7.9), "flash_attention.packed": (5.75, 15.9)},
        **{"scaled_dot_product_attention": (6.3, 15.0), "linear.wide": (5.7, 5.2), "grouped_mm": (1.4, 1.6)},
    },
    "windows overlap: what two of them hold is read for each, from a cache": {
        **{"local_response_norm": (4.1, 3.5), "interpolate.bilinear": (2.1, 3.5), "interpolate.bicubic": (5.7, 12.5)},
        **{"max_pool1d": (1.6, 1.6), "max_pool2d": (2.1, 1.95), "max_pool3d": (1.1, None)},
        **{"avg_pool1d": (1.4, 1.5), "avg_pool2d": (2.05, 1.7), "avg_pool3d": (3.8, 3.1), "lp_pool1d": (1.4, 1.4)},
        **{"adaptive_max_pool2d": (1.2, None), "adaptive_max_pool3d": (1.1, None)},
        **{"adaptive_avg_pool2d": (1.2, None), "pad": (1.15, None)},
        **{"grid_sample": (1.1, None)},
    },
    "taps overlap, and tiles of channels: what is gathered for each of them comes from a cache": {
        **{"conv2d": (8.3, 4.9), "conv2d.silu": (1.1, 1.1), "conv2d.depthwise": (5.0, 7.0)},  # silu: one tap
        **{"conv1d": (3.45, 1.35), "conv3d": (5.1, 2.4)},
        **{"conv_transpose1d": (2.8, 1.15), "conv_transpose2d": (12.0, 1.4), "conv_transpose3d": (5.25, 2.2)},
    },
    "taps are written down and sorted, and a row of dy is read for each of them: no atomics": {
        **{"grid_sample": (None, 6.0), "grid_sample.bicubic": (7.0, 19.0)},
    },
    "what torch multiplied is written for the kernel that combines it with the other input, and read again": {
        **{"bilinear": (1.25, 1.65), "bilinear.wide": (5.7, 3.9)},
    },
    "products of all gates are written, added to, and read by the step's kernel": {
        **{"rnn_tanh_cell": (2.35, None), "rnn_relu_cell": (2.35, None), "gru_cell": (5.25, None)},
        **{"lstm_cell": (4.15, None), "lstm_cell.hidden": (5.15, None), "lstm_cell.cell": (5.15, None)},
    },
    "a layer's weights are read for each step, from the L2 cache; on GPUs layers are cuDNN's": {
        **{"rnn_tanh": (4.5, 3.05), "rnn_tanh.deep": (5.25, 3.45), "rnn_relu": (4.5, 3.05)},
        **{"gru": (8.2, 3.55), "gru.deep": (9.7, 5.9)},
    },
    "beside lines that are not contiguous a mask that broadcasts is written out": {"masked_softmax.1": (1.5, None)},
    "the case gathers what lies at the indices, to have what can be differentiated: all of x is the gather's operand": {
        **{"argmax": (2.1, 3.1), "argmin": (2.1, 3.0)},
    },
    "indices are checked, and the result is zero before values are put into it": {
        **{"max_unpool1d": (1.75, None), "max_unpool2d": (1.6, None), "max_unpool3d": (1.4, None)},
    },
    "few elements are needed, beside which the check of the targets counts, which is made where they are on a CPU": {
        **{"nll_loss": (700.0, None), "multilabel_margin_loss": (2.25, None)},
    },
    "the case makes the weights of classes": {"multi_margin_loss.2": (1.06, None)},
    "noise is drawn by torch, written and read again": {"gumbel_softmax": (2.05, None)},
    "logits of some tokens at a time are written and read again, as are gradients that the forward makes": {
        **{"linear_cross_entropy": (3.15, None), "linear_cross_entropy.all": (3.65, None)},
        **{"linear_cross_entropy.none": (2.6, 7.6)},
        **{"linear_dpo_loss": (4.6, None), "linear_dpo_loss.ipo": (8.45, None), "linear_dpo_loss.none": (1.4, 2.1)},
    },
    "a row of a table is read for each place that asks for it; its gradient begins as zeros": {
        **{"embedding": (1.4, 1.35), "embedding_bag": (2.65, 2.0), "embedding_bag.max": (2.1, 1.95)},
    },
    "partial results of long lines, one a program": {
        **{"prod.inner": (1.1, None), "std": (1.15, None), "min": (1.1, None), "norm.inf": (1.1, None)},
    },
    "the slopes that were drawn are written for the backward": {"rrelu": (1.55, None)},
    "the places of what was chosen, int64, count as no result": {"topk_softmax": (1.25, 1.15)},
}
# the same where elements are of four bytes
_BYTES_WIDE: dict[str, dict[str, tuple[float | None, float | None]]] = {
    "a tile holds fewer of them: blocks of queries, and tiles of a product, read the other operand again": {
        **{"scaled_dot_product_attention": (8.55, 25.1), "scaled_dot_product_attention.mask": (9.25, 25.6)},
        **{"flash_attention.cap": (4.85, 13.65), "flash_attention.packed": (None, 28.45), "linear.wide": (None, 5.9)},
    },
}


def _table(rows: dict[str, dict[str, tuple[float | None, float | None]]]) -> dict[tuple[str, str], Bytes]:
    return {
        (case, direction): Bytes(most, reason)
        for reason, cases in rows.items()
        for case, both in cases.items()
        for direction, most in zip(("forward", "backward"), both, strict=True)
        if most is not None
    }


BYTES, BYTES_WIDE = _table(_BYTES), _table(_BYTES_WIDE)


def ratio(case: str, direction: str, dtype: str) -> float:
    """The most that counted bytes may be over compulsory ones."""
    default = FORWARD if direction == "forward" else BACKWARD
    tables = (BYTES_WIDE, BYTES) if dtype == "float32" else (BYTES,)
    found = (table.get((name, direction)) for table in tables for name in (case, case.split(".")[0]))
    return next((budget for budget in found if budget), default).most
