"""NaN, infinities and ties as torch, for every operator: in one place, in a whole row, everywhere."""

import math

import pytest
import torch

from tests.test_laws import VALUES, close, double, gradients_of, leaves, make, run
from trident.cases.case import results

pytestmark = pytest.mark.once


def _one(value: float):
    def plant(x: torch.Tensor) -> None:
        x[tuple(n // 2 for n in x.shape)] = value

    return plant


def _row(value: float):
    def plant(x: torch.Tensor) -> None:
        x[..., -1:, :] = value

    return plant


def _both(x: torch.Tensor) -> None:
    x[(0,) * x.dim()], x[(-1,) * x.dim()] = math.inf, -math.inf


def _ties(x: torch.Tensor) -> None:
    x.copy_(x.round())


PLANTS = {
    "nan": _one(math.nan),
    "inf": _one(math.inf),
    "-inf": _one(-math.inf),
    "both": _both,
    "row of nan": _row(math.nan),
    "row of -inf": _row(-math.inf),
    "ties": _ties,
}


# where values at infinities differ from torch's: why
VALUES_DIFFER = {
    "affine_grid": "torch's product of matrices: a number for inf * 0 on an axis of one place",
    "interpolate.trilinear": "torch multiplies the neighbour on an axis that keeps its size by 0: NaN beside inf",
    "jsd_loss": "the formula is inf - inf; ours is the limit, and 0 where no class has a probability",
    "lp_pool2d.cubes": "a root of a negative sum: torch's is inf for -inf, NaN for numbers",
    "lp_pool3d": "as above",
    "multilabel_soft_margin_loss": "binary_cross_entropy_with_logits' formula, and torch's value of that: NaN",
    "rotary_embedding": "the reference adds 0 times the elements that are not turned",
    "std_mean": "torch's running mean is inf - inf; its own mean is inf, as ours",
    "var_mean": "as above",
}
# and at NaN, and what becomes one: torch's fused attention takes such a row for one that sees nothing, 0
NAN_IS_NOTHING = ("scaled_dot_product_attention", "multi_head_attention_forward", "flash_attention")
# which of equal values, NaN among them, is found: torch's topk promises nothing, ours takes the first
EQUAL_IN_ANY_ORDER = ("topk_softmax",)
# where gradients do, of numbers that are not finite or of their neighbours
GRADIENTS_DIFFER = {
    "binary_cross_entropy_with_logits": "of the target at x = -inf: torch's is inf, ours NaN",
    "celu": "of NaN: torch's vector loops, its scalar ones and its GPU's do not agree (test_specials_as_torch)",
    "cross_entropy": "of a row that counts for nothing: torch's is 0 times NaN, ours 0",
    "flash_attention": "as scaled_dot_product_attention; under a cap the formula has inf times 0, ours numbers",
    "jsd_loss": "as its values",
    "linear_cross_entropy": "as cross_entropy",
    "linear_dpo_loss": "as cross_entropy",
    "layer_norm": "three elements a row: the bound is taken from finite gradients, which nearly cancel",
    "masked_softmax": "of a masked element in a row of NaN: torch's is 0, ours NaN",
    "multilabel_soft_margin_loss": "as binary_cross_entropy_with_logits",
    "multi_head_attention_forward": "as their values",
    "pdist": "of a distance that is NaN: torch's are NaN, ours the signs of the differences that are numbers",
    "prod": "an element times NaN or inf, of a product with zeros in it: torch multiplies, ours knows that it is 0",
    "rotary_embedding": "as its values",
    "rms_norm": "partial, in a row with inf: ours is NaN where torch's is a number",
    "scaled_dot_product_attention": "torch's own differ between its float32 kernel and its formula",
    "soft_margin_loss": "inf / inf of a row of -inf: torch's is NaN, ours the limit",
    **dict.fromkeys(("elu", "hardshrink", "hardswish", "hardtanh", "relu6", "selu", "softshrink"), "as celu"),
    **dict.fromkeys(("lp_pool2d", "lp_pool3d"), "as their values"),
}


@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("name", VALUES)
def test_as_torch(name, plant):
    case = VALUES[name]
    shape = case.shapes[0]
    inputs = make(case, shape, torch.float32)
    with torch.no_grad():
        PLANTS[plant](inputs[0])
    try:
        results(case.reference(*inputs))
    except RuntimeError as error:  # binary_cross_entropy refuses what is no probability
        with pytest.raises(type(error)):
            case.ours(*inputs)
        return
    actual = run(case.ours, inputs)
    n = len(actual) - len(leaves(inputs))
    expected = run(case.reference, double(inputs), [g.double() for g in gradients_of(actual[:n])])
    if case.name in EQUAL_IN_ANY_ORDER:
        close(actual[:1], expected[:1], torch.float32, case.reduced(shape))
        return
    differ = (*VALUES_DIFFER, *NAN_IS_NOTHING) if "inf" in plant or plant == "both" else NAN_IS_NOTHING
    if plant == "ties" or not name.startswith(tuple(differ)):
        close(actual[:n], expected[:n], torch.float32, case.reduced(shape))
    if plant == "ties" or case.name not in GRADIENTS_DIFFER:
        close(actual[n:], expected[n:], torch.float32, case.reduced(shape))
