"""Linking: code of a kernel works wherever its process has room for it."""

import subprocess
import sys

SCATTERED = """
import ctypes, mmap
from trident_cpu import jit

TEXT = '''
@table{n} = private constant [{size} x double] [{values}]
define double @f{n}(i64 %i) {{
  %p = getelementptr [{size} x double], ptr @table{n}, i64 0, i64 %i
  %v = load double, ptr %p
  ret double %v
}}
'''
MAP_NORESERVE = 0x4000


def room(size):
    return mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)


size = 1 << 15
tensors = []
for n in range(12):
    code = jit.to_object(TEXT.format(n=n, size=size, values=", ".join(size * [f"double {n}.0"])))
    gap = room(mmap.PAGESIZE * (1 + n))  # a few pages of code fit, their table does not
    tensors.append(room(1 << 32))
    gap.close()
    f = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_int64)(jit.address(code, f"f{n}"))
    assert f(size - 1) == n
"""


def test_large_tensors_between_the_sections_of_a_kernel():
    """LLVM's older linker aborted the process: offsets between sections did not fit 32 bits."""
    subprocess.run([sys.executable, "-c", SCATTERED], check=True, timeout=60)
