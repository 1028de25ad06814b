"""Triton's view of the compiler: `CPUBackend` and its options. Imported by `import triton`, so it imports little."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from triton.backends.compiler import BaseBackend, GPUTarget, Language

NAME = "trident_cpu"


def sanitizing() -> bool:
    """Is TRIDENT_CPU_SANITIZE=1 set?"""
    return os.environ.get("TRIDENT_CPU_SANITIZE", "") not in ("", "0")


@dataclass(frozen=True)
class CPUOptions:
    """What may follow a kernel's arguments in a launch.

    Only the first group changes code. The others shape GPU code; they are accepted, so that one launch line serves
    both, and without effect here.
    """

    debug: bool = False
    sanitize: bool = False
    sanitize_overflow: bool = False
    enable_fp_fusion: bool = True
    default_dot_input_precision: str = "ieee"
    allowed_dot_input_precisions: tuple[str, ...] = ("ieee", "tf32", "tf32x3", "bf16x3", "bf16x6")
    supported_fp8_dtypes: tuple[str, ...] = ("fp8e5", "fp8e4nv", "fp8e4b8", "fp8e5b16")
    deprecated_fp8_dot_operand_dtypes: tuple[str, ...] = ()
    max_num_imprecise_acc_default: int = 0

    num_warps: int = 4
    num_ctas: int = 1
    num_stages: int = 3
    warp_size: int = 1
    maxnreg: int | None = None
    cluster_dims: tuple[int, ...] = (1, 1, 1)
    launch_cooperative_grid: bool = False
    launch_pdl: bool = False
    waves_per_eu: int = 0
    matrix_instr_nonkdim: int = 0
    kpack: int = 1
    ptx_options: str | None = None
    ir_override: str | None = None
    extern_libs: tuple[Any, ...] = ()
    instrumentation_mode: str = ""
    fpsan_homomorphic_casts: bool = False
    arch: str | None = None
    backend_name: str = NAME

    CODE: ClassVar[tuple[str, ...]] = (
        "debug",
        "sanitize",
        "sanitize_overflow",
        "enable_fp_fusion",
        "default_dot_input_precision",
    )

    def hash(self) -> str:
        """Equal for two launches whose code is the same."""
        return hashlib.sha256(repr([(name, getattr(self, name)) for name in self.CODE]).encode()).hexdigest()


def host_target() -> GPUTarget:
    """This machine as Triton's target type. Inductor asks for it in programs that run no kernel: LLVM, which knows the
    CPU's name, stays unloaded; the name is in the cache key of the code (`cache.environment`)."""
    return GPUTarget(NAME, platform.machine(), 1)


class CPUBackend(BaseBackend):
    """The stages TTIR -> LLVM IR -> object code."""

    binary_ext = "cpuobj"

    @staticmethod
    def supports_target(target: GPUTarget) -> bool:
        return target.backend == NAME

    def hash(self) -> str:
        from trident_cpu import cache

        return f"{NAME}-{cache.environment()}"

    def parse_options(self, options: dict[str, Any]) -> CPUOptions:
        if options.get("sanitize") and not sanitizing():
            raise ValueError(
                "trident_cpu: set TRIDENT_CPU_SANITIZE=1 in the environment before the kernel's first launch"
            )
        known = {field.name for field in fields(CPUOptions)}
        given = {name: value for name, value in options.items() if name in known and value is not None}
        return CPUOptions(**{"sanitize": sanitizing(), **given})

    def pack_metadata(self, metadata: Any) -> tuple[()]:
        return ()

    def get_codegen_implementation(self, options: CPUOptions) -> dict[str, Any]:
        return {"min_dot_size": lambda lhs, rhs: (1, 1, 1)}

    def get_module_map(self) -> dict[str, Any]:
        # Its functions name the operation (`__nv_expf`): lowering maps each to the math library or refuses it.
        from triton.language.extra.cuda import libdevice

        return {"triton.language.extra.libdevice": libdevice}

    def load_dialects(self, context: Any) -> None:
        """TTIR needs none beyond Triton's own."""

    @staticmethod
    def parse_attr(desc: str) -> list[Any]:
        """No divisibility: vector loads need no alignment here, so multiples of 16 are no special case."""
        return []

    def add_stages(self, stages: dict[str, Any], options: CPUOptions, language: Language = Language.TRITON) -> None:
        if language != Language.TRITON:
            raise NotImplementedError(f"trident_cpu compiles Triton kernels, not {language.name.lower()} ones")
        from trident_cpu import build, jit

        def make_ttir(module: Any, metadata: dict[str, Any]) -> Any:
            return build.optimise_ttir(module)

        def make_llvm_ir(module: Any, metadata: dict[str, Any]) -> str:
            llvm_ir, fields_known = build.lower_ttir(module.str(), options)
            metadata.update(name=fields_known["name"], shared=0, binary=fields_known)
            return llvm_ir

        def make_object(llvm_ir: str, metadata: dict[str, Any]) -> bytes:
            return build.Binary(**metadata.pop("binary"), object=jit.to_object(llvm_ir, options.sanitize)).freeze()

        stages.update(ttir=make_ttir, llir=make_llvm_ir, cpuobj=make_object)
