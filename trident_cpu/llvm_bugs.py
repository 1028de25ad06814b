"""Miscompilations of LLVM that would give wrong results, and the detours around them. Each names its end."""

from __future__ import annotations

import re

# A masked store of truncated integers whose mask is constant with one true lane is turned into a scalar store of the
# *untruncated* lane (X86ISelLowering, reduceMaskedStoreToScalarStore before the test for truncation; LLVM 22 and
# before): a bfloat16 or int8 store then writes four bytes. Found by the fuzzer, seed 2008. Store the lane ourselves.
# Drop when the oldest llvmlite supported has it fixed (tests/cpu/test_llvm_bugs.py says when).
_MASKED_STORE = re.compile(
    r"^(?P<indent>\s*)(?:(?:tail|musttail|notail) )?call void @llvm\.masked\.store\.v(?P<lanes>\d+)(?P<type>i\d+)\.p0"
    r"\(<\d+ x i\d+> (?P<value>%[-\w.$]+), ptr [^,]*?(?P<pointer>[%@][-\w.$]+), <\d+ x i1> <(?P<mask>[^>]*)>\).*$",
    re.MULTILINE,
)
_MAY_STORE = re.compile(r"@llvm\.masked\.store\.v\d+i\d+\.p0")


def may_store_one_lane(llvm_ir: str) -> bool:
    """Can there be such a store in what this IR is optimised to? Printing that for a look costs LLVM's time."""
    return _MAY_STORE.search(llvm_ir) is not None


def one_lane_stores(optimised_ir: str) -> str | None:
    """The IR with every such store made a scalar one; None if there is none."""
    count = 0

    def scalar(match: re.Match[str]) -> str:
        nonlocal count
        lanes = [lane.strip() == "i1 true" for lane in match["mask"].split(",")]
        if sum(lanes) != 1:
            return match[0]
        count += 1
        at, kind, indent = lanes.index(True), match["type"], match["indent"]
        return (
            f"{indent}%one.lane.{count} = extractelement <{match['lanes']} x {kind}> {match['value']}, i64 {at}\n"
            f"{indent}%one.place.{count} = getelementptr {kind}, ptr {match['pointer']}, i64 {at}\n"
            f"{indent}store {kind} %one.lane.{count}, ptr %one.place.{count}, align 1"
        )

    text = _MASKED_STORE.sub(scalar, optimised_ir)
    return text if count else None
