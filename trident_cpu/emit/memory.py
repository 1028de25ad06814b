"""Loads, stores and atomics of one vector, by what is known of its addresses.

uniform address            one scalar access
stride 1                   a vector access, masked where the mask is not known to be true
stride -1, 2               vector loads and a shuffle, masked likewise
stride known at run time   a branch: stride 1, 2 (loads), or gather
anything else              a run-time check for consecutive addresses, or (loads) every other, else gather or scatter
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from trident_cpu.emit.masked import masked_load, masked_store
from trident_cpu.emit.stream import store_vector
from trident_cpu.emit.types import float_literal, mangled, size, stored, vector
from trident_cpu.emit.values import Context, Val, evaluate, lanes_of
from trident_cpu.errors import UnsupportedOp
from trident_cpu.ir import Op, Value

if TYPE_CHECKING:
    from trident_cpu.emit.function import FunctionEmitter

ORDER = {"relaxed": "monotonic", "acquire": "acquire", "release": "release", "acq_rel": "acq_rel"}
RMW = {
    "add": "add", "max": "max", "min": "min", "umax": "umax", "umin": "umin", "exch": "xchg", "and": "and",
    "or": "or", "xor": "xor", "fadd": "fadd",
}  # fmt: skip


class Access:
    """Emits the memory accesses of one vector."""

    def __init__(self, fe: FunctionEmitter, ctx: Context) -> None:
        self.fe, self.b, self.ctx, self.lanes = fe, fe.b, ctx, ctx.lanes

    def operands(self, op: Op) -> list[Val]:
        if op in self.ctx.detours:
            return [self.ctx.detours[op], *(self.operand(value) for value in op.operands[1:])]
        return [self.operand(value) for value in op.operands]

    def operand(self, value: Value) -> Val:
        return evaluate(self.fe, value, self.ctx.identity if value.type.is_tile else (), self.ctx)

    # ---- loads

    def load(self, op: Op) -> Val:
        pointer, *rest = self.operands(op)
        return self.load_from(op, pointer, rest)

    def load_from(self, op: Op, pointer: Val, rest: list[Val]) -> Val:
        """`rest`: the load's mask and what masked lanes read, as far as it has them."""
        mask = self.real_mask(rest[0]) if rest else None
        element = op.results[0].type.element
        zero = Val("uniform", element, "null" if element.startswith("ptr:") else _zero(element))
        other = rest[1] if len(rest) > 1 else zero
        if mask is not None and mask.text == "false":
            return other
        mask = self.fe.guard(op, pointer, element, mask, self.ctx)
        if pointer.is_uniform or self.lanes == 1:
            return self.load_one(pointer, element, mask, other)
        text = self.load_lanes(pointer, element, mask, other)
        if element == "i1":
            text = self.b.value(f"trunc <{self.lanes} x i8> {text} to <{self.lanes} x i1>")
        return Val("lanes", element, text)

    def real_mask(self, mask: Val) -> Val | None:
        return None if mask.text == "true" else mask

    def load_one(self, pointer: Val, element: str, mask: Val | None, other: Val) -> Val:
        """One address for all lanes."""
        b, type = self.b, stored(element)
        load = f"load {type}, ptr {pointer.text}, align {size(element)}"
        if mask is None:
            return Val("uniform", element, self.as_bool(b.value(load), element))
        wanted = mask.text if mask.is_uniform or self.lanes == 1 else self.any_lane(mask.text)
        slot = b.alloca(type, 8)
        spread = not mask.is_uniform or not other.is_uniform
        default = "zeroinitializer" if spread and self.lanes > 1 else self.as_byte(other.text, element)
        b.emit(f"store {type} {default}, ptr {slot}")
        b.when(wanted, lambda: b.emit(f"store {type} {b.value(load)}, ptr {slot}"))
        text = self.as_bool(b.value(f"load {type}, ptr {slot}"), element)
        if not spread or self.lanes == 1:
            return Val("uniform", element, text)
        chosen = self.b.value(
            f"select {vector('i1', self.lanes)} {lanes_of(self.fe, mask, self.lanes)}, "
            f"{vector(element, self.lanes)} {b.splat(element, text, self.lanes)}, "
            f"{vector(element, self.lanes)} {lanes_of(self.fe, other, self.lanes)}"
        )
        return Val("lanes", element, chosen)

    def load_lanes(self, pointer: Val, element: str, mask: Val | None, other: Val) -> str:
        """A vector of stored elements (bytes for i1) from affine or arbitrary addresses."""
        fe, lanes = self.fe, self.lanes
        mask_text = None if mask is None else lanes_of(fe, mask, lanes)
        if mask is None or element == "i1":
            default = "zeroinitializer"
            if element == "i1" and mask is not None:
                default = self.as_byte_lanes(lanes_of(fe, other, lanes))
        else:
            default = lanes_of(fe, other, lanes)
        if pointer.form == "affine":
            if pointer.stride == 1:
                return self.load_contiguous(pointer.text, element, mask_text, default)
            if pointer.stride == -1:
                return self.load_backward(pointer.text, element, mask_text, default)
            if pointer.stride == 2 and lanes % 2 == 0:
                return self.load_every_other(pointer.text, element, mask_text, default)
        pointers = lanes_of(fe, pointer, lanes)
        if pointer.form == "affine" and isinstance(pointer.stride, int):
            return self.gather(pointers, element, mask_text, default)
        return self.load_by_stride(pointer, pointers, element, mask_text, default)

    def load_by_stride(self, pointer: Val, pointers: str, element: str, mask: str | None, default: str) -> str:
        """From addresses of which only the run knows whether they follow one another, or are every other's."""
        b, lanes = self.b, self.lanes
        kind = f"<{lanes} x {stored(element)}>"
        slot = b.alloca(kind)
        first = pointer.text
        if pointer.form != "affine":
            first = b.value(f"extractelement <{lanes} x ptr> {pointers}, i64 0")

        def has(stride: int) -> str:
            if pointer.form == "affine":
                return b.value(f"icmp eq i64 {pointer.stride}, {stride}")
            return self.follow(pointers, first, element, stride)

        def put(text: str) -> None:
            b.emit(f"store {kind} {text}, ptr {slot}")

        def apart() -> None:
            put(self.gather(pointers, element, mask, default))

        def further() -> None:
            if lanes % 2:
                apart()
            else:
                b.when(has(2), lambda: put(self.load_every_other(first, element, mask, default)), apart)

        b.when(has(1), lambda: put(self.load_contiguous(first, element, mask, default)), further)
        return b.value(f"load {kind}, ptr {slot}")

    def follow(self, pointers: str, first: str, element: str, stride: int) -> str:
        """i1: are the addresses `first` and those that follow it by `stride` elements each?"""
        b, lanes = self.b, self.lanes
        steps = f"<{lanes} x i64> {b.lanes_of('i64', lanes, stride)}"
        expected = b.value(f"getelementptr {stored(element)}, ptr {first}, {steps}")
        equal = b.value(f"icmp eq <{lanes} x ptr> {expected}, {pointers}")
        return b.value(f"icmp eq i{lanes} {b.value(f'bitcast <{lanes} x i1> {equal} to i{lanes}')}, -1")

    def load_contiguous(self, address: str, element: str, mask: str | None, default: str) -> str:
        kind, align = f"<{self.lanes} x {stored(element)}>", size(element)
        if mask is None:
            return self.b.value(f"load {kind}, ptr {address}, align {align}")
        return masked_load(self.fe, address, element, self.lanes, mask, default)

    def load_backward(self, address: str, element: str, mask: str | None, default: str) -> str:
        lanes, type = self.lanes, stored(element)
        back = list(range(lanes - 1, -1, -1))
        start = self.b.value(f"getelementptr {type}, ptr {address}, i64 {1 - lanes}")
        picks = f"<{lanes} x i32> <{', '.join(f'i32 {i}' for i in back)}>"
        if mask is not None:
            kind = f"<{lanes} x {type}>"
            mask = self.b.value(f"shufflevector <{lanes} x i1> {mask}, <{lanes} x i1> poison, {picks}")
            default = self.b.value(f"shufflevector {kind} {default}, {kind} poison, {picks}")
        text = self.load_contiguous(start, element, mask, default)
        return self.b.value(f"shufflevector <{lanes} x {type}> {text}, <{lanes} x {type}> poison, {picks}")

    def load_every_other(self, address: str, element: str, mask: str | None, default: str) -> str:
        """Stride 2: two vectors, the second ending at the last wanted element so that nothing past it is read."""
        lanes, type, half = self.lanes, stored(element), self.lanes // 2
        start = self.b.value(f"getelementptr {type}, ptr {address}, i64 {lanes - 1}")
        # mask and default where each vector holds a wanted element, "false" (lane `lanes`) and anything in between
        low = [i // 2 if i % 2 == 0 else lanes for i in range(lanes)]
        high = [half + (i - 1) // 2 if i % 2 == 1 else lanes for i in range(lanes)]
        halves = [
            self.load_contiguous(
                at,
                element,
                None if mask is None else self.shuffle("i1", mask, "zeroinitializer", picks),
                default
                if mask is None or default == "zeroinitializer"
                else self.shuffle(type, default, default, picks),
            )
            for at, picks in ((address, low), (start, high))
        ]
        picks = [2 * i for i in range(half)] + [lanes + 2 * i + 1 for i in range(half)]
        return self.shuffle(type, halves[0], halves[1], picks)

    def shuffle(self, type: str, a: str, b: str, picks: Sequence[int]) -> str:
        kind, indices = f"<{self.lanes} x {type}>", ", ".join(f"i32 {i}" for i in picks)
        return self.b.value(f"shufflevector {kind} {a}, {kind} {b}, <{len(picks)} x i32> <{indices}>")

    def gather(self, pointers: str, element: str, mask: str | None, default: str) -> str:
        b, lanes, align = self.b, self.lanes, size(element)
        kind = f"<{lanes} x {stored(element)}>"
        scalarised = align < 4 or self.fe.features.vector_bits < 256
        if mask is not None and scalarised:
            # Without an instruction for it a masked gather is a branch per lane: read a harmless address instead.
            self.fe.globals.add("@tc.zeros = internal constant [64 x i8] zeroinitializer, align 64")
            safe = b.splat("ptr:i8", "@tc.zeros", lanes)
            pointers = b.value(f"select <{lanes} x i1> {mask}, <{lanes} x ptr> {pointers}, <{lanes} x ptr> {safe}")
        used = b.splat("i1", "true", lanes) if mask is None or scalarised else mask
        name = f"masked.gather.{mangled(kind)}.v{lanes}p0"
        text = b.call(
            name, kind, (f"<{lanes} x ptr> align {align}", pointers), (vector("i1", lanes), used), (kind, default),
            suffix="",
        )  # fmt: skip
        if mask is not None and scalarised:
            text = b.value(f"select <{lanes} x i1> {mask}, {kind} {text}, {kind} {default}")
        return text

    # ---- stores

    def store(self, op: Op) -> None:
        pointer, value, *rest = self.operands(op)
        mask = self.real_mask(rest[0]) if rest else None
        if mask is not None and mask.text == "false":
            return
        mask = self.fe.guard(op, pointer, value.element, mask, self.ctx)
        if self.lanes == 1 or (pointer.is_uniform and value.is_uniform and (mask is None or mask.is_uniform)):
            b, element = self.b, value.element
            text = self.as_byte(value.text, element)
            line = f"store {stored(element)} {text}, ptr {pointer.text}, align {size(element)}"
            b.when(mask.text if mask is not None else "true", lambda: b.emit(line))
            return
        self.store_lanes(pointer, value, mask, op in self.ctx.streaming)

    def store_lanes(self, pointer: Val, value: Val, mask: Val | None, streaming: bool) -> None:
        fe, lanes, element = self.fe, self.lanes, value.element
        text = lanes_of(fe, value, lanes)
        if element == "i1":
            text = self.as_byte_lanes(text)
        mask_text = None if mask is None else lanes_of(fe, mask, lanes)
        if pointer.form == "affine" and pointer.stride == 1:
            self.store_contiguous(pointer.text, text, element, mask_text, streaming)
            return
        pointers = lanes_of(fe, pointer, lanes)
        if pointer.is_uniform or (pointer.form == "affine" and isinstance(pointer.stride, int)):
            self.scatter(pointers, text, element, mask_text)
            return
        if pointer.form == "affine":
            first, consecutive = pointer.text, self.b.value(f"icmp eq i64 {pointer.stride}, 1")
        else:
            first = self.b.value(f"extractelement <{lanes} x ptr> {pointers}, i64 0")
            consecutive = self.follow(pointers, first, element, 1)
        self.b.when(
            consecutive,
            lambda: self.store_contiguous(first, text, element, mask_text),
            lambda: self.scatter(pointers, text, element, mask_text),
        )

    def store_contiguous(
        self, address: str, text: str, element: str, mask: str | None, streaming: bool = False
    ) -> None:
        if mask is None:
            store_vector(self.fe, text, address, element, self.lanes, streaming)
        else:
            masked_store(self.fe, text, address, element, self.lanes, mask)

    def scatter(self, pointers: str, text: str, element: str, mask: str | None) -> None:
        """Lane by lane in order: where two lanes have one address the later one stays."""
        lanes, align = self.lanes, size(element)
        kind = f"<{lanes} x {stored(element)}>"
        self.b.call(
            f"masked.scatter.{mangled(kind)}.v{lanes}p0", "void", (kind, text),
            (f"<{lanes} x ptr> align {align}", pointers),
            (vector("i1", lanes), mask or self.b.splat("i1", "true", lanes)), suffix="",
        )  # fmt: skip

    # ---- atomics

    def atomic(self, op: Op) -> Val:
        """atomic_rmw and atomic_cas, lane after lane. Masked-off lanes give 0."""
        fe, b, lanes = self.fe, self.b, self.lanes
        vals = self.operands(op)
        element = op.results[0].type.element
        is_cas = op.name == "tt.atomic_cas"
        mask = self.real_mask(vals[2]) if len(vals) > 2 and not is_cas else None
        mask = fe.guard(op, vals[0], element, mask, self.ctx)
        data = vals[1 : 3 if is_cas else 2]
        kind = stored(element)
        result = b.alloca(f"[{lanes} x {kind}]")
        b.emit(f"store [{lanes} x {kind}] zeroinitializer, ptr {result}")

        def one(pointer: str, args: list[str], place: str) -> None:
            old = (
                self.compare_and_swap(op, pointer, args, element)
                if is_cas
                else self.modify(op, pointer, args[0], element)
            )
            b.emit(f"store {kind} {old}, ptr {place}")

        if lanes == 1:
            b.when(mask.text if mask is not None else "true", lambda: one(vals[0].text, [v.text for v in data], result))
            return Val("uniform", element, b.value(f"load {kind}, ptr {result}"))
        slots = [self.spill(v) for v in [vals[0], *data, *([mask] if mask is not None else [])]]

        def lane(i: str) -> None:
            items = [b.value(f"load {t}, ptr {b.value(f'getelementptr {t}, ptr {s}, i64 {i}')}") for s, t in slots]
            place = b.value(f"getelementptr {kind}, ptr {result}, i64 {i}")
            wanted = b.value(f"trunc i8 {items.pop()} to i1") if mask is not None else "true"
            b.when(wanted, lambda: one(items[0], items[1:], place))

        b.loop("0", str(lanes), 1, lane)
        return Val("lanes", element, b.value(f"load <{lanes} x {kind}>, ptr {result}"))

    def spill(self, val: Val) -> tuple[str, str]:
        """A vector in memory, to index its lanes: (slot, LLVM type of an item)."""
        lanes, kind = self.lanes, stored(val.element)
        text = lanes_of(self.fe, val, lanes)
        if val.element == "i1":
            text = self.as_byte_lanes(text) if lanes > 1 else self.as_byte(text, "i1")
        slot = self.b.alloca(f"[{lanes} x {kind}]")
        self.b.emit(f"store {kind if lanes == 1 else f'<{lanes} x {kind}>'} {text}, ptr {slot}")
        return slot, kind

    def modify(self, op: Op, pointer: str, value: str, element: str) -> str:
        words = op.attrs["words"]
        kind, order = RMW.get(words[0]), ORDER.get(words[1])
        if kind is None or order is None:
            raise UnsupportedOp(op.name, f"{words}", self.fe.where(op))
        if kind == "fadd" and element in ("f16", "bf16"):
            return self.add_by_swapping(pointer, value, element, order)
        if element == "i1":
            raise UnsupportedOp(op.name, "element type i1", self.fe.where(op))
        return self.b.value(f"atomicrmw {kind} ptr {pointer}, {stored(element)} {value} {order}")

    def add_by_swapping(self, pointer: str, value: str, element: str, order: str) -> str:
        """Half precision has no atomic add: swap in the sum until nothing intervened."""
        b, casts = self.b, self.fe.pointwise(1).casts
        wide = casts.float_to_float(value, element, "f32")
        slot = b.alloca("i16", 2)
        b.emit(f"store i16 {b.value(f'load atomic i16, ptr {pointer} monotonic, align 2')}, ptr {slot}")
        again, done = b.new_label("again"), b.new_label("done")
        b.jump(again)
        b.label(again)
        old = b.value(f"load i16, ptr {slot}")
        before = old if element == "bf16" else b.value(f"bitcast i16 {old} to half")
        total = b.value(f"fadd float {casts.float_to_float(before, element, 'f32')}, {wide}")
        new = casts.float_to_float(total, "f32", element)
        new = new if element == "bf16" else b.value(f"bitcast half {new} to i16")
        pair = b.value(f"cmpxchg ptr {pointer}, i16 {old}, i16 {new} {order} monotonic")
        b.emit(f"store i16 {b.value(f'extractvalue {{ i16, i1 }} {pair}, 0')}, ptr {slot}")
        b.branch(b.value(f"extractvalue {{ i16, i1 }} {pair}, 1"), done, again)
        b.label(done)
        return before

    def compare_and_swap(self, op: Op, pointer: str, args: list[str], element: str) -> str:
        b, order = self.b, ORDER.get(op.attrs["words"][0])
        if order is None or element == "i1":
            raise UnsupportedOp(op.name, f"{op.attrs['words']} on {element}", self.fe.where(op))
        kind, bits = stored(element), f"i{8 * size(element)}"
        expected, new = args
        if kind != bits and kind != "ptr":
            expected, new = (b.value(f"bitcast {kind} {x} to {bits}") for x in args)
        fail = {"release": "monotonic", "acq_rel": "acquire"}.get(order, order)
        pair = b.value(f"cmpxchg ptr {pointer}, {bits} {expected}, {bits} {new} {order} {fail}")
        old = b.value(f"extractvalue {{ {bits}, i1 }} {pair}, 0")
        return old if kind == bits else b.value(f"bitcast {bits} {old} to {kind}")

    # ---- bools are bytes in memory

    def as_bool(self, text: str, element: str) -> str:
        return self.b.value(f"trunc i8 {text} to i1") if element == "i1" else text

    def as_byte(self, text: str, element: str) -> str:
        return self.b.value(f"zext i1 {text} to i8") if element == "i1" else text

    def as_byte_lanes(self, text: str) -> str:
        return self.b.value(f"zext <{self.lanes} x i1> {text} to <{self.lanes} x i8>")

    def any_lane(self, mask: str) -> str:
        bits = self.b.value(f"bitcast <{self.lanes} x i1> {mask} to i{self.lanes}")
        return self.b.value(f"icmp ne i{self.lanes} {bits}, 0")


def _zero(element: str) -> str:
    if element == "i1":
        return "false"
    return float_literal(0.0, element) if element in ("f16", "f32", "f64") else "0"
