"""Trident under torch's own tests of torch: `op_db` and `module_db`, the samples that PyTorch's test suite is made of.

Every function of `trident.functional` that torch has too gets each sample of its OpInfo, every class of `trident.nn`
each input of its ModuleInfo. `TRIDENT_TESTS=all python -m tests.test_conformance` writes docs/conformance.md.
"""

import collections
import copy
import functools
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing._internal import common_utils
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import ModuleErrorEnum, ModuleInfo, module_db
from torch.testing._internal.opinfo import core
from torch.testing._internal.opinfo.core import OpInfo, SampleInput
from torch.utils._pytree import tree_leaves, tree_map

import trident.functional
import trident.nn
from tests.test_laws import DEVICE, close, gradients_of, same
from trident.cases import CASES
from trident.cases.case import EVERYTHING, floating, results
from trident.optimize import SWAPS

pytestmark = pytest.mark.once

# Every list of samples looks for a unittest.TestCase on its stack, which takes longer than to make the samples; there
# is none here.
for module in (common_utils, core):
    module.extract_test_fn = lambda: None

FLOATS = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
FUNCTIONS = sorted(name for name, value in vars(trident.functional).items() if callable(value))
CLASSES = {cls.__name__: cls for cls in sorted(SWAPS.values(), key=lambda cls: cls.__name__)}
EXACT = {"hardsigmoid": CASES["hardsigmoid"].exact}  # torch's float64 rounds 1 / 6 to float32
TORCH = torch.__version__.split("+")[0]
PAGE = Path(__file__).parents[1] / "docs" / "conformance.md"

# these draw other numbers than torch for the same seed: shapes and dtypes are compared, values in tests of their own
RANDOM = frozenset(
    ("alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout", "rrelu")
)
# functions that op_db does not have -> what tests them instead
NOT_IN_OP_DB = {
    **dict.fromkeys(("affine_grid", "conv_tbc", "fold"), "tests/test_laws.py"),
    "dropout1d": "tests/test_dropout.py",
    **dict.fromkeys(("lp_pool1d", "lp_pool2d", "lp_pool3d"), "tests/test_laws.py"),
    **dict.fromkeys(("grouped_mm", "gumbel_softmax", "native_channel_shuffle", "upsample"), "tests/test_laws.py"),
    **dict.fromkeys(("gru", "rnn_relu", "rnn_tanh"), "tests/test_laws.py"),
    **dict.fromkeys(("gru_cell", "lstm_cell", "rnn_relu_cell", "rnn_tanh_cell"), "tests/test_laws.py"),
    **{f"{kind}max_pool{n}d_with_indices": "tests/test_laws.py" for kind in ("", "adaptive_") for n in (1, 2, 3)},
    **dict.fromkeys(
        (
            "flash_attention",
            "masked_softmax",
            "geglu",
            "jsd_loss",
            "linear_dpo_loss",
            "quick_gelu",
            "reglu",
            "rotary_embedding",
            "shift_gelu",
            "swiglu",
            "topk_softmax",
        ),
        "tests/test_laws.py: torch has no such function",
    ),
}
# classes that module_db does not have -> what tests them instead
LAWS = "tests/test_laws.py::test_module_is_its_twin"
NOT_IN_MODULE_DB = {
    **dict.fromkeys(("CosineSimilarity", "Fold", "PairwiseDistance", "Unfold"), LAWS),
    **dict.fromkeys(("TripletMarginLoss", "TripletMarginWithDistanceLoss"), LAWS),
    **dict.fromkeys(("AlphaDropout", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "FeatureAlphaDropout"), LAWS),
    **dict.fromkeys(("Hardsigmoid", "MaxUnpool1d", "MaxUnpool2d", "MaxUnpool3d", "RReLU"), LAWS),
    **dict.fromkeys(("ChannelShuffle", "PixelShuffle", "PixelUnshuffle"), LAWS),
    **dict.fromkeys(("Upsample", "UpsamplingBilinear2d", "UpsamplingNearest2d"), LAWS),
    "LazyLinear": "tests/test_linear.py",
    "EmbeddingBag": LAWS,
    **{f"Lazy{kind}Norm{n}d": "tests/test_batch_norm.py" for kind in ("Batch", "Instance") for n in (1, 2, 3)},
}


# op_db passes the table first, the functions take it second
TABLE_FIRST = frozenset(("embedding", "embedding_bag"))


def function(name: str) -> Callable[..., Any]:
    """Trident's, called as op_db calls torch's."""
    ours: Callable[..., Any] = getattr(trident.functional, name)
    return (lambda table, at, *args, **kwargs: ours(at, table, *args, **kwargs)) if name in TABLE_FIRST else ours


def is_random(name: str, sample: SampleInput) -> bool:
    at = 9 if name == "multi_head_attention_forward" else None  # where dropout_p is among the arguments
    return name in RANDOM or (sample.kwargs.get("dropout_p", 0.0) if at is None else sample.args[at]) > 0


@functools.cache
def infos() -> dict[str, list[OpInfo]]:
    """Function -> its entries in op_db, one for each variant of the samples."""
    found: dict[str, dict[str, OpInfo]] = collections.defaultdict(dict)
    for info in op_db:
        for name in (info.name, *(alias.name for alias in info.aliases)):
            if name.removeprefix("nn.functional.") in FUNCTIONS:
                found[name.removeprefix("nn.functional.")].setdefault(info.variant_test_name, info)
    return {name: list(variants.values()) for name, variants in sorted(found.items())}


def dtypes(info: OpInfo) -> list[torch.dtype]:
    """float32, and one of each kind that goes to torch; other floats are for the laws."""
    wanted = {torch.float32, torch.int64, torch.bool, torch.complex64}
    return sorted(info.supported_dtypes(DEVICE) & wanted, key=str)


# samples of one operator and dtype; max_pool2d has 1440 that differ in the order of the same few options
MOST_IN_CI, MOST_OF_ALL = 5, 20
MOST = MOST_OF_ALL if EVERYTHING else MOST_IN_CI


def samples(info: OpInfo, dtype: torch.dtype) -> list[SampleInput]:
    """All samples; where there are more than MOST, as many that are drawn at random, the same ones each time."""
    torch.manual_seed(0)
    found = list(info.sample_inputs(DEVICE, dtype, requires_grad=dtype in FLOATS and info.supports_autograd))
    return found if len(found) <= MOST else random.Random(0).sample(found, MOST)


EACH = [
    pytest.param(name, info, id=".".join(filter(None, (name, info.variant_test_name))))
    for name, found in infos().items()
    for info in found
]
EACH_DTYPE = [
    pytest.param(*entry.values, dtype, id=f"{entry.id}-{dtype}") for entry in EACH for dtype in dtypes(entry.values[1])
]


def call(f: Callable[..., Any], sample: SampleInput, dys: list[torch.Tensor] | None = None) -> Any:
    """(results, gradients of every tensor that needs one, the gradients of the results that they come from)."""
    torch.manual_seed(1)
    found = results(f(sample.input, *sample.args, **sample.kwargs))
    arguments = tree_leaves((sample.input, sample.args, sample.kwargs))
    needed = [t for t in arguments if isinstance(t, torch.Tensor) and t.requires_grad]
    outputs = [t for t in floating(found) if t.requires_grad]
    if not needed or not outputs:
        return found, [], []
    dys = [dy.to(t.dtype) for dy, t in zip(dys or gradients_of(outputs), outputs, strict=True)]
    return found, list(torch.autograd.grad(outputs, needed, dys, allow_unused=True)), dys


def fresh(sample: SampleInput, dtype: torch.dtype | None = None) -> SampleInput:
    """The same numbers as leaves of a new graph, floating ones in `dtype`."""

    def leaf(t: Any) -> Any:
        if not isinstance(t, torch.Tensor) or not t.is_floating_point():
            return t
        return t.detach().to(dtype or t.dtype).requires_grad_(t.requires_grad)

    x, args, kwargs = tree_map(leaf, (sample.input, sample.args, sample.kwargs))
    return SampleInput(x, args=args, kwargs=kwargs)


def agree(ours: list[Any], theirs: list[Any], exact: list[Any], terms: int) -> None:
    """Floating values within rounding of the exact ones or, where a sample is ill-conditioned, no further from them
    than of the order of what torch's are; other values as torch's to the last bit."""
    for a, b, e in zip(ours, theirs, exact, strict=True):
        if a is None or not a.is_floating_point():
            same(a, b)
        elif a.numel() and not (a.double() - e).abs().amax() <= 8 * (b.double() - e).abs().amax():
            close([a], [e], a.dtype, terms)


def described(tensors: list[Any]) -> list[Any]:
    return [t if t is None else (t.shape, t.dtype) for t in tensors]


def elements(sample: SampleInput) -> int:
    """As many as any sum in the operator has terms, or more."""
    tensors = [t for t in tree_leaves((sample.input, sample.args)) if isinstance(t, torch.Tensor)]
    return max(1, *(t.numel() for t in tensors), 1)


@pytest.mark.parametrize("name, info, dtype", EACH_DTYPE)
def test_samples_of_op_db(name, info, dtype):
    for sample in samples(info, dtype):
        theirs, their_grads, dys = call(info.op, sample)
        ours, our_grads, _ = call(function(name), sample, dys)
        assert described([*ours, *our_grads]) == described([*theirs, *their_grads])
        if is_random(name, sample):
            continue
        exact, exact_grads = theirs, their_grads
        if dtype in FLOATS:
            exact, exact_grads, _ = call(EXACT.get(name, info.op), fresh(sample, torch.float64), dys)
        agree([*ours, *our_grads], [*theirs, *their_grads], [*exact, *exact_grads], elements(sample))


@pytest.mark.parametrize("name, info", EACH)
def test_noncontiguous_samples(name, info):
    of_integers = torch.int64 in dtypes(info) and torch.float32 not in dtypes(info)
    for sample in samples(info, torch.int64 if of_integers else torch.float32):
        ours, our_grads, dys = call(function(name), sample)
        strided, strided_grads, _ = call(function(name), sample.noncontiguous(), dys)
        assert described([*strided, *strided_grads]) == described([*ours, *our_grads])
        if not is_random(name, sample):
            contiguous = [*ours, *our_grads]
            agree([*strided, *strided_grads], contiguous, contiguous, elements(sample))


@pytest.mark.parametrize("name, info", [e for e in EACH if e.values[1].error_inputs_func is not None])
def test_error_inputs_of_op_db(name, info):
    """The class and the words of torch's own errors."""
    for wrong in info.error_inputs(DEVICE):
        sample = wrong.sample_input
        with pytest.raises(wrong.error_type, match=wrong.error_regex):
            function(name)(sample.input, *sample.args, **sample.kwargs)


MODULES = {m.module_cls.__name__: m for m in module_db if m.module_cls.__name__ in CLASSES}
WITH_ERRORS = {name: info for name, info in MODULES.items() if info.module_error_inputs_func is not None}


def twins(info: ModuleInfo, training: bool) -> Iterator[tuple[torch.nn.Module, torch.nn.Module, SampleInput]]:
    """Trident's module, torch's with the same parameters, and what both are called with."""
    torch.manual_seed(0)
    every = list(info.module_inputs_func(info, DEVICE, torch.float32, requires_grad=True, training=training))
    for made in every if len(every) <= MOST else random.Random(0).sample(every, MOST):
        how, given = made.constructor_input, made.forward_input
        if given is None:  # of inputs for the constructor alone
            continue
        theirs = info.module_cls(*how.args, **how.kwargs).to(DEVICE).train(training)
        ours = CLASSES[info.module_cls.__name__](*how.args, **how.kwargs).to(DEVICE).train(training)
        ours.load_state_dict(theirs.state_dict())
        named = dict(given.kwargs)
        first, *rest = given.args or [named.pop("input")]
        yield ours, theirs, fresh(SampleInput(first, args=tuple(rest), kwargs=named))


@pytest.mark.parametrize(
    "info, training",
    [
        pytest.param(info, training, id=f"{name}-{'train' if training else 'eval'}")
        for name, info in MODULES.items()
        for training in ((True, False) if info.train_and_eval_differ else (True,))
    ],
)
def test_inputs_of_module_db(info, training):
    for ours, theirs, sample in twins(info, training):
        exact = copy.deepcopy(theirs).double()
        z, their_grads, dys = call(theirs, sample)
        y, our_grads, _ = call(ours, sample, dys)
        e, exact_grads, _ = call(exact, fresh(sample, torch.float64), dys)
        assert described([*y, *our_grads]) == described([*z, *their_grads])
        agree([*y, *our_grads], [*z, *their_grads], [*e, *exact_grads], elements(sample))
        for a, b, c in zip(ours.buffers(), theirs.buffers(), exact.buffers(), strict=True):  # running statistics
            agree([a], [b], [c], elements(sample))


@pytest.mark.parametrize("info", WITH_ERRORS.values(), ids=WITH_ERRORS)
def test_errors_of_module_db(info):
    for wrong in info.module_error_inputs_func(info, DEVICE, torch.float32, requires_grad=False, training=True):
        how, given = wrong.module_error_input.constructor_input, wrong.module_error_input.forward_input
        with pytest.raises(wrong.error_type, match=wrong.error_regex):
            module = CLASSES[info.module_cls.__name__](*how.args, **how.kwargs)
            if wrong.error_on != ModuleErrorEnum.CONSTRUCTION_ERROR:
                module(*given.args, **given.kwargs)


def test_nothing_is_left_out():
    """Each function and class is in torch's lists or named above, not both."""
    assert {*infos(), *NOT_IN_OP_DB} == set(FUNCTIONS) and not set(infos()) & set(NOT_IN_OP_DB)
    assert {*MODULES, *NOT_IN_MODULE_DB} == set(CLASSES) and not set(MODULES) & set(NOT_IN_MODULE_DB)


def table() -> str:
    """The page: what is run for each function and class."""
    lines = [
        "# Conformance: torch's own samples",
        "",
        "PyTorch tests its operators with the samples of `op_db`, its modules with those of `module_db`.",
        f"`make test-all` runs them on Trident's kernels (at most {MOST_OF_ALL} of an operator and dtype, or a class;",
        f"CI at most {MOST_IN_CI}), and compares values, gradients, dtypes, shapes and error messages with torch's.",
        "`TRIDENT_TESTS=all python -m tests.test_conformance` writes this page; a test compares it with what is run.",
        f"torch {TORCH}.",
        "",
        "| function | dtypes | samples with gradients (float32) | samples in these dtypes | error inputs |",
        "|---|---|---|---|---|",
    ]
    for name, found in infos().items():
        counts = [(dtype, len(samples(info, dtype))) for info in found for dtype in dtypes(info)]
        kinds = {dtype for dtype, _ in counts}
        float32 = sum(count for dtype, count in counts if dtype == torch.float32)
        every = sum(count for _, count in counts)
        wrong = sum(len(list(info.error_inputs(DEVICE))) for info in found if info.error_inputs_func is not None)
        compared = ", shapes and dtypes only: it is random" if name in RANDOM else ""
        lines.append(f"| `{name}`{compared} | {len(kinds)} | {float32} | {every} | {wrong} |")
    lines += ["", "| class | inputs (in training + in eval, where those differ) | errors |", "|---|---|---|"]
    for name, info in MODULES.items():
        modes = (True, False) if info.train_and_eval_differ else (True,)
        inputs = " + ".join(str(sum(1 for _ in twins(info, training))) for training in modes)
        errors = info.module_error_inputs_func
        wrong = len(errors(info, DEVICE, torch.float32, requires_grad=False, training=True)) if errors else 0
        lines.append(f"| `{name}` | {inputs} | {wrong} |")
    lines += ["", "Not in torch's lists, and tested instead by:", ""]
    lines += [f"- `{name}`: {by}" for name, by in {**NOT_IN_OP_DB, **NOT_IN_MODULE_DB}.items()]
    return "\n".join(lines) + "\n"


def test_the_page_names_everything():
    page = PAGE.read_text()
    missing = [name for name in (*FUNCTIONS, *CLASSES) if f"`{name}`" not in page]
    assert not missing, f"TRIDENT_TESTS=all python -m tests.test_conformance writes the page anew: {missing}"


@pytest.mark.skipif(not EVERYTHING, reason="half a minute, for counts: with TRIDENT_TESTS=all")
@pytest.mark.skipif(f"torch {TORCH}." not in PAGE.read_text(), reason="the page is of another version of torch")
def test_the_page_is_what_is_run():
    assert PAGE.read_text() == table()


if __name__ == "__main__":
    assert EVERYTHING, "its counts are those of TRIDENT_TESTS=all"
    PAGE.write_text(table())
