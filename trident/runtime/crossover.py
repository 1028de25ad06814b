"""From which size on a kernel is faster than torch's operator: measured, not guessed (docs/measured.md).

A key is what an operator calls itself when it asks `route.to_torch`: its name, and in brackets the way in which the
call is special where that was measured apart. The numbers stand in crossover_tables.py. What `python -m trident tune`
measured here (runtime/tuned.py) comes before them; it is read when the first question is asked.
"""

import collections
import functools
import logging
import math
import os

from trident.runtime import pages, tuned
from trident.runtime.crossover_tables import (
    ATTENTION,
    CONV,
    CUDNN,
    ELSEWHERE,
    LEAST,
    LINEAR,
    MODES,
    NEAREST,
    NEVER,
    PAGED,
)
from trident.runtime.exporting import surely
from trident.runtime.op import constant

# (executor, operator) -> the size below which torch's operator was measured faster
FEWEST_ELEMENTS: dict[tuple[str, str], int] = {("native", name): n for n, names in LEAST.items() for name in names}
# (executor, operator) -> why torch's operator is preferred at every size
HAND_TUNED: dict[tuple[str, str], str] = {
    **{("gpu", name): "cuBLAS tunes a plain product by hand" for name in LINEAR},
    **{("gpu", name): "torch's fused kernels are tuned by hand; ours are not yet timed" for name in ATTENTION},
    **{("gpu", name): "cuDNN tunes convolutions by hand; ours are not yet timed" for name in ("conv_tbc", *CONV)},
    **{("gpu", name): "cuDNN takes all steps of a layer in one kernel" for name in CUDNN},
    **{("interpreter", name): "torch tunes a plain product by hand" for name in LINEAR},
    **{("native", name): reason for reason, names in NEVER.items() for name in names},
}


@functools.cache
def _keys(executor: str) -> dict[str, tuple[str, ...]]:
    """An executor's keys by the names they begin with. Every door asks for some as it is made; `decide` may add one."""
    found = collections.defaultdict(list)
    for how, key in FEWEST_ELEMENTS | HAND_TUNED:
        if how == executor:
            found[key.split(" (")[0]].append(key)
    return {name: tuple(keys) for name, keys in found.items()}


def decide(name: str, least: float, reason: str) -> None:
    """Operator `name` has its kernel from `least` elements on, on a CPU; inf: never, for the reason."""
    _keys.cache_clear()
    at = "native", name
    HAND_TUNED.pop(at, None)
    FEWEST_ELEMENTS.pop(at, None)
    if math.isinf(least):
        HAND_TUNED[at] = reason
    else:
        FEWEST_ELEMENTS[at] = int(least)


for _least, _names in ELSEWHERE.get(tuned.kind(), {}).items():
    for _name in _names:
        decide(_name, _least, "torch's loop was measured faster on such a CPU")


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


@constant  # the file is read while a call is traced
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
    _keys.cache_clear()
    least, never = _SHIPPED
    FEWEST_ELEMENTS.clear()
    FEWEST_ELEMENTS.update(least)
    HAND_TUNED.clear()
    HAND_TUNED.update(never)


def faster_in_torch(name: str, executor: str, numel: int) -> str | None:
    """The measured reason to prefer torch's operator for an input of `numel` elements, or None. A size that an export
    leaves open is large."""
    settle()
    asked = executor, name
    if reason := HAND_TUNED.get(asked):
        return reason
    least = FEWEST_ELEMENTS.get(asked)
    if least is not None and surely(numel < least):
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
        *("gru", "pdist", "rnn_relu", "rnn_tanh"),
    }
)
# asked by the elements of the first argument times the rows of the second, which the door can count, too
ASKED_BY_PRODUCTS = frozenset({"linear"})


def least(function: str, executor: str) -> float:
    """Elements of the first argument (multiplications: ASKED_BY_PRODUCTS) below which each way of calling
    trident.functional.<function> is torch's; 0 if that is not known. inf: at any size."""
    settle()
    return least_shipped(function, executor)


def least_shipped(function: str, executor: str) -> float:
    """The same, by what the tables say now: before the first question, what comes with Trident."""
    if function in ASKED_BY_WORK:
        return 0
    keys = _keys(executor)
    asked = (key for name in ASKED_AS.get(function, (function,)) for key in keys.get(name, ()))
    return min((_size(key, executor) for key in asked if not key.endswith(" (gradient)")), default=0)


def size(name: str, executor: str) -> float:
    """Elements below which operator `name` is torch's; inf: at any size."""
    settle()
    return _size(name, executor)


def _size(name: str, executor: str) -> float:
    found = math.inf if (executor, name) in HAND_TUNED else FEWEST_ELEMENTS.get((executor, name), 0)
    return min(found, pages.LARGE // 8) if name in PAGED else found  # 8: bytes of the largest elements
