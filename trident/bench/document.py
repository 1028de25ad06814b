"""A run as Markdown, for docs/results.md: what was measured, on what, the losing rows first, and how to rerun it."""

from collections.abc import Sequence
from pathlib import Path

from trident.bench import plots
from trident.bench.results import Row
from trident.bench.summary import (
    LOSS,
    first_calls,
    left_out,
    losers,
    percent,
    rivals_of,
    summary,
    time_of,
    times,
    ways_of,
)
from trident.cases import CASES

BEGIN, END = "<!-- bench -->", "<!-- end of bench -->"

INTRODUCTION = """# Results

Written by `make bench`; nothing here is typed by hand. {date}, {machine}. {rows} rows of {cases} cases; a whole
run has {all} cases, every function once and its variants left out.

A figure is how many times as fast as the rival's call Trident's is: the median over rounds in which the variants take
turns, ± the distance of the 10th and the 90th percentile. Inputs rotate past the last-level cache, each call allocates
its results, and results were compared with float64 before a ratio was printed. "of ceiling" is the share of the rate of
a copy (of a matrix product, for products) measured in the same run. Where Trident prefers torch's operator the row says
why, and in brackets what its own kernel would have done; a mean counts such a row as 1. "left out" is a rival that has
the operator but no ratio, for a reason that is told. `make bench` also writes `out/bench.html`: all of this with
pictures of each operator.

"""


def write(rows: Sequence[Row], out: Path) -> None:
    """The page, and a picture of its name beside it. Raises ValueError if there are no rows."""
    if not rows:
        raise ValueError("bench: no rows to write a page of")
    picture = out.with_suffix(".png")
    plots.overview(rows, "eager", picture)
    parts = [
        INTRODUCTION.format(
            date=min(row.date for row in rows)[:10],
            machine=rows[-1].machine,
            rows=len(rows),
            cases=len({row.name for row in rows}),
            all=sum("." not in name and bool(case.bench) for name, case in CASES.items()),
        ),
        f"![a dot for each row, a bar for the mean of a family]({picture.name})\n\n",
        _means(rows),
        first_calls(rows) + "\n\n",
        _losers(rows),
        _left_out(rows),
        *(_family(name, rows) for name in sorted({row.family for row in rows})),
    ]
    out.write_text("".join(parts), encoding="utf-8")


def update(readme: Path, rows: Sequence[Row]) -> None:
    """Put the means between the two marks that a README has. Raises ValueError where it has none."""
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ValueError(f"bench: {readme} has no {BEGIN} ... {END} to write between")
    before, after = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    readme.write_text(f"{before}\n{rows[-1].machine}:\n\n{_means(rows)}{after}", encoding="utf-8")


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *body)]
    return "\n".join(lines) + "\n\n"


def _means(rows: Sequence[Row]) -> str:
    body = []
    for way in ways_of(rows):
        for rival in rivals_of(rows):
            s = summary([row for row in rows if row.way == way], rival)
            if s.rows:
                means = [f"{s.mean:.2f}", str(s.rows), f"{s.kernel_mean:.2f}"]
                body.append([way, rival, *means, *map(str, (s.kernels, s.wins, s.losses))])
    return _table(["way", "against", "mean", "rows", "mean of kernels", "kernels", "won", f"rows below {LOSS}"], body)


def _losers(rows: Sequence[Row]) -> str:
    found = losers(rows)
    if not found:
        return f"No row is below {LOSS} of eager, its spread granted.\n\n"
    body = [[f"`{r.name}`", r.shape, r.way, times(r, "eager"), r.where] for r in found]
    return f"## Where Trident is slower\n\n{_table(['case', 'shape', 'way', 'x eager', 'route'], body)}"


def _left_out(rows: Sequence[Row]) -> str:
    body = [[who, reason.replace("|", "\\|")] for who, reason in left_out(rows).items()]
    return f"## Left out\n\n{_table(['rival and row', 'why'], body)}" if body else ""


def _family(name: str, rows: Sequence[Row]) -> str:
    of = [row for row in rows if row.family == name]
    rivals = rivals_of(of)
    body = []
    for row in of:
        forced = f" ({row.forced.median:.2f})" if row.forced else ""
        numbers = [time_of(row), *(times(row, rival) for rival in rivals), percent(row)]
        body.append([f"`{row.name}`", row.shape, row.way, *numbers, row.where + forced])
    head = ["case", "shape", "way", "time", *(f"x {r}" for r in rivals), "of ceiling", "route (its kernel)"]
    return f"## {name}\n\n{_table(head, body)}"
