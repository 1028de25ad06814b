"""LLVM through llvmlite: IR text -> object code -> an address to call.

llvmlite is imported by the first compilation or load of a kernel, never by `import triton`.
"""

from __future__ import annotations

import functools
import itertools
import threading
from typing import Any

_lock = threading.RLock()  # LLVM's global context and the library counter
_serial = itertools.count()


@functools.cache
def _llvm() -> Any:
    """llvmlite's binding layer, with the native target ready and the C libraries that generated code may call."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # Extension modules load these privately, where a symbol search over the process does not see them.
    for library in ("libm.so.6", "libgcc_s.so.1"):
        try:
            llvm.load_library_permanently(library)
        except RuntimeError:  # not every system has both; linking a kernel names the function it lacks
            continue
    return llvm


@functools.cache
def host() -> tuple[str, str, str]:
    """(CPU name, its features as LLVM writes them, target triple)."""
    llvm = _llvm()
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten(), llvm.get_process_triple()


@functools.cache
def features() -> frozenset[str]:
    """Names of the features this CPU has, without LLVM's signs: {'avx2', 'fma', ...}."""
    return frozenset(f[1:] for f in host()[1].split(",") if f.startswith("+"))


def version() -> str:
    """llvmlite's version and its LLVM's: part of every cache key."""
    import llvmlite

    return f"{llvmlite.__version__}/{'.'.join(map(str, _llvm().llvm_version_info))}"


@functools.cache
def _machine(jit: bool) -> Any:
    name, flags, triple = host()
    return (
        _llvm()
        .Target.from_triple(triple)
        .create_target_machine(
            cpu=name, features=flags, opt=3, reloc="pic", codemodel="jitdefault" if jit else "small", jit=jit
        )
    )


def _optimised(llvm_ir: str) -> Any:
    llvm, machine = _llvm(), _machine(False)
    module = llvm.parse_assembly(llvm_ir)
    module.triple = host()[2]
    module.data_layout = str(machine.target_data)
    module.verify()
    # The compiler writes its own vectors: LLVM's vectorisers found nothing more to do, and -O3 was no faster than -O1.
    tuning = llvm.create_pipeline_tuning_options(speed_level=1)
    tuning.loop_vectorization = False
    tuning.slp_vectorization = False
    tuning.loop_unrolling = True
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    return module


def to_object(llvm_ir: str) -> bytes:
    """Optimised, position-independent object code for this CPU."""
    with _lock:
        return _machine(False).emit_object(_optimised(llvm_ir))


def to_assembly(llvm_ir: str) -> tuple[str, str]:
    """(optimised IR, assembly), for reading."""
    with _lock:
        module = _optimised(llvm_ir)
        return str(module), _machine(False).emit_assembly(module)


@functools.cache
def _linker() -> Any:
    return _llvm().create_lljit_compiler(_machine(True))


class Function:
    """The code of one exported symbol; the memory goes when this object goes."""

    def __init__(self, obj: bytes, symbol: str) -> None:
        with _lock:
            builder = _llvm().JITLibraryBuilder().add_object_img(obj).add_current_process().export_symbol(symbol)
            self._library = builder.link(_linker(), f"trident_cpu.{next(_serial)}")
        self.address: int = self._library[symbol]
