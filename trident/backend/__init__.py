"""`torch.compile(model, backend="trident")`: known patterns become Trident's fused operators, Inductor does the rest.

For models of torch's modules and functions; in one that `trident.optimize` changed the operators are chosen already.
`trident.compile_report()` says what was found.
"""

import collections
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_leaves

from trident.backend.graph import Call, mutates, name
from trident.backend.patterns import PATTERNS
from trident.runtime import pages

_found: list[dict[str, int]] = []  # of each graph since the last report: pattern -> how often


def compile_report() -> str:
    """What the graphs compiled since the last report had, one line each."""
    lines = [
        f"graph {i}: {', '.join(f'{times} x {pattern}' for pattern, times in found.items()) or 'no pattern'}"
        for i, found in enumerate(_found)
    ]
    _found.clear()
    return "\n".join(lines) or "no graph was compiled by backend='trident'"


def backend(graph: GraphModule, inputs: Sequence[Any], inner: Callable[..., Any] | None = None) -> Any:
    """For torch.compile. inner: what compiles the graph with the patterns replaced; Inductor if not given."""
    if any(t.is_cpu for t in inputs if isinstance(t, Tensor)):
        pages.keep()
    _found.append(replace(graph))
    if inner is None:
        from torch._inductor.compile_fx import compile_fx  # half a second that `import trident` does not take

        inner = compile_fx
    return inner(graph, inputs)


def replace(graph: GraphModule) -> dict[str, int]:
    """Replace the patterns in place; pattern -> how often."""
    found: collections.Counter[str] = collections.Counter()
    for pattern, match in PATTERNS.items():
        place = {node: i for i, node in enumerate(graph.graph.nodes)}
        writes = [i for node, i in place.items() if mutates(node)]
        for node in place:
            call = match(node) if not node._erased else None
            if call is None:
                continue
            first = min(place.get(n, -1) for n in _within(node, call))
            if not any(first < i < place[node] for i in writes):
                _insert(graph, node, call)
                found[pattern] += 1
    graph.graph.lint()
    graph.recompile()
    return dict(found)


def _insert(graph: GraphModule, node: Node, call: Call) -> None:
    with graph.graph.inserting_before(call.at or node):
        new = graph.graph.call_function(call.function, call.args, call.kwargs)
        parts = [graph.graph.call_function(_item, (new, i)) for i in range(len(call.results))]
    for old, fresh in zip(call.results or (node,), parts or (new,), strict=True):
        fresh.meta.update(old.meta)
        old.replace_all_uses_with(fresh)
    for old in call.results or (node,):
        before = old.all_input_nodes
        graph.graph.erase_node(old)
        for other in before:
            _drop(graph, other)


def _within(last: Node, call: Call) -> list[Node]:
    """The nodes of the pattern: from the last one back to what the call takes."""
    takes = {n for n in tree_leaves((call.args, call.kwargs)) if isinstance(n, Node)}
    found, todo = [], [last]
    while todo:
        node = todo.pop()
        if node not in takes and node not in found and node.op in ("call_function", "call_method"):
            found.append(node)
            todo += node.all_input_nodes
    return found


def _drop(graph: GraphModule, node: Node) -> None:
    """Erase a node that nobody reads, and those before it; none that writes, as dead code elimination would."""
    if not node.users and name(node) and not mutates(node):
        before = node.all_input_nodes
        graph.graph.erase_node(node)
        for other in before:
            _drop(graph, other)


def _item(values: Any, i: int) -> Any:
    return values[i]
