"""Fifty random programs, and proof that the fuzzer sees what it should see."""

import numpy as np
import pytest

from tests.cpu.fuzz import check, compare
from tests.cpu.fuzz_programs import Program
from tests.cpu.fuzz_values import Output


def test_fifty_programs_agree_with_the_interpreter():
    failures, counts = check(range(50))
    assert failures == []
    assert counts["agree"] + counts["refused"] >= 49, counts
    assert counts["refused"] <= 3, counts


def test_programs_depend_on_the_seed_alone():
    assert Program(5).source == Program(5).source != Program(6).source


@pytest.mark.parametrize(
    ("dtype", "tolerance", "ours", "theirs", "same"),
    [
        ("int32", 0.0, 3, 3, True),
        ("int32", 0.0, 3, 4, False),
        ("float32", 0.0, 1.0, np.nextafter(np.float32(1), 2), False),
        ("float32", 0.0, np.nan, np.nan, True),
        ("float32", 0.0, np.nan, 1.0, False),
        ("float32", 0.0, 0.0, -0.0, True),
        ("float32", 1e-6, 1.0, 1.0 + 1e-6, True),
        ("float32", 1e-6, 1.0, 1.1, False),
        ("float64", 1e-12, 1.0, 1.0 + 1e-9, False),
    ],
)
def test_comparison(dtype, tolerance, ours, theirs, same):
    program = Program(0)
    program.outputs = [Output("out0", dtype, tolerance)]
    difference = compare(program, [np.array([ours], dtype)], [np.array([theirs], dtype)])
    assert (difference is None) == same
    assert compare(program, "TypeError: x", [np.array([theirs], dtype)]) is not None
