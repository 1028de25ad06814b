"""What the README claims is what the package has."""

import re
import types
from pathlib import Path

import pytest
import torch

import trident.functional
import trident.nn
from tests.test_laws import Recorder
from trident.cases import CASES
from trident.optimize import SWAPS

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COVERAGE = (ROOT / "docs" / "coverage.md").read_text()
TORCH = ".".join(torch.__version__.split(".")[:2])
CLASSES = {cls.__name__ for cls in SWAPS}
FUNCTIONS = {name for name, value in vars(trident.functional).items() if callable(value)}


def test_the_table_of_operators_is_complete():
    table = README[README.index("## Operators") : README.index("## How to read")]
    named = set(re.findall(r"`(\w+)`", table))
    assert named >= CLASSES | FUNCTIONS
    places = torch.nn, torch.nn.functional, torch  # the reductions are torch's own
    assert all(any(hasattr(place, name) for place in places) for name in (CLASSES | FUNCTIONS) - OURS)


OURS = {
    "flash_attention",
    "geglu",
    "jsd_loss",
    "linear_dpo_loss",
    "masked_softmax",
    "quick_gelu",
    "reglu",
    "rotary_embedding",
    "shift_gelu",
    "swiglu",
    "topk_softmax",
}  # functions that torch does not have


# classes that no case can make and call with its inputs -> the test that does
TESTED_APART = {
    "LazyLinear": "test_linear.py",
    "SoftMarginLoss": "test_docs.py",
    **{f"LazyConv{kind}{n}d": "test_conv.py" for kind in ("", "Transpose") for n in (1, 2, 3)},
    **{f"Lazy{kind}Norm{n}d": "test_batch_norm.py" for kind in ("Batch", "Instance") for n in (1, 2, 3)},
    **dict.fromkeys(
        (
            "MultiheadAttention",
            "Transformer",
            "TransformerDecoderLayer",
            "TransformerEncoder",
            "TransformerEncoderLayer",
        ),
        "test_transformer.py",
    ),
}


def test_every_class_has_a_case_that_reaches_its_kernel():
    """tests/test_laws.py::test_module_is_its_twin then sees an operator of Trident called."""
    assert {case.cls for case in CASES.values() if case.module} | set(TESTED_APART) == CLASSES
    assert all(name in (ROOT / "tests" / file).read_text() for name, file in TESTED_APART.items())
    assert len(CLASSES) >= 45


def test_soft_margin_loss_reaches_its_kernel():
    x, target = torch.randn(3, 4), torch.randn(3, 4).sign()
    with Recorder() as recorder:
        ours = trident.nn.SoftMarginLoss()(x, target)
    assert recorder.calls
    torch.testing.assert_close(ours, torch.nn.SoftMarginLoss()(x, target))


def test_bench_shapes_fit_their_cases():
    for name, case in CASES.items():
        for shape in case.bench[:1]:
            assert case.inputs(shape)[0].shape == shape, name


def test_every_function_has_a_case():
    assert {case.name for case in CASES.values()} >= FUNCTIONS


def test_the_korean_readme_is_in_step():
    """The same tables of names, commands, programs and links, whatever stands around them."""
    korean = (ROOT / "README.ko.md").read_text()

    def names(text: str) -> list[set[str]]:
        return [set(re.findall(r"`([\w.=]+)`", row)) for row in re.findall(r"^\| .*", text, re.M) if "`" in row]

    def programs(text: str) -> list[str]:
        code = "\n".join(re.findall(r"```python\n(.*?)```", text, re.S) + re.findall(r"^    (\w.*)$", text, re.M))
        return [line.split("#")[0].rstrip() for line in code.splitlines()]

    assert len(names(README)) >= 14
    assert names(korean) == [{n for n in row if n != "family"} for row in names(README)]
    assert programs(korean) == programs(README)
    for kind in (r"python -m [\w ]+", r"TRIDENT_\w+=\w+", r"\]\(((?!README)[^)]+)\)"):
        assert set(re.findall(kind, korean)) == set(re.findall(kind, README)), kind


def test_commands_of_the_readme_exist():
    makefile = (ROOT / "Makefile").read_text()
    for command in re.findall(r"^    make (\w+)", README, re.M):
        assert re.search(rf"^{command}:", makefile, re.M)


def test_links_of_the_documents_lead_somewhere():
    for page in [ROOT / "README.md", ROOT / "README.ko.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        prose = re.sub(r"```.*?```|`[^`\n]*`|^    .*?$", "", page.read_text(), flags=re.S | re.M)
        for target in re.findall(r"\]\((?!http)([^)#]+)", prose):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def modules_of_torch() -> set[str]:
    return {name for name, c in vars(torch.nn).items() if isinstance(c, type) and issubclass(c, torch.nn.Module)}


def functions_of_torch() -> set[str]:
    named = {name: f for name, f in vars(torch.nn.functional).items() if callable(f) and not name.startswith("_")}
    named = {name: f for name, f in named.items() if not isinstance(f, type)}
    here = {name for name, f in named.items() if getattr(f, "__module__", "") == "torch.nn.functional"}
    return here | {name for name, f in named.items() if isinstance(f, types.BuiltinFunctionType)}


@pytest.mark.skipif(f"Names of torch {TORCH}." not in COVERAGE, reason="the page is of another version of torch")
def test_every_other_name_of_torch_is_on_the_page_with_a_reason():
    left = COVERAGE[COVERAGE.index("## Left to torch") :]
    classes, functions = left.split("| function |")
    for table, names, ours in (
        (classes, modules_of_torch(), CLASSES),
        (functions, functions_of_torch(), FUNCTIONS),
    ):
        rows = re.findall(r"^\| (`.*`) \| (.+) \|$", table, re.M)
        assert rows and {name for row, _ in rows for name in re.findall(r"`(\w+)`", row)} == names - ours
