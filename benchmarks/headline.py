"""The first Trident's chart: adaptive_avg_pool2d of one plane of 512x512, float32, to outputs 2x2 .. 256x256.

    python -m benchmarks.headline [--step 1] [--threads 1] [--rounds 15] [--compile] [--png docs/headline.png]

Forward with the results allocated on both sides, Trident as a user gets it (its default policy) and eager torch call by
call in turns; ratios of medians, above 1 Trident is faster. One thread: CPU time, which other programs hardly move;
more: wall time. --compile: torch.compile beside them, where an output is a power of two (each takes it seconds).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

import trident.functional as T
from benchmarks.never_slower import medians

Call = Callable[[], object]
IMAGES, IMAGE_OUTPUTS = (32, 256, 56, 56), (7, 6, 1)


def calls(x: torch.Tensor, out: int, forward: bool) -> tuple[Call, Call]:
    """Ours and torch's."""
    if forward:
        return lambda: T.adaptive_avg_pool2d(x, out), lambda: F.adaptive_avg_pool2d(x, out)
    ys = [pool(x, out) for pool in (T.adaptive_avg_pool2d, F.adaptive_avg_pool2d)]
    dy = torch.ones_like(ys[0])
    ours, theirs = (lambda y=y: torch.autograd.grad(y, x, dy, retain_graph=True) for y in ys)
    return ours, theirs


def draw(path: Path, outputs: list[int], times: dict[str, list[float]], compiled: dict[int, float], how: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4))
    left.plot(outputs, times["torch"], label="torch")
    left.plot(outputs, times["trident"], label="Trident")
    if compiled:
        left.plot(list(compiled), list(compiled.values()), "o", label="torch.compile")
    left.set(xlabel="outputs along each axis", ylabel="microseconds", title="forward", yscale="log")
    ratios = [b / a for a, b in zip(times["trident"], times["torch"], strict=True)]
    back = [b / a for a, b in zip(times["trident backward"], times["torch backward"], strict=True)]
    right.plot(outputs, ratios, label="forward")
    right.plot(outputs, back, label="backward")
    right.axhline(1, color="grey", linewidth=0.8)
    right.set(xlabel="outputs along each axis", ylabel="times as fast as torch", title="torch's time over Trident's")
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    figure.suptitle(f"adaptive_avg_pool2d 1x1x512x512 float32, {how}")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=1, help="measure every so many outputs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--png", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.thread_time if options.threads == 1 else time.perf_counter

    x = torch.randn(1, 1, 512, 512, requires_grad=True)
    inference = x.detach()
    outputs = sorted({*range(2, 257, options.step), *(2**k for k in range(1, 9)), 255})
    times: dict[str, list[float]] = {name + way: [] for way in ("", " backward") for name in ("trident", "torch")}
    compiled: dict[int, float] = {}
    for out in outputs:
        for way, tensor in (("", inference), (" backward", x)):
            found = medians(*calls(tensor, out, not way), options.rounds, clock)
            for name, seconds in zip(("trident", "torch"), found, strict=True):
                times[name + way].append(seconds * 1e6)
        if options.compile and out & (out - 1) == 0:
            fn = torch.compile(lambda t, out=out: F.adaptive_avg_pool2d(t, out))
            compiled[out] = medians(lambda fn=fn: fn(inference), lambda: None, options.rounds, clock)[0] * 1e6
        if out & (out - 1) == 0 or out in (3, 7, 50, 100, 200, 255):
            row = "  ".join(f"{name} {of[-1]:7.1f}" for name, of in times.items())
            print(f"{out:4}  {row}" + (f"  compiled {compiled[out]:7.1f}" if out in compiled else ""), flush=True)
    for way in ("", " backward"):
        ratios = [b / a for a, b in zip(times["trident" + way], times["torch" + way], strict=True)]
        print(
            f"{way.strip() or 'forward'}: best {max(ratios):.1f}, least {min(ratios):.1f}, "
            f"geometric mean {statistics.geometric_mean(ratios):.1f} of {len(ratios)} outputs"
        )
    if options.png:
        how = f"{options.threads} thread{'s' * (options.threads > 1)}"
        draw(options.png, outputs, times, compiled, how)

    x = torch.randn(IMAGES, requires_grad=True)
    for out in IMAGE_OUTPUTS:
        ratios = []
        for tensor in (x.detach(), x):
            ours, theirs = medians(*calls(tensor, out, tensor is not x), options.rounds, clock)
            ratios.append(theirs / ours)
        print(f"{'x'.join(map(str, IMAGES))} -> {out}: forward {ratios[0]:.2f}, backward {ratios[1]:.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
