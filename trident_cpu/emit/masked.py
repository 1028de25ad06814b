"""Masked loads and stores of consecutive elements.

On CPUs with AVX2 but no AVX-512, LLVM 22 splits a masked access wider than a register, and where the mask of a part is
constantly false (`e < E` with E = 1) it takes it for true when a second access has the same mask: what lies behind the
row is read and, by what is computed from it, written. So there each part is an access of its own from the start
(tests/cpu/test_llvm_bugs.py says when that may end).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trident_cpu.emit.types import mangled, size, stored, vector

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter


def masked_load(fe: FunctionEmitter, address: str, element: str, lanes: int, mask: str, default: str) -> str:
    if _is_split(fe, element, lanes):
        half, b = lanes // 2, fe.b
        low, high = (
            masked_load(fe, at, element, half, part, b.shuffle(element, default, lanes, pick))
            for at, part, pick in _halves(fe, address, element, lanes, mask)
        )
        return b.shuffle(element, low, half, range(lanes), high)
    kind = f"<{lanes} x {stored(element)}>"
    return fe.b.call(
        f"masked.load.{mangled(kind)}.p0", kind, (f"ptr align {size(element)}", address),
        (vector("i1", lanes), mask), (kind, default), suffix="",
    )  # fmt: skip


def masked_store(fe: FunctionEmitter, text: str, address: str, element: str, lanes: int, mask: str) -> None:
    if _is_split(fe, element, lanes):
        for at, part, pick in _halves(fe, address, element, lanes, mask):
            masked_store(fe, fe.b.shuffle(element, text, lanes, pick), at, element, lanes // 2, part)
        return
    kind = f"<{lanes} x {stored(element)}>"
    fe.b.call(
        f"masked.store.{mangled(kind)}.p0", "void", (kind, text), (f"ptr align {size(element)}", address),
        (vector("i1", lanes), mask), suffix="",
    )  # fmt: skip


def _is_split(fe: FunctionEmitter, element: str, lanes: int) -> bool:
    # of narrower elements AVX2 has no masked accesses: LLVM goes lane by lane, rightly
    return fe.features.vector_bits == 256 and size(element) >= 4 and lanes * size(element) * 8 > 256


def _halves(fe: FunctionEmitter, address: str, element: str, lanes: int, mask: str) -> list[tuple[str, str, range]]:
    """Address, mask and lanes of each."""
    half = lanes // 2
    beyond = fe.b.value(f"getelementptr {stored(element)}, ptr {address}, i64 {half}")
    places = (address, range(half)), (beyond, range(half, lanes))
    return [(at, fe.b.shuffle("i1", mask, lanes, pick), pick) for at, pick in places]
