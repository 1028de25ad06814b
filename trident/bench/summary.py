"""What the rows say together: means, wins and losses; a row as text. The terminal, the page and the document use it."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trident.bench.results import OURS, Row

LOSS = 0.95  # a row below loses, its spread granted


@dataclass(frozen=True)
class Summary:
    """Of the rows of one way against one rival."""

    rows: int
    mean: float  # geometric; a routed row is no win and counts 1
    kernels: int  # rows in which a kernel of Trident ran
    kernel_mean: float  # geometric, of those
    wins: int  # kernels faster than the rival, by more than their spread
    losses: int


def geometric(ratios: Iterable[float]) -> float:
    found = [math.log(r) for r in ratios]
    return math.exp(statistics.fmean(found)) if found else 1.0


def summary(rows: Sequence[Row], rival: str) -> Summary:
    told = [row for row in rows if rival in row.ratios]
    kernels = [row.ratios[rival] for row in told if not row.routed]
    return Summary(
        rows=len(told),
        mean=geometric(1.0 if row.routed else row.ratios[rival].median for row in told),
        kernels=len(kernels),
        kernel_mean=geometric(r.median for r in kernels),
        wins=sum(r.median - r.half > 1 for r in kernels),
        losses=sum(lost(row, rival) for row in told),
    )


def lost(row: Row, rival: str = "eager") -> bool:
    found = row.ratios.get(rival)
    return found is not None and found.median + found.half < LOSS


def losers(rows: Sequence[Row], rival: str = "eager") -> list[Row]:
    """The rows that a user loses by, worst first; routed ones too: asking costs."""
    return sorted((r for r in rows if lost(r, rival)), key=lambda r: r.ratios[rival].median)


def left_out(rows: Sequence[Row]) -> dict[str, str]:
    """A rival and the row that it is left out of -> why: what stands behind "left out" in a table."""
    ways: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for rival, reason in row.left_out.items():
            ways.setdefault((f"{rival} of {row.name} {row.shape}", reason), []).append(row.way)
    return {f"{who} {', '.join(found)}": reason for (who, reason), found in ways.items()}


def rivals_of(rows: Sequence[Row]) -> list[str]:
    return list({name: None for row in rows for name in (*row.ratios, *row.left_out)})


def ways_of(rows: Sequence[Row]) -> list[str]:
    return list({row.way: None for row in rows})


def time_of(row: Row) -> str:
    """Of Trident's call; nothing if it raised."""
    return microseconds(row.seconds[OURS].median) if OURS in row.seconds else ""


def microseconds(seconds: float) -> str:
    us = seconds * 1e6
    return f"{us:.1f} us" if us < 1000 else f"{us / 1e3:.2f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"


def first_calls(rows: Sequence[Row]) -> str:
    """What came before the times: of each variant the first call of a row, its compiling or loading included."""
    told = []
    for name in {name: None for row in rows for name in row.first}:
        found = [row.first[name] for row in rows if name in row.first]
        told.append(f"{name} {microseconds(statistics.median(found))}, at most {microseconds(max(found))}")
    return "First calls, compiling included, are not in the times (medians): " + "; ".join(told) + "."


def times(row: Row, rival: str) -> str:
    """A ratio and its spread; a word where there is none, but for an operator that the rival lacks."""
    if row.refused:
        return "refused"
    found = row.ratios.get(rival)
    return f"{found.median:.2f} ±{found.half:.2f}" if found else "left out" if rival in row.left_out else ""


def rate(row: Row) -> str:
    if row.unit == "FLOP/s":
        return f"{row.rate / 1e9:.0f} GFLOP/s" if row.rate < 1e12 else f"{row.rate / 1e12:.1f} TFLOP/s"
    return f"{row.rate / 1e9:.1f} GB/s" if row.rate else ""


def percent(row: Row) -> str:
    return f"{100 * row.rate / row.ceiling:.0f}%" if row.ceiling else ""


def size(count: int | None) -> str:
    if count is None:
        return ""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def cells(row: Row, rivals: Sequence[str]) -> list[str]:
    """A row as text: what every table shows, in the order of `HEAD`."""
    return [
        row.name,
        row.shape,
        row.way,
        time_of(row),
        *(times(row, rival) for rival in rivals),
        rate(row),
        percent(row),
        f"{row.host[OURS]:.0f} us" if OURS in row.host else "",
        size(row.memory.get(OURS)),
        row.where + (f" (its kernel: {row.forced.median:.2f})" if row.forced else ""),
    ]


def head(rivals: Sequence[str]) -> list[str]:
    return [
        "case",
        "shape",
        "way",
        "time",
        *(f"x {r}" for r in rivals),
        "rate",
        "of ceiling",
        "host",
        "memory",
        "route",
    ]
