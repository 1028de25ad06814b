"""From which size on is an operator faster than torch's on a CPU? What `crossover.FEWEST_ELEMENTS` rests on.

    python -m benchmarks.crossover [part of a case's name ...] [--dtype bfloat16]

One thread, CPU time, the best of nine rounds: hardly moved by what else the machine does. For each size three ratios,
torch's time over Trident's: forward / backward / both. Above 1 Trident is faster.
"""

import argparse
import sys

import torch

from trident.bench.timing import CLOCKS, best
from trident.bench.workloads import Function, Workload
from trident.cases import CASES, Case
from trident.runtime import route

FLAT = ((512,), (4096,), (16384,), (65536,), (262144,), (1048576,))
ROWS = ((8, 64), (64, 64), (64, 256), (128, 512), (256, 1024), (512, 2048))


def seconds(case: Case, fn: Function, shape: tuple[int, ...], dtype: torch.dtype, way: str) -> float:
    workload = Workload(case.name, case, shape, dtype, way, cold=False)
    call = workload.call(fn, [workload.inputs()])
    with torch.set_grad_enabled(way != "forward"):
        return best(call, CLOCKS["cpu"])


def ratios(case: Case, shape: tuple[int, ...], dtype: torch.dtype) -> str:
    ways = ("forward", "backward") if Workload(case.name, case, shape, dtype, "both").differentiable else ("forward",)
    ours, theirs = ([seconds(case, fn, shape, dtype, way) for way in ways] for fn in (case.ours, case.reference))
    found = [*(t / o for t, o in zip(theirs, ours, strict=True)), sum(theirs) / sum(ours)]
    return f"{torch.Size(shape).numel()}: " + "/".join(f"{ratio:.2f}" for ratio in found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, case in CASES.items():
        if not case.bench or (options.names and not any(part in name for part in options.names)):
            continue
        shapes = {1: FLAT, 2: ROWS}.get(len(case.bench[0]), case.bench)
        with route.forced("kernels"):
            row = [ratios(case, shape, getattr(torch, options.dtype)) for shape in shapes]
        print(f"{name:36}", "  ".join(row), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
