"""The plug-in as Triton sees it, and as a guest in programs that never use it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget

import trident_cpu
from trident_cpu import driver
from trident_cpu.compiler import CPUBackend, CPUOptions

ROOT = Path(__file__).parents[2]


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, at < n) + tl.load(y + at, at < n), at < n)


def python(code: str, **environment: str) -> str:
    """Run `code` in a fresh interpreter that finds this tree (after PYTHONPATH, if given); returns what it prints."""
    path = [environment.pop("PYTHONPATH", ""), str(ROOT), os.environ.get("PYTHONPATH", "")]
    found = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    done = subprocess.run([sys.executable, "-c", code], env=found, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def active_cpu():
    """Triton's active driver is ours during the test."""
    from triton.runtime import driver as config

    before = config._active
    if not trident_cpu.install():
        pytest.skip("a GPU driver is active on this machine")
    yield
    config._active = before


def test_plain_launch(active_cpu):
    n = 10_000
    x, y, out = torch.randn(n), torch.randn(n), torch.empty(n)
    kernel = add[(triton.cdiv(n, 256),)](x, y, out, n, BLOCK=256)
    assert torch.equal(out, x + y)
    assert {"ttir", "llir", "cpuobj"} <= set(kernel.asm)
    add[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, x, out, n, BLOCK=64, num_warps=2)
    assert torch.equal(out, x + x)


@pytest.fixture
def short(active_cpu):
    """A kernel that Triton has run once: (kernel, x, out, what the first launch returned)."""
    kernel = triton.JITFunction(add.fn)
    x, out = torch.randn(100), torch.zeros(100)
    compiled = kernel[(4,)](x, x, out, 100, BLOCK=32)
    return kernel, x, out, compiled


@triton.jit
def scaled(out, x, y, stride, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at * stride, at < n)
    tl.store(out + at, value if y is None else value + tl.load(y + at, at < n), at < n)


def test_short_way_with_arguments_that_are_folded(active_cpu):
    """1 and None are constants of the compiled code; a later launch still hands them over."""
    x, out = torch.randn(100), torch.empty(100)
    for _ in range(3):
        for y, stride, n in ((None, 1, 100), (x, 1, 100), (None, 2, 50), (x, 2, 50)):
            scaled[(4,)](out.zero_(), x, y, stride, n, BLOCK=32)
            expected = x[::stride] if y is None else x[::stride] + x[:n]
            assert torch.equal(out[:n], expected)


def test_short_way_returns_what_triton_compiled(short, monkeypatch):
    kernel, x, out, compiled = short
    assert kernel[(4,)](x, x, out.zero_(), 100, BLOCK=32) is compiled  # fills the short way's table
    monkeypatch.setattr(kernel, "device_caches", None)  # Triton's own run would raise
    assert kernel[lambda meta: (triton.cdiv(100, meta["BLOCK"]),)](x, x, out.zero_(), 100, BLOCK=32) is compiled
    assert torch.equal(out, x + x)
    with pytest.raises(TypeError, match="NoneType"):
        kernel[(2,)](x, x, out, 100, BLOCK=64)  # another key: Triton compiles it
    monkeypatch.undo()
    other = kernel[(2,)](x, x, out.zero_(), 100, BLOCK=64)
    assert other is not compiled and torch.equal(out, x + x)
    with pytest.raises(KeyError, match="num_warp was"):
        kernel[(4,)](x, x, out, 100, BLOCK=32, num_warp=4)


def test_short_way_gives_way(short, monkeypatch):
    """To warm-ups and hooks, to a driver, a source or a `run` that changed."""
    from triton import knobs
    from triton.runtime import driver as config

    kernel, x, out, compiled = short
    kernel[(4,)](x, x, out, 100, BLOCK=32)
    out.zero_()
    assert kernel.warmup(x, x, out, 100, BLOCK=32, grid=(4,)) is compiled
    assert not out.any()
    seen = []
    knobs.runtime.launch_enter_hook.add(seen.append)
    try:
        kernel[(4,)](x, x, out, 100, BLOCK=32)
    finally:
        knobs.runtime.launch_enter_hook.remove(seen.append)
    assert len(seen) == 1 and torch.equal(out, x + x)
    kernel.add_pre_run_hook(lambda *args, **kwargs: seen.append(kwargs["BLOCK"]))
    kernel[(4,)](x, x, out, 100, BLOCK=32)
    assert seen[1:] == [32]
    kernel.pre_run_hooks.clear()
    monkeypatch.setattr(type(kernel), "run", lambda *args, **kwargs: "someone else's")
    assert kernel[(4,)](x, x, out, 100, BLOCK=32) == "someone else's"
    monkeypatch.undo()
    monkeypatch.setattr(config, "_active", None)
    monkeypatch.setattr(config, "_default", driver.CPUDriver())
    monkeypatch.setattr(driver.CPUDriver, "get_current_device", lambda self: seen.append("asked") or driver.DEVICE)
    kernel[(4,)](x, x, out, 100, BLOCK=32)
    assert seen[-1] == "asked"


def test_plain_launch_refuses_other_devices(active_cpu):
    x = torch.zeros(4)
    with pytest.raises(ValueError, match="on meta"):
        add[(1,)](x, x.to("meta"), x, 4, BLOCK=4)


def test_device_key_is_no_gpus(active_cpu):
    x = torch.zeros(4)
    add[(1,)](x, x, x, 4, BLOCK=4)
    assert driver.DEVICE in add.device_caches
    assert driver.DEVICE < 0


def test_benchmarker(active_cpu):
    from triton.runtime import driver as config

    bench = config.active.get_benchmarker()
    low, middle, high = bench(lambda: sum(range(1000)), quantiles=(0.2, 0.5, 0.8), rep=5)
    assert 0 < low <= middle <= high


def test_autotuned_plain_launch(active_cpu):
    tuned = triton.autotune([triton.Config({"BLOCK": 32}), triton.Config({"BLOCK": 64})], key=["n"])(add)
    x, out = torch.randn(100), torch.zeros(100)
    tuned[lambda meta: (triton.cdiv(100, meta["BLOCK"]),)](x, x, out, 100)
    assert torch.equal(out, x + x)


def test_inactive_beside_a_gpu_driver(monkeypatch):
    from triton.backends import Backend, backends

    class Busy:
        @staticmethod
        def is_active():
            return True

    monkeypatch.setitem(backends, "busy", Backend(CPUBackend, Busy))
    assert not driver.CPUDriver.is_active()


def test_two_plugins_that_ask_each_other(monkeypatch):
    from triton.backends import Backend, backends

    class Polite:
        @staticmethod
        def is_active():
            return not driver.CPUDriver.is_active()

    monkeypatch.setitem(backends, "polite", Backend(CPUBackend, Polite))
    assert not driver.CPUDriver.is_active()  # and no endless recursion


def test_target_in_kernels_is_the_cpu(monkeypatch):
    """A kernel that asks whether it runs on CUDA gets the CPU's answer, even where CUDA's driver is active."""
    from triton.language import target_info

    def on_a_gpu_machine():
        return GPUTarget("cuda", 90, 32)

    monkeypatch.setattr(target_info, "current_target", on_a_gpu_machine)
    with driver.compiling_for_cpu():
        assert target_info.current_target().backend == "trident_cpu"
    assert target_info.current_target().backend == "cuda"


def test_unknown_language_and_target():
    from triton.backends.compiler import Language

    assert not CPUBackend.supports_target(GPUTarget("cuda", 90, 32))
    backend = CPUBackend(GPUTarget("trident_cpu", "x", 1))
    with pytest.raises(NotImplementedError, match="gluon"):
        backend.add_stages({}, CPUOptions(), Language.GLUON)


def test_options_that_shape_gpu_code_share_the_code():
    assert CPUOptions(num_warps=4).hash() == CPUOptions(num_warps=8, num_stages=1).hash()
    for changed in ({"debug": True}, {"sanitize": True}, {"enable_fp_fusion": False}):
        assert CPUOptions(**changed).hash() != CPUOptions().hash()


def test_inspect_runs_nothing():
    x = torch.zeros(64)
    stages = trident_cpu.inspect(add, x, x, x, 64, BLOCK=64)
    assert "tt.func public @add" in stages.ttir
    assert "GOMP" not in stages.llvm_ir and '@"add"' in stages.llvm_ir
    assert stages.binary.params == ("ptr:f32", "ptr:f32", "ptr:f32", "i32")
    assert stages.asm and stages.optimised_ir
    assert (x == 0).all()


def test_import_brings_nothing():
    loaded = python(
        "import sys, trident_cpu, trident_cpu.compiler, trident_cpu.driver;"
        "print([m for m in ('torch', 'llvmlite', 'numpy') if m in sys.modules])"
    )
    assert loaded == "[]"


GUEST = """
import sys, torch
model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.GELU(), torch.nn.LayerNorm(8))
compiled, x = torch.compile(model), torch.randn(4, 8)
torch.testing.assert_close(compiled(x), model(x))
from torch.utils._triton import has_triton
print(has_triton(), 'trident_cpu.driver' in sys.modules, 'llvmlite' in sys.modules)
"""


def test_torch_compile_beside_it(installed, tmp_path):
    """Inductor's own CPU code is compiled as ever, and nothing of ours is loaded beyond what Triton imports."""
    if shutil.which("g++") is None:
        pytest.skip("Inductor needs a C++ compiler")
    printed = python(GUEST, TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "inductor"), PYTHONPATH=str(installed))
    assert printed == "False True False"


def test_import_order_does_not_matter(installed):
    for first in ("trident_cpu", "trident_cpu.driver", "trident_cpu.launcher", "triton", "torch"):
        code = f"import {first}; import triton, trident_cpu; print('trident_cpu' in triton.backends.backends)"
        assert python(code, PYTHONPATH=str(installed)) == "True"


def test_entry_point_names_what_triton_looks_for():
    """Triton imports NAME.compiler and NAME.driver and wants one concrete class of each kind in them."""
    from triton.backends import _find_concrete_subclasses
    from triton.backends.compiler import BaseBackend
    from triton.backends.driver import DriverBase

    import trident_cpu.compiler

    assert _find_concrete_subclasses(trident_cpu.compiler, BaseBackend) is CPUBackend
    assert _find_concrete_subclasses(driver, DriverBase) is driver.CPUDriver
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["triton.backends"] == {"trident_cpu": "trident_cpu"}


KERNEL = """
import torch, triton, triton.language as tl
@triton.jit
def twice(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, at < n) * 2, at < n)
"""


@pytest.fixture
def installed(tmp_path):
    """A folder that, on the path, gives the package its entry point."""
    info = tmp_path / "trident_kernels-0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: trident-kernels\nVersion: 0\n")
    (info / "entry_points.txt").write_text("[triton.backends]\ntrident_cpu = trident_cpu\n")
    return tmp_path


def test_installed_entry_point(installed):
    """With the entry point in place, plain kernel[grid](...) runs and the package is found by itself."""
    if torch.cuda.is_available():
        pytest.skip("a GPU driver is active on this machine")
    (installed / "kernels.py").write_text(KERNEL)
    code = (
        "import kernels, torch\n"
        "x = torch.ones(1000); out = torch.zeros(1000)\n"
        "kernels.twice[(8,)](x, out, 1000, BLOCK=128)\n"
        "print(out.sum().item())"
    )
    assert python(code, PYTHONPATH=str(installed)) == "2000.0"
