"""`python -m trident bench`: every operator, or a model of yours, against torch on this machine."""

import sys
from pathlib import Path

import torch

from trident.runtime.launch import executor


def shape_of(text: str) -> tuple[int, ...]:
    """256x1024 -> (256, 1024). Raises ValueError."""
    try:
        return tuple(int(n) for n in text.split("x"))
    except ValueError:
        raise ValueError(f"bench: size {text!r} is not like 256x1024") from None


def main(names: list[str], model: str | None = None, **options: object) -> int:
    """The command. Returns 1 where a result was wrong, or a row lost and `fail` asks for that."""
    try:
        import matplotlib  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        print(f'{error.name} is missing; install it with: pip install "trident-kernels[bench]"', file=sys.stderr)
        return 1
    try:
        if model is not None:
            from trident.bench.compare import command

            return command(model, str(options["clock"]))
        return _operators(names, **options)  # type: ignore[arg-type]
    except ValueError as error:  # the message names what is wrong with the command
        print(error, file=sys.stderr)
        return 2


def _operators(
    names: list[str],
    backward: bool,
    dtype: str,
    sizes: str,
    against: str,
    device: str | None,
    clock: str,
    policy: str,
    warm: bool,
    seconds: float,
    largest: int | None,
    rows: Path,
    fresh: bool,
    csv: Path | None,
    html: Path | None,
    markdown: Path | None,
    readme: list[Path],
    fail: bool,
) -> int:
    from trident.bench import report, results, rivals, run, timing, workloads
    from trident.bench.measure import Settings
    from trident.bench.summary import losers

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if executor(device) not in ("gpu", "native"):
        raise ValueError(f"bench: Trident compiles no kernels for {device} here; see: python -m trident doctor")
    if not isinstance(kind := getattr(torch, dtype, None), torch.dtype):
        raise ValueError(f"bench: {dtype!r} is not a dtype of torch")
    timing.one_thread(clock if device == "cpu" else "events")
    ways = ("forward", "backward", "both") if backward else ("forward",)
    shapes = [shape_of(text) for text in filter(None, sizes.split(","))]
    chosen = workloads.select(names, ways, kind, shapes, largest, device, cold=not warm)
    here, missing = rivals.available(list(filter(None, against.split(","))))
    settings = Settings(clock=clock, policy=policy, seconds=seconds, gradients=backward)
    machine, store, to = results.machine(device, clock), results.Store(rows, fresh), report.console()
    with report.progress(to) as bar:
        task = bar.add_task("", total=len(chosen))

        def tell(row: results.Row) -> None:
            bar.update(task, advance=1, description=f"{row.name} {row.shape} {row.way}")

        measured, complete = run.run(chosen, here, settings, machine, store, tell)
    report.show(measured, missing, machine, complete, to)
    _write(measured, csv, html, markdown, readme)
    if any(row.refused for row in measured):
        return 1
    return 130 if not complete else int(fail and bool(losers(measured)))


def _write(rows: list, csv: Path | None, html: Path | None, markdown: Path | None, readmes: list[Path]) -> None:
    from trident.bench import document, page, results

    if csv is not None:
        results.write_csv(rows, csv)
    if html is not None:
        page.write(rows, html)
    if markdown is not None:
        document.write(rows, markdown)
    for readme in readmes:
        document.update(readme, rows)
