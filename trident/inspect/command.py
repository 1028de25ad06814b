"""The command line: `python -m trident inspect [op ...]`."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from trident.cases import CASES
from trident.inspect import analysis, report
from trident.inspect.analysis import Row
from trident.inspect.targets import TARGETS

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def chosen(names: Sequence[str], dtype: torch.dtype) -> list[str]:
    """Cases by name ("layer_norm", with all its variants, or "softmax.0" alone); all where none is named.
    "module:NAME" is a `trident.cases.Case` of somebody else, whose module launches by `trident.runtime.launch.launch`.

    Raises ValueError for a name that no case has.
    """
    able = [name for name, case in CASES.items() if dtype in case.dtypes]
    if not names:
        return able
    found = []
    for name in names:
        if ":" in name:
            found.append(name)
            continue
        if not (of := [case for case in able if case == name or case.split(".")[0] == name]):
            raise ValueError(
                f"inspect: no case {name!r} in {dtype}; there are {', '.join(sorted({c.split('.')[0] for c in able}))}"
            )
        found += of
    return list(dict.fromkeys(found))


def _before(revision: str, arguments: Sequence[str]) -> list[dict[str, object]]:
    """Rows of the same command in another revision of this checkout.

    Raises RuntimeError where there is no checkout, no such revision, or the revision cannot inspect.
    """
    root = Path(analysis.trident.__file__).parents[1]

    def git(*words: object) -> None:
        done = subprocess.run(["git", "-C", root, *map(str, words)], capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"inspect --diff {revision}: {done.stderr.strip()}")

    with tempfile.TemporaryDirectory() as folder:
        tree, out = Path(folder) / "tree", Path(folder) / "rows.json"
        git("worktree", "add", "--detach", tree, revision)
        try:
            command = [sys.executable, "-m", "trident", "inspect", *arguments, "--json", str(out)]
            done = subprocess.run(
                command, cwd=tree, env={**os.environ, "PYTHONPATH": str(tree)}, capture_output=True, text=True
            )
            if not out.exists():
                raise RuntimeError(f"inspect --diff {revision}: that revision says: {done.stderr.strip()[-500:]}")
            return json.loads(out.read_text())
        finally:
            git("worktree", "remove", "--force", tree)


class Progress:
    """A line on a terminal that says how much is done; nothing elsewhere."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self) -> None:
        self.done += 1
        if sys.stderr.isatty():
            print(f"\r{self.done} compiled or counted", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)


def main(
    names: Sequence[str] = (),
    arch: str = "sm_90",
    dtype: str = "bfloat16",
    shape: str | None = None,
    html: Path | None = None,
    json_file: Path | None = None,
    diff: str | None = None,
) -> int:
    """Print what is known of the cases; 1 if something is over budget, 2 for arguments that make no sense."""
    arches = list(TARGETS) if arch == "all" else arch.split(",")
    try:
        if unknown := [a for a in arches if a not in TARGETS]:
            raise ValueError(f"inspect: --arch is {unknown[0]!r}; expected some of {', '.join(TARGETS)}, or all")
        cases = chosen(names, DTYPES[dtype])
        sizes = [int(n) for n in shape.split(",")] if shape else None
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    progress = Progress()
    try:
        rows = analysis.inspect(cases, arches, DTYPES[dtype], sizes, note=progress)
    except analysis.UnfitShape as error:
        print(error, file=sys.stderr)
        return 2
    finally:
        progress.end()
    plain = [asdict(row) for row in rows]
    if json_file:
        json_file.write_text(json.dumps(plain))
    if html:
        _page(rows, html)
    if not diff:
        print(report.text(rows))
        return 1 if any(row.problems for row in rows) else 0
    given = [*names, "--arch", arch, "--dtype", dtype, *(["--shape", shape] if shape else [])]
    try:
        before = _before(diff, given)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2
    lines = list(report.differences(before, plain))
    print("\n".join(lines) if lines else f"as {diff}")
    return 0


def _page(rows: Sequence[Row], html: Path) -> None:
    from trident.inspect import page  # matplotlib is for this option only

    html.parent.mkdir(parents=True, exist_ok=True)
    html.write_text(page.page(rows))
    print(f"wrote {html}")
