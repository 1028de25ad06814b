"""The kernel's entry point: programs shared out over OpenMP's threads.

Lowering defines `@NAME.range`, which runs programs begin..end-1 one after the other. `@NAME`, written here, reads a
launch block (see `BLOCK`) and either calls it once or hands chunks of programs to a team of threads through
GOMP_parallel of the OpenMP library that torch itself uses: one pool of threads in the process, no oversubscription.

Chunks are taken from a counter in rising order and run in order, so a program that waits for an *earlier* one always
ends: the earliest unfinished program is running on some thread. One that waits for a later program may never end.

`@NAME` returns 1 where a thread of the team found no chunk left: it did not run, the others did its work and then
waited for it to come (see `threads.missed`).
"""

from __future__ import annotations

import re

# struct format of the launch block: gx, gy, gz, threads (unsigned: a negative size is refused), GOMP_parallel, scratch,
# its bytes per thread, report. The kernel's own arguments follow, 8 bytes each, then the flags (emit/stream.py).
BLOCK = "<IIIIQQQQ"
ARGUMENTS = 48
# Bytes of scratch that come from the stack of the thread that runs programs: a launch need not find any (0.25 us), and
# a stack that could not hold them would not have carried Python here. More is the caller's: `threads.scratch`.
STACK = 32768
_CHUNKS = 8  # per thread: enough to even out a thread that started late, few enough that the counter costs nothing

# Context of a team: block, total, chunk; on a cache line of their own next program, next thread number, and the least
# chunks that a thread took.
_TEXT = """
define i32 @"NAME"(ptr %block) #0 "probe-stack"="inline-asm" {
entry:
  OWN
  %gx = load i32, ptr %block
  %py = getelementptr i8, ptr %block, i64 4
  %gy = load i32, ptr %py
  %pz = getelementptr i8, ptr %block, i64 8
  %gz = load i32, ptr %pz
  %pt = getelementptr i8, ptr %block, i64 12
  %threads = load i32, ptr %pt
  %x = zext i32 %gx to i64
  %y = zext i32 %gy to i64
  %z = zext i32 %gz to i64
  %xy = mul i64 %x, %y
  %total = mul i64 %xy, %z
  %alone = icmp sle i32 %threads, 1
  br i1 %alone, label %serial, label %team
serial:
  %args = getelementptr i8, ptr %block, i64 ARGUMENTS
  %ps = getelementptr i8, ptr %block, i64 24
  %given = load ptr, ptr %ps
  %pr = getelementptr i8, ptr %block, i64 40
  %report = load ptr, ptr %pr
  call void @"NAME.range"(ptr %args, i64 0, i64 %total, i32 %gx, i32 %gy, i32 %gz, ptr %SCRATCH, ptr %report)
  FENCE
  ret i32 0
team:
  %ctx = alloca [128 x i8], align 64
  store ptr %block, ptr %ctx
  %c1 = getelementptr i8, ptr %ctx, i64 8
  store i64 %total, ptr %c1
  %t64 = zext i32 %threads to i64
  %parts = mul i64 %t64, CHUNKS
  %share = udiv i64 %total, %parts
  %small = icmp eq i64 %share, 0
  %chunk = select i1 %small, i64 1, i64 %share
  %c2 = getelementptr i8, ptr %ctx, i64 16
  store i64 %chunk, ptr %c2
  %c3 = getelementptr i8, ptr %ctx, i64 64
  store i64 0, ptr %c3
  %c4 = getelementptr i8, ptr %ctx, i64 72
  store i64 0, ptr %c4
  %c5 = getelementptr i8, ptr %ctx, i64 80
  store i64 -1, ptr %c5
  %pg = getelementptr i8, ptr %block, i64 16
  %gomp = load ptr, ptr %pg
  call void %gomp(ptr @"NAME.worker", ptr %ctx, i32 %threads, i32 0)
  %least = load i64, ptr %c5
  %missing = icmp eq i64 %least, 0
  %result = zext i1 %missing to i32
  ret i32 %result
}

define internal void @"NAME.worker"(ptr %ctx) #0 "probe-stack"="inline-asm" {
entry:
  OWN
  %block = load ptr, ptr %ctx
  %c1 = getelementptr i8, ptr %ctx, i64 8
  %total = load i64, ptr %c1
  %c2 = getelementptr i8, ptr %ctx, i64 16
  %chunk = load i64, ptr %c2
  %next = getelementptr i8, ptr %ctx, i64 64
  %number = getelementptr i8, ptr %ctx, i64 72
  %gx = load i32, ptr %block
  %py = getelementptr i8, ptr %block, i64 4
  %gy = load i32, ptr %py
  %pz = getelementptr i8, ptr %block, i64 8
  %gz = load i32, ptr %pz
  %ps = getelementptr i8, ptr %block, i64 24
  %all = load ptr, ptr %ps
  %pw = getelementptr i8, ptr %block, i64 32
  %width = load i64, ptr %pw
  %pr = getelementptr i8, ptr %block, i64 40
  %report = load ptr, ptr %pr
  %args = getelementptr i8, ptr %block, i64 ARGUMENTS
  %me = atomicrmw add ptr %number, i64 1 monotonic
  %at = mul i64 %me, %width
  %given = getelementptr i8, ptr %all, i64 %at
  br label %take
take:
  %count = phi i64 [ 0, %entry ], [ %counted, %run ]
  %begin = atomicrmw add ptr %next, i64 %chunk monotonic
  %more = icmp slt i64 %begin, %total
  br i1 %more, label %run, label %done
run:
  %stop = add i64 %begin, %chunk
  %over = icmp sgt i64 %stop, %total
  %end = select i1 %over, i64 %total, i64 %stop
  call void @"NAME.range"(ptr %args, i64 %begin, i64 %end, i32 %gx, i32 %gy, i32 %gz, ptr %SCRATCH, ptr %report)
  %counted = add i64 %count, 1
  br label %take
done:
  FENCE
  %least = getelementptr i8, ptr %ctx, i64 80
  %before = atomicrmw umin ptr %least, i64 %count monotonic
  ret void
}
"""
_FENCE = "  call void @llvm.x86.sse.sfence()\n"


def entry_point(name: str, fence: bool, scratch: int) -> str:
    """LLVM text of `void @name(ptr block)` and its worker, for code that needs `scratch` bytes a thread.

    `fence`: x86's stores past the cache must be completed by one before another thread may read what they wrote.
    """
    own = 0 < scratch <= STACK
    words = {
        "NAME": name,
        "ARGUMENTS": str(ARGUMENTS),
        "CHUNKS": str(_CHUNKS),
        "  FENCE\n": _FENCE if fence else "",
        "  OWN\n": f"  %own = alloca [{scratch} x i8], align 64\n" if own else "",
        "SCRATCH": "own" if own else "given",
    }
    text = re.sub("NAME|ARGUMENTS|CHUNKS|  FENCE\n|  OWN\n|SCRATCH", lambda word: words[word.group()], _TEXT)
    return text + ("\ndeclare void @llvm.x86.sse.sfence()\n" if fence else "")
