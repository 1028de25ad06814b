"""Every kernel that the cases launch on a GPU compiles for the GPUs we name, on a machine that has none.

The cases run on meta tensors while `tuning` answers as it would for a GPU; what they launch is noted and compiled.
Nothing may need more shared memory than the GPU has nor, where a binary can be read, spill registers. That the values
are right is for the other tests to say.
"""

import functools
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from trident.cases import CASES, Case
from trident.cases.case import EVERYTHING, floating, results
from trident.ops import _linear
from trident.runtime import launch, route, tuning

pytestmark = pytest.mark.skipif(launch.INTERPRETED, reason="under TRITON_INTERPRET=1 kernels are Python, not sources")

CUDA = torch.device("cuda")
POINTERS = {
    **{torch.float64: "*fp64", torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"},
    **{torch.int64: "*i64", torch.int32: "*i32", torch.int16: "*i16", torch.int8: "*i8"},
    **{torch.uint8: "*u8", torch.bool: "*i1"},
}


class Target(NamedTuple):
    gpu: GPUTarget
    shared: int  # bytes that one program may have
    dtypes: Sequence[torch.dtype]


# every dtype for one target; the others differ in what they do with a tile, not with its dtype
TARGETS = {
    "sm_80": Target(GPUTarget("cuda", 80, 32), 163 << 10, (torch.bfloat16,)),
    "sm_90": Target(GPUTarget("cuda", 90, 32), 227 << 10, (torch.bfloat16, torch.float32, torch.float64)),
    "sm_100": Target(GPUTarget("cuda", 100, 32), 227 << 10, (torch.bfloat16,)),
    "gfx942": Target(GPUTarget("hip", "gfx942", 64), 64 << 10, (torch.float32, torch.bfloat16)),
}
# here `make test-all` compiles every variant; else those that differ in numbers only (blocks, alignment) once
EVERY_VARIANT = ("sm_90", (torch.bfloat16,))


class Launch(NamedTuple):
    """What a kernel is compiled for."""

    kernel: Any
    signature: tuple[tuple[str, str], ...]
    constants: tuple[tuple[str, Any], ...]
    aligned: frozenset[str]  # integers that are multiples of 16, and pointers (torch's are)
    options: tuple[tuple[str, Any], ...]

    def source(self) -> ASTSource:
        index = {parameter.name: (i,) for i, parameter in enumerate(self.kernel.params)}
        return ASTSource(
            self.kernel,
            dict(self.signature),
            constexprs={index[name]: value for name, value in self.constants},
            attrs={index[name]: [["tt.divisibility", 16]] for name in self.aligned},
        )

    def on(self, gpu: GPUTarget) -> "Launch":
        """As `tuning` asks for it there: only NVIDIA's units sum three products of tf32, AMD's multiply float32."""
        ieee = tuple((name, "ieee" if value == "tf32x3" else value) for name, value in self.constants)
        return self._replace(constants=ieee) if gpu.backend == "hip" else self

    def kind(self) -> tuple[Any, ...]:
        """The launch without its numbers."""
        constants = tuple((name, value) for name, value in self.constants if not isinstance(value, int | float))
        pointers = tuple((name, kind) for name, kind in self.signature if kind.startswith("*"))
        return self.kernel, pointers, constants


def described(kernel: Any, args: tuple[Any, ...], meta: dict[str, Any]) -> Launch:
    """Specialised as Triton does: None and 1 are constants, of other integers it is known if 16 divides them."""
    values = {**dict(zip((p.name for p in kernel.params), args, strict=False)), **meta}
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    aligned = set()
    for parameter in kernel.params:
        name, value = parameter.name, values.pop(parameter.name)
        if parameter.is_constexpr or value is None or (type(value) is int and value == 1):
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = POINTERS[value.dtype]
            aligned.add(name)
        elif isinstance(value, bool):
            signature[name] = "i1"
        elif isinstance(value, int):
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                aligned.add(name)
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            raise TypeError(f"{kernel.__name__}: {name} is a {type(value).__name__}")
    options = tuple(sorted(values.items()))
    return Launch(kernel, tuple(signature.items()), tuple(constants.items()), frozenset(aligned), options)


@contextmanager
def planned_for_gpus(note: Callable[..., None]) -> Iterator[None]:
    """Within the block tuning plans for a GPU of 132 multiprocessors, and launches are handed to `note` only."""

    def for_gpu(heuristic: Callable[..., tuning.Plan]) -> Callable[..., tuning.Plan]:
        return lambda *args: heuristic.__wrapped__(*(CUDA if isinstance(a, torch.device) else a for a in args))

    with pytest.MonkeyPatch.context() as patch, route.forced("kernels"):
        patch.setattr(tuning, "multiprocessors", lambda device: 132)
        for name, module in list(sys.modules.items()):
            if name.startswith("trident.ops."):
                for key, value in list(vars(module).items()):
                    if value is launch.launch:
                        patch.setattr(module, key, note)
        planners = ("trident.ops.", "trident.runtime.tuning")
        for module in [m for n, m in list(sys.modules.items()) if n.startswith(planners)]:
            for key, value in list(vars(module).items()):
                if getattr(value, "__annotations__", {}).get("return") is tuning.Plan:
                    patch.setattr(module, key, for_gpu(value))
        yield


def call(case: Case, shape: Sequence[int], dtype: torch.dtype) -> None:
    """Forward and backward on tensors without data."""
    with torch.device("meta"):
        made = case.inputs(shape)
    inputs = [t.to(dtype).requires_grad_() if t.is_floating_point() else t for t in made]
    y = floating(results(case.ours(*inputs)))
    torch.autograd.grad(y, [t for t in inputs if t.requires_grad], [torch.empty_like(t) for t in y])


@functools.cache
def launches(dtype: torch.dtype) -> dict[Launch, str]:
    """Each distinct launch of the cases at the largest shapes they are timed at -> the first case that makes it."""
    found: dict[Launch, str] = {}
    for name, case in CASES.items():
        if dtype not in case.dtypes:
            continue

        def note(kernel: Any, grid: tuple[int, ...], *args: Any, name: str = name, **meta: Any) -> None:
            if 0 not in grid:
                found.setdefault(described(kernel, args, meta), name)

        with planned_for_gpus(note):
            call(case, (case.bench or case.shapes)[-1], dtype)
    return found


def problem(launched: Launch, case: str, target: Target, folder: Path) -> str | None:
    """Compile, and say what is wrong with the result."""
    what = f"{case}: {launched.kernel.__name__} {dict(launched.signature)} {dict(launched.constants)}"
    try:
        compiled = triton.compile(launched.on(target.gpu).source(), target=target.gpu, options=dict(launched.options))
    except Exception as error:  # whatever the compiler raises is the finding
        return f"{what}: {type(error).__name__}: {error}"
    if compiled.metadata.shared > target.shared:
        return f"{what}: {compiled.metadata.shared} bytes of shared memory"
    if "cubin" not in compiled.asm or any(kind == "*fp64" for _, kind in launched.signature):
        return None  # double precision takes two registers a value, and nobody trains in it: it need only be right
    if (spills := spilled(compiled.asm["cubin"], folder / f"{compiled.hash}.cubin")) > FEW:
        return f"{what}: {spills} stores of spilled registers"
    return None


FEW = 4  # ptxas parks a few values of a prologue in memory where that lets one more program run: that costs nothing


def spilled(cubin: bytes, path: Path) -> int:
    """How many instructions store to a thread's stack (which calls, as of 64-bit divisions, have without a spill)."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    path.write_bytes(cubin)
    usage = subprocess.run([tool, "--dump-resource-usage", path], capture_output=True, text=True, check=True).stdout
    (stack,) = re.findall(r"STACK:(\d+)", usage)
    if stack == "0":
        return 0
    code = subprocess.run([tool, "-sass", path], capture_output=True, text=True, check=True).stdout
    return len(re.findall(r"\bSTL\b", code))


@functools.cache
def chosen(target_name: str) -> list[tuple[Launch, str]]:
    """What to compile for a target: every launch for one of them, one launch of each kind for the others."""
    found: dict[Any, tuple[Launch, str]] = {}
    for dtype in TARGETS[target_name].dtypes:
        for launched, case in launches(dtype).items():
            every = EVERYTHING and target_name == EVERY_VARIANT[0] and dtype in EVERY_VARIANT[1]
            found.setdefault(launched if every else launched.kind(), (launched, case))
    return list(found.values())


@pytest.mark.parametrize("name", TARGETS)
def test_compiles(name, tmp_path):
    found = chosen(name)
    with ThreadPoolExecutor(2) as pool:  # the assembler is a process of its own, so two threads do work at once
        problems = list(pool.map(lambda entry: problem(*entry, TARGETS[name], tmp_path), found))
    problems = [text for text in problems if text]
    assert not problems, f"{len(problems)} of {len(found)} for {name}:\n" + "\n".join(problems)


def test_tf32(tmp_path):
    """The cases cannot ask for tf32 on meta tensors: here is its tile."""
    noted = [launched for launched in launches(torch.float32) if launched.kernel is _linear._matmul_kernel]
    constants = {**dict(noted[0].constants), "PRECISION": "tf32"}
    constants |= dict(zip(("BLOCK_M", "BLOCK_N", "BLOCK_K"), tuning.TF32_TILE, strict=True))
    launched = noted[0]._replace(constants=tuple(constants.items()), options=(("num_warps", 8),))
    for name, target in TARGETS.items():
        assert problem(launched, name, target, tmp_path) is None


@pytest.mark.parametrize("case", ("relu", "softmax", "layer_norm"))
def test_wide_accesses(case):
    """Aligned rows of bfloat16 are read and written 16 bytes at a time."""
    noted = [launched for launched, name in launches(torch.bfloat16).items() if name == case]
    assert noted
    for launched in noted:
        ptx = triton.compile(launched.source(), target=TARGETS["sm_90"].gpu, options=dict(launched.options)).asm["ptx"]
        assert re.search(r"ld\.global[\w.:]*\.v[48]\.b(32|64)", ptx), launched.kernel.__name__
        assert re.search(r"st\.global[\w.:]*\.v[48]\.b(32|64)", ptx), launched.kernel.__name__
