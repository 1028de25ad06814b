"""The detours of trident_cpu/llvm_bugs.py: that they work, and that they are still needed."""

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl

import trident_cpu
from trident_cpu import jit
from trident_cpu.llvm_bugs import may_store_one_lane, one_lane_stores


@triton.jit
def store_one_lane(x, out, LANE: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, tl.load(x + at).to(out.dtype.element_ty), at == LANE)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int16, torch.bfloat16, torch.float16, torch.int32, torch.float64])
@pytest.mark.parametrize("source", [torch.int32, torch.float32, torch.int64])
@pytest.mark.parametrize("lane", [0, 5, 15, 30])
def test_one_lane_of_a_narrower_type(source, dtype, lane):
    x, out = torch.arange(32).to(source) + 3, torch.full((48,), 77).to(dtype)
    trident_cpu.launch(store_one_lane, (1,), x, out, LANE=lane, N=32)
    expected = torch.full((48,), 77).to(dtype)
    expected[lane] = lane + 3
    assert torch.equal(out, expected)


SOURCE = """
define void @narrow(ptr %x, ptr %out) {
  %wide = load <16 x i32>, ptr %x, align 4
  %thin = trunc <16 x i32> %wide to <16 x i8>
  call void @llvm.masked.store.v16i8.p0(<16 x i8> %thin, ptr align 1 %out, <16 x i1> <MASK>)
  ret void
}
declare void @llvm.masked.store.v16i8.p0(<16 x i8>, ptr, <16 x i1>)
"""


def mask(*lanes: int) -> str:
    return ", ".join(f"i1 {'true' if lane in lanes else 'false'}" for lane in range(16))


def test_only_one_lane_is_rewritten():
    assert one_lane_stores(SOURCE.replace("MASK", mask(3, 4))) is None
    assert one_lane_stores(SOURCE.replace("MASK", mask())) is None
    mended = one_lane_stores(SOURCE.replace("MASK", mask(3)))
    assert "extractelement <16 x i8> %thin, i64 3" in mended and "call void" not in mended
    assert may_store_one_lane(SOURCE) and not may_store_one_lane(HALF)


def test_detour_is_still_needed():
    """When this fails LLVM has mended its store: raise the least llvmlite version some day, and drop the detour."""
    if not jit.features() & {"avx512bw"}:
        pytest.skip("the fault is in AVX-512's truncating stores")
    module = jit._llvm().parse_assembly(SOURCE.replace("MASK", mask(0)))
    code = jit._machine(False).emit_object(module)
    x, out = torch.full((16,), -2, dtype=torch.int32), torch.zeros(16, dtype=torch.int8)
    call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(jit.address(code, "narrow"))
    call(x.data_ptr(), out.data_ptr())
    assert out.tolist() != [-2] + [0] * 15


@triton.jit
def sums_of_columns(x, y, out, S, E, B: tl.constexpr):
    """All loads have one mask; the compiler knows that E is 1."""
    row, e = tl.arange(0, B), tl.arange(0, B)
    places, inside = row[:, None] * E + e[None, :], (row < S)[:, None] & (e < E)[None, :]
    a, b = tl.load(x + places, inside, other=0.0), tl.load(y + places, inside, other=0.0)
    tl.store(out + row, tl.sum(a * b, 1) + tl.sum(a + b, 1), row < S)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32])
@pytest.mark.parametrize("block", [16, 32])
def test_columns_of_one(dtype, block):
    x, y = (torch.full((64,), 1000).to(dtype) for _ in range(2))  # what follows the rows is not to be read
    x[:3], y[:3] = torch.tensor([1, 2, 3]), torch.tensor([5, 6, 7])
    out = x.new_zeros(3)
    trident_cpu.launch(sums_of_columns, (1,), x, y, out, 3, 1, B=block)
    assert out.tolist() == [5 + 6, 12 + 8, 21 + 10]


AS_HASWELL = """
import sys
from trident_cpu import jit
flags = "+avx2,+fma,+bmi,+bmi2,+f16c,+popcnt,+lzcnt,+movbe,+sse4.2"
triple = jit.host()[2]
jit.host = lambda: ("haswell", flags, triple)
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", sys.argv[1], "-k", "test_columns_of_one and not avx512"]))
"""
AVX2 = pytest.mark.skipif("avx2" not in jit.features(), reason="needs a CPU that runs code for AVX2")


@AVX2
def test_columns_of_one_without_avx512(tmp_path):
    env = os.environ | {"TRIDENT_CPU_CACHE_DIR": str(tmp_path), "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", AS_HASWELL, __file__],
        env=env,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "6 passed" in done.stdout, done.stdout + done.stderr


HALF = """
define void @half(ptr %p, ptr %q, ptr %n, ptr %out) {
  %c = load <16 x i32>, ptr %n, align 4
  %less = icmp slt <16 x i32> %c, splat (i32 5)
  %mask = and <16 x i1> %less, <MASK>
  %v = call <16 x float> @llvm.masked.load.v16f32.p0(ptr align 4 %p, <16 x i1> %mask, <16 x float> zeroinitializer)
  %w = call <16 x float> @llvm.masked.load.v16f32.p0(ptr align 4 %q, <16 x i1> %mask, <16 x float> zeroinitializer)
  %sum = fadd <16 x float> %v, %w
  store <16 x float> %sum, ptr %out, align 4
  ret void
}
declare <16 x float> @llvm.masked.load.v16f32.p0(ptr, <16 x i1>, <16 x float>)
"""


@AVX2
def test_splitting_is_still_needed():
    """When this fails LLVM has mended its masks: `emit/masked.py` can go when no older llvmlite is supported."""
    code = jit.to_foreign_object(HALF.replace("MASK", mask(0, 1)), jit.host()[2], "haswell")
    ones, out = torch.ones(16), torch.zeros(16)
    call = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 4)(jit.address(code, "half"))
    call(ones.data_ptr(), ones.data_ptr(), torch.zeros(16, dtype=torch.int32).data_ptr(), out.data_ptr())
    assert out.tolist() != [2.0, 2.0] + [0.0] * 14
