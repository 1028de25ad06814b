"""LLVM through llvmlite: IR text -> object code -> an address to call.

llvmlite is imported by the first compilation or load of a kernel, never by `import triton`.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import threading
from typing import Any

from trident_cpu.llvm_bugs import may_store_one_lane, one_lane_stores

# One compilation at a time in a process: LLVM has one context, MLIR its own locks.
lock = threading.RLock()
# A child forked while another thread compiles would inherit a half-changed LLVM and a lock that nobody releases.
os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


@functools.cache
def _llvm() -> Any:
    """llvmlite's binding layer, with the native target ready and the C libraries that generated code may call."""
    import llvmlite.binding as llvm

    if llvm.llvm_version_info[0] < 22:  # older ones know another form of masked loads and stores, and crash on ours
        raise ImportError(f"trident_cpu needs llvmlite 0.48 or newer (LLVM 22); LLVM here is {llvm.llvm_version_info}")
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
def _machine(jit: bool, quick: bool = False) -> Any:
    name, flags, triple = host()
    return (
        _llvm()
        .Target.from_triple(triple)
        .create_target_machine(
            cpu=name,
            features=flags,
            opt=0 if quick else 3,
            reloc="pic",
            codemodel="jitdefault" if jit else "small",
            jit=jit,
        )
    )


# What a sanitised kernel gets: its checks cost more than better code would win back, and LLVM takes a quarter of the
# time. For other kernels it is too little: without loop-invariant code motion silu takes twice as long.
_QUICK_PASSES = ("sroa", "simplify_cfg", "instruction_combine")
# What goes before -O1's passes over single functions. Its passes over whole modules took half of LLVM's time, mostly to
# go over the functions once more, and made kernels no faster but those that work out places by division: fold,
# upsampling of few pixels (docs/decisions/024).
_WHOLE_MODULE_PASSES = ("always_inliner", "global_dead_code_eliminate")
_DIVISION = re.compile(r" = s(?:div|rem) ")


def _optimised(llvm_ir: str, machine: Any, triple: str, quick: bool = False) -> Any:
    llvm = _llvm()
    module = llvm.parse_assembly(llvm_ir)
    module.triple = triple
    module.data_layout = str(machine.target_data)
    module.verify()
    # The compiler writes its own vectors and unrolls where that pays: LLVM's vectorisers found nothing more to do, -O3
    # was no faster than -O1, and its unrolling made no kernel of the bench faster but all compile a third longer.
    tuning = llvm.create_pipeline_tuning_options(speed_level=1)
    tuning.loop_vectorization = False
    tuning.slp_vectorization = False
    tuning.loop_unrolling = False
    builder = llvm.create_pass_builder(machine, tuning)
    divides = _DIVISION.search(llvm_ir) is not None
    if divides and not quick:
        passes = builder.getModulePassManager()
    else:
        passes = llvm.create_new_module_pass_manager()
        for name in _QUICK_PASSES if quick else _WHOLE_MODULE_PASSES:
            getattr(passes, f"add_{name}_pass")()
    passes.run(module, builder)
    if not (quick or divides):
        of_a_function = builder.getFunctionPassManager()
        for function in module.functions:
            if not function.is_declaration:
                of_a_function.run(function, builder)
    mended = one_lane_stores(str(module)) if may_store_one_lane(llvm_ir) else None
    return llvm.parse_assembly(mended) if mended else module


def to_object(llvm_ir: str, quick: bool = False) -> bytes:
    """Position-independent object code for this CPU: optimised or, if `quick`, with little effort."""
    with lock:  # LLVM's objects are gone before it is released: a fork between must not find llvmlite's own lock held
        return _machine(False, quick).emit_object(_optimised(llvm_ir, _machine(False), host()[2], quick))


def to_foreign_object(llvm_ir: str, triple: str, cpu: str) -> bytes:
    """The same for another machine, with the features LLVM knows `cpu` to have. RuntimeError if this LLVM cannot."""
    llvm = _llvm()
    with lock:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        target = llvm.Target.from_triple(triple)
        machine = target.create_target_machine(cpu=cpu, opt=3, reloc="pic", codemodel="small")
        return machine.emit_object(_optimised(llvm_ir, machine, triple))


def to_assembly(llvm_ir: str) -> tuple[str, str]:
    """(optimised IR, assembly), for reading."""

    def both(module: Any) -> tuple[str, str]:
        return str(module), _machine(False).emit_assembly(module)

    with lock:
        return both(_optimised(llvm_ir, _machine(False), host()[2]))


@functools.cache
def _linker() -> Any:
    # JITLink keeps the sections of a kernel together. The older linker maps each where the system likes, and aborts the
    # process when large tensors come to lie between them: an offset no longer fits 32 bits.
    return _llvm().create_lljit_compiler(_machine(True), use_jit_link=True)


_linked: dict[bytes, Any] = {}  # by digest of the object code


def address(obj: bytes, symbol: str) -> int:
    """Where the function `symbol` of some object code is in memory.

    Code is linked once in a process and stays: unloading would call LLVM from the garbage collector, in any thread.
    """
    key = hashlib.sha256(obj).digest()
    with lock:
        if key not in _linked:
            builder = _llvm().JITLibraryBuilder().add_object_img(obj).add_current_process().export_symbol(symbol)
            _linked[key] = builder.link(_linker(), f"trident_cpu.{len(_linked)}")
        return _linked[key][symbol]
