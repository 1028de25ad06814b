"""Does the order of a combine function's two arguments matter?

Lanes are summed up side by side, so element 0 meets element 16 before element 1: right where `combine(a, b)` equals
`combine(b, a)`, wrong for "the last one" or a product of matrices. Only what is proven here is taken in that order:

    an identity  both orders are the same rational function of their inputs (sums, products, Welford's update), with
                 other ops as unknown functions; decided by its value at random points of a prime field
    a choice     one whole argument is picked by comparing all of its parts (argmax that breaks ties to the left)

Floats count as real numbers here: the order of a sum changes its last bits, and NaN has no place in an argmax's order.
"""

from __future__ import annotations

import hashlib
import random
from fractions import Fraction

from trident_cpu.ir import Op, Region, Value

_PRIME = 2**61 - 1
_POINTS = 3  # each would miss a difference with a chance of about degree / 2^61
_SYMMETRIC = frozenset(f"arith.{which}{kind}" for which in ("max", "min") for kind in ("si", "ui", "numf", "imumf")) | {
    "arith.andi",
    "arith.ori",
    "arith.xori",
}
_EQUAL = {"eq": True, "oeq": True, "ueq": True, "ne": False, "one": False, "une": False}  # else an order
_STRICT = frozenset({"slt", "sgt", "ult", "ugt", "olt", "ogt"})
_LOOSE = frozenset({"sle", "sge", "ule", "uge", "ole", "oge"})


def commutes(region: Region) -> bool:
    """True where combine(a, b) is combine(b, a) for all a and b; False where that is not proven."""
    if any(len(op.results) != 1 for op in region.block.ops[:-1]):
        return False
    return _is_choice(region) or all(_is_identity(region, random.Random(seed)) for seed in range(_POINTS))


# -- identities


def _is_identity(region: Region, points: random.Random) -> bool:
    args = region.block.args
    half = len(args) // 2
    outside = {
        value: _constant(value.op) if value.op and value.op.name == "arith.constant" else points.randrange(_PRIME)
        for op in region.block.ops
        for value in op.operands
    }
    left, right = ([points.randrange(_PRIME) for _ in range(half)] for _ in range(2))
    there, back = (
        _Numbers({**outside, **dict(zip(args, numbers, strict=True))}).results(region)
        for numbers in (left + right, right + left)
    )
    return there == back


class _Numbers:
    """The value of a region in the field, for given values of what it reads."""

    def __init__(self, known: dict[Value, int]) -> None:
        self.known = known

    def results(self, region: Region) -> list[int]:
        *ops, end = region.block.ops
        for op in ops:
            self.known[op.result] = self.number(op)
        return [self.known[value] for value in end.operands]

    def number(self, op: Op) -> int:
        name, args = op.name, [self.known[value] for value in op.operands]
        if name == "arith.constant":
            return _constant(op)
        if name in ("arith.addf", "arith.addi"):
            return (args[0] + args[1]) % _PRIME
        if name in ("arith.subf", "arith.subi"):
            return (args[0] - args[1]) % _PRIME
        if name in ("arith.mulf", "arith.muli"):
            return args[0] * args[1] % _PRIME
        if name == "arith.negf":
            return -args[0] % _PRIME
        if name == "math.fma":
            return (args[0] * args[1] + args[2]) % _PRIME
        if name in ("arith.divf", "tt.precise_divf") and args[1]:
            return args[0] * pow(args[1], -1, _PRIME) % _PRIME
        if name == "arith.select" and (guarded := self.guarded(op)) is not None:
            return self.known[guarded]
        if name in ("arith.cmpf", "arith.cmpi"):
            predicate = op.attrs["words"][0]
            turned = predicate.replace("gt", "lt").replace("ge", "le")
            if turned != predicate:
                args.reverse()
            return _unknown(name, turned, sorted(args) if predicate in _EQUAL else args)
        return _unknown(name, repr(sorted(op.attrs.items())), sorted(args) if name in _SYMMETRIC else args)

    def guarded(self, op: Op) -> Value | None:
        """x / w of `0 if w == 0 else x / w`: a weight of nothing, whose mean is nobody's."""
        test, *branches = op.operands
        if test.op is None or test.op.name not in ("arith.cmpf", "arith.cmpi"):
            return None
        is_equal = _EQUAL.get(test.op.attrs["words"][0])
        if is_equal is None:
            return None
        quotient = branches[1] if is_equal else branches[0]
        weight, zero = test.op.operands
        if self.known[zero] != 0 or quotient.op is None or quotient.op.name not in ("arith.divf", "tt.precise_divf"):
            return None
        return quotient if quotient.op.operands[1] is weight else None


def _constant(op: Op) -> int:
    try:
        value = Fraction(op.attrs["value"])
    except ValueError:  # true, false, an infinity or a NaN, in hexadecimal
        return _unknown(op.name, op.attrs["value"], [])
    return value.numerator * pow(value.denominator, -1, _PRIME) % _PRIME


def _unknown(*parts: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=16).digest(), "little") % _PRIME


# -- choices


def _is_choice(region: Region) -> bool:
    """Each result is select(c, left, right) of one argument, and c orders the arguments by all their parts."""
    args, end = region.block.args, region.block.ops[-1]
    half = len(args) // 2
    left, right = args[:half], args[half:]
    picks = [value.op for value in end.operands]
    if any(op is None or op.name != "arith.select" for op in picks):
        return False
    tests = {op.operands[0] for op in picks if op is not None}
    taken = [op.operands[1:] for op in picks if op is not None]
    ways = [[list(pair) for pair in zip(*order, strict=True)] for order in ((left, right), (right, left))]
    if len(tests) != 1 or taken not in ways:
        return False
    return _ordered(tests.pop(), left, right) == set(range(half))


def _ordered(test: Value, left: list[Value], right: list[Value]) -> set[int]:
    """The parts by which a test orders two arguments, first to last: a < b or (a == b and the next part decides)."""
    op = test.op
    if op is None:
        return set()
    if op.name in ("arith.cmpf", "arith.cmpi"):
        part = _compared(op, left, right)
        return {part} if part is not None and op.attrs["words"][0] in _STRICT | _LOOSE else set()
    if op.name != "arith.ori":
        return set()
    for first, rest in (op.operands, op.operands[::-1]):
        if first.op is None or first.op.attrs.get("words", [""])[0] not in _STRICT:
            continue
        part = _compared(first.op, left, right)
        if part is None or rest.op is None or rest.op.name != "arith.andi":
            continue
        for tie, decides in (rest.op.operands, rest.op.operands[::-1]):
            equal = tie.op is not None and _EQUAL.get(tie.op.attrs.get("words", [""])[0], False)
            if equal and tie.op is not None and _compared(tie.op, left, right) == part:
                return {part} | _ordered(decides, left, right)
    return set()


def _compared(op: Op, left: list[Value], right: list[Value]) -> int | None:
    """Which part of both arguments a comparison compares."""
    pair = list(op.operands)
    for part, (a, b) in enumerate(zip(left, right, strict=True)):
        if pair in ([a, b], [b, a]):
            return part
    return None
