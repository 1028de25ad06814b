"""Sizes that torch.export leaves open: one graph serves all of them, unless something asks how large one is.

Asking binds the graph to the answer, and torch then refuses the export. torch.compile, which traces again for other
sizes, decides by those it sees.
"""

import torch

from trident.runtime.op import constant


@constant  # asked of torch itself: before 2.13 dynamo takes each graph for an exported one
def exporting() -> bool:
    return torch.compiler.is_exporting()


def left_open(*sizes: int) -> bool:
    """Is one of these a size that the graph being exported leaves open?"""
    if not exporting():
        return False
    from torch.fx.experimental.symbolic_shapes import has_static_value

    return not all(has_static_value(n) for n in sizes)


def surely(condition: bool) -> bool:
    """Is the condition, a comparison of sizes, true? In an export: is it true of all sizes that are left open?"""
    if not exporting():
        return condition
    from torch.fx.experimental.symbolic_shapes import statically_known_true  # here: it imports sympy

    return statically_known_true(condition)
