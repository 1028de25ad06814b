"""What the terminal shows: a progress bar, the table, the means, and what was refused or left out."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from trident.bench.results import Machine, Row
from trident.bench.summary import cells, first_calls, head, left_out, losers, lost, rivals_of, summary, ways_of

WIDE = 170  # columns, where no terminal says otherwise


def console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=WIDE)


def progress(to: Console) -> Progress:
    columns = TextColumn("{task.description:45}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=to, transient=True, disable=not sys.stdout.isatty())


def _style(row: Row) -> str:
    if row.refused or lost(row):
        return "red"
    won = row.ratios.get("eager")
    return "dim" if row.routed else "green" if won and won.median - won.half > 1 else ""


def table(rows: Sequence[Row], rivals: Sequence[str]) -> Table:
    made = Table(box=None, header_style="bold", pad_edge=False)
    for at, title in enumerate(head(rivals)):
        made.add_column(title, justify="left" if at < 3 or title == "route" else "right", no_wrap=title != "route")
    for row in rows:
        made.add_row(*map(escape, cells(row, rivals)), style=_style(row))
    return made


def show(rows: Sequence[Row], missing: dict[str, str], machine: Machine, complete: bool, to: Console) -> None:
    rivals = rivals_of(rows)
    if rows:
        to.print(table(rows, rivals))
        to.print(first_calls(rows), highlight=False)
    to.print(f"\n{machine}", highlight=False)
    for way in ways_of(rows):
        of_way = [row for row in rows if row.way == way]
        for rival in rivals:
            s = summary(of_way, rival)
            if not s.rows:
                continue
            to.print(
                f"{way:9} against {rival:8} {s.mean:.2f} over {s.rows} rows (geometric mean, a row that went to torch "
                f"counts 1); kernels {s.kernel_mean:.2f} over {s.kernels}, {s.wins} won, {s.losses} rows lost",
                highlight=False,
            )
    for row in losers(rows)[:10]:
        to.print(f"[red]slower[/red] {row.name} {row.shape} {row.way}: {row.ratios['eager'].median:.2f} of eager")
    for row in rows:
        if row.refused:
            to.print(f"[red]refused[/red] {row.name} {row.shape} {row.way}: {escape(row.refused)}", highlight=False)
    for who, reason in left_out(rows).items():
        to.print(f"[yellow]left out[/yellow] {who}: {escape(reason)}", highlight=False)
    for rival, reason in missing.items():
        to.print(f"[yellow]{rival} left out[/yellow]: {reason}")
    if not complete:
        to.print("[yellow]interrupted: the same command goes on from here[/yellow]")
