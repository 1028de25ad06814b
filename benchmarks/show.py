"""The CPU rows of the table that says whether Trident is fast enough (issue 4), by one command.

    python -m benchmarks.show [case ...] [--clock wall] [--seconds 0.3] [--against eager,compile]

Every case of trident/cases at its bench size nearest to 1 MB of float32, forward and backward, as a user gets it: a row
that `route` sends to torch counts 1.0 and is listed. Then the rows that the table names, at their sizes, and the
headline at every 16th number of outputs (all of them: benchmarks/headline.py). Above 1 Trident is faster.
"""

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import trident.functional as T
from benchmarks import headline
from trident.bench import results, rivals, run, summary, timing
from trident.bench.measure import Settings
from trident.bench.workloads import Workload
from trident.cases import CASES, Case

CACHED = 262144  # elements of float32 in 1 MB
Function = Callable[[Tensor], object]


def cached(case: Case) -> tuple[int, ...]:
    """The bench size nearest to 1 MB."""
    return min(case.bench, key=lambda shape: abs(math.log(math.prod(shape) / CACHED)))


def all_cases(names: list[str], clock: str, seconds: float, against: list[str]) -> None:
    here, _ = rivals.available(against)
    cases = {name: CASES[name] for name in names or CASES if CASES[name].bench}
    chosen = [
        Workload(name, case, cached(case), torch.float32, way, cold=False)
        for name, case in cases.items()
        for way in ("forward", "backward")
    ]
    settings = Settings(clock=clock, seconds=seconds, extras=False)
    store = results.Store(Path("out/show.jsonl"))

    def tell(row: results.Row) -> None:
        ratios = "  ".join(f"{rival} {summary.times(row, rival)}" for rival in row.ratios)
        print(f"{row.name:32} {row.shape:18} {row.way:9} {ratios}  {row.where} {row.refused}", flush=True)

    rows, _ = run.run(chosen, here, settings, results.machine("cpu", clock), store, tell)
    routed = sorted({f"{row.name} {row.shape}" for row in rows if row.routed})
    print(f"\nwent to torch, counted 1.0 ({len(routed)}):", *routed, sep="\n  ")
    for rival in summary.rivals_of(rows):
        kernels = [row for row in rows if not row.routed]
        for row in summary.losers(kernels, rival):
            print(
                f"slower than {summary.LOSS} of {rival}: {row.name} {row.shape} {row.way} {summary.times(row, rival)}"
            )
        for way in summary.ways_of(rows):
            s = summary.summary([row for row in rows if row.way == way], rival)
            print(f"geometric mean, {way}, against {rival}: {s.mean:.2f} of {s.rows} rows, {s.kernels} by kernels")


def named_rows() -> dict[str, tuple[Tensor, Function, Function]]:
    """What the table names with how much it asks for: an input, ours, torch's."""
    image = torch.randn(32, 256, 56, 56)
    norm = torch.randn(16, 64, 56, 56).contiguous(memory_format=torch.channels_last)
    w, b = torch.rand(64), torch.rand(64)
    rows: dict[str, tuple[Tensor, Function, Function]] = {
        "max_pool2d 32x256x56x56 k3 s2 (2)": (image, lambda x: T.max_pool2d(x, 3, 2), lambda x: F.max_pool2d(x, 3, 2)),
        "dropout 16M (8)": (torch.randn(1 << 24), lambda x: T.dropout(x, 0.5), lambda x: F.dropout(x, 0.5)),
    }
    for name in ("relu", "silu"):
        f = getattr(F, name)
        rows[f"group_norm channels_last 16x64x56x56 {name} (2)"] = (
            norm,
            lambda x, name=name: T.group_norm(x, 8, w, b, activation=name),
            lambda x, f=f: f(F.group_norm(x, 8, w, b)),
        )
        rows[f"batch_norm training channels_last 16x64x56x56 {name} (2)"] = (
            norm,
            lambda x, name=name: T.batch_norm(x, None, None, w, b, True, activation=name),
            lambda x, f=f: f(F.batch_norm(x, None, None, w, b, True)),
        )
    return rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--clock", default="cpu", choices=tuple(timing.CLOCKS), help="cpu: of one thread")
    parser.add_argument("--seconds", type=float, default=0.3, help="how long a row is timed, about")
    parser.add_argument("--against", default="eager")
    options = parser.parse_args()
    timing.one_thread(options.clock)
    timer = timing.CLOCKS[options.clock]
    all_cases(options.names, options.clock, options.seconds, options.against.split(","))
    print("\nthe rows that the table names (asked): forward, backward")
    for name, (x, ours, theirs) in named_rows().items():
        found = [headline.ratio(*calls, timer, options.seconds) for calls in headline.ways(x, ours, theirs)]
        print(f"{name:58} {found[0]:6.2f} {found[1]:6.2f}", flush=True)
    headline.show(range(2, 257, 16), timer, options.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
