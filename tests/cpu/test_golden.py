"""Printed TTIR of Triton 3.6 and 3.9 (tests/cpu/golden) parses, lowers and computes the same."""

from __future__ import annotations

import ctypes
import pathlib
import platform
import struct
import subprocess
import sys

import pytest
import torch

from trident_cpu import jit
from trident_cpu.errors import ParseError, UnsupportedOp
from trident_cpu.lower import lower
from trident_cpu.parallel import entry_point

GOLDEN = pathlib.Path(__file__).parent / "golden"
RANGE = ctypes.CFUNCTYPE(
    None, ctypes.c_char_p, ctypes.c_int64, ctypes.c_int64, *[ctypes.c_int32] * 3, ctypes.c_void_p, ctypes.c_void_p
)
N = 100


def run(name: str, version: str, programs: int, *args: torch.Tensor | int) -> None:
    """Compile a golden text and run programs 0 .. programs - 1 of a one-dimensional grid, without the launcher."""
    lowered = lower((GOLDEN / f"{name}.{version}.ttir").read_text(), features=jit.features())
    assert lowered.name == name
    assert [p.startswith("ptr:") for p in lowered.params] == [isinstance(a, torch.Tensor) for a in args]
    code = jit.address(jit.to_object(lowered.llvm_ir), f"{name}.range")
    words = [a.data_ptr() if isinstance(a, torch.Tensor) else a for a in args]
    block = struct.pack(f"<{len(words) + 1}q", *words, 0)
    scratch = torch.empty(lowered.scratch_bytes + 64, dtype=torch.uint8)
    report = torch.zeros(8, dtype=torch.int64)
    aligned = -(-scratch.data_ptr() // 64) * 64
    RANGE(code)(block, 0, programs, programs, 1, 1, aligned, report.data_ptr())
    assert report[0] == 0


def add(version: str) -> None:
    x, y, z = torch.randn(3, N)
    run("add", version, 2, x, y, z, N)
    assert torch.equal(z, x + y)


def softmax(version: str) -> None:
    x, y = torch.randn(2, 3, N)
    run("softmax", version, 3, x, y, N)
    torch.testing.assert_close(y, x.softmax(1))


def matmul(version: str) -> None:
    a, b, c = torch.randn(16, 48), torch.randn(48, 16), torch.empty(16, 16)
    run("matmul", version, 1, a, b, c, 48)
    torch.testing.assert_close(c, a @ b)


def control(version: str) -> None:
    x, y = torch.randn(2, 32)
    run("control", version, 1, x, y, 3)
    torch.testing.assert_close(y, (x * 2 + 1) * 2)
    run("control", version, 1, x, x, -1)


def scan(version: str) -> None:
    x, y = torch.rand(2, 64)
    run("scan", version, 1, x, y)
    state, want = torch.tensor(0.0), []
    for v in x:
        state = v * 0.5 * state + v
        want.append(state)
    torch.testing.assert_close(y, torch.stack(want) + x.argmax())


def layout(version: str) -> None:
    x, y = torch.randn(2, 16)
    run("layout", version, 1, x, y)
    down = x.sort().values.view(8, 2)
    assert torch.equal(y, down.flip(1).t().reshape(-1))


def dropout(version: str) -> None:
    x, y = torch.rand(2, N) + 1.0
    y = torch.zeros(128)
    run("dropout", version, 2, torch.cat([x, x[:28]]), y, 7, N)
    kept = y[:N] != 0
    assert 20 < kept.sum() < 80 and torch.equal(y[:N][kept], 2 * x[kept])


def count(version: str) -> None:
    x, y = torch.randint(0, 7, (N,), dtype=torch.int32), torch.zeros(7, dtype=torch.int32)
    total = torch.zeros(1, dtype=torch.int32)
    run("count", version, 2, x, y, total, N)
    assert torch.equal(y.long(), x.bincount(minlength=7))
    assert total.item() == max(x[:64].sum(), x[64:].sum())


@pytest.mark.parametrize("version", ["3.6.0", "3.9.0"])
@pytest.mark.parametrize("check", [add, softmax, matmul, control, scan, layout, dropout, count])
def test_golden(check, version: str) -> None:
    torch.manual_seed(0)
    check(version)


CPUS = {"x86-64": [], "haswell": ["avx2", "fma"], "skylake-avx512": ["avx512f", "avx512bw", "fma"]}


@pytest.mark.parametrize("cpu", CPUS)
def test_every_vector_width_lowers(cpu: str) -> None:
    """LLVM accepts the text for CPUs other than this one; what it computes is tested where it runs."""
    for path in GOLDEN.glob("*.ttir"):
        text = lower(path.read_text(), features=CPUS[cpu]).llvm_ir
        assert jit.to_foreign_object(text, "x86_64-unknown-linux-gnu", cpu)[:4] == b"\x7fELF"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.ttir")), ids=lambda path: path.stem)
def test_compiles_for_aarch64(path: pathlib.Path) -> None:
    """To object code, with the entry point; no such machine runs it here."""
    lowered = lower(path.read_text(), features=["neon"])
    text = lowered.llvm_ir + entry_point(lowered.name, False, lowered.scratch_bytes)
    assert "x86" not in text
    code = jit.to_foreign_object(text, "aarch64-unknown-linux-gnu", "generic")
    assert code[:4] == b"\x7fELF" and code[18] == 0xB7  # EM_AARCH64


BASELINE = """
import sys, pytest
from trident_cpu import jit
triple = jit.host()[2]
jit.host = lambda: ("x86-64", "", triple)
assert not jit.features()
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="a baseline x86-64, without AVX and FMA, is an x86-64")
def test_runs_on_a_baseline_x86() -> None:
    """SSE2 alone: no masked accesses, no FMA, calls into libm and libgcc. In a process of its own, whose LLVM has never
    heard of the other instructions."""
    tests = ["tests/cpu/test_golden.py::test_golden", "tests/cpu/test_tutorials.py"]
    done = subprocess.run(
        [sys.executable, "-c", BASELINE, *tests], cwd=GOLDEN.parents[2], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


ADD = (GOLDEN / "add.3.9.0.ttir").read_text()


@pytest.mark.parametrize(
    ("old", "new", "error", "names"),
    [
        ("arith.addf", "arith.magicf", UnsupportedOp, "arith.magicf at kernels.py:"),
        ("arith.addf", 'tt.elementwise_inline_asm "bar" {x = 1 : i32}', UnsupportedOp, "kernels.py:"),
        ("arith.cmpi slt, ", "arith.cmpi slt, !!", ParseError, "!!"),
        ("arith.addf %", "arith.addf {mode = 3 : i32} %", (UnsupportedOp, ParseError), "mode"),
        ("tensor<64xf32>", "tensor<64xf6E2M3FN>", UnsupportedOp, "f6E2M3FN"),
        ("arith.addf %", "arith.addf %nowhere, %", ParseError, "%nowhere"),
    ],
)
def test_unknown_things_raise_and_are_named(old: str, new: str, error: type, names: str) -> None:
    assert old in ADD
    with pytest.raises(error, match=names.replace(".", r"\.")):
        lower(ADD.replace(old, new))
