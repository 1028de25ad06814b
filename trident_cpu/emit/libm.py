"""Math functions by calling the C library once per lane: for what `vmath` does not have."""

from __future__ import annotations

from trident_cpu.emit.types import llvm, vector

_TWO_ARGUMENTS = frozenset({"pow", "atan2"})


def function(name: str, element: str, lanes: int, declares: set[str]) -> str:
    """LLVM text of `@tc.<name>.v<lanes><element>`."""
    scalar, type = llvm(element), vector(element, lanes)
    count = 2 if name in _TWO_ARGUMENTS else 1
    symbol = f"@{name}f" if element == "f32" else f"@{name}"
    declares.add(f"declare {scalar} {symbol}({', '.join([scalar] * count)})")
    lines, result = [], "poison"
    for i in range(lanes):
        args = []
        for k in range(count):
            item = f"%x{k}"
            if lanes > 1:
                item = f"%a{k}.{i}"
                lines.append(f"  {item} = extractelement {type} %x{k}, i64 {i}")
            args.append(f"{scalar} {item}")
        lines.append(f"  %y{i} = call {scalar} {symbol}({', '.join(args)})")
        if lanes > 1:
            lines.append(f"  %r{i} = insertelement {type} {result}, {scalar} %y{i}, i64 {i}")
        result = f"%r{i}" if lanes > 1 else f"%y{i}"
    params = ", ".join(f"{type} %x{k}" for k in range(count))
    head = f"define internal {type} @tc.{name}.v{lanes}{element}({params}) alwaysinline nounwind {{"
    return "\n".join([head, *lines, f"  ret {type} {result}", "}"])
