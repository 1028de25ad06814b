"""What the compiler made of a kernel, read from its assembly: how wide it reads and writes memory, matrix instructions.

In PTX each access is followed back to the parameter that its address was computed from.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple


class Access(NamedTuple):
    operand: str  # the parameter's name; "?" if it cannot be told
    way: str  # load, store or atomic
    width: int  # bytes of one thread


Accesses = Counter[Access]

_PTX = re.compile(r"\b(ld|st|red|atom)\.global([\w.:]*)\.([bsuf])(\d+)\b[^\[]*\[\s*(%rd\d+)")
_PTX_COPY = re.compile(
    r"\bcp\.async\.c[ag]\.shared\.global[\w.:]*\s*\[[^\]]*\],\s*\[\s*(%rd\d+)[^\]]*\],\s*(0x[\da-f]+|\d+)"
)
_PTX_PARAMETER = re.compile(r"ld\.param\.\w+\s+(%rd\d+),\s*\[\w+_param_(\d+)\]")
_PTX_MATRIX = re.compile(r"\b(wgmma\.mma_async|tcgen05\.mma|mma)\.[\w.:]+")
_WAYS = {"ld": "load", "st": "store", "red": "atomic", "atom": "atomic"}


def _origins(ptx: str, parameters: Sequence[str]) -> dict[str, str]:
    """64-bit register -> the tensor parameter that its value was computed from."""
    found: dict[str, str] = {}
    flows: list[tuple[str, list[str]]] = []
    for line in ptx.splitlines():
        if match := _PTX_PARAMETER.search(line):
            at = int(match[2])
            if at < len(parameters) and parameters[at]:
                found[match[1]] = parameters[at]
        elif not line.lstrip().startswith("@") and "[" not in line and len(names := re.findall(r"%rd\d+", line)) > 1:
            flows.append((names[0], names[1:]))
    changed = True
    while changed:  # loops carry addresses backwards
        changed = False
        for into, sources in flows:
            if into not in found and (origin := next((found[s] for s in sources if s in found), None)):
                found[into], changed = origin, True
    return found


def ptx(text: str, parameters: Sequence[str]) -> tuple[Accesses, Counter[str]]:
    """(accesses, matrix instructions) of PTX. parameters: names in the order of the entry, "" if not a tensor."""
    origins = _origins(text, parameters)
    accesses: Accesses = Counter()
    for match in _PTX.finditer(text):
        way, modifiers, _kind, bits, register = match.groups()
        vector = re.search(r"\.v(\d)", modifiers)
        width = int(bits) // 8 * (int(vector[1]) if vector else 1)
        accesses[Access(origins.get(register, "?"), _WAYS[way], width)] += 1
    for match in _PTX_COPY.finditer(text):
        accesses[Access(origins.get(match[1], "?"), "load", int(match[2], 0))] += 1
    return accesses, Counter(match[1] for match in _PTX_MATRIX.finditer(text))


_GCN = re.compile(r"^\s*(?:global|buffer|flat)_(load|store|atomic)_(\w+)", re.M)
_GCN_WIDTHS = {"ubyte": 1, "sbyte": 1, "byte": 1, "ushort": 2, "sshort": 2, "short": 2, "dword": 4, "dwordx2": 8}
_GCN_WIDTHS |= {"dwordx3": 12, "dwordx4": 16, "b32": 4, "b64": 8, "b96": 12, "b128": 16}


def amdgcn(text: str) -> tuple[Accesses, Counter[str]]:
    """As `ptx`, of AMDGCN, where addresses are not followed: every operand is "?"."""
    accesses: Accesses = Counter()
    for way, what in _GCN.findall(text):
        if way == "atomic":
            accesses[Access("?", way, 8 if what.endswith("x2") else 4)] += 1
            continue
        kind = what.split("_")[0]
        if kind == "lds":
            kind = what.split("_")[1]
        if kind not in _GCN_WIDTHS:
            raise ValueError(f"amdgcn: an access of unknown width: {way}_{what}")
        accesses[Access("?", way, _GCN_WIDTHS[kind])] += 1
    return accesses, Counter(re.findall(r"\bv_(s?mfmac?)_", text))


def gcn_resources(text: str) -> dict[str, int]:
    """What the metadata at the end of AMDGCN says of its kernel: registers, spills, bytes of local memory."""
    fields = (
        "vgpr_count",
        "agpr_count",
        "sgpr_count",
        "vgpr_spill_count",
        "sgpr_spill_count",
        "group_segment_fixed_size",
    )
    found = {name: re.findall(rf"^\s+(?:- )?\.{name}:\s+(\d+)$", text, re.M) for name in fields}
    if missing := [name for name, values in found.items() if len(values) != 1]:
        raise ValueError(f"amdgcn: metadata without one {', '.join(missing)}")
    return {name: int(value) for name, (value,) in found.items()}
