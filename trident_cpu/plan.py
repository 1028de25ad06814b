"""Block of ops -> steps. Ops over one shape that need not wait for one another share a loop nest.

A step is a Nest or a single op (control flow, dot, scan, layout, scalar memory access). Lazy ops belong to no step:
each step evaluates what it needs. The planner decides three things and nothing else:

    which nest an op joins      the latest of its shape that it may move up to, past steps it does not depend on
    what is kept                values that a later step reads go to a buffer as their nest runs
    what is made beforehand     costly values of lower rank (row indices with a division), costly values used in a loop
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from trident_cpu.analysis.aliasing import Aliasing, touches_memory
from trident_cpu.analysis.uses import Dependencies, free_values, is_lazy
from trident_cpu.emit.buffers import SMALL
from trident_cpu.emit.types import size
from trident_cpu.ir import Op, Value
from trident_cpu.ops import kind

KEEP_COST = 6.0  # above this, storing and loading a value costs less than computing it again


@dataclass(eq=False)
class Nest:
    """One loop nest. Members run in order for each vector; then `keep` is stored, then `updates`."""

    shape: tuple[int, ...]
    members: list[Op] = field(default_factory=list)
    updates: list[tuple[Value, Value]] = field(default_factory=list)  # carried value <- its next value
    keep: list[Value] = field(default_factory=list)
    again: list[tuple[Value, list[Op]]] = field(default_factory=list)  # loaded, to be read again; stores on the way
    before: list[Value] = field(default_factory=list)  # to be in memory before the nest starts

    def operands(self) -> list[Value]:
        return [v for op in self.members for v in op.operands] + [v for _, v in self.updates] + self.keep

    def registers(self) -> set[Value]:
        return {r for op in self.members if kind(op.name) == "memory" for r in op.results}

    def reductions(self) -> set[Value]:
        return {r for op in self.members if op.name == "tt.reduce" for r in op.results}


@dataclass(eq=False)
class Single:
    op: Op
    before: list[Value] = field(default_factory=list)

    def operands(self) -> list[Value]:
        return sorted(free_values([self.op]), key=lambda v: v.name)


Step = Nest | Single


class Planner:
    def __init__(self, deps: Dependencies, aliasing: Aliasing) -> None:
        self.deps, self.aliasing = deps, aliasing

    def plan(
        self, ops: Sequence[Op], updates: Sequence[tuple[Value, Value]] = (), live_out: Iterable[Value] = ()
    ) -> list[Step]:
        """Steps of a block. `live_out`: values of the block that its terminator or other blocks read."""
        self.steps: list[Step] = []
        self.leaf_sets: list[dict[Value, bool]] = []
        self.made_by: dict[Value, int] = {}
        for op in ops:
            if is_lazy(op) or kind(op.name) == "end":
                continue
            if op.name == "tt.dot":
                for value in op.operands[:2]:
                    self.place_operand(op, value)
            self.place(op)
        pending = list(updates)
        out = list(live_out)
        while pending:
            pair = pending.pop(0)
            self.place_update(pair, [v for _, v in pending] + out)
        self.decide(out)
        return self.steps

    # ---- placing

    def place(self, op: Op) -> None:
        shape = nest_shape(op)
        leaves = self.leaves_of(op.operands)
        if shape is None:
            self.append(Single(op), leaves_of_all(self.deps, free_values([op])), op.results)
            return
        at = self.find_nest(op, shape, leaves)
        if at is None:
            self.append(Nest(shape, [op]), leaves, op.results)
            return
        nest = self.steps[at]
        assert isinstance(nest, Nest)
        nest.members.append(op)
        merge(self.leaf_sets[at], leaves)
        for result in op.results:
            self.made_by[result] = at

    def append(self, step: Step, leaves: dict[Value, bool], results: Iterable[Value]) -> None:
        self.steps.append(step)
        self.leaf_sets.append(dict(leaves))
        for result in results:
            self.made_by[result] = len(self.steps) - 1

    def leaves_of(self, values: Iterable[Value]) -> dict[Value, bool]:
        return leaves_of_all(self.deps, values)

    def find_nest(self, op: Op, shape: tuple[int, ...], leaves: dict[Value, bool]) -> int | None:
        """The latest nest of this shape that the op may join, walking up past independent steps."""
        for at in range(len(self.steps) - 1, -1, -1):
            step = self.steps[at]
            needed = {leaf for leaf in leaves if self.made_by.get(leaf) == at}
            if isinstance(step, Nest) and step.shape == shape:
                registers = step.registers()
                joins = all(leaf in registers and leaves[leaf] for leaf in needed) and self.fits(op, step)
                if joins and self.lies_as(op, step):
                    return at
            if needed or not self.may_pass(op, step):
                return None
        return None

    def place_operand(self, dot: Op, value: Value) -> None:
        """A costly operand of a product is made in a nest, where what it shares with others is worked out once."""
        if value.op is not None and value.op.name == "tt.trans":
            value = value.op.operands[0]
        op = value.op
        if op is None or kind(op.name) != "pointwise" or self.deps.cost(value) < KEEP_COST:
            return
        if not self.deps.together(value, dot):
            return
        leaves = self.leaves_of([value])
        for at in range(len(self.steps) - 1, -1, -1):
            step = self.steps[at]
            needed = {leaf for leaf in leaves if self.made_by.get(leaf) == at}
            if isinstance(step, Nest) and step.shape == value.type.shape:
                registers = step.registers()
                if all(leaf in registers and leaves[leaf] for leaf in needed):
                    if value not in step.keep:
                        step.keep.append(value)
                        merge(self.leaf_sets[at], leaves)
                    return
            if needed:
                break
        self.append(Nest(value.type.shape, keep=[value]), leaves, ())

    def place_update(self, pair: tuple[Value, Value], later: list[Value]) -> None:
        """Join the update of a carried tile to a nest, if nothing after that nest reads the old value."""
        target, value = pair
        leaves = self.leaves_of([value])
        read_later = target in self.leaves_of(later)
        for at in range(len(self.steps) - 1, -1, -1):
            step = self.steps[at]
            needed = {leaf for leaf in leaves if self.made_by.get(leaf) == at}
            if isinstance(step, Nest) and step.shape == target.type.shape and not read_later:
                registers = step.registers()
                old = self.leaf_sets[at].get(target, True)  # read in this nest at the same element only
                ok = old and all(leaf in registers and leaves[leaf] for leaf in needed)
                others = all(leaves.get(other, True) for other, _ in step.updates)
                mine = all(target not in self.leaves_of([v]) or self.leaves_of([v])[target] for _, v in step.updates)
                if ok and others and mine:
                    step.updates.append(pair)
                    merge(self.leaf_sets[at], leaves)
                    return
            if needed or target in self.leaf_sets[at]:
                break
        self.append(Nest(target.type.shape, updates=[pair]), leaves, ())

    def may_pass(self, op: Op, step: Step) -> bool:
        """May the op run before a whole step that does not make its operands?"""
        others = step.members if isinstance(step, Nest) else list(step.op.walk())
        return all(self.aliasing.may_reorder(op, other) for other in others)

    def fits(self, op: Op, nest: Nest) -> bool:
        """May the op run vector by vector among the nest's members, after each of them?"""
        return all(self.aliasing.may_reorder(op, other) or self.may_alternate(op, other) for other in nest.members)

    def lies_as(self, op: Op, nest: Nest) -> bool:
        """Do the rows of a product's operand lie along the dimension of what the nest loads? Alone it can be turned
        round in registers; loaded with those that lie otherwise, either would be gathered element by element."""
        if op.name != "tt.load" or any(
            u.name not in ("tt.dot", "tt.trans") for u in self.deps.users.get(op.results[0], ())
        ):
            return True
        return all(self.along(op) == self.along(other) for other in nest.members if other.name == "tt.load")

    def along(self, load: Op) -> list[int]:
        """The dimensions whose elements are neighbours in memory."""
        address = load.operands[0]
        extents = enumerate(address.type.shape)
        return [dim for dim, extent in extents if extent > 1 and self.aliasing.strides.of(address, dim) == 1]

    def may_alternate(self, op: Op, other: Op) -> bool:
        """A store after a load or store of the nest, vector by vector. Where that is not proven to fit, the nest checks
        it and may copy: the load's tile before it starts, the store's after. So neither addresses nor the copy's
        mask may rest on tiles that had to be made."""
        if not self.aliasing.same_place(op, other):
            return False
        if self.aliasing.is_safe(op, other):
            return True
        copied = other if other.name == "tt.load" else op
        masks = copied.operands[1:] if copied is other else copied.operands[2:]
        return not self.has_tiles([op.operands[0], other.operands[0], *masks])

    def has_tiles(self, values: Iterable[Value]) -> bool:
        """Do the values rest on tiles that had to be made?"""
        return any(leaf.type.is_tile for leaf in self.leaves_of(values))

    # ---- what is kept in memory

    def decide(self, live_out: list[Value]) -> None:
        self.evaluated: dict[Value, int] = {}
        self.readers: dict[Value, list[int]] = {}  # of what nests load or make: the later steps that need it
        for at, step in enumerate(self.steps):
            self.need(at, step.operands())
        self.need(len(self.steps), live_out)
        self.keep_once()
        for value, readers in self.readers.items():
            nest = self.steps[self.made_by[value]]
            assert isinstance(nest, Nest)
            stores = self.stores_before(value, readers) if self.may_read_again(value) else None
            if stores is None:
                nest.keep.append(value)
            else:
                nest.again.append((value, stores))

    def keep_once(self) -> None:
        """What an earlier nest keeps after all a later one reads: an operand of a product was placed before."""
        kept: set[Value] = set()
        for step in self.steps:
            if isinstance(step, Nest):
                step.keep = [value for value in step.keep if value not in kept]
                kept.update(step.keep)

    def need(self, at: int, values: Iterable[Value]) -> None:
        step = self.steps[at] if at < len(self.steps) else None
        seen: set[Value] = set()
        stack = list(values)
        while stack:
            value = stack.pop()
            if value in seen:
                continue
            seen.add(value)
            made = self.made_by.get(value)
            if made is not None and made != at:
                nest = self.steps[made]
                if isinstance(nest, Nest) and value in nest.registers():
                    self.readers.setdefault(value, []).append(at)
                continue
            if value in self.deps.extra:
                stack += self.deps.extra[value]
                continue
            op = value.op
            if not is_lazy(op):
                continue
            assert op is not None
            if value.type.is_tile and kind(op.name) == "pointwise" and not value.type.is_pointer:
                if self.deps.cost(value) >= KEEP_COST and self.stored_once(value, at, step):
                    if step is not None and value in step.before:
                        stack += op.operands  # made from what earlier steps left in memory
                    continue
                if isinstance(step, Nest):
                    self.evaluated.setdefault(value, at)
            stack += op.operands

    def may_read_again(self, value: Value) -> bool:
        """A large tile of contiguous rows, loaded from addresses and under masks that cost little to work out again."""
        load, shape = value.op, value.type.shape
        if load is None or load.name != "tt.load" or value.type.size * size(value.type.element) <= SMALL:
            return False
        if any(leaf.type.is_tile for leaf in self.leaves_of(load.operands)):
            return False
        last = max(dim for dim, extent in enumerate(shape) if extent > 1)
        return (
            self.aliasing.root(load.operands[0]) is not None
            and self.aliasing.strides.of(load.operands[0], last) == 1
            and sum(self.deps.cost(v) for v in load.operands) < KEEP_COST
        )

    def stores_before(self, value: Value, readers: Sequence[int]) -> list[Op] | None:
        """The stores from the nest that loads `value` to its last reader; None if a reader or one of them forbids to
        read it again from its place."""
        load, made = value.op, self.made_by[value]
        assert load is not None
        if any(at >= len(self.steps) or not isinstance(self.steps[at], Nest) for at in readers):
            return None
        stores = []
        for step in self.steps[made : max(readers) + 1]:
            for op in step.members if isinstance(step, Nest) else step.op.walk():
                if op.name == "tt.load" or not touches_memory(op):
                    continue
                if op.name != "tt.store" or (isinstance(step, Single) and op is not step.op):
                    return None
                if self.aliasing.root(op.operands[0]) in (None, self.aliasing.root(load.operands[0])):
                    return None
                stores.append(op)
        return stores

    def stored_once(self, value: Value, at: int, step: Step | None) -> bool:
        """A costly value: keep it in the nest that evaluates it first, or make it before a bigger nest or a loop."""
        first = self.evaluated.get(value)
        if first is not None and first != at:
            nest = self.steps[first]
            if isinstance(nest, Nest) and nest.shape == value.type.shape:
                if value not in nest.keep:
                    nest.keep.append(value)
                return True
        if step is None:
            return False
        if isinstance(step, Nest):
            smaller = value.type.size * 2 <= _size(step.shape)
        elif step.op.name == "tt.dot":
            smaller = value.type.size * 2 <= step.op.results[0].type.size and self.deps.together(value, step.op)
        elif step.op.name == "scf.if":  # what a branch keeps is there in that branch only
            users = self.deps.users[value]
            smaller = not any(set(users) <= set(region.walk()) for region in step.op.regions)
        else:
            smaller = step.op.name in ("scf.for", "scf.while")
        if any(self.made_by.get(leaf) == at for leaf in self.deps.leaves(value)):
            return False  # rests on what the step itself makes
        if smaller and value not in step.before:
            step.before.append(value)
        return smaller


def nest_shape(op: Op) -> tuple[int, ...] | None:
    """The shape an op iterates over in a nest; None where it stands alone."""
    if op.name == "tt.reduce":
        return op.operands[0].type.shape
    if kind(op.name) == "memory" and op.operands[0].type.is_tile:
        return op.operands[0].type.shape
    return None


def merge(into: dict[Value, bool], more: dict[Value, bool]) -> None:
    for leaf, identity in more.items():
        into[leaf] = into.get(leaf, True) and identity


def leaves_of_all(deps: Dependencies, values: Iterable[Value]) -> dict[Value, bool]:
    result: dict[Value, bool] = {}
    for value in values:
        merge(result, deps.leaves(value))
    return result


def _size(shape: tuple[int, ...]) -> int:
    total = 1
    for extent in shape:
        total *= extent
    return total
