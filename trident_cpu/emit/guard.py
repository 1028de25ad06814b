"""The sanitizer's check before a memory access: every active lane must lie in the storage of the tensor it came from.

The report's fifth word points to a table with one `{i64 begin, i64 end}` of addresses per kernel parameter (zeros for
what is no pointer), after an i64 with their number. A lane outside is recorded and switched off, so the access itself
never happens. A load also compares what it is about to read with the pattern that the sanitizer fills fresh memory
with (`trident_cpu.sanitizer`): a match means that nothing wrote it.

An address whose parameter is not known (a select of two) may lie in any of them; one made from an integer or loaded
from memory belongs to none, and is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trident_cpu.emit.types import size
from trident_cpu.emit.values import Context, Val, lanes_of
from trident_cpu.errors import UnsupportedOp
from trident_cpu.ir import Op

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

CANARY = 0x7FA5  # repeated: a NaN with a payload in f16, bf16, f32 and f64, and an unlikely integer
OUTSIDE, UNWRITTEN = 2, 3  # codes of the report; 1 is a failed assertion
_ANY = -1

_TEXT = f"""define internal void @tc.guard(ptr %report, ptr %pointers, ptr %mask, i64 %count, i64 %size, i64 %root,
    i64 %fault, i64 %program, i1 %reads) noinline {{
entry:
  %p4 = getelementptr i64, ptr %report, i64 4
  %table = load ptr, ptr %p4
  %parameters = load i64, ptr %table
  %any = icmp slt i64 %root, 0
  %from = select i1 %any, i64 0, i64 %root
  %after = add i64 %root, 1
  %to = select i1 %any, i64 %parameters, i64 %after
  br label %lane
lane:
  %i = phi i64 [ 0, %entry ], [ %i1, %next ]
  %pm = getelementptr i8, ptr %mask, i64 %i
  %m = load i8, ptr %pm
  %active = icmp ne i8 %m, 0
  br i1 %active, label %check, label %next
check:
  %pp = getelementptr ptr, ptr %pointers, i64 %i
  %pointer = load ptr, ptr %pp
  %first = ptrtoint ptr %pointer to i64
  %last = add i64 %first, %size
  br label %search
search:
  %k = phi i64 [ %from, %check ], [ %k1, %miss ]
  %some = icmp slt i64 %k, %to
  br i1 %some, label %compare, label %outside
compare:
  %at = mul i64 %k, 2
  %at1 = add i64 %at, 1
  %at2 = add i64 %at, 2
  %pb = getelementptr i64, ptr %table, i64 %at1
  %begin = load i64, ptr %pb
  %pe = getelementptr i64, ptr %table, i64 %at2
  %end = load i64, ptr %pe
  %above = icmp uge i64 %first, %begin
  %below = icmp ule i64 %last, %end
  %ordered = icmp ule i64 %first, %last
  %b1 = and i1 %above, %below
  %inside = and i1 %b1, %ordered
  br i1 %inside, label %found, label %miss
miss:
  %k1 = add i64 %k, 1
  br label %search
outside:
  call void @tc.report(ptr %report, i64 {OUTSIDE}, i64 %fault, i64 %program, i64 %first)
  store i8 0, ptr %pm
  br label %next
found:
  br i1 %reads, label %halves, label %next
halves:
  %h = phi i64 [ 0, %found ], [ %h2, %match ]
  %ph = getelementptr i8, ptr %pointer, i64 %h
  %half = load i16, ptr %ph, align 1
  %poison = icmp eq i16 %half, {CANARY}
  br i1 %poison, label %match, label %next
match:
  %h2 = add i64 %h, 2
  %whole = icmp uge i64 %h2, %size
  br i1 %whole, label %unwritten, label %halves
unwritten:
  call void @tc.report(ptr %report, i64 {UNWRITTEN}, i64 %fault, i64 %program, i64 %first)
  br label %next
next:
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %count
  br i1 %more, label %lane, label %leave
leave:
  ret void
}}"""


def guard(fe: FunctionEmitter, op: Op, pointer: Val, element: str, mask: Val | None, ctx: Context) -> Val | None:
    """The mask of the lanes that may access memory. Raises UnsupportedOp for an address that cannot be checked."""
    root = _root(fe, op)
    if op in ctx.detours:  # a detour reads the copy of a tile that was checked as it was made
        return mask
    fe.globals.add(_TEXT)
    b, lanes = fe.b, ctx.lanes
    one = pointer.is_uniform or lanes == 1
    count = 1 if one else lanes
    pointers, flags = b.alloca(f"[{count} x ptr]"), b.alloca(f"[{count} x i8]")
    if one:
        wanted = "true" if mask is None else mask.text
        if mask is not None and lanes > 1 and not mask.is_uniform:
            bits = b.value(f"bitcast <{lanes} x i1> {mask.text} to i{lanes}")
            wanted = b.value(f"icmp ne i{lanes} {bits}, 0")
        b.emit(f"store ptr {pointer.text}, ptr {pointers}")
        b.emit(f"store i8 {b.value(f'zext i1 {wanted} to i8')}, ptr {flags}")
    else:
        b.emit(f"store <{lanes} x ptr> {lanes_of(fe, pointer, lanes)}, ptr {pointers}")
        wanted = b.splat("i1", "true", lanes) if mask is None else lanes_of(fe, mask, lanes)
        b.emit(f"store <{lanes} x i8> {b.value(f'zext <{lanes} x i1> {wanted} to <{lanes} x i8>')}, ptr {flags}")
    fault = fe.new_fault(op.name.removeprefix("tt."), fe.where(op), f"{element} {root}")
    reads = "true" if _is_telling(op, element) else "false"
    b.emit(
        f"call void @tc.guard(ptr %report, ptr {pointers}, ptr {flags}, i64 {count}, i64 {size(element)}, i64 {root}, "
        f"i64 {fault}, i64 {fe.program_index()}, i1 {reads})"
    )
    if not one:
        kept = b.value(f"load <{lanes} x i8>, ptr {flags}")
        return Val("lanes", "i1", b.value(f"trunc <{lanes} x i8> {kept} to <{lanes} x i1>"))
    allowed = b.value(f"trunc i8 {b.value(f'load i8, ptr {flags}')} to i1")
    if mask is None or mask.is_uniform or lanes == 1:
        return Val("uniform", "i1", allowed)
    return Val("lanes", "i1", b.value(f"and <{lanes} x i1> {mask.text}, {b.splat('i1', allowed, lanes)}"))


def _is_telling(op: Op, element: str) -> bool:
    """Does the access read, and is the canary a value that data of this type never have?"""
    floats = element in ("f16", "bf16", "f32", "f64")
    writes_only = op.name == "tt.store" or "exch" in op.attrs.get("words", ())
    return not writes_only and (floats or element in ("i32", "i64"))


def _root(fe: FunctionEmitter, op: Op) -> int:
    """The number of the kernel parameter that an access's address comes from, or _ANY."""
    root = fe.aliasing.root(op.operands[0])
    if root is not None:
        return fe.function.params.index(root) if fe.function is fe.state.module.kernel else _ANY
    seen, pending = set(), [op.operands[0]]
    while pending:
        value = pending.pop()
        if value in seen or value.op is None:
            continue
        seen.add(value)
        made = {"tt.int_to_ptr": "made from an integer", "tt.load": "loaded from memory"}.get(value.op.name)
        if made is not None:
            raise UnsupportedOp(op.name, f"the sanitizer cannot check an address {made}", fe.where(op))
        pending += [operand for operand in value.op.operands if operand.type.is_pointer]
    return _ANY
