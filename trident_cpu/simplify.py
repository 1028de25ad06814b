"""Rewrites before planning, each with its reason."""

from __future__ import annotations

from trident_cpu.ir import Block, Module, Op


def simplify(module: Module) -> None:
    for function in module.functions.values():
        for block in function.body.blocks:
            _block(block)


def _block(block: Block) -> None:
    ops: list[Op] = []
    for op in block.ops:
        ops += reduced_one(op) if op.name == "tt.reduce" else [op]
        for region in op.regions:
            for inner in region.blocks:
                _block(inner)
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
