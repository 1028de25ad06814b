"""The module's text: every function, and `@<kernel>.range`, which runs a range of the linearised grid."""

from __future__ import annotations

from trident_cpu.emit.function import FunctionEmitter, ModuleState
from trident_cpu.emit.types import llvm, stored
from trident_cpu.ir import Function

REPORT = """define internal void @tc.report(ptr %report, i64 %code, i64 %id, i64 %program, i64 %address) cold noinline {
  %pair = cmpxchg ptr %report, i64 0, i64 -1 acq_rel monotonic
  %first = extractvalue { i64, i1 } %pair, 1
  br i1 %first, label %write, label %end
write:
  %p1 = getelementptr i64, ptr %report, i64 1
  store i64 %id, ptr %p1
  %p2 = getelementptr i64, ptr %report, i64 2
  store i64 %program, ptr %p2
  %p3 = getelementptr i64, ptr %report, i64 3
  store i64 %address, ptr %p3
  store atomic i64 %code, ptr %report release, align 8
  br label %end
end:
  ret void
}"""

# What a loop's branch back names where LLVM is not to unroll it (Builder.loop).
ROLLED = '!1 = distinct !{!1, !2}\n!2 = !{!"llvm.loop.unroll.disable"}'


def emit_module(state: ModuleState) -> tuple[str, int]:
    """(LLVM text without the math functions, bytes of scratch per thread)."""
    kernel = state.module.kernel
    texts, frames = [], {}
    for function in state.module.functions.values():
        symbol = f'@"{function.name}.program"'
        text, frames[function.name] = FunctionEmitter(state, function).emit(symbol)
        texts.append(text)
    return "\n\n".join([*texts, emit_range(kernel), REPORT, ROLLED]), scratch_bytes(state, kernel, frames)


def scratch_bytes(state: ModuleState, function: Function, frames: dict[str, int]) -> int:
    """A function's own frame and the deepest of its callees' (a kernel cannot recurse)."""
    callees = {op.attrs["callee"] for op in function.body.walk() if op.name == "tt.call"}
    deepest = max((scratch_bytes(state, state.module.functions[c], frames) for c in callees), default=0)
    return frames[function.name] + deepest


def emit_range(kernel: Function) -> str:
    loads, passed = [], []
    for i, value in enumerate(kernel.params):
        element = value.type.element
        loads.append(f"  %slot{i} = getelementptr i8, ptr %args, i64 {8 * i}")
        loads.append(f"  %raw{i} = load {stored(element)}, ptr %slot{i}, align 8")
        if element == "i1":
            loads.append(f"  %bool{i} = trunc i8 %raw{i} to i1")
        passed.append(f"{llvm(element)} {'%bool' if element == 'i1' else '%raw'}{i}")
    passed += ["i32 %x", "i32 %y", "i32 %z", "i32 %gx", "i32 %gy", "i32 %gz", "i1 %stream"]
    passed += ["ptr %scratch", "ptr %report"]
    loads += [
        f"  %flags.slot = getelementptr i8, ptr %args, i64 {8 * len(kernel.params)}",
        "  %flags = load i64, ptr %flags.slot, align 8",
        "  %stream = trunc i64 %flags to i1",
    ]
    return "\n".join([
        f'define void @"{kernel.name}.range"(ptr noalias %args, i64 %begin, i64 %end, i32 %gx, i32 %gy, i32 %gz, '
        "ptr noalias %scratch, ptr %report) #0 {",
        "entry:",
        *loads,
        "  %wx = zext i32 %gx to i64",
        "  %wy = zext i32 %gy to i64",
        "  %some = icmp slt i64 %begin, %end",
        "  br i1 %some, label %start, label %leave",
        "start:",
        "  %rows = udiv i64 %begin, %wx",
        "  %x0 = urem i64 %begin, %wx",
        "  %y0 = urem i64 %rows, %wy",
        "  %z0 = udiv i64 %rows, %wy",
        "  %x32 = trunc i64 %x0 to i32",
        "  %y32 = trunc i64 %y0 to i32",
        "  %z32 = trunc i64 %z0 to i32",
        "  br label %next",
        "next:",
        "  %i = phi i64 [ %begin, %start ], [ %i1, %next ]",
        "  %x = phi i32 [ %x32, %start ], [ %x2, %next ]",
        "  %y = phi i32 [ %y32, %start ], [ %y2, %next ]",
        "  %z = phi i32 [ %z32, %start ], [ %z2, %next ]",
        f'  call void @"{kernel.name}.program"({", ".join(passed)})',
        "  %i1 = add nsw i64 %i, 1",
        "  %x1 = add i32 %x, 1",
        "  %wrap.x = icmp eq i32 %x1, %gx",
        "  %x2 = select i1 %wrap.x, i32 0, i32 %x1",
        "  %carry = zext i1 %wrap.x to i32",
        "  %y1 = add i32 %y, %carry",
        "  %wrap.y = icmp eq i32 %y1, %gy",
        "  %y2 = select i1 %wrap.y, i32 0, i32 %y1",
        "  %carry.y = zext i1 %wrap.y to i32",
        "  %z2 = add i32 %z, %carry.y",
        "  %more = icmp slt i64 %i1, %end",
        "  br i1 %more, label %next, label %leave",
        "leave:",
        "  ret void",
        "}",
    ])  # fmt: skip
