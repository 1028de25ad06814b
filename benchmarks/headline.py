"""The first Trident's chart: adaptive_avg_pool2d of one plane of 512x512, float32, to outputs 2x2 .. 256x256.

    python -m benchmarks.headline [--step 1] [--clock wall] [--seconds 0.03] [--no-compile] [--png docs/headline.png]

Results are allocated on both sides; Trident as a user gets it and eager torch take turns; above 1 Trident is faster.
--clock cpu: one thread's CPU time, which other programs hardly move; wall: all cores. torch.compile is measured where
the number of outputs is a power of two (each takes it seconds). The picture goes to --png.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import trident.functional as T
from trident.bench import timing
from trident.bench.results import machine

Call = Callable[[], object]
Function = Callable[[Tensor], object]
TICKS = (10, 20, 30, 50, 100, 200, 300, 500, 1000, 2000, 3000, 5000)  # microseconds, of the picture
IMAGES, IMAGE_OUTPUTS = (32, 256, 56, 56), (7, 6, 1)


@dataclass
class Chart:
    """Seconds of a call by its outputs: [Trident, torch]."""

    forward: dict[int, list[float]] = field(default_factory=dict)
    backward: dict[int, list[float]] = field(default_factory=dict)
    compiled: dict[int, float] = field(default_factory=dict)


def ways(x: Tensor, ours: Function, theirs: Function) -> tuple[tuple[Call, Call], tuple[Call, Call]]:
    """Calls of (ours, theirs) forward, and backward."""
    inference, x = x.detach(), x.detach().requires_grad_()
    graphs = [fn(x) for fn in (ours, theirs)]
    dy = torch.ones_like(graphs[0])  # type: ignore[call-overload]
    a, b = (lambda y=y: torch.autograd.grad(y, x, dy, retain_graph=True) for y in graphs)
    return (lambda: ours(inference), lambda: theirs(inference)), (a, b)


def medians(ours: Call, theirs: Call, timer: timing.Timer, seconds: float) -> list[float]:
    variants = [timing.Variant("ours", ours), timing.Variant("theirs", theirs)]
    return [statistics.median(found) for found in timing.in_turns(variants, timer, seconds).values()]


def ratio(ours: Call, theirs: Call, timer: timing.Timer, seconds: float) -> float:
    a, b = medians(ours, theirs, timer, seconds)
    return b / a


def pools(out: int) -> tuple[Function, Function]:
    return lambda x: T.adaptive_avg_pool2d(x, out), lambda x: F.adaptive_avg_pool2d(x, out)


def measure(outputs: Iterable[int], timer: timing.Timer, seconds: float, compiled: bool = False) -> Chart:
    chart, x = Chart(), torch.randn(1, 1, 512, 512)
    for out in outputs:
        forward, backward = ways(x, *pools(out))
        chart.forward[out] = medians(*forward, timer, seconds)
        chart.backward[out] = medians(*backward, timer, seconds)
        told = ""
        if compiled and out & (out - 1) == 0:
            torch.compiler.reset()  # else the number of outputs becomes a variable
            fn = torch.compile(pools(out)[1], dynamic=False)
            chart.compiled[out] = medians(lambda fn=fn: fn(x), lambda: None, timer, seconds)[0]
            told = f"   torch.compile {chart.compiled[out] * 1e6:7.1f} us"
        for of in (chart.forward, chart.backward):
            a, b = of[out]
            told = f"   Trident {a * 1e6:7.1f} us  torch {b * 1e6:7.1f} us {b / a:6.2f}" + told
        print(f"{out:4} (backward, forward){told}", flush=True)
    return chart


def show(outputs: Iterable[int], timer: timing.Timer, seconds: float, compiled: bool = False) -> Chart:
    print("\nadaptive_avg_pool2d 1x1x512x512")
    chart = measure(outputs, timer, seconds, compiled)
    for name, of in (("forward", chart.forward), ("backward", chart.backward)):
        ratios = [b / a for a, b in of.values()]
        mean = statistics.geometric_mean(ratios)
        print(f"{name}: best {max(ratios):.1f}, least {min(ratios):.1f}, geometric mean {mean:.1f} of {len(ratios)}")
    x = torch.randn(IMAGES)
    for out in IMAGE_OUTPUTS:
        found = [ratio(*calls, timer, 10 * seconds) for calls in ways(x, *pools(out))]
        print(f"{'x'.join(map(str, IMAGES))} -> {out}: forward {found[0]:.2f}, backward {found[1]:.2f}", flush=True)
    return chart


def draw(chart: Chart, path: Path, how: str) -> None:
    """Time over outputs, and how many times as fast as torch, as `trident.bench` draws its pictures."""
    from trident.bench.plots import COLOURS, RC, matplotlib, plt

    with matplotlib.rc_context(RC):
        figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
        outputs = list(chart.forward)
        for name, at, colour in (("eager torch", 1, "eager"), ("Trident", 0, "ours")):
            times = [found[at] * 1e6 for found in chart.forward.values()]
            left.plot(outputs, times, label=name, color=COLOURS[colour], linewidth=1.2)
        if chart.compiled:
            times = [s * 1e6 for s in chart.compiled.values()]
            left.plot(list(chart.compiled), times, "o", label="torch.compile", color=COLOURS["compile"], markersize=4)
        left.set(xlabel="outputs along each axis", ylabel="microseconds", yscale="log")
        low, high = left.get_ylim()
        ticks = [tick for tick in TICKS if low <= tick <= high]
        left.set_yticks(ticks, [str(tick) for tick in ticks])
        left.set_yticks([], minor=True)
        left.set_title("forward: time of a call", fontsize=9.5, loc="left")
        for name, of, colour in (("forward", chart.forward, "ours"), ("backward", chart.backward, "compile")):
            right.plot(outputs, [b / a for a, b in of.values()], label=name, color=COLOURS[colour], linewidth=1.2)
        right.axhline(1, color=COLOURS["soft"], linewidth=0.8)
        right.set(xlabel="outputs along each axis", ylim=(0, None))
        right.set_title("times as fast as eager torch", fontsize=9.5, loc="left")
        for axes in (left, right):
            axes.legend()
            axes.grid(alpha=0.6)
        figure.suptitle(f"adaptive_avg_pool2d of 1x1x512x512 float32; {how}", fontsize=9.5)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
        plt.close(figure)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--step", type=int, default=1, help="measure every so many outputs")
    parser.add_argument("--clock", default="cpu", choices=tuple(timing.CLOCKS))
    parser.add_argument("--seconds", type=float, default=0.03, help="how long each is timed, about")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--png", type=Path, default=Path("docs/headline.png"))
    options = parser.parse_args()
    timing.one_thread(options.clock)
    outputs = sorted({*range(2, 257, options.step), *(2**k for k in range(1, 9)), 7, 255})
    chart = show(outputs, timing.CLOCKS[options.clock], options.seconds, options.compile)
    threads = torch.get_num_threads()
    here = f"{machine('cpu', options.clock).device}, {torch.backends.cpu.get_cpu_capability()}"
    how = f"{here}, {threads} thread{'s' * (threads > 1)}"
    draw(chart, options.png, f"{how}, torch {torch.__version__}")
    print(f"{how}: {options.png}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
