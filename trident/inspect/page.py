"""One self-contained HTML page of rows: the roofline drawn, and the tables."""

import html
import io
from collections.abc import Sequence

from trident.inspect import report
from trident.inspect.analysis import Row
from trident.inspect.targets import CARDS, Card

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 86rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.wide { overflow-x: auto; }
.bad { color: #d33; font-weight: 600; }
svg { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
summary { cursor: pointer; }
"""


def roofline(rows: Sequence[Row], name: str) -> str:
    """SVG: for each row the most flop/s that a card can reach at its flop per byte."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    card = CARDS[name]
    figure, axes = pyplot.subplots(figsize=(9, 4.5), layout="constrained")
    least, most = 0.05, max([1e3, *(2 * row.intensity for row in rows)])
    for label, peak in (("vector units", card.float32), ("matrix units, 16 bits", card.half)):
        ridge = peak / card.bandwidth
        axes.plot([least, ridge, most], [least * card.bandwidth / 1e12, peak / 1e12, peak / 1e12], lw=1.5, label=label)
    for direction, mark in (("forward", "o"), ("backward", "^")):
        of = [row for row in rows if row.direction == direction and row.intensity > 0]
        x, y = [row.intensity for row in of], [_reached(row, name) for row in of]
        axes.scatter(x, y, s=18, marker=mark, label=direction, alpha=0.7)
    if len(rows) <= 8:  # more would hide one another
        for row in (r for r in rows if r.intensity > 0):
            at = (row.intensity, _reached(row, name))
            axes.annotate(row.case, at, fontsize=7, xytext=(4, -6), textcoords="offset points")
    axes.set(xscale="log", yscale="log", xlabel="flop per byte", ylabel="Tflop/s at most", title=f"Roofline of {name}")
    axes.grid(True, which="major", lw=0.3)
    axes.legend(fontsize=8)
    out = io.StringIO()
    figure.savefig(out, format="svg")
    pyplot.close(figure)
    return out.getvalue()[out.getvalue().index("<svg") :]


def _reached(row: Row, card: str) -> float:
    return (row.flops + row.matrix_flops) / row.times[card] / 1e12


def _table(head: Sequence[str], body: Sequence[Sequence[object]]) -> str:
    def cells(tag: str, values: Sequence[object]) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(str(v))}</{tag}>" for v in values) + "</tr>"

    rows = "\n".join(cells("td", values) for values in body)
    return f'<div class="wide"><table>{cells("th", head)}\n{rows}</table></div>'


def _directions(rows: Sequence[Row]) -> str:
    head = (
        "operator",
        "shape",
        "direction",
        "launches",
        "of torch",
        "bytes",
        "of compulsory",
        "between kernels",
        "flop/byte",
        *CARDS,
    )
    return _table(
        head,
        [
            (
                row.case, "x".join(map(str, row.shape)), row.direction, row.launches, len(row.torch_operators),
                report.amount(row.bytes), f"{row.ratio:.3f}", report.amount(row.between), f"{row.intensity:.2f}",
                *(report.time(row.times[card]) for card in CARDS),
            )
            for row in rows
        ],
    )  # fmt: skip


def _kernels(rows: Sequence[Row]) -> str:
    head = (
        "kernel",
        "direction",
        "arch",
        "programs",
        "registers",
        "spills",
        "shared",
        "warps",
        "occupancy",
        "limit",
        "accesses",
        "matrix",
    )
    body = []
    for row in rows:
        for k in row.kernels:
            widths = " ".join(f"{name}:{width}" for name, width in k.widths.items())
            body.append(
                (
                    f"{row.case}: {k.kernel}", row.direction, k.arch, k.programs, k.registers, k.spills,
                    report.amount(k.shared), k.warps, f"{k.occupancy:.0%}", k.limit, k.error or widths,
                    " ".join(f"{n} {m}" for m, n in k.matrix.items()),
                )
            )  # fmt: skip
    return _table(head, body)


def _peaks(cards: dict[str, Card]) -> str:
    head = ("card", "TB/s", "float32 Tflop/s", "16 bits", "tf32", "source")
    return _table(
        head,
        [
            (name, *(f"{value / 1e12:.4g}" for value in (c.bandwidth, c.float32, c.half, c.tf32)), c.source)
            for name, c in cards.items()
        ],
    )


def page(rows: Sequence[Row]) -> str:
    found = [problem for row in rows for problem in row.problems]
    said = "".join(f'<li class="bad">{html.escape(problem)}</li>' for problem in found)
    over = f"<ul>{said}</ul>" if found else "<p>Nothing is over its budget.</p>"
    pictures = "".join(
        f"<details{' open' if name == 'H100' else ''}><summary>{name}</summary>{roofline(rows, name)}</details>"
        for name in CARDS
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>trident inspect</title><style>{STYLE}</style>
<h1>trident inspect</h1>
<p>Computed without a GPU: bytes and operations are counted, times are the least that a card needs for them.</p>
{over}
<h2>Roofline</h2>{pictures}
<h2>Operators</h2>{_directions(rows)}
<h2>Kernels</h2>{_kernels(rows)}
<h2>Peaks</h2>{_peaks(CARDS)}
</html>
"""
