"""From which size on is an operator faster than torch's on a CPU? What `crossover.FEWEST_ELEMENTS` rests on.

    python -m benchmarks.crossover [part of a case's name ...] [--dtype bfloat16]

One thread, CPU time, the best of nine rounds: hardly moved by what else the machine does. For each size three ratios,
torch's time over Trident's: forward / backward / both. Above 1 Trident is faster.
"""

import argparse
import sys
import time
from collections.abc import Callable

import torch

from benchmarks.never_slower import floating, forward, tensors
from trident.cases import CASES, Case
from trident.runtime import route

FLAT = ((512,), (4096,), (16384,), (65536,), (262144,), (1048576,))
ROWS = ((8, 64), (64, 64), (64, 256), (128, 512), (256, 1024), (512, 2048))


def seconds(call: Callable[[], object]) -> float:
    call()
    start = time.thread_time()
    call()
    repeat = max(1, int(1e-3 / max(time.thread_time() - start, 1e-7)))
    best = float("inf")
    for _ in range(9):
        start = time.thread_time()
        for _ in range(repeat):
            call()
        best = min(best, (time.thread_time() - start) / repeat)
    return best


def backward(fn: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> Callable[[], object]:
    y = floating(fn(*inputs))
    needed, dy = [t for t in inputs if t.requires_grad], [torch.ones_like(t) for t in y]
    return lambda: torch.autograd.grad(y, needed, dy, retain_graph=True)


def ratios(case: Case, shape: tuple[int, ...], dtype: torch.dtype) -> str:
    inputs = tensors(case, shape, dtype)
    ours, theirs = ([seconds(way(fn, inputs)) for way in (forward, backward)] for fn in (case.ours, case.reference))
    found = [theirs[0] / ours[0], theirs[1] / ours[1], sum(theirs) / sum(ours)]
    return f"{inputs[0].numel()}: " + "/".join(f"{ratio:.2f}" for ratio in found)


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
