"""Rows as text for a terminal, and what differs between two revisions."""

from collections.abc import Iterator, Sequence
from typing import Any

from trident.inspect.analysis import KernelRow, Row
from trident.inspect.targets import CARDS
from trident.inspect.watch import MULTIPROCESSORS


def amount(n: float) -> str:
    """Bytes with a decimal unit."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if n >= size:
            return f"{n / size:.3g} {unit}"
    return f"{n:.0f} B"


def time(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.3g} us"


def text(rows: Sequence[Row]) -> str:
    lines: list[str] = []
    for row in rows:
        if row.direction == "forward":
            lines.append(f"{row.case} {tuple(row.shape)} {row.dtype}")
        lines.append(f"  {row.direction:8} {_work(row)}")
        lines.append(f"           roofline: {', '.join(f'{card} {time(row.times[card])}' for card in CARDS)}")
        lines += [f"           {_kernel(k)}" for k in row.kernels]
    found = [problem for row in rows for problem in row.problems]
    lines += [
        "",
        f"{len(found)} over budget" if found else "nothing over budget",
        *(f"  {problem}" for problem in found),
    ]
    return "\n".join(lines)


def _work(row: Row) -> str:
    said = f"{row.launches} launch{'es' * (row.launches != 1)}"
    if row.torch_operators:
        said += f" and torch's {', '.join(row.torch_operators)}"
    said += f"; {amount(row.bytes)}, {row.ratio:.3f} of the compulsory"
    if row.between:
        said += f" + {amount(row.between)} from kernel to kernel"
    return f"{said}; {row.intensity:.2f} flop/byte"


def _kernel(k: KernelRow) -> str:
    if k.error:
        return f"{k.arch:6} {k.kernel}: {k.error}"
    widths = sorted(set(k.widths.values()), reverse=True)
    wide = ", ".join(f"{w} B {' '.join(n for n, v in k.widths.items() if v == w)}" for w in widths)
    few = f" (for {MULTIPROCESSORS} multiprocessors)" if k.programs < MULTIPROCESSORS else ""
    said = f"{k.arch:6} {k.kernel} x {k.programs}{few}: {k.registers} registers"
    if k.spills:
        said += f", {k.spills} SPILLED"
    said += f", {amount(k.shared)} shared, {k.warps} warps, occupancy {k.occupancy:.0%} ({k.limit}); {wide}"
    if k.matrix:
        said += f"; {', '.join(f'{count} {name}' for name, count in k.matrix.items())}"
    return said + (f"; NARROW {' '.join(k.narrow)}" if k.narrow else "")


# -- differences

Rows = Sequence[dict[str, Any]]  # as in the JSON: another revision's classes may differ
OF_A_ROW = ("launches", "torch_operators", "bytes", "ratio", "between", "flops", "matrix_flops")
OF_A_KERNEL = ("registers", "spills", "shared", "warps", "occupancy", "limit", "widths", "narrow", "matrix", "error")


def _flat(rows: Rows) -> dict[tuple[str, ...], dict[str, Any]]:
    """Rows and kernels by what they are of."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows:
        key = (row["case"], row["direction"], "x".join(map(str, row["shape"])), row["dtype"])
        found[key] = {name: row.get(name) for name in OF_A_ROW}
        for nth, kernel in enumerate(row["kernels"]):
            of = (*key, kernel["arch"], f"{kernel['kernel']} #{nth}")
            found[of] = {**{name: kernel.get(name) for name in OF_A_KERNEL}, **kernel["configuration"]}
    return found


def differences(before: Rows, after: Rows) -> Iterator[str]:
    """A line for each number that another revision has otherwise."""
    old, new = _flat(before), _flat(after)
    for key in [*new, *(k for k in old if k not in new)]:
        what = " ".join(key)
        if key not in old or key not in new:
            yield f"{what}: only {'now' if key in new else 'before'}"
            continue
        for name in sorted({*old[key], *new[key]}, key=str):
            was, now = old[key].get(name), new[key].get(name)
            if was != now:
                yield f"{what}: {name} {_short(was)} -> {_short(now)}"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
