"""Refuse what the compiler does not know: ops, attributes, element types. Runs before any analysis."""

from __future__ import annotations

from trident_cpu.errors import UnsupportedOp
from trident_cpu.ir import Function, Module, Op, Type
from trident_cpu.ops import OPS

INTEGERS = frozenset({"i1", "i8", "i16", "i32", "i64", "index"})
FLOATS = frozenset({"f16", "bf16", "f32", "f64"})
FLOATS8 = frozenset({"f8E5M2", "f8E4M3FN", "f8E4M3FNUZ", "f8E5M2FNUZ"})
ELEMENTS = INTEGERS | FLOATS | FLOATS8

# Ops that may touch 8-bit floats: they only move or convert them.
_MOVES = frozenset(
    [
        "tt.load",
        "tt.store",
        "tt.fp_to_fp",
        "tt.bitcast",
        "arith.bitcast",
        "arith.select",
        "arith.constant",
        "tt.splat",
        "tt.broadcast",
        "tt.expand_dims",
        "tt.trans",
        "tt.reshape",
        "tt.split",
        "tt.join",
        "tt.cat",
        "tt.gather",
        "tt.dot",
        "tt.unsplat",
        "scf.for",
        "scf.if",
        "scf.while",
        "scf.yield",
        "scf.condition",
        "tt.return",
        "tt.call",
        "cf.br",
        "cf.cond_br",
        "arith.extf",
        "arith.truncf",
        "ub.poison",
    ]
)


# What the program's author promises of a value (tl.multiple_of, tl.max_contiguous); the analyses find out by themselves
HINTS = frozenset({"tt.divisibility", "tt.contiguity", "tt.constancy"})


def verify(module: Module) -> None:
    """Raise UnsupportedOp for the first thing outside the whitelist."""
    for function in module.functions.values():
        for value in function.params:
            _element(value.type, "a parameter", function.name)
        for op in function.body.walk():
            _op(module, function, op)


def _op(module: Module, function: Function, op: Op) -> None:
    where = module.where(op) or function.name
    info = OPS.get(op.name)
    if info is None:
        raise UnsupportedOp(op.name, "this op is not supported on the CPU", where)
    for attr in op.attrs:
        if attr not in info.attrs and attr not in HINTS and not attr.startswith("loop "):
            raise UnsupportedOp(op.name, f"unknown attribute {attr!r}", where)
    for value in [*op.operands, *op.results]:
        _element(value.type, op.name, where)
        if value.type.element in FLOATS8 and op.name not in _MOVES:
            raise UnsupportedOp(op.name, f"arithmetic on {value.type.element}; convert it first", where)


def _element(type: Type, name: str, where: str) -> None:
    element = type.pointee if type.is_pointer else type.element
    while element.startswith("ptr:"):
        element = element[4:]
    if element not in ELEMENTS:
        raise UnsupportedOp(name, f"element type {type.element}", where)
