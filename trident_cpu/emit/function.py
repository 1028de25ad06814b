"""One TTIR function as one LLVM function: its values, its blocks, its text.

Scalars are SSA values emitted when first needed, in front of the step that needs them. Tiles are lazy, or in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from trident_cpu.analysis.aliasing import Aliasing
from trident_cpu.analysis.uses import Dependencies, defined_in, free_values, is_lazy
from trident_cpu.emit.bounds import bounds_of_accesses
from trident_cpu.emit.buffers import Arena, View
from trident_cpu.emit.builder import Builder
from trident_cpu.emit.dot import compute_element, operand_view
from trident_cpu.emit.guard import guard
from trident_cpu.emit.nest import emit_nest, store_everywhere
from trident_cpu.emit.pointwise import Call, Pointwise
from trident_cpu.emit.references import Reference, refer, reload
from trident_cpu.emit.singles import emit_single
from trident_cpu.emit.stream import may_stream
from trident_cpu.emit.types import literal, llvm
from trident_cpu.emit.values import Context, Map, Val
from trident_cpu.errors import CompileError, UnsupportedOp
from trident_cpu.features import Features
from trident_cpu.ir import Block, Function, Module, Op, Value
from trident_cpu.ops import kind
from trident_cpu.plan import KEEP_COST, Nest, Planner

GRID = (
    "i32 %pid.x, i32 %pid.y, i32 %pid.z, i32 %grid.x, i32 %grid.y, i32 %grid.z, i1 %stream, "
    "ptr noalias %scratch, ptr %report"
)


@dataclass
class ModuleState:
    """What the functions of one module share."""

    module: Module
    features: Features
    fuse: bool
    sanitize: bool
    streams: bool = field(init=False)  # large results may be written past the cache
    declares: set[str] = field(default_factory=set)
    math: set[tuple[str, str, int]] = field(default_factory=set)
    globals: set[str] = field(default_factory=set)
    faults: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.streams = may_stream(self.module)


class FunctionEmitter:
    def __init__(self, state: ModuleState, function: Function) -> None:
        self.state, self.function, self.features = state, function, state.features
        self.globals = state.globals
        self.b = Builder(state.declares, state.math)
        self.arena = Arena(self.b)
        self.deps = Dependencies(function)
        self.aliasing = Aliasing(function)
        self.strides = self.aliasing.strides
        self.lanes = state.features.lanes
        self.scalars: dict[Value, str] = {}
        self.views: dict[Value, View] = {}
        self.bounds = bounds_of_accesses(function)
        self.references: dict[Value, Reference] = {}  # loaded tiles that are read again where they lie
        self.ahead: dict[Value, int] = {}  # loaded tiles -> how many bytes ahead of them memory is asked for
        self.inductions: dict[Value, tuple[Value, Value, str]] = {}
        self.aliases: dict[Value, Value] = {}
        self.waiting: dict[Value, Callable[[Map, Context], Val]] = {}  # gathers that are done where they are read
        self.mutable: set[Value] = set()  # tiles whose buffers a loop overwrites: views of them must be copies
        self.dot_targets: dict[Op, Value] = {}  # dots that accumulate into a loop-carried tile
        self._ready: set[Value] = set()
        self._pointwise: dict[int, Pointwise] = {}

    # ---- what the floors below ask for

    def pointwise(self, lanes: int) -> Pointwise:
        if lanes not in self._pointwise:
            self._pointwise[lanes] = Pointwise(self.b, lanes, self.state.fuse, self.features.bf16)
        return self._pointwise[lanes]

    def where(self, op: Op | None) -> str:
        return self.state.module.where(op) if op is not None else ""

    def only_dot(self, value: Value) -> Op | None:
        """The dot that multiplies a tile, and does so alone."""
        users = self.deps.users.get(value, [])
        one = len(users) == 1 and users[0].name == "tt.dot" and value is not users[0].operands[2]
        return users[0] if one else None

    def view_element(self, value: Value) -> str:
        """What `new_view` stores."""
        dot = self.only_dot(value)
        return compute_element(self, dot) if dot is not None else value.type.element

    def new_view(self, value: Value, element: str | None = None) -> View:
        """A buffer for a tile; laid out for the dot kernel where a dot is its only reader."""
        dot = self.only_dot(value)
        if element is None and dot is not None:
            return operand_view(self, dot, value)
        return self.arena.new(element or value.type.element, value.type.shape)

    def guard(self, op: Op, pointer: Val, element: str, mask: Val | None, ctx: Context) -> Val | None:
        """The mask under which an access may run. The sanitizer narrows it to the lanes that stay in bounds."""
        return guard(self, op, pointer, element, mask, ctx) if self.state.sanitize else mask

    def scalar(self, value: Value) -> str:
        found = self.scalars.get(value)
        if found is None:
            raise CompileError(f"trident_cpu: internal error: scalar {value} is not emitted")
        return found

    def materialise(self, value: Value, reader: Op | None = None) -> View:
        """A tile's view, made now if it is lazy; for others than `reader`, too, unless that stands in another block."""
        while value in self.aliases:
            value = self.aliases[value]
        if value not in self.views:
            view = self.new_view(value)
            store_everywhere(self, value, view)
            if reader is not None and not self.deps.together(value, reader):
                return view
            self.views[value] = view
        return self.views[value]

    def reload(self, value: Value, index_map: Map, ctx: Context) -> Val:
        return reload(self, value, index_map, ctx)

    def new_fault(self, kind: str, where: str, text: str) -> int:
        self.state.faults.append((kind, where, text))
        return len(self.state.faults) - 1

    def program_index(self) -> str:
        """The running program's number in the linearised grid, an i64."""
        b = self.b
        x, y, z = (b.value(f"zext i32 %pid.{axis} to i64") for axis in "xyz")
        gx, gy = (b.value(f"zext i32 %grid.{axis} to i64") for axis in "xy")
        row = b.value(f"add i64 {b.value(f'mul i64 {z}, {gy}')}, {y}")
        return b.value(f"add i64 {b.value(f'mul i64 {row}, {gx}')}, {x}")

    def report(self, fault: int, address: str, code: int = 1) -> None:
        """Record a fault of the running program; the first one stays."""
        b, program = self.b, self.program_index()
        where = b.value(f"ptrtoint ptr {address} to i64")
        b.emit(f"call void @tc.report(ptr %report, i64 {code}, i64 {fault}, i64 {program}, i64 {where})")

    # ---- scalars

    def ensure(self, values: Iterable[Value]) -> None:
        """Emit the scalars that the values rest on."""
        stack = [(v, False) for v in values]
        while stack:
            value, ready = stack.pop()
            if ready:
                self.emit_scalar(value)
                continue
            if value in self._ready or value in self.scalars:
                continue
            self._ready.add(value)
            if value in self.deps.extra:
                stack += [(v, False) for v in self.deps.extra[value]]
            elif is_lazy(value.op):
                assert value.op is not None
                if not value.type.is_tile:
                    stack.append((value, True))
                stack += [(v, False) for v in value.op.operands]

    def emit_scalar(self, value: Value) -> None:
        op = value.op
        assert op is not None
        element = value.type.element
        if op.name == "arith.constant":
            self.scalars[value] = literal(op.attrs["value"], element)
        elif op.name == "ub.poison":
            self.scalars[value] = "null" if value.type.is_pointer else literal("0", element)
        elif op.name in ("tt.get_program_id", "tt.get_num_programs"):
            base = "%pid." if op.name == "tt.get_program_id" else "%grid."
            self.scalars[value] = base + op.attrs["words"][0]
        else:
            call = Call(op.name, tuple(v.type.element for v in op.operands), element, op.attrs, self.where(op))
            self.scalars[value] = self.pointwise(1)(call, [self.scalar(v) for v in op.operands])

    # ---- blocks

    def block(
        self, ops: Sequence[Op], updates: Sequence[tuple[Value, Value]] = (), live_out: Iterable[Value] = ()
    ) -> None:
        """Emit a block's steps. `updates`: (tile in memory, its new value), stored as the block ends."""
        out = list(live_out)
        for step in Planner(self.deps, self.aliasing).plan(ops, updates, out):
            self.ensure([*step.operands(), *step.before])
            for value in step.before:
                self.materialise(value)
            if isinstance(step, Nest):
                for value, stores in step.again:
                    refer(self, step, value, stores)
                emit_nest(self, step)
            else:
                emit_single(self, step.op)
        self.ensure([*out, *(v for _, v in updates)])

    def body(self) -> None:
        blocks = forward_order(self.function.body.blocks)
        if len(blocks) == 1:
            self.one_block(blocks[0], [])
            return
        order = {block.label: i for i, block in enumerate(blocks)}
        free = [free_values(block.ops) for block in blocks]
        slots: dict[Value, str] = {}
        for block in blocks[1:]:
            for arg in block.args:
                if arg.type.is_tile:
                    self.views[arg] = self.new_view(arg)
                else:
                    slots[arg] = self.b.alloca(llvm(arg.type.element), 8)
        for i, block in enumerate(blocks):
            if i:
                self.b.label(f"cf.{block.label}")
                for arg in block.args:
                    if arg in slots:
                        self.scalars[arg] = self.b.value(f"load {llvm(arg.type.element)}, ptr {slots[arg]}")
            own = defined_in(block)
            shared = {v for k, values in enumerate(free) if k != i for v in values if v in own}
            end = self.one_block(block, sorted(shared, key=lambda v: v.name))
            if end.name == "tt.return":
                continue
            self.branch(end, blocks, order, i, slots)

    def costly(self, values: Iterable[Value]) -> list[Value]:
        """What blocks keep once they evaluated it, of what the values rest on."""
        found, seen, stack = [], set(), list(values)
        while stack:
            value = stack.pop()
            if value in seen or not is_lazy(value.op):
                continue
            seen.add(value)
            assert value.op is not None
            tile = value.type.is_tile and not value.type.is_pointer and kind(value.op.name) == "pointwise"
            if tile and self.deps.cost(value) >= KEEP_COST:
                found.append(value)
            else:
                stack += value.op.operands
        return found

    def one_block(self, block: Block, shared: list[Value]) -> Op:
        """A top-level block; `shared`: what later blocks read of it."""
        end = block.ops[-1]
        passed = [v for _, values in end.successors for v in values]
        self.block(block.ops[:-1], (), [*end.operands, *passed, *shared])
        for value in shared:  # a later block cannot evaluate what rests on this block's registers
            if value.type.is_tile and not is_lazy(value.op) and value not in self.views:
                self.materialise(value)
        for value in self.costly(shared):  # one of these blocks would keep it, and others read what it kept
            self.materialise(value)
        if end.name == "tt.return":
            self.emit_return(end)
        return end

    def branch(self, end: Op, blocks: Sequence[Block], order: dict[str, int], at: int, slots: dict[Value, str]) -> None:
        b = self.b
        edges = [b.new_label("edge") for _ in end.successors]
        if len(edges) == 1:
            b.jump(edges[0])
        else:
            b.branch(self.scalar(end.operands[0]), *edges)
        for edge, (label, passed) in zip(edges, end.successors, strict=True):
            if order[label] <= at:
                raise UnsupportedOp(end.name, "a branch backwards", self.where(end))
            b.label(edge)
            for arg, value in zip(blocks[order[label]].args, passed, strict=True):
                if arg.type.is_tile:
                    store_everywhere(self, value, self.views[arg])
                else:
                    b.emit(f"store {llvm(arg.type.element)} {self.scalar(value)}, ptr {slots[arg]}")
            b.jump(f"cf.{label}")

    def emit_return(self, op: Op) -> None:
        for slot, value in zip(self.result_slots, op.operands, strict=True):
            if value.type.is_tile:
                raise UnsupportedOp("tt.return", "a tile from a noinline function", self.where(op))
            self.b.emit(f"store {llvm(value.type.element)} {self.scalar(value)}, ptr {slot}")
        self.b.jump("leave")

    # ---- the whole function

    def emit(self, symbol: str) -> tuple[str, int]:
        """(LLVM text of the function, bytes of scratch it uses). Results are a struct, scratch starts at %scratch."""
        params = []
        for i, value in enumerate(self.function.params):
            if value.type.is_tile:
                raise UnsupportedOp("tt.func", "a tile passed to a noinline function", self.function.name)
            self.scalars[value] = f"%arg{i}"
            params.append(f"{llvm(value.type.element)} %arg{i}")
        types = [llvm(t.element) for t in self.function.results]
        self.result_slots = [self.b.alloca(t, 8) for t in types]
        self.body()
        offsets, used = self.arena.layout()
        result = "void" if not types else types[0] if len(types) == 1 else "{ " + ", ".join(types) + " }"
        inlined = "alwaysinline " if self.function is self.state.module.kernel else ""  # into the loop over programs
        lines = [f"define internal {result} {symbol}({', '.join([*params, GRID])}) {inlined}#0 {{", "entry:"]
        lines += [*self.b.allocas, *offsets, *self.b.lines, "leave:"]
        lines += self.return_lines(types, result)
        return "\n".join([*lines, "}"]).replace("%frame", str(used)), used

    def return_lines(self, types: list[str], result: str) -> list[str]:
        if not types:
            return ["  ret void"]
        lines = [f"  %r{i} = load {t}, ptr {s}" for i, (t, s) in enumerate(zip(types, self.result_slots, strict=True))]
        if len(types) == 1:
            return [*lines, f"  ret {result} %r0"]
        whole = "poison"
        for i, t in enumerate(types):
            lines.append(f"  %s{i} = insertvalue {result} {whole}, {t} %r{i}, {i}")
            whole = f"%s{i}"
        return [*lines, f"  ret {result} {whole}"]


def forward_order(blocks: Sequence[Block]) -> list[Block]:
    """Blocks such that branches only go forwards, if the graph has no cycle."""
    by_label = {block.label: block for block in blocks}
    order: list[Block] = []
    seen: set[str] = set()

    def visit(block: Block) -> None:
        seen.add(block.label)
        for label, _ in block.ops[-1].successors if block.ops else ():
            if label not in seen:
                visit(by_label[label])
        order.append(block)

    visit(blocks[0])
    return order[::-1]
