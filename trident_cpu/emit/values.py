"""Lazy evaluation of tile values, vector by vector.

A nest runs over the elements of a shape in vectors along one of its dimensions. `evaluate` gives a value's lanes for
one such vector. Three forms keep the knowledge that makes code fast:

    uniform   one scalar for all lanes
    affine    scalar base + lane * stride: stride an int, or the name of an i64 when it is known only at run time
    lanes     an LLVM vector

An index map says, for each dimension of a value, which dimension of the nest indexes it (None: index 0).
Affine integers are taken not to wrap within a row, as addresses and bounds of a correct kernel do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from trident_cpu.emit.buffers import View
from trident_cpu.emit.pointwise import DIVISIONS, Call
from trident_cpu.emit.types import literal, llvm, size, stored, vector
from trident_cpu.errors import CompileError
from trident_cpu.ir import Op, Value
from trident_cpu.ops import kind

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

Map = tuple["int | None", ...]
Stride = int | str


@dataclass(frozen=True)
class Val:
    form: str  # "uniform", "affine", "lanes"
    element: str
    text: str
    stride: Stride = 0

    @property
    def is_uniform(self) -> bool:
        return self.form == "uniform"


@dataclass
class Context:
    """One vector of one nest: `index[d]` is the i64 index along dimension d, of lane 0 along the vector dimension."""

    shape: tuple[int, ...]
    index: list[str]
    vector_dim: int
    lanes: int
    known_true: frozenset[tuple[Value, Map]] = frozenset()  # masks that hold in every lane
    producing: frozenset[Value] = frozenset()  # values whose buffers are being written: not to be read back
    streaming: frozenset[Op] = frozenset()  # stores whose whole vectors go past the cache
    detours: dict[Op, Val] = field(default_factory=dict)  # accesses elsewhere than their pointer says
    row: Context | None = None  # the same place with index 0 along the vector dimension: what is known per row
    memo: dict[tuple[Value, Map], Val] = field(default_factory=dict)

    @property
    def identity(self) -> Map:
        return tuple(range(len(self.shape)))


def scalar_context() -> Context:
    return Context((), [], 0, 1)


def evaluate(fe: FunctionEmitter, value: Value, index_map: Map, ctx: Context) -> Val:
    key = (value, index_map)
    found = ctx.memo.get(key)
    if found is None:
        found = _from_row(fe, value, index_map, ctx) or _evaluate(fe, value, index_map, ctx)
        ctx.memo[key] = found
    return found


def _from_row(fe: FunctionEmitter, value: Value, index_map: Map, ctx: Context) -> Val | None:
    """What the row's first vector already worked out, moved to this vector: hoists addresses and uniform values.

    Not for masks: whether they are known to be true depends on the vector.
    """
    val = ctx.row.memo.get((value, index_map)) if ctx.row is not None else None
    if val is None or val.form == "lanes" or val.element == "i1":
        return None
    index = ctx.index[ctx.vector_dim]
    if val.is_uniform or index == "0":
        return val
    b = fe.b
    if isinstance(val.stride, int):
        offset = b.multiply(index, val.stride)
    else:
        offset = b.value(f"mul nsw i64 {index}, {val.stride}")
    if val.element.startswith("ptr:"):
        return Val(
            "affine",
            val.element,
            b.value(f"getelementptr {stored(val.element[4:])}, ptr {val.text}, i64 {offset}"),
            val.stride,
        )
    offset = b.resize(offset, "i64", val.element)
    return Val("affine", val.element, b.value(f"add nsw {llvm(val.element)} {val.text}, {offset}"), val.stride)


def _evaluate(fe: FunctionEmitter, value: Value, index_map: Map, ctx: Context) -> Val:
    type = value.type
    if value in fe.aliases:
        return evaluate(fe, fe.aliases[value], index_map, ctx)
    if not type.is_tile:
        return Val("uniform", type.element, fe.scalar(value))
    if (value, index_map) in ctx.known_true:
        return Val("uniform", "i1", "true")
    if value in fe.inductions:
        return _induction(fe, value, index_map, ctx)
    if value in fe.references:
        return fe.reload(value, index_map, ctx)
    if value in fe.views and value not in ctx.producing:
        return load_view(fe, fe.views[value], index_map, ctx)
    if value in fe.waiting:
        return fe.waiting[value](index_map, ctx)
    op = value.op
    if op is None or kind(op.name) not in ("pointwise", "index", "layout"):
        raise CompileError(f"trident_cpu: internal error: {value} of {op and op.name} is not in memory")
    if kind(op.name) != "pointwise":
        return _index_op(fe, op, value, index_map, ctx)
    args = [evaluate(fe, a, index_map if a.type.is_tile else (), ctx) for a in op.operands]
    call = Call(op.name, tuple(a.type.element for a in op.operands), type.element, op.attrs, "")
    return combine(fe, call, args, ctx, op)


def source_map(op: Op, index_map: Map) -> Map:
    """The operand's index map of an index op whose result has `index_map`."""
    name = op.name
    if name == "tt.expand_dims":
        axis = op.attrs["axis"]
        return index_map[:axis] + index_map[axis + 1 :]
    source, result = op.operands[0].type.shape, op.results[0].type.shape
    if name == "tt.broadcast":
        return tuple(None if s == 1 != d else k for s, d, k in zip(source, result, index_map, strict=True))
    if name == "tt.trans":
        back: list[int | None] = [None] * len(source)
        for position, dim in enumerate(op.attrs["order"]):
            back[dim] = index_map[position]
        return tuple(back)
    if name == "tt.reshape" and is_squeeze(op):
        kept = iter([k for k, d in zip(index_map, result, strict=True) if d != 1])
        return tuple(None if s == 1 else next(kept) for s in source)
    raise CompileError(f"trident_cpu: internal error: no index map for {name}")


def is_squeeze(op: Op) -> bool:
    """A reshape that only adds or drops dimensions of size 1."""
    source, result = op.operands[0].type.shape, op.results[0].type.shape
    return [s for s in source if s != 1] == [d for d in result if d != 1]


def _index_op(fe: FunctionEmitter, op: Op, value: Value, index_map: Map, ctx: Context) -> Val:
    element = value.type.element
    if op.name == "tt.splat":
        return Val("uniform", element, fe.scalar(op.operands[0]))
    if op.name == "arith.constant":
        return Val("uniform", element, literal(op.attrs["value"], element))
    if op.name == "ub.poison":
        return Val("uniform", element, "null" if value.type.is_pointer else literal("0", element))
    if op.name == "tt.make_range":
        start = op.attrs["start"]
        if index_map[0] is None:
            return Val("uniform", element, str(start))
        text = fe.b.resize(ctx.index[index_map[0]], "i64", "i32")
        if start:
            text = fe.b.value(f"add i32 {text}, {start}") if text.startswith("%") else str(int(text) + start)
        is_vector = index_map[0] == ctx.vector_dim and ctx.lanes > 1
        return Val("affine", element, text, 1) if is_vector else Val("uniform", element, text)
    return evaluate(fe, op.operands[0], source_map(op, index_map), ctx)


def _induction(fe: FunctionEmitter, value: Value, index_map: Map, ctx: Context) -> Val:
    """A loop-carried tile that moves by the same step each time: first + count * step."""
    first, step, count = fe.inductions[value]
    base = evaluate(fe, first, index_map, ctx)
    step_val = evaluate(fe, step, index_map if step.type.is_tile else (), ctx)
    wide = "i64"
    moved = combine(fe, Call("arith.extsi", (step_val.element,), wide, {}), [step_val], ctx)
    offset = combine(fe, Call("arith.muli", (wide, wide), wide, {}), [moved, Val("uniform", wide, count)], ctx)
    if value.type.is_pointer:
        return combine(fe, Call("tt.addptr", (value.type.element, wide), value.type.element, {}), [base, offset], ctx)
    element = value.type.element
    offset = combine(fe, Call("arith.trunci", (wide,), element, {}), [offset], ctx)
    return combine(fe, Call("arith.addi", (element, element), element, {}), [base, offset], ctx)


# ---- arithmetic on Vals


def lanes_of(fe: FunctionEmitter, val: Val, lanes: int) -> str:
    """A Val as an LLVM vector (a scalar for one lane)."""
    if lanes == 1 or val.form == "lanes":
        return val.text
    b = fe.b
    if val.is_uniform:
        return b.splat(val.element, val.text, lanes)
    if isinstance(val.stride, int):
        steps = b.lanes_of("i64" if val.element.startswith("ptr:") else val.element, lanes, val.stride)
    else:
        wide = b.value(f"mul <{lanes} x i64> {b.splat('i64', val.stride, lanes)}, {b.lanes_of('i64', lanes)}")
        narrow = val.element not in ("i64", "index") and not val.element.startswith("ptr:")
        steps = b.value(f"trunc <{lanes} x i64> {wide} to {vector(val.element, lanes)}") if narrow else wide
    if val.element.startswith("ptr:"):
        return b.value(f"getelementptr {stored(val.element[4:])}, ptr {val.text}, <{lanes} x i64> {steps}")
    return b.value(f"add {vector(val.element, lanes)} {b.splat(val.element, val.text, lanes)}, {steps}")


def combine(fe: FunctionEmitter, call: Call, args: Sequence[Val], ctx: Context, op: Op | None = None) -> Val:
    """Apply a pointwise op, keeping uniform and affine forms where they hold."""
    if call.name in ("arith.extsi", "arith.trunci", "arith.index_cast") and llvm(call.elements[0]) == llvm(call.out):
        return Val(args[0].form, call.out, args[0].text, args[0].stride)
    shortcut = _shortcut(call, args)
    if shortcut is not None:
        return shortcut
    if all(a.is_uniform for a in args):
        return Val(
            "uniform", call.out, _fold(call, args) or fe.pointwise(1)(_placed(fe, call, op), [a.text for a in args])
        )
    affine = _affine(fe, call, args)
    if affine is not None:
        return affine
    lanes = ctx.lanes
    apply = fe.pointwise(lanes)
    if call.name in DIVISIONS and args[1].is_uniform and _by_reciprocal(call.out, args[1].text):
        text = apply.divide_by_uniform(DIVISIONS[call.name], call.out, lanes_of(fe, args[0], lanes), args[1].text)
        return Val("lanes", call.out, text)
    if call.name == "arith.select" and args[0].is_uniform:
        call = Call(call.name, call.elements, call.out, {"mask lanes": False})
        texts = [args[0].text, *(lanes_of(fe, a, lanes) for a in args[1:])]
    elif call.name == "tt.addptr" and args[0].is_uniform:
        element = call.elements[1]
        text = f"getelementptr {stored(call.out[4:])}, ptr {args[0].text}, {vector(element, lanes)} "
        return Val("lanes", call.out, fe.b.value(text + lanes_of(fe, args[1], lanes)))
    else:
        texts = [lanes_of(fe, a, lanes) for a in args]
    return Val("lanes", call.out, apply(_placed(fe, call, op), texts))


def _placed(fe: FunctionEmitter, call: Call, op: Op | None) -> Call:
    return Call(call.name, call.elements, call.out, call.attrs, fe.where(op)) if op is not None else call


def _by_reciprocal(element: str, divisor: str) -> bool:
    return size(element) <= 4 and element != "i1" and divisor.startswith("%")


def _shortcut(call: Call, args: Sequence[Val]) -> Val | None:
    """Neutral elements, so that a known mask or an added 0 leaves no trace."""
    name = call.name
    if name == "arith.select" and args[0].text == "true":
        return args[1]
    if name in ("arith.andi", "arith.muli", "arith.addi", "arith.subi", "arith.ori"):
        neutral = {"arith.andi": "true", "arith.muli": "1", "arith.ori": "false"}.get(name, "0")
        if args[1].is_uniform and args[1].text == neutral:
            return args[0]
        if name != "arith.subi" and args[0].is_uniform and args[0].text == neutral:
            return args[1]
    return None


def _fold(call: Call, args: Sequence[Val]) -> str | None:
    """Sums and products of small literals: strides and offsets must stay known."""
    if len(args) != 2 or not all(a.text.lstrip("-").isdigit() for a in args) or size(call.out) < 4:
        return None
    if call.out not in ("i32", "i64", "index"):
        return None
    x, y = (int(a.text) for a in args)
    result = {"arith.addi": x + y, "arith.subi": x - y, "arith.muli": x * y}.get(call.name)
    return str(result) if result is not None and abs(result) < 2**31 else None


def _affine(fe: FunctionEmitter, call: Call, args: Sequence[Val]) -> Val | None:
    """The affine result of an op on uniform and affine arguments, or None."""
    if any(a.form == "lanes" for a in args):
        return None
    name, out = call.name, call.out
    scalar = fe.pointwise(1)
    if name in ("arith.addi", "arith.subi", "tt.addptr"):
        if name == "tt.addptr" and args[1].text == "0":
            text = args[0].text
        else:
            text = _fold(call, args) or scalar(call, [a.text for a in args])
        other = args[1].stride if name != "arith.subi" else _scale(fe, args[1].stride, "-1")
        return _with_stride(out, text, _sum(fe, args[0].stride, other))
    if name in ("arith.muli", "arith.shli"):
        uniform, moving = (args[1], args[0]) if args[1].is_uniform else (args[0], args[1])
        if not uniform.is_uniform or (name == "arith.shli" and uniform is not args[1]):
            return None
        factor = uniform.text
        if name == "arith.shli":
            if not factor.isdigit() or int(factor) > 30:
                return None
            factor = str(1 << int(factor))
        elif factor.startswith("%"):
            factor = fe.b.resize(factor, out, "i64")
        text = _fold(call, args) or scalar(call, [a.text for a in args])
        return _with_stride(out, text, _scale(fe, moving.stride, factor))
    if name in ("arith.extsi", "arith.trunci", "arith.index_cast"):
        return Val("affine", out, fe.b.resize(args[0].text, args[0].element, out), args[0].stride)
    if (
        name in ("tt.bitcast", "arith.bitcast")
        and out.startswith("ptr:")
        and size(out[4:]) == size(args[0].element[4:])
    ):
        return Val("affine", out, args[0].text, args[0].stride)
    return None


def _with_stride(element: str, text: str, stride: Stride) -> Val:
    return Val("uniform", element, text) if stride == 0 else Val("affine", element, text, stride)


def _sum(fe: FunctionEmitter, a: Stride, b: Stride) -> Stride:
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if a == 0 or b == 0:
        return b if a == 0 else a
    return fe.b.value(f"add i64 {a}, {b}")


def _scale(fe: FunctionEmitter, stride: Stride, factor: str) -> Stride:
    if stride == 0:
        return 0
    if isinstance(stride, int) and not factor.startswith("%"):
        return stride * int(factor)
    return factor if stride == 1 else fe.b.value(f"mul i64 {stride}, {factor}")


# ---- views


def view_address(fe: FunctionEmitter, view: View, index_map: Map, ctx: Context) -> tuple[str, int]:
    """The address of lane 0, and the stride in elements from lane to lane (0: the same element for all)."""
    b = fe.b
    fe.arena.touch(view.buffer)
    offset, stride = str(view.offset), 0
    dims = len(view.shape)
    for d, (k, step, extent) in enumerate(zip(index_map, view.strides, view.shape, strict=True)):
        if k is None or extent == 1:
            continue
        if k == ctx.vector_dim and ctx.lanes > 1:
            stride = step
        index = ctx.index[k]
        if view.panel and d == dims - 1:
            rows = view.shape[-2]
            offset = b.add(offset, _panel_offset(fe, index, rows, view.panel))
        elif view.panel and d == dims - 2:
            offset = b.add(offset, b.multiply(index, view.panel))
            if k == ctx.vector_dim and ctx.lanes > 1:
                stride = view.panel
        else:
            offset = b.add(offset, b.multiply(index, step))
    fe.arena.touch(view.buffer)
    if offset == "0":
        return view.buffer.name, stride
    return b.value(f"getelementptr inbounds {stored(view.element)}, ptr {view.buffer.name}, i64 {offset}"), stride


def _panel_offset(fe: FunctionEmitter, index: str, rows: int, panel: int) -> str:
    """(index // panel) * rows * panel + index % panel, for a power of two panel."""
    if not index.startswith("%"):
        return str(int(index) // panel * rows * panel + int(index) % panel)
    inside = fe.b.value(f"and i64 {index}, {panel - 1}")
    whole = fe.b.value(f"sub i64 {index}, {inside}")
    return fe.b.add(fe.b.multiply(whole, rows), inside)


def load_view(fe: FunctionEmitter, view: View, index_map: Map, ctx: Context) -> Val:
    b, lanes, type = fe.b, ctx.lanes, stored(view.element)
    address, stride = view_address(fe, view, index_map, ctx)
    align = size(view.element)
    if stride == 0:
        text = b.value(f"load {type}, ptr {address}, align {align}")
    elif stride == 1:
        text = b.value(f"load <{lanes} x {type}>, ptr {address}, align {align}")
    elif stride == 2:  # two vectors, the second ending at the last wanted element
        low = b.value(f"load <{lanes} x {type}>, ptr {address}, align {align}")
        place = b.value(f"getelementptr inbounds {type}, ptr {address}, i64 {lanes - 1}")
        high = b.value(f"load <{lanes} x {type}>, ptr {place}, align {align}")
        picks = [2 * i if 2 * i < lanes else 2 * i + 1 for i in range(lanes)]
        indices = ", ".join(f"i32 {i}" for i in picks)
        vectors = f"<{lanes} x {type}> {low}, <{lanes} x {type}> {high}"
        text = b.value(f"shufflevector {vectors}, <{lanes} x i32> <{indices}>")
    else:
        text = "poison"
        for i in range(lanes):
            place = b.value(f"getelementptr inbounds {type}, ptr {address}, i64 {i * stride}")
            item = b.value(f"load {type}, ptr {place}, align {align}")
            text = b.value(f"insertelement <{lanes} x {type}> {text}, {type} {item}, i64 {i}")
    if view.element == "i1":
        width = 1 if stride == 0 else lanes
        text = b.value(f"trunc {vector('i8', width)} {text} to {vector('i1', width)}")
    return Val("uniform" if stride == 0 else "lanes", view.element, text)


def store_view(fe: FunctionEmitter, view: View, index_map: Map, ctx: Context, val: Val) -> None:
    """Write one vector; converts floats to the view's element type."""
    b, type = fe.b, stored(view.element)
    address, stride = view_address(fe, view, index_map, ctx)
    lanes = ctx.lanes if stride else 1
    text = lanes_of(fe, val, lanes)
    if val.form == "lanes" and lanes == 1 and ctx.lanes > 1:
        text = b.extract(val.element, val.text, ctx.lanes, ctx.lanes - 1)
    if val.element != view.element and not val.element.startswith("ptr:"):
        name = "tt.fp_to_fp" if val.element not in ("i8", "i16") else "arith.extsi"
        text = fe.pointwise(lanes).cast(Call(name, (val.element,), view.element, {}), text)
    if view.element == "i1":
        text = b.value(f"zext {vector('i1', lanes)} {text} to {vector('i8', lanes)}")
    align = size(view.element)
    if stride in (0, 1):
        kind_text = type if lanes == 1 else f"<{lanes} x {type}>"
        b.emit(f"store {kind_text} {text}, ptr {address}, align {align}")
        return
    for i in range(lanes):
        place = b.value(f"getelementptr inbounds {type}, ptr {address}, i64 {i * stride}")
        item = b.value(f"extractelement <{lanes} x {type}> {text}, i64 {i}")
        b.emit(f"store {type} {item}, ptr {place}, align {align}")
