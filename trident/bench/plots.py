"""Pictures of rows, by matplotlib: ratio bars of a family, time over size of a case, an overview of all families.

Roles have colours that no other thing has, so that a page can put its own in their place, light or dark.
"""

import io
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from trident.bench.results import OURS, Row
from trident.bench.summary import geometric, lost, rivals_of

# role -> the colour in a picture file, light; a page replaces each by var(--role)
COLOURS = {
    "ink": "#1f2430",
    "soft": "#8a91a0",
    "rule": "#d5d9e1",
    "ours": "#0f766f",
    "eager": "#c2611b",
    "compile": "#5b53b5",
    "liger": "#a53a6c",
    "bad": "#b3261f",
}
RC: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text
    "font.size": 9,
    "font.family": "sans-serif",
    "axes.edgecolor": COLOURS["rule"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.titlecolor": COLOURS["ink"],
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["ink"],
    "ytick.color": COLOURS["ink"],
    "grid.color": COLOURS["rule"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def elements(row: Row) -> int:
    return math.prod(map(int, row.shape.split("x")))


def by_case(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each case, the smallest shape first."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=elements):
        found.setdefault(row.name, []).append(row)
    return found


def _colour(row: Row, rival: str) -> str:
    return COLOURS["bad" if lost(row, rival) else "soft" if row.routed else "ours"]


def _ratio_axis(axes: Any, ratios: Sequence[float]) -> None:
    """Powers of two about 1, which is a line."""
    low = min(-1, math.floor(math.log2(min(ratios, default=1))))
    high = max(1, math.ceil(math.log2(max(ratios, default=1))))
    axes.set_xscale("log", base=2)
    axes.set_xlim(2 ** (low - 0.1), 2 ** (high + 0.1))
    step = 1 if high - low < 8 else 2
    ticks = [2.0**n for n in range(low, high + 1) if n % step == 0]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    axes.axvline(1, color=COLOURS["ink"], linewidth=1)
    axes.grid(axis="x", linewidth=0.5)
    axes.set_axisbelow(True)


def ratio_bars(rows: Sequence[Row], rival: str, title: str) -> str:
    """SVG. A bar for each case at its largest shape, a dot at the smaller ones."""
    cases = by_case([row for row in rows if rival in row.ratios])
    with matplotlib.rc_context(RC):
        figure, axes = plt.subplots(figsize=(5, 0.75 + 0.21 * len(cases)), layout="constrained")
        for at, (name, found) in enumerate(reversed(cases.items())):
            last = found[-1]
            ratio = last.ratios[rival]
            axes.barh(at, ratio.median - 1, left=1, height=0.66, color=_colour(last, rival))
            axes.plot([ratio.low, ratio.high], [at, at], color=COLOURS["ink"], linewidth=1)
            for row in found[:-1]:
                axes.plot(row.ratios[rival].median, at, "o", markersize=3.5, color=_colour(row, rival))
            axes.text(-0.01, at, name, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=8.5)
        axes.set_yticks([])
        axes.set_ylim(-0.6, len(cases) - 0.4)
        _ratio_axis(axes, [r.ratios[rival].median for found in cases.values() for r in found])
        axes.set_title(title, fontsize=9.5, loc="left")
        return _svg(figure, title)


def time_curves(rows: Sequence[Row], title: str) -> str:
    """SVG. Time over elements of one case, a line for Trident and each rival."""
    rows = sorted(rows, key=elements)
    with matplotlib.rc_context(RC):
        figure, axes = plt.subplots(figsize=(2.9, 2.0), layout="constrained")
        for name in (*rivals_of(rows), OURS):
            told = [row for row in rows if name in row.seconds]
            axes.plot(
                [elements(row) for row in told],
                [row.seconds[name].median * 1e6 for row in told],
                "o-" if name == OURS else "o--",
                color=COLOURS["ours" if name == OURS else name],
                markersize=3,
                linewidth=1.5,
                label=name,
            )
        axes.set(xscale="log", yscale="log", ylabel="us")
        axes.set_title(title, fontsize=9, loc="left")
        axes.grid(linewidth=0.5)
        axes.minorticks_off()
        axes.legend(fontsize=7)
        return _svg(figure, title)


def overview(rows: Sequence[Row], rival: str, out: Path) -> None:
    """A picture file. A dot for each row, the geometric mean of each family as a bar, a panel for each way."""
    ways = list({row.way: None for row in rows})
    families = sorted({row.family for row in rows}, reverse=True)
    with matplotlib.rc_context(RC):
        figure, panels = plt.subplots(
            1, len(ways), figsize=(4.6 * len(ways), 0.9 + 0.42 * len(families)), layout="constrained", squeeze=False
        )
        for axes, way in zip(panels[0], ways, strict=True):
            told = [row for row in rows if row.way == way and rival in row.ratios]
            for at, family in enumerate(families):
                found = [row for row in told if row.family == family]
                mean = geometric(1.0 if row.routed else row.ratios[rival].median for row in found)
                axes.barh(at, mean - 1, left=1, height=0.7, color=COLOURS["ours"], alpha=0.3)
                for row in found:
                    axes.plot(
                        row.ratios[rival].median, at, "o", markersize=3.5, alpha=0.8, color=_colour(row, rival), mew=0
                    )
            axes.set_yticks(range(len(families)), families)
            axes.tick_params(axis="y", length=0)
            _ratio_axis(axes, [row.ratios[rival].median for row in told])
            label = {"both": "forward and backward"}.get(way, way)
            axes.set_title(f"{label}: times as fast as {rival} torch", fontsize=9.5, loc="left")
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=150)
        plt.close(figure)


def _svg(figure: Any, name: str) -> str:
    """The picture as an element of a page: no colours of its own, no fixed size, ids that no other picture has."""
    held = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(held, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    plt.close(figure)
    text = held.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{name}">', text)
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font: \1 var(--sans)", text)
    for role, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{role})")
    return re.sub(r"\n\s*", "\n", text)
