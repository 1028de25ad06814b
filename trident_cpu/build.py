"""From a kernel's source to loadable code: Triton's front end, its TTIR passes, our lowering, LLVM.

`compiler.py` offers these steps to Triton as stages; `launcher.py` and `inspection.py` call `build` directly, with
this package's own cache, because Triton's needs an active driver and a folder it can write.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

from trident_cpu import cache
from trident_cpu.parallel import STACK, entry_point


@dataclass(frozen=True)
class Binary:
    """A compiled kernel. `object` is machine code that exports `name` (see parallel.py)."""

    name: str
    params: tuple[str, ...]  # element type of each argument slot, as lowering states it: "ptr:f32", "i32", ...
    scratch_bytes: int  # per thread, of the caller's: 0 where the stack holds them
    faults: tuple[tuple[str, str, str], ...]  # (kind, file:line, text) of each fault id the code can report
    sanitized: bool  # every access is checked against the table of storages in the report
    elements: int  # rough work of one program: what decides whether threads pay
    stored_bytes: int  # what one program's stores write: are the results larger than the cache?
    object: bytes

    def freeze(self) -> bytes:
        metadata = {key: value for key, value in asdict(self).items() if key != "object"}
        return cache.freeze(metadata, self.object)

    @classmethod
    def thaw(cls, entry: bytes) -> Binary:
        """Raises cache.CorruptEntry."""
        return cls._from(*cache.thaw(entry))

    @classmethod
    def _from(cls, metadata: dict[str, Any], code: bytes) -> Binary:
        faults = tuple((kind, where, text) for kind, where, text in metadata.pop("faults"))
        return cls(**metadata | {"params": tuple(metadata["params"]), "faults": faults, "object": code})


@dataclass(frozen=True)
class Stages:
    """Every text between source and object, for reading."""

    ttir: str
    llvm_ir: str
    binary: Binary


def optimise_ttir(module: Any) -> Any:
    """Triton's own target-independent passes, in the order its GPU backends run them. Changes and returns `module`."""
    from triton._C.libtriton import ir, passes

    manager = ir.pass_manager(module.context)
    passes.common.add_inliner(manager)
    passes.ttir.add_rewrite_tensor_descriptor_to_pointer(manager)
    passes.common.add_canonicalizer(manager)
    passes.ttir.add_combine(manager)
    passes.ttir.add_reorder_broadcast(manager)
    passes.common.add_cse(manager)
    # 3.6 has LLVM's loop-invariant code motion only; later Tritons have one that knows masked loads
    licm = getattr(passes.ttir, "add_triton_licm", None) or passes.common.add_licm
    licm(manager)
    passes.common.add_symbol_dce(manager)
    manager.run(module, "make_ttir")
    return module


def lower_ttir(ttir: str, options: Any) -> tuple[str, dict[str, Any]]:
    """LLVM IR of the whole kernel with its entry point, and the fields of `Binary` known before code generation."""
    from trident_cpu import jit
    from trident_cpu.lower import lower

    lowered = lower(ttir, features=jit.features(), fuse=options.enable_fp_fusion, sanitize=options.sanitize)
    metadata = {
        "name": lowered.name,
        "params": tuple(lowered.params),
        "scratch_bytes": lowered.scratch_bytes if lowered.scratch_bytes > STACK else 0,
        "faults": tuple(tuple(map(str, fault)) for fault in lowered.faults),
        "sanitized": options.sanitize,
        "elements": elements_per_program(ttir),
        "stored_bytes": stored_bytes(ttir),
    }
    fence = "!nontemporal" in lowered.llvm_ir and jit.host()[2].startswith("x86_64")
    return lowered.llvm_ir + entry_point(lowered.name, fence, lowered.scratch_bytes), metadata


_SHAPE = re.compile(r"tensor<((?:\d+x)+)")
_LOOP_TRIPS = 8  # a loop's trip count is seldom known before the launch


def elements_per_program(ttir: str) -> int:
    """The largest tile's elements, times a guess for loops and for the inner length of a dot."""
    most = 1
    for shape in set(_SHAPE.findall(ttir)):
        most = max(most, prod(map(int, shape[:-1].split("x"))))
    if "tt.dot" in ttir:
        most *= 16
    if "scf.for" in ttir or "scf.while" in ttir:
        most *= _LOOP_TRIPS
    return most


_STORE = re.compile(r"tt\.store .*: tensor<((?:\d+x)+)!tt\.ptr<[a-z]+(\d+)")


def stored_bytes(ttir: str) -> int:
    """Bytes of every tile that a tt.store writes; a loop counts once."""
    total = 0
    for shape, bits in _STORE.findall(ttir):
        total += prod(map(int, shape[:-1].split("x"))) * int(bits) // 8
    return total


_trees: dict[str, Any] = {}  # text of a function -> its syntax tree


@contextlib.contextmanager
def _parsing_once() -> Iterator[None]:
    """Triton parses a device function's text at every call of it, a sixth of its front end. Under `jit.lock`."""
    from triton.runtime.jit import JITCallable

    parse = JITCallable.parse

    def parsed(function: Any) -> Any:
        text = function._src
        if text not in _trees:
            _trees[text] = parse(function)
        return _trees[text]

    JITCallable.parse = parsed
    try:
        yield
    finally:
        JITCallable.parse = parse


def front_end(source: Any, options: Any) -> Any:
    """The TTIR module of an ASTSource, not yet optimised."""
    from triton._C.libtriton import ir

    from trident_cpu.compiler import CPUBackend, host_target
    from trident_cpu.driver import compiling_for_cpu

    target = host_target()
    backend = CPUBackend(target)
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    with compiling_for_cpu(), _parsing_once():
        return source.make_ir(
            target, options, backend.get_codegen_implementation(options), backend.get_module_map(), context
        )


def _optimised_ttir(source: Any, options: Any) -> str:
    """What the lowering reads. TRIDENT_CPU_KEEP_TTIR=1 keeps it beside the kernels for whoever compiles the same source
    in another way: a kernel and the sanitised one have one TTIR, which is half of the work for the latter."""
    if os.environ.get("TRIDENT_CPU_KEEP_TTIR", "") in ("", "0"):
        return str(optimise_ttir(front_end(source, options)).str())
    key = "ttir-" + cache.digest(_file(source), source.hash(), replace(options, sanitize=False).hash())
    if (entry := cache.load(key)) is not None:
        return entry[1].decode()
    ttir: str = optimise_ttir(front_end(source, options)).str()
    cache.store(key, cache.freeze({}, ttir.encode()))
    return ttir


def stages(source: Any, options: Any) -> Stages:
    """Compile, keeping the texts; touches no cache of kernels."""
    from trident_cpu import jit

    with jit.lock:
        ttir = _optimised_ttir(source, options)
        llvm_ir, metadata = lower_ttir(ttir, options)
        return Stages(ttir, llvm_ir, Binary(**metadata, object=jit.to_object(llvm_ir, options.sanitize)))


def _file(source: Any) -> str:
    """Part of every key, because faults name it."""
    return str(source.fn.fn.__code__.co_filename)


def build(source: Any, options: Any) -> Binary:
    """The compiled kernel of an ASTSource, from the cache if it is there."""
    key = cache.digest(_file(source), source.hash(), options.hash())
    entry = cache.load(key)
    if entry is not None:
        return Binary._from(*entry)
    binary = stages(source, options).binary
    cache.store(key, binary.freeze())
    return binary
