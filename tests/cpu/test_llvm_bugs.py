"""The detours of trident_cpu/llvm_bugs.py: that they work, and that they are still needed."""

import ctypes

import pytest
import torch
import triton
import triton.language as tl

import trident_cpu
from trident_cpu import jit
from trident_cpu.llvm_bugs import one_lane_stores


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
