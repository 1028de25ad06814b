"""`enabled`: calls of torch.nn.functional, torch and Tensor methods become calls of Trident's functions.

The table is derived: a name of `trident.functional` that torch.nn.functional has too has the same contract there
(tests/test_conformance.py). Elsewhere torch may spell it otherwise (torch.batch_norm has another order than
F.batch_norm): which arguments may be given by position or by name is read from torch's schemas.
"""

import contextlib
import functools
import inspect
from typing import Any

import torch

from trident import functional
from trident.runtime import redirect

SEVERAL = frozenset({"lstm_cell"})  # as many tensors as torch's function gives
TENSOR_NAMES = frozenset({"self", "input"})  # what schemas and signatures call the first argument


def enabled() -> contextlib.AbstractContextManager[None]:
    """Within the block, on this thread: torch's functions that Trident has are Trident's.

    Also a decorator. May be nested. In-place functions and calls with `out=` stay torch's; backwards need no block.
    A function of torch that is written in Python and calls others, as F.multi_head_attention_forward, is torch's whole.
    """
    fill()
    return redirect.on()


@functools.cache
def fill() -> None:
    """Fill `redirect.TARGETS`, when first needed: it takes some milliseconds."""
    for name, ours in vars(functional).items():
        if name.startswith("_") or not inspect.isfunction(ours):
            continue
        for place in (torch.nn.functional, torch, torch.Tensor):
            theirs = getattr(place, name, None)
            if theirs is None or theirs in redirect.TARGETS:
                continue
            target = _same_contract(ours) if place is torch.nn.functional else _common(name, ours, theirs)
            if target is not None:
                redirect.TARGETS[theirs] = target
    for name in ("gru", "rnn_relu", "rnn_tanh"):  # of two forms, told apart by what their nine arguments are
        redirect.TARGETS[getattr(torch, name)] = redirect.Target(getattr(functional, name), 9, frozenset())
    # F.grouped_mm asks no mode, what it calls does
    if (theirs := getattr(torch, "_grouped_mm", None)) is not None:
        named = frozenset({"offs", "bias", "out_dtype"})
        redirect.TARGETS[theirs] = redirect.Target(functional.grouped_mm, 2, named)


def _positional(parameters: list[inspect.Parameter]) -> list[inspect.Parameter]:
    return [p for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]


def _same_contract(ours: Any) -> redirect.Target:
    parameters = list(inspect.signature(ours).parameters.values())
    anything = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
    names = None if anything else frozenset(p.name for p in parameters)
    return redirect.Target(ours, len(_positional(parameters)), names)


def _common(name: str, ours: Any, theirs: Any) -> redirect.Target | None:
    """What torch.<name> or Tensor.<name> has in common with our function, None if too little for any call."""
    whole = _same_contract(ours)
    if whole.names is None:  # a reduction: its contract is torch.<name>'s, what it lacks it passes on
        return whole
    parameters = list(inspect.signature(ours).parameters.values())
    signatures = _signatures(name, theirs)
    if not signatures:
        return None
    positional, names = len(_positional(parameters)), set(whole.names)
    for signature in signatures:
        shared = [p for p in parameters if p.name in signature]
        if not all(_alike(p, signature[p.name]) for p in shared):
            return None  # torch.kl_div takes a number for `reduction`, and another one if none is given
        alike = {p.name for p in shared}
        in_order = 0
        for p, other in zip(_positional(parameters), signature, strict=False):
            if p.name != other or p.name not in alike:
                break
            in_order += 1
        required = [key for key, default in signature.items() if default is inspect.Parameter.empty]
        if in_order == 0 or not alike.issuperset(required):
            return None
        positional, names = min(positional, in_order), names & alike
    return redirect.Target(ours, positional, frozenset(names))


def _signatures(name: str, theirs: Any) -> list[dict[str, Any]]:
    """Of each overload: argument -> default. None at all if one returns something else than ours."""
    if inspect.isfunction(theirs):
        found = {p.name: p.default for p in inspect.signature(theirs).parameters.values()}
        return [_as_input(found)]
    schemas = [
        s
        for s in torch._C._jit_get_schemas_for_operator(f"aten::{name}")
        if str(s.arguments[0].type) == "Tensor" and not any(a.is_out or "Dimname" in str(a.type) for a in s.arguments)
    ]
    if name not in SEVERAL and any(len(s.returns) != 1 for s in schemas):
        return []  # torch.adaptive_max_pool1d gives the indices too
    empty = inspect.Parameter.empty
    return [
        _as_input({a.name: a.default_value if a.has_default_value() else empty for a in s.arguments}) for s in schemas
    ]


def _as_input(signature: dict[str, Any]) -> dict[str, Any]:
    first = next(iter(signature), "")
    return {"input" if key == first and key in TENSOR_NAMES else key: value for key, value in signature.items()}


def _alike(ours: inspect.Parameter, default: Any) -> bool:
    """Does our argument mean what torch's of the same name means? A word is no number, whatever it means."""
    if inspect.Parameter.empty in (ours.default, default) or ours.default is None or default is None:
        return not isinstance(ours.default, str) or isinstance(default, str)
    return isinstance(ours.default, str) == isinstance(default, str)
