"""Rewrites before planning, each with its reason."""

from __future__ import annotations

from collections import Counter

from trident_cpu.ir import Block, Module, Op, Value

ONE = ("1.000000e+00", "1.0", "1")  # as TTIR prints it


def simplify(module: Module) -> None:
    for function in module.functions.values():
        ops = list(function.body.walk())
        uses = Counter(v for op in ops for v in [*op.operands, *(v for _, passed in op.successors for v in passed)])
        for block in function.body.blocks:
            _block(block, uses)


def _block(block: Block, uses: Counter[Value]) -> None:
    ops: list[Op] = []
    for op in block.ops:
        if op.name == "arith.addf":
            exp_plus_1(op, uses)
        ops += reduced_one(op) if op.name == "tt.reduce" else [op]
        for region in op.regions:
            for inner in region.blocks:
                _block(inner, uses)
    block.ops = ops


def reduced_one(op: Op) -> list[Op]:
    """A reduction over one element is that element, whatever its combine function: a reshape, which moves no data.

    Kernels that sum the columns of a tile of rows into one partial sum a program have tiles of one row on CPUs.
    """
    if op.operands[0].type.shape[op.attrs["axis"]] != 1 or not op.results[0].type.is_tile:
        return [op]
    reshapes = []
    for operand, result in zip(op.operands, op.results, strict=True):
        reshape = Op("tt.reshape", [operand], {}, op.loc)
        reshape.results, result.op = [result], reshape
        reshapes.append(reshape)
    return reshapes


def exp_plus_1(op: Op, uses: Counter[Value]) -> None:
    """1 + exp(x), of sigmoids, needs no e^x that is subnormal, which takes a fifth of an exp without AVX-512."""
    for one, power in (op.operands, op.operands[::-1]):
        made, constant = power.op, one.op
        if made is None or made.name != "math.exp" or uses[power] != 1 or power.type.element not in ("f32", "f64"):
            continue
        if constant is not None and constant.name == "arith.constant" and constant.attrs["value"] in ONE:
            op.name, op.operands, op.attrs = "math.exp_plus_1", list(made.operands), {}
            return
