"""One self-contained HTML page of a run: means, pictures, every row. Light or dark as the reader's system is."""

from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from trident.bench import plots
from trident.bench.results import Row
from trident.bench.summary import (
    LOSS,
    cells,
    first_calls,
    geometric,
    head,
    left_out,
    losers,
    lost,
    rivals_of,
    summary,
    ways_of,
)

WAY = {"forward": "forward", "backward": "backward", "both": "forward and backward"}


def write(rows: Sequence[Row], out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text(rows), encoding="utf-8")


def text(rows: Sequence[Row]) -> str:
    """Raises ValueError if there are no rows."""
    if not rows:
        raise ValueError("bench: no rows to make a page of")
    rivals = rivals_of(rows)
    template = Template((resources.files("trident.bench") / "page.html").read_text(encoding="utf-8"))
    return template.substitute(
        machine=escape(str(rows[-1].machine)),
        date=escape(min(row.date for row in rows)[:16].replace("T", " ")),
        dtypes=escape(", ".join(sorted({row.dtype for row in rows}))),
        tiles="".join(_tiles(rows, rivals[0])) if rivals else "",
        means=_means(rows, rivals),
        first=escape(first_calls(rows)),
        lost=_lost(rows) + _left_out(rows),
        families="".join(_family(name, of) for name, of in _families(rows).items()),
    )


def _families(rows: Sequence[Row]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row.family):
        found.setdefault(row.family, []).append(row)
    return found


def _tiles(rows: Sequence[Row], rival: str) -> list[str]:
    """Against the first rival; `_means` tells the rest."""
    made = []
    for way in ways_of(rows):
        s = summary([row for row in rows if row.way == way], rival)
        made.append(
            f'<div class="tile"><b>{s.mean:.2f}</b><span>times as fast as {escape(rival)}, {WAY[way]}</span>'
            f"<small>{s.kernels} of {s.rows} rows run a kernel: {s.kernel_mean:.2f}, {s.wins} faster for sure. "
            f"{s.losses} rows slower.</small></div>"
        )
    return made


def _means(rows: Sequence[Row], rivals: Sequence[str]) -> str:
    """A line for each way, a column for each rival; nothing where there is one rival: the tiles say it."""
    if len(rivals) < 2:
        return ""
    body = []
    for way in ways_of(rows):
        found = [summary([row for row in rows if row.way == way], rival) for rival in rivals]
        cells = "".join(
            f'<td class="n">{s.mean:.2f}</td><td class="n">{s.kernel_mean:.2f}</td><td class="n">{s.kernels}</td>'
            for s in found
        )
        body.append(f"<tr><td>{WAY[way]}</td>{cells}</tr>")
    head = "".join(
        f'<th class="n">x {escape(r)}</th><th class="n">its kernels</th><th class="n">rows</th>' for r in rivals
    )
    table = f'<table class="means"><thead><tr><th></th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _lost(rows: Sequence[Row]) -> str:
    refused = [row for row in rows if row.refused]
    found = losers(rows)
    parts = []
    if refused:
        lines = "".join(f"<li>{escape(f'{r.name} {r.shape} {r.way}: {r.refused}')}</li>" for r in refused)
        parts.append(f'<h2 class="bad">Wrong results: no ratio</h2><ul>{lines}</ul>')
    if found:
        parts.append(
            f"<h2>Where Trident is slower</h2><p>{len(found)} rows below {LOSS} of eager, their spread granted. A row "
            f"that went to torch pays for being asked.</p>{_table(found[:40], rivals_of(rows))}"
        )
    return "".join(parts) or f"<p>No row is below {LOSS} of eager.</p>"


def _left_out(rows: Sequence[Row]) -> str:
    lines = "".join(f"<li>{escape(f'{who}: {reason}')}</li>" for who, reason in left_out(rows).items())
    return f"<h2>Left out</h2><ul>{lines}</ul>" if lines else ""


def _family(name: str, rows: list[Row]) -> str:
    bars, curves = [], []
    for way in ways_of(rows):
        of_way = [row for row in rows if row.way == way]
        if any("eager" in row.ratios for row in of_way):
            bars.append(plots.ratio_bars(of_way, "eager", f"{WAY[way]}: times as fast as eager"))
    for way in ways_of(rows):
        for case, of_case in plots.by_case([row for row in rows if row.way == way and not row.refused]).items():
            if len(of_case) > 1:
                curves.append(plots.time_curves(of_case, f"{case}, {way}"))
    told = [1.0 if r.routed else r.ratios["eager"].median for r in rows if "eager" in r.ratios]
    mean = f"{geometric(told):.2f} of eager" if told else ""
    grids = f'<div class="bars">{"".join(bars)}</div>'
    if curves:
        grids += f'<details><summary>Time over size</summary><div class="curves">{"".join(curves)}</div></details>'
    return (
        f'<section id="{escape(name)}"><h2>{escape(name)} <small>{mean}</small></h2>{grids}'
        f"<details><summary>{len(rows)} rows</summary>{_table(rows, rivals_of(rows))}</details></section>"
    )


def _table(rows: Sequence[Row], rivals: Sequence[str]) -> str:
    titles = head(rivals)
    made = "".join(f'<th class="{_kind(i, titles)}">{escape(t)}</th>' for i, t in enumerate(titles))
    body = []
    for row in rows:
        kind = "lost" if row.refused or lost(row) else "routed" if row.routed else ""
        tds = "".join(
            f'<td class="{_kind(i, titles)}">{escape(cell)}</td>' for i, cell in enumerate(cells(row, rivals))
        )
        body.append(f'<tr class="{kind}">{tds}</tr>')
    return f'<div class="scroll"><table><thead><tr>{made}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def _kind(column: int, titles: Sequence[str]) -> str:
    """n: a number, to the right; x: a ratio."""
    if titles[column].startswith("x "):
        return "n x"
    return "n" if 3 <= column < len(titles) - 1 else ""
