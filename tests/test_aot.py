"""Every kernel that the cases launch on a GPU compiles for the GPUs we name, on a machine that has none.

The cases run on meta tensors while `tuning` answers as it would for a GPU; what they launch is noted and compiled
(trident/inspect). Nothing may need more shared memory than the GPU has nor, beyond its budget, spill registers. That
the values are right is for the other tests to say.
"""

import functools
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from trident.cases import budgets
from trident.cases.case import EVERYTHING
from trident.inspect.compiled import compiled
from trident.inspect.launches import Launch, launches
from trident.inspect.targets import TARGETS
from trident.ops import _linear
from trident.runtime import launch, tuning_products

pytestmark = pytest.mark.skipif(launch.INTERPRETED, reason="under TRITON_INTERPRET=1 kernels are Python, not sources")

# every dtype for one target; the others differ in what they do with a tile, not with its dtype
DTYPES: dict[str, Sequence[torch.dtype]] = {
    "sm_80": (torch.bfloat16,),
    "sm_90": (torch.bfloat16, torch.float32, *((torch.float64,) if EVERYTHING else ())),
    "sm_100": (torch.bfloat16,),
    "gfx942": (torch.float32, *((torch.bfloat16,) if EVERYTHING else ())),
}
# without EVERYTHING every other kernel, from this one on: two that are alike share them, and of AMD's half are a sample
SHARED = {"sm_80": 0, "sm_100": 1, "gfx942": 1}
# here every constant and set of pointers is compiled; other targets and dtypes get each kernel once
FULLY = ("sm_90", (torch.bfloat16,))


def problem(launched: Launch, case: str, name: str) -> str | None:
    """Compile, and say what is wrong with the result."""
    what = f"{case}: {launched.kernel.__name__} {dict(launched.signature)} {dict(launched.constants)}"
    try:
        result = compiled(launched, TARGETS[name])
    except Exception as error:  # whatever the compiler raises is the finding
        return f"{what}: {type(error).__name__}: {error}"
    if any(kind == "*fp64" for _, kind in launched.signature):
        return None  # double precision takes two registers a value, and nobody trains in it: it need only be right
    budget = budgets.spills(case, launched.kernel.__name__, name)
    return f"{what}: {result.spills} stores of spilled registers" if result.spills > budget else None


@functools.cache
def chosen(target_name: str) -> list[tuple[Launch, str]]:
    """What to compile for a target. `make test-all` compiles more: for FULLY also what differs in numbers (blocks,
    alignment), for the others every constant and set of pointers."""
    found: dict[Any, tuple[Launch, str]] = {}
    for dtype in DTYPES[target_name]:
        fully = target_name == FULLY[0] and dtype in FULLY[1]
        for launched, case in launches(dtype).items():
            kind: Any = launched.kind() if fully or EVERYTHING else (launched.kernel, dtype)
            found.setdefault(launched if fully and EVERYTHING else kind, (launched, case))
    every = list(found.values())
    return every[SHARED[target_name] :: 2] if target_name in SHARED and not EVERYTHING else every


@pytest.mark.parametrize("name", TARGETS)
def test_compiles(name):
    found = chosen(name)
    with ThreadPoolExecutor(2) as pool:  # the assembler is a process of its own, so two threads do work at once
        problems = list(pool.map(lambda entry: problem(*entry, name), found))
    problems = [text for text in problems if text]
    assert not problems, f"{len(problems)} of {len(found)} for {name}:\n" + "\n".join(problems)


def test_tf32():
    """The cases cannot ask for tf32 on meta tensors: here are its tiles."""
    tiles = {True: tuning_products.TF32_TILE, False: tuning_products.TF32_UNEVEN}  # EVEN_K -> its tile
    noted = {}
    for launched in launches(torch.float32):
        if launched.kernel is _linear._matmul_kernel:
            noted.setdefault(dict(launched.constants)["EVEN_K"], launched)
    assert noted.keys() == tiles.keys()
    for even, launched in noted.items():
        constants = {**dict(launched.constants), "PRECISION": "tf32"}
        constants |= dict(zip(("BLOCK_M", "BLOCK_N", "BLOCK_K"), tiles[even], strict=True))
        launched = launched._replace(constants=tuple(constants.items()), options=(("num_warps", 8),))
        for name in TARGETS:
            assert problem(launched, name, name) is None
