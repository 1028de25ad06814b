"""Structured control flow and calls.

What a loop carries: a scalar lives in a slot; a tile that moves by the same step each time stays lazy (first value,
step, count); any other tile lives in a buffer that the loop body updates in place, element by element where it can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trident_cpu.analysis.uses import is_lazy
from trident_cpu.emit.nest import store_everywhere
from trident_cpu.emit.patience import Patience
from trident_cpu.emit.types import llvm
from trident_cpu.errors import UnsupportedOp
from trident_cpu.ir import Op, Value

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

Pair = tuple[Value, Value]


class Carried:
    """The values that one scf.for carries, by how they are kept."""

    def __init__(self, fe: FunctionEmitter, op: Op) -> None:
        self.fe, self.op = fe, op
        block = op.regions[0].block
        self.index, *self.args = block.args
        self.inits = op.operands[3:]
        self.ops = [o for o in block.ops if o.name != "scf.yield"]
        self.yields = [v for o in block.ops if o.name == "scf.yield" for v in o.operands]
        self.inside = {self.index, *self.args, *(r for o in op.regions[0].walk() for r in o.results)}
        self.slots: dict[Value, str] = {}
        self.updates: list[Pair] = []
        self.copies: list[Pair] = []  # (temporary, carried tile): stored when every update is done

    def enter(self) -> None:
        """Before the loop: classify, and store first values."""
        fe = self.fe
        moving = [self.step_of(arg, value) for arg, value in zip(self.args, self.yields, strict=True)]
        self.moving: dict[Value, tuple[Value, Value]] = {}
        for arg, init, value, step in zip(self.args, self.inits, self.yields, moving, strict=True):
            if not arg.type.is_tile:
                self.slots[arg] = fe.b.alloca(llvm(arg.type.element), 8)
                fe.b.emit(f"store {llvm(arg.type.element)} {fe.scalar(init)}, ptr {self.slots[arg]}")
            elif value is arg:
                fe.aliases[arg] = init
                fe.deps.extra[arg] = (init,)
            elif step is not None:
                self.moving[arg] = (init, step)
                fe.deps.extra[arg] = (init, step)
            else:
                view = fe.new_view(arg, arg.type.element)
                store_everywhere(fe, init, view)
                fe.views[arg] = view
                fe.mutable.add(arg)
        fe.deps.forget()
        self.plan_updates()

    def step_of(self, arg: Value, value: Value) -> Value | None:
        """The step of `arg`, if each iteration adds to it one and the same lazy value."""
        op = value.op
        if (
            not arg.type.is_tile
            or op is None
            or op.name not in ("tt.addptr", "arith.addi")
            or op.operands[0] is not arg
        ):
            return None
        step = op.operands[1]
        return None if self.inside & self.fe.deps.leaves(step).keys() else step

    def plan_updates(self) -> None:
        """Order the stores of next values: whoever reads an old tile comes before that tile's own store."""
        fe, leaves = self.fe, self.fe.deps.leaves
        pending = []
        for arg, value in zip(self.args, self.yields, strict=True):
            if arg in fe.views and value is not arg and not self.accumulates(arg, value):
                pending.append((arg, value))
        while pending:
            targets = {arg for arg, _ in pending}
            free = [
                (arg, value)
                for arg, value in pending
                if leaves(value).get(arg, True) and not any(arg in leaves(v) for a, v in pending if a is not arg)
            ]
            if free:
                self.updates += free[:1]
                pending.remove(free[0])
                continue
            arg, value = pending.pop(0)  # a cycle, or an element that moves: through a temporary
            assert arg in targets
            temporary = Value("temporary", arg.type)
            fe.views[temporary] = fe.new_view(arg, arg.type.element)
            self.updates.insert(0, (temporary, value))
            self.copies.append((temporary, arg))

    def accumulates(self, arg: Value, value: Value) -> bool:
        """True for a dot that may add into the carried tile itself: nothing else reads the tile or the result."""
        fe, op = self.fe, value.op
        if op is None or op.name != "tt.dot" or op not in self.ops or fe.deps.use_count[value] != 1:
            return False
        if arg in fe.deps.leaves(op.operands[0]) or arg in fe.deps.leaves(op.operands[1]):
            return False
        if not fe.deps.leaves(op.operands[2]).get(arg, True):
            return False
        stack = [arg]
        while stack:
            for user in fe.deps.users.get(stack.pop(), []):
                if user is op:
                    continue
                if not is_lazy(user) or user not in self.ops:
                    return False
                stack += user.results
        fe.dot_targets[op] = arg
        return True


def emit_for(fe: FunctionEmitter, op: Op) -> None:
    b = fe.b
    carried = Carried(fe, op)
    carried.enter()
    element = carried.index.type.element
    type = llvm(element)
    low, high, step = (fe.scalar(v) for v in op.operands[:3])
    index, count = b.alloca(type, 8), b.alloca("i64", 8)
    b.emit(f"store {type} {low}, ptr {index}")
    b.emit(f"store i64 0, ptr {count}")
    head, inside, end = b.new_label("for"), b.new_label("do"), b.new_label("done")
    start = len(b.lines)
    b.jump(head)
    b.label(head)
    here = b.value(f"load {type}, ptr {index}")
    compare = "ult" if op.attrs["unsigned"] else "slt"
    b.branch(b.value(f"icmp {compare} {type} {here}, {high}"), inside, end)
    b.label(inside)
    fe.scalars[carried.index] = here
    turn = b.value(f"load i64, ptr {count}")
    for arg, slot in carried.slots.items():
        fe.scalars[arg] = b.value(f"load {llvm(arg.type.element)}, ptr {slot}")
    for arg, (first, by) in carried.moving.items():
        fe.inductions[arg] = (first, by, turn)
    nexts = [(s, v) for a, v in zip(carried.args, carried.yields, strict=True) if (s := carried.slots.get(a))]
    fe.block(carried.ops, carried.updates, [v for _, v in nexts])
    texts = [(s, llvm(v.type.element), fe.scalar(v)) for s, v in nexts]
    for temporary, arg in carried.copies:
        store_everywhere(fe, temporary, fe.views[arg])
    for slot, kind, text in texts:
        b.emit(f"store {kind} {text}, ptr {slot}")
    b.emit(f"store {type} {b.value(f'add {type} {here}, {step}')}, ptr {index}")
    b.emit(f"store i64 {b.value(f'add nuw nsw i64 {turn}, 1')}, ptr {count}")
    b.jump(head)
    b.label(end)
    fe.arena.loops.append((start, len(b.lines)))
    leave_for(fe, carried, count)


def leave_for(fe: FunctionEmitter, carried: Carried, count: str) -> None:
    """The loop's results: slots, the carried buffers themselves, lazy tiles with the final count."""
    turns = fe.b.value(f"load i64, ptr {count}")
    for result, arg in zip(carried.op.results, carried.args, strict=True):
        if arg in carried.slots:
            fe.scalars[result] = fe.b.value(f"load {llvm(arg.type.element)}, ptr {carried.slots[arg]}")
        elif arg in carried.moving:
            fe.inductions[result] = (*carried.moving[arg], turns)
            fe.deps.extra[result] = carried.moving[arg]
        elif arg in fe.aliases:
            fe.aliases[result] = fe.aliases[arg]
            fe.deps.extra[result] = (fe.aliases[arg],)
        else:
            fe.views[result] = fe.views[arg]
    fe.deps.forget()


def ends(fe: FunctionEmitter, ops: Sequence[Op], results: Sequence[Value], slots: dict[Value, str]) -> None:
    """A block whose last op passes values to `results`: tiles into their views, scalars into slots."""
    last = ops[-1] if ops and ops[-1].name in ("scf.yield", "scf.condition") else None
    values: list[Value] = []
    if last is not None:
        values = last.operands[1:] if last.name == "scf.condition" else last.operands
    pairs = list(zip(results, values, strict=True))
    tiles = [(r, v) for r, v in pairs if r.type.is_tile]
    scalars = [(r, v) for r, v in pairs if not r.type.is_tile]
    condition = last.operands[:1] if last is not None and last.name == "scf.condition" else []
    fe.block([o for o in ops if o is not last], tiles, [*condition, *(v for _, v in scalars)])
    for result, value in scalars:
        fe.b.emit(f"store {llvm(value.type.element)} {fe.scalar(value)}, ptr {slots[result]}")


def places(fe: FunctionEmitter, values: Sequence[Value]) -> dict[Value, str]:
    """A view for each tile, a slot for each scalar."""
    slots = {}
    for value in values:
        if value.type.is_tile:
            fe.views[value] = fe.new_view(value, value.type.element)
            fe.mutable.add(value)
        else:
            slots[value] = fe.b.alloca(llvm(value.type.element), 8)
    return slots


def read_slots(fe: FunctionEmitter, slots: dict[Value, str]) -> None:
    for value, slot in slots.items():
        fe.scalars[value] = fe.b.value(f"load {llvm(value.type.element)}, ptr {slot}")


def emit_if(fe: FunctionEmitter, op: Op) -> None:
    slots = places(fe, op.results)
    then, otherwise = (region.block.ops for region in op.regions)
    fe.b.when(
        fe.scalar(op.operands[0]),
        lambda: ends(fe, then, op.results, slots),
        (lambda: ends(fe, otherwise, op.results, slots)) if otherwise else None,
    )
    read_slots(fe, slots)


def emit_while(fe: FunctionEmitter, op: Op) -> None:
    """before(P) -> condition, Q; after(Q) -> P. Two sets of places, so nothing is overwritten while it is read."""
    b = fe.b
    before, after = (region.block for region in op.regions)
    slots_before, slots_after = places(fe, before.args), places(fe, op.results)
    for arg, init in zip(before.args, op.operands, strict=True):
        if arg.type.is_tile:
            store_everywhere(fe, init, fe.views[arg])
        else:
            b.emit(f"store {llvm(arg.type.element)} {fe.scalar(init)}, ptr {slots_before[arg]}")
    head, inside, end = b.new_label("while"), b.new_label("do"), b.new_label("done")
    patience = Patience(fe, op)
    start = len(b.lines)
    b.jump(head)
    b.label(head)
    read_slots(fe, slots_before)
    ends(fe, before.ops, op.results, slots_after)
    b.branch(patience.still(fe.scalar(before.ops[-1].operands[0])), inside, end)
    b.label(inside)
    for arg, result in zip(after.args, op.results, strict=True):
        if arg.type.is_tile:
            fe.views[arg] = fe.views[result]
            fe.mutable.add(arg)
        else:
            fe.scalars[arg] = b.value(f"load {llvm(arg.type.element)}, ptr {slots_after[result]}")
    ends(fe, after.ops, before.args, slots_before)
    b.jump(head)
    b.label(end)
    read_slots(fe, slots_after)
    for value in [*before.args, *op.results]:
        if value.type.is_tile:
            fe.arena.touch(fe.views[value].buffer)
    fe.arena.loops.append((start, len(b.lines)))


def emit_call(fe: FunctionEmitter, op: Op) -> None:
    """The callee's scratch starts where this function's ends."""
    b = fe.b
    callee = fe.state.module.functions.get(op.attrs["callee"])
    if callee is None:
        raise UnsupportedOp(op.name, f"unknown function {op.attrs['callee']}", fe.where(op))
    for value in [*op.operands, *op.results]:
        if value.type.is_tile:
            raise UnsupportedOp(op.name, "a tile to or from a noinline function", fe.where(op))
    frame = b.value("getelementptr i8, ptr %scratch, i64 %frame")
    args = [f"{llvm(v.type.element)} {fe.scalar(v)}" for v in op.operands]
    args += [f"i32 %{base}.{axis}" for base in ("pid", "grid") for axis in "xyz"]
    args += ["i1 %stream", f"ptr {frame}", "ptr %report"]
    types = [llvm(v.type.element) for v in op.results]
    result = "void" if not types else types[0] if len(types) == 1 else "{ " + ", ".join(types) + " }"
    text = f'call {result} @"{callee.name}.program"({", ".join(args)})'
    if not types:
        b.emit(text)
        return
    whole = b.value(text)
    for i, value in enumerate(op.results):
        fe.scalars[value] = whole if len(types) == 1 else b.value(f"extractvalue {result} {whole}, {i}")
