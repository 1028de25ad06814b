"""Is any operator slower than torch's? Times each case of trident/cases at its bench sizes against eager torch.

    python -m benchmarks.never_slower [name ...] [--dtype bfloat16] [--rounds 30] [--csv out.csv]

Forward, and forward with backward; both allocate their results; variants take turns, call by call; a figure is the
ratio of medians (above 1: Trident is faster). Kernels are forced: `route` is what this measures for.
"""

import argparse
import csv
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch

from trident.cases import CASES, Case
from trident.runtime import route


def tensors(case: Case, shape: Sequence[int], dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    made = case.inputs(tuple(shape))
    return [t.to(dtype).requires_grad_() if t.is_floating_point() else t for t in made]


def forward(fn: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return fn(*inputs)

    return call


def floating(y: object) -> list[torch.Tensor]:
    """The results that have a gradient."""
    return [t for t in ([y] if isinstance(y, torch.Tensor) else y) if t.is_floating_point()]  # type: ignore[attr-defined]


def both(fn: Callable[..., torch.Tensor], inputs: list[torch.Tensor]) -> Callable[[], object]:
    needed = [t for t in inputs if t.requires_grad]
    dy = [torch.ones_like(y) for y in floating(fn(*inputs))]
    return lambda: torch.autograd.grad(floating(fn(*inputs)), needed, dy)


def medians(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> tuple[float, float]:
    """Seconds per call of each, in turns; small calls are repeated within a round."""
    for call in (ours, theirs):
        call()
        call()
    start = time.perf_counter()
    theirs()
    repeat = max(1, int(2e-4 / (time.perf_counter() - start)))
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for call, times in zip((ours, theirs), found, strict=True):
            start = time.perf_counter()
            for _ in range(repeat):
                call()
            times.append((time.perf_counter() - start) / repeat)
    return statistics.median(found[0]), statistics.median(found[1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="cases (default: all that have bench sizes)")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--csv", help="also write the rows there")
    options = parser.parse_args()
    rows = []
    for name in options.names or CASES:
        for shape in CASES[name].bench:
            inputs = tensors(CASES[name], shape, getattr(torch, options.dtype))
            for way, call in (("forward", forward), ("both", both)):
                with route.forced("kernels"):
                    ours, theirs = medians(
                        call(CASES[name].ours, inputs), call(CASES[name].reference, inputs), options.rounds
                    )
                rows.append([name, "x".join(map(str, shape)), way, ours * 1e6, theirs * 1e6, theirs / ours])
                print(f"{name:28} {rows[-1][1]:18} {way:8} {ours * 1e6:10.1f} us {theirs * 1e6:10.1f} us", end=" ")
                print(f"{theirs / ours:6.2f}x")
    if options.csv:
        with open(options.csv, "w", newline="") as file:
            csv.writer(file).writerows([["case", "shape", "way", "trident us", "torch us", "ratio"], *rows])
    return 0


if __name__ == "__main__":
    sys.exit(main())
