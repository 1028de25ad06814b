"""Launches of which all but the tensors is fixed: their blocks are packed beforehand, but for the tensors' addresses.

`launch` reads every argument of every call, 3 us for a kernel of twenty. Who launches a kernel for the same sizes again
and again, as the layers of a model do, makes a `fixed` one, which takes 1 us.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import Any

from trident_cpu import threads
from trident_cpu.arguments import Slot, bfloat16_bits, mend
from trident_cpu.binder import LATE, Code, Entry, finder, parallel_from
from trident_cpu.compiler import sanitizing
from trident_cpu.launcher import prepared
from trident_cpu.parallel import BLOCK

# of the types of most tensors, asked in the order of how many have them
PLAIN = "(type({0}) is _Tensor and {0}.is_cpu or {0} is None or type({0}) is _Parameter and {0}.is_cpu)"
_FIXED = """
def fixed({tensors}):
    if not ({plain}) or _knobs.debug or _knobs.launch_enter_hook is not _enter or _enter_calls \
            or _exit_calls or _pre_run:
        return _otherwise({tensors})
    _call = _calls.get(({dtypes}))
    if _call is None: return _first({tensors})
    {same_globals}
    _call({addresses})
"""
_SERIAL = """
def call({tensors}):
    _run(_pack(_head, 1, 0, {scratch}, 0, 0, {block}))
"""
_TEAM = """
def call({tensors}):
    _team = _size()
    if _team > {programs}: _team = {programs}
    _start = _now()
    if _run(_pack(_head, _team, _gomp() if _team > 1 else 0, {scratch}, {stride}, 0, {block})) \
            and _now() - _start > {late}:
        _missed({programs})
"""


def fixed(kernel: Any, grid: tuple[int, ...], tensors: int, otherwise: Entry, **meta: Any) -> Entry:
    """`run(*tensors)`, which does what `launch(kernel, grid, *tensors, **meta)` does, for so many tensors.

    All but the first may be None or Parameters.

    `otherwise(*tensors)` does that too, and is called where the short way does not lead: for tensors of a subclass or
    of another device, between hooks, with the sanitizer, for kernels that can fault.
    """
    bind = prepared(kernel)
    scope = dict(getattr(bind, "__globals__", ()))
    if "_finder" not in scope or sanitizing():  # an autotuner, Triton's interpreter
        return otherwise
    if any(parameter.is_constexpr for parameter in kernel.params[:tensors]):
        raise TypeError(f"trident_cpu: {kernel.__name__}: its first {tensors} parameters are not all tensors")
    calls: dict[Any, Entry] = {}

    def first(*given: Any) -> None:
        """The first launch with tensors of these dtypes."""
        entry, sizes, values = finder(bind)(grid, *given, **meta)
        if not entry.code.binary.faults:
            key = tuple(t is not None and t.dtype for t in given)
            calls[key if len(key) > 1 else key[0]] = _call(kernel, entry.code, sizes, values, tensors)
        otherwise(*given)

    names = [f"_v{at}" for at in range(tensors)]
    _, *others = names
    text = _FIXED.format(
        tensors=", ".join(names),
        plain=" and ".join(["type(_v0) is _Tensor and _v0.is_cpu", *(PLAIN.format(name) for name in others)]),
        dtypes=", ".join(["_v0.dtype", *(f"{name} is not None and {name}.dtype" for name in others)]),
        addresses=", ".join(["_v0.data_ptr()", *(f"0 if {name} is None else {name}.data_ptr()" for name in others)]),
        same_globals=scope["_globals_test"],
    )
    scope |= {"_calls": calls, "_first": first, "_otherwise": otherwise}
    exec(text, scope)
    return scope["fixed"]


def _call(kernel: Any, code: Code, sizes: tuple[int, int, int], values: Sequence[Any], tensors: int) -> Entry:
    """`call(*addresses)`: packs the block and runs the code."""
    programs, stride = sizes[0] * sizes[1] * sizes[2], -(-code.binary.scratch_bytes // 64) * 64
    alone = programs < parallel_from(code.binary)
    flags = 0 if alone else int(programs * code.binary.stored_bytes > threads.cache_bytes())
    layout, words = _arguments(kernel, code.slots, values, tensors, struct.pack("<Q", flags))
    scratch = ("_scratch({})" if alone else "_scratch(_team * {})").format(stride) if stride else "0"
    text = (_SERIAL if alone else _TEAM).format(
        tensors=", ".join(f"_v{at}" for at in range(tensors)),
        block=", ".join(words),
        programs=programs,
        scratch=scratch,
        stride=stride,
        late=LATE,
    )
    scope: dict[str, Any] = {
        **{"_run": code.run, "_size": threads.team_size, "_gomp": threads.gomp_parallel, "_scratch": threads.scratch},
        **{"_now": time.perf_counter, "_missed": threads.missed, "_head": struct.pack("<III", *sizes)},
        "_pack": struct.Struct(f"<12s{BLOCK.removeprefix('<III')}{layout}").pack,
    }
    exec(text, scope)
    return scope["call"]


def _arguments(
    kernel: Any, slots: Sequence[Slot], values: Sequence[Any], tensors: int, flags: bytes
) -> tuple[str, list[str]]:
    """The block after its head: struct's format, and an expression for each field: an address, or bytes as they are."""
    layout, words, still = "", [], b""

    def settle(more: bytes = b"") -> None:
        nonlocal layout, still
        if still + more:
            layout += f"{len(still + more)}s"
            words.append(repr(still + more))
        still = b""

    names = [parameter.name for parameter in kernel.params if not parameter.is_constexpr]
    for slot in slots:
        if slot.path[0] < tensors:
            settle()
            layout += "Q"
            words.append(f"_v{slot.path[0]}")
            continue
        value = values[slot.path[0]]
        for at in slot.path[1:]:
            value = value[at]
        if slot.type == "bf16":
            value = bfloat16_bits(value)
        try:
            still += struct.pack("<" + slot.format, value)
        except (struct.error, OverflowError, TypeError):
            still += struct.pack("<" + slot.format, *mend(kernel.__name__, names, [slot], [value]))
    settle(flags)
    return layout, words
