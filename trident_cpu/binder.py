"""The two small functions that stand between a call and machine code, written from a kernel's signature.

A launch must cost about what a torch operator costs (2 us), so nothing general runs on its way. `binder` writes,
once for a kernel, a function with the kernel's own parameters that forms the key of the call; `entry` writes, once for
a key, one that packs the launch block and calls the code. What they spell out inline is what `arguments.unusual` does
for any value.
"""

from __future__ import annotations

import ctypes
import inspect
import struct
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from trident_cpu import threads
from trident_cpu.arguments import Slot, bfloat16_bits, constant_key, mend, on_cpu, option_key, unusual
from trident_cpu.build import Binary
from trident_cpu.compiler import sanitizing
from trident_cpu.faults import Report, explain
from trident_cpu.jit import address
from trident_cpu.parallel import BLOCK

Entry = Callable[..., Any]  # entry(gx, gy, gz, *values)
Miss = Callable[[tuple[Any, ...], tuple[Any, ...], dict[str, Any]], Entry]

MAX_PROGRAMS = 2**31 - 1
# A team of threads takes about 5 us to start; one thread does this many elements in that time.
PARALLEL_ELEMENTS = 32768
LATE = 0.001  # seconds: a thread that was asleep is there long before

# -- binder: a call -> its key -> its entry

# Spells out `constant_key` for what is common: 1, 1.0 and True are different keys, so are 0.0 and -0.0.
_CONSTEXPR = """
    _t = type({name})
    if _t is int or _t is str: _k{at} = {name}
    elif _t is _JITFunction: _k{at} = _t, {name}.fn
    elif _t is float and {name} and {name} == {name} or _t is bool: _k{at} = _t, {name}
    else: _k{at} = _constant({name})"""

_TYPED = """
    _v{at} = {name}"""

_ARGUMENT = """
    _t = type({name})
    if _t is _Tensor or _t is _Parameter:
        if not {name}.is_cpu: _on_cpu('{name}', {name})
        _k{at} = {name}.dtype
        _v{at} = {name}.data_ptr()
    elif _t is int:
        _v{at} = {name}
        _k{at} = {one}32 if -0x80000000 <= {name} <= 0x7fffffff else 64 if {name} <= 0x7fffffffffffffff else 65
    elif _t is float or _t is bool:
        _v{at} = {name}
        _k{at} = _t
    elif {name} is None:
        _v{at} = 0
        _k{at} = None
    else: _k{at}, _v{at} = _unusual('{name}', {name})"""

_FIND = """
    _key = ({keys})
    if _given: _key += _options(_given)
{remember}    if _knobs.debug: _key += ('debug',)
    _entry = _table.get(_key)
    if _entry is None: _entry = _miss(_key, ({names}), _given)
    {same_globals}
    if type(_grid) is not tuple: _grid = _extents(_grid({meta}) if callable(_grid) else _grid)
    if len(_grid) == 1: _gx, _gy, _gz = _grid[0], 1, 1
    elif len(_grid) == 3: _gx, _gy, _gz = _grid
    else: _gx, _gy, _gz = _extents(_grid)
{end}"""
_RUN = """
    if _knobs.launch_enter_hook is not _enter or _enter_calls or _exit_calls or _pre_run:
        return _hooked(_entry, (_gx, _gy, _gz), ({names}), ({values}), _given)
    return _entry(_gx, _gy, _gz, {values})
"""
# With the sanitizer on, the entry needs the tensors, not only their addresses.
_REMEMBER = """
    _remember(_names, ({names}))
"""


def binder(kernel: Any, table: dict[tuple[Any, ...], Entry], miss: Miss, hooked: Callable[..., None]) -> Entry:
    """`bind(grid, <the kernel's parameters>, **options)` for a JITFunction; `table` maps keys to entries."""
    from torch import Tensor
    from torch.nn import Parameter
    from triton import knobs

    _ = kernel.cache_key  # computing it finds the globals that the kernel reads
    enter, leave = knobs.runtime.launch_enter_hook, knobs.runtime.launch_exit_hook
    scope: dict[str, Any] = {
        "_Tensor": Tensor, "_Parameter": Parameter, "_JITFunction": type(kernel),
        "_table": table, "_miss": miss, "_hooked": hooked,
        "_on_cpu": on_cpu, "_unusual": unusual, "_constant": constant_key, "_options": option_key,
        "_extents": extents, "_knobs": knobs.runtime, "_enter": enter,
        "_pre_run": kernel.pre_run_hooks,
        "_enter_calls": getattr(enter, "calls", ()), "_exit_calls": getattr(leave, "calls", ()),
        "_same_globals": lambda: same_globals(kernel),
    }  # fmt: skip
    if sanitizing():
        from trident_cpu import sanitizer

        sanitizer.watch_fresh_memory()
        scope |= {"_remember": sanitizer.remember, "_names": kernel.arg_names}
    body, keys, values = [], [], []
    for at, parameter in enumerate(kernel.params):
        if parameter.is_constexpr:
            text = _CONSTEXPR
        elif parameter.annotation_type and not parameter.annotation_type.startswith("*"):
            text = _TYPED  # a scalar whose type the signature fixes: any value, the same code
        else:
            text = _ARGUMENT
        one = "" if parameter.do_not_specialize else f"1 if {parameter.name} == 1 else "
        body.append(text.format(at=at, name=parameter.name, one=one))
        keys += [f"_k{at}"] * (text is not _TYPED)
        values += [f"_v{at}"] * (text is not _CONSTEXPR)
    names = [parameter.name for parameter in kernel.params]
    words = {"names": "".join(f"{name}, " for name in names), "values": "".join(f"{value}, " for value in values)}
    body.append(
        _FIND.format(
            keys="".join(f"{key}, " for key in keys),
            remember=_REMEMBER.format(**words) if sanitizing() else "",
            meta="{" + ", ".join(f"'{name}': {name}" for name in names) + "}",
            same_globals=_globals_test(kernel, scope),
            end="{end}",
            **words,
        )
    )
    text = f"def bind({_header(kernel.signature, scope)}, **_given):{''.join(body)}"
    # what `finder` makes a function of when it is asked for one
    scope["_finder"] = text.replace("{end}", f"    return _entry, (_gx, _gy, _gz), ({words['values']})\n")
    exec(text.replace("{end}", _RUN.format(**words)), scope)
    return scope["bind"]


def finder(bind: Entry) -> Entry:
    """From a `binder`'s function one that does not launch: (entry, grid, values) of the call."""
    scope = dict(bind.__globals__)
    exec(scope["_finder"], scope)
    return scope["bind"]


def _header(signature: inspect.Signature, scope: dict[str, Any]) -> str:
    """The parameter list of bind: the kernel's own, after the grid; defaults are put into `scope`."""
    header, keyword_only = ["_grid", "/"], False
    for name, parameter in signature.parameters.items():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not keyword_only:
            header.append("*")
        keyword_only |= parameter.kind in (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_POSITIONAL)
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            header.append(f"*{name}")
        elif parameter.default is inspect.Parameter.empty:
            header.append(name)
        else:
            scope[f"_default_{name}"] = parameter.default
            header.append(f"{name}=_default_{name}")
    return ", ".join(header)


def extents(grid: Any) -> tuple[int, int, int]:
    """A launch grid as three sizes."""
    sizes = (grid,) if isinstance(grid, int) else tuple(grid)
    if not 1 <= len(sizes) <= 3:
        raise ValueError(f"trident_cpu: a grid has one to three sizes, not {len(sizes)}: {grid}")
    gx, gy, gz = (*map(int, sizes), 1, 1)[:3]
    return gx, gy, gz


_UNCHANGING = frozenset({int, float, bool, str, type(None)})


def _globals_test(kernel: Any, scope: dict[str, Any]) -> str:
    """A statement that calls `same_globals` unless each of the kernel's globals is the object that it is now, and of a
    kind that does not change itself; puts what it names into `scope`."""
    from triton.language import constexpr

    tests = []
    for at, ((name, _), (_, home)) in enumerate(kernel.used_global_vals.items()):
        found = home.get(name)
        inner = found.value if type(found) is constexpr else found
        scope |= {f"_home{at}": home, f"_global{at}": found, f"_inner{at}": inner}
        if type(inner) not in _UNCHANGING:
            tests.append("True")
        tests.append(f"_home{at}.get({name!r}) is not _global{at}")
        if inner is not found:
            tests.append(f"_global{at}.value is not _inner{at}")
    same_globals(kernel)
    scope["_globals_test"] = text = f"if {' or '.join(tests)}: _same_globals()" if tests else ""
    return text


def same_globals(kernel: Any) -> None:
    """Triton's rule: a global that a compiled kernel read must not change after."""
    absent = object()
    for (name, _), (value, scope) in kernel.used_global_vals.items():
        now = scope.get(name, absent)
        if now is not value and now != value:
            raise RuntimeError(
                f"Global variable {name} has changed since we compiled this kernel, from {value} to {now}"
            )


# -- entry: a launch -> machine code

_ENTRY = """
def entry(_gx, _gy, _gz, {values}):
    _n = _gx * _gy * _gz
    if _n == 0: return _result
    {report}
    try:
        if _n < {parallel_from}: _block = {serial}
        else: _block = _pack(_gx, _gy, _gz, *_crew(_gx, _gy, _gz, {stride}), {address}, {slots} {flags})
    except (_StructError, OverflowError, TypeError):
        _block = _repack(_gx, _gy, _gz, *_crew(_gx, _gy, _gz, {stride}), {address}, {slots} {flags})
    _start = 0.0 if _n < {parallel_from} else _now()
    if _run(_block) and _now() - _start > {late}: _missed(_n)
    {check}
    return _result
"""
# A block for one thread, without scratch and report, is mostly zeros: padding costs less than packing zeros does.
_LEAN = "<III36x"
_SERIAL = {
    True: "_lean(_gx, _gy, _gz, {slots})",
    False: "_pack(_gx, _gy, _gz, 1, 0, {scratch}, 0, {address}, {slots} 0)",
}


class Code(NamedTuple):
    """What an entry calls, for who packs a launch block himself (`fixed.py`)."""

    binary: Binary
    slots: list[Slot]
    run: Callable[[bytes], int]


def entry(
    kernel: str, names: Sequence[str], slots: list[Slot], binary: Binary, new_report: Callable[[], Report],
    result: object = None,
) -> Entry:  # fmt: skip
    """`entry(gx, gy, gz, *values)`: one value for each name, in order; slots say which of them the code takes.
    It returns `result`.

    `new_report()` makes the record that faults are written to, where the code can fault.
    """
    _check_slots(kernel, slots, binary.params)
    formats = "".join(slot.format for slot in slots)
    pack = struct.Struct(BLOCK + formats + "Q").pack

    def source(slot: Slot) -> str:
        read = f"_v{slot.path[0]}" + "".join(f"[{at}]" for at in slot.path[1:])
        return f"_bf16({read})" if slot.type == "bf16" else read

    def repack(*values: Any) -> bytes:
        for size in values[:3]:
            if size < 0:
                raise ValueError(f"trident_cpu: {kernel}: grid {values[:3]} has a negative size")
        return pack(*values[:8], *mend(kernel, list(names), slots, list(values[8:-1])), values[-1])

    stride = -(-binary.scratch_bytes // 64) * 64
    scope: dict[str, Any] = {
        "_pack": pack, "_lean": struct.Struct(_LEAN + formats + "8x").pack, "_repack": repack,
        "_StructError": struct.error, "_bf16": bfloat16_bits, "_crew": crew,
        "_scratch": threads.scratch, "_new_report": new_report, "_at": ctypes.addressof,
        "_explain": lambda report, *grid: explain(kernel, binary, report, grid),
        "_now": time.perf_counter, "_result": result,
        "_missed": threads.missed,
        # without declared arguments: bytes are passed as their address, 30 ns sooner
        "_run": ctypes.CFUNCTYPE(ctypes.c_int)(address(binary.object, binary.name)),
    }  # fmt: skip
    values = "".join(f"_v{at}, " for at in range(len(names)))
    given = {
        "slots": "".join(f"{source(slot)}, " for slot in slots),
        "address": "_at(_report)" if binary.faults else "0",
        "scratch": f"_scratch({stride})" if stride else "0",
        "flags": f"_n * {binary.stored_bytes} > {threads.cache_bytes()}",
    }
    text = _ENTRY.format(
        values=values,
        serial=_SERIAL[not (stride or binary.faults)].format(**given),
        parallel_from=parallel_from(binary),
        report="_report = _new_report()" if binary.faults else "",
        check="if _report[0]: _explain(_report, _gx, _gy, _gz)" if binary.faults else "",
        stride=stride,
        late=LATE,
        **given,
    )
    exec(text, scope)
    scope["entry"].code = Code(binary, slots, scope["_run"])
    return scope["entry"]


def parallel_from(binary: Binary) -> int:
    """The fewest programs that are worth a team."""
    return max(2, -(-PARALLEL_ELEMENTS // max(1, binary.elements)))


def crew(gx: int, gy: int, gz: int, stride: int) -> tuple[int, int, int, int]:
    """Threads, address of GOMP_parallel, scratch and its bytes per thread, for a grid that may be worth sharing.

    Raises ValueError for a grid that is too large.
    """
    programs = gx * gy * gz
    if programs > MAX_PROGRAMS:
        raise ValueError(f"trident_cpu: grid {(gx, gy, gz)} has {programs} programs; at most {MAX_PROGRAMS} can run")
    team = min(threads.team_size(), programs)
    return team, threads.gomp_parallel() if team > 1 else 0, threads.scratch(team * stride) if stride else 0, stride


def _check_slots(kernel: str, slots: list[Slot], params: tuple[str, ...]) -> None:
    """The signature and the lowered code must agree on every slot, or the code would read another argument."""
    wanted = ["ptr" if slot.type.startswith("*") else slot.type.lstrip("iufbp") for slot in slots]
    found = ["ptr" if param.startswith("ptr") else param.lstrip("iufb") for param in params]
    if wanted != found:
        raise AssertionError(f"trident_cpu: {kernel}: signature {slots} does not match the code's parameters {params}")
