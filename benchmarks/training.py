"""Whole training steps of the mini models as users run them: zero_grad, forward, loss, backward, clipping, AdamW.

    python -m benchmarks.training [llama vit resnet unet] [--clock wall] [--rounds 15] [--sides eager,trident]

eager    the model, torch.optim, torch's clip_grad_norm_; "again" is the same with each batch turned round: how far two
         runs of torch are apart, in time and in numbers; "kept" is eager with the memory that Trident keeps
compile  torch.compile(model), and torch's optimizer
trident  trident.optimize(model), the loss of trident.functional, trident.optim; "lazy" with lazy_logits
backend  torch.compile(model, backend="trident"), trident.optim

Each side is a process of its own, so that what one asks of the allocator or of torch is not the other's; they take
turns, one step each, and wait for the others. Above 1 a side is faster than eager. A ratio is refused where losses or
parameters after the last step are farther from eager's than FACTOR times what turning the batches does (and ROUNDING).
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import trident
from trident.bench import memory, mini, timing
from trident.bench.results import machine
from trident.runtime import pages

SIDES = ("eager", "again", "kept", "compile", "trident", "lazy", "backend")
COUNTS = {"vit": 8, "resnet": 16, "unet": 8}  # images of a batch; the language models take mini.BATCH texts
BATCHES, WARM = 4, 3  # batches that come again and again; steps before the clock
FACTOR = 4.0  # of the distance between two runs of torch that differ in the order of sums
ROUNDING = 32 * torch.finfo(torch.float32).eps  # nobody's fault
OURS = frozenset({"trident", "lazy", "backend"})

Step = Callable[[], float]  # gives the loss


def loss_of(name: str, y: Tensor, target: Tensor, side: str) -> Tensor:
    F = trident.functional if side in OURS else torch.nn.functional
    return F.mse_loss(y, target) if name == "unet" else F.cross_entropy(y.flatten(0, -2), target.flatten())


def batches(name: str, turned: bool) -> list[tuple[list[Tensor], Tensor]]:
    """(what the model takes, what it is to give). Images of a class have its brightness; the next tokens; noise."""
    torch.manual_seed(0)
    found = []
    for _ in range(BATCHES):
        given = mini.inputs(name, COUNTS.get(name, mini.BATCH))
        if name in ("vit", "resnet"):
            target = torch.randint(mini.size(name, False).words, (len(given[0]),))
            given[0] += target.view(-1, 1, 1, 1) / 50
        else:
            target = torch.randn_like(given[0]) if name == "unet" else given[0].roll(-1, 1)
        turn = (lambda t: t.flip(0)) if turned else (lambda t: t)
        found.append(([turn(t) for t in given], turn(target)))
    return found


def step_of(name: str, side: str) -> tuple[torch.nn.Module, Step]:
    model, optim, clip = mini.model(name).train(), torch.optim, torch.nn.utils.clip_grad_norm_
    if side in OURS:
        optim, clip = trident.optim, trident.optim.clip_grad_norm_
    if side in ("trident", "lazy"):
        trident.optimize(model, lazy_logits="head" if side == "lazy" else False)
    if side == "kept":
        pages.keep()
    forward: Any = model
    if side in ("compile", "backend"):
        forward = torch.compile(model, backend="inductor" if side == "compile" else "trident")
    optimizer = optim.AdamW(model.parameters(), lr=1e-3)
    data: Iterator[tuple[list[Tensor], Tensor]] = _endless(batches(name, turned=side == "again"))

    def step() -> float:
        given, target = next(data)
        optimizer.zero_grad()
        loss = loss_of(name, forward(*given), target, side)
        loss.backward()
        clip(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return model, step


def _endless(found: list[Any]) -> Iterator[Any]:
    while True:
        yield from found


def work(name: str, side: str, clock: str, threads: int, at: Path) -> None:
    """The process of a side: a line for each step that it is asked for, and in the end what became of the model."""
    torch.set_num_threads(threads)
    model, step = step_of(name, side)
    begin = torch.cat([p.detach().flatten() for p in model.parameters()])
    losses = [step() for _ in range(WARM)]
    timer = timing.CLOCKS[clock]
    with timing.no_collection():
        for _ in iter(sys.stdin.readline, "end\n"):
            faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            taken = timer(lambda: losses.append(step()), 1)
            print(json.dumps([taken, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults]), flush=True)
    end = torch.cat([p.detach().flatten() for p in model.parameters()])
    torch.save({"losses": torch.tensor(losses), "moved": end - begin}, at)
    print(json.dumps([memory.peak(step, "cpu")]), flush=True)


def start(name: str, side: str, clock: str, threads: int, at: Path) -> subprocess.Popen[str]:
    command = (sys.executable, "-m", "benchmarks.training", name, "--work", side, str(at))
    return subprocess.Popen(
        [*command, "--clock", clock, "--threads", str(threads)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def ask(process: subprocess.Popen[str], word: str) -> Any:
    assert process.stdin is not None and process.stdout is not None  # for mypy
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"{process.args}: ended with {process.wait()}")  # type: ignore[str-bytes-safe]
    return json.loads(line)


def far(found: dict[str, Tensor], other: dict[str, Tensor]) -> tuple[float, float]:
    """Of the losses, and of how the parameters moved: the distance over eager's length."""
    pairs = [(found[key].double(), other[key].double()) for key in ("losses", "moved")]
    a, b = (((x - y).norm() / y.norm()).item() for x, y in pairs)
    return a, b


def measure(name: str, sides: list[str], clock: str, threads: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ends = {side: Path(folder, side) for side in sides}
        processes = {side: start(name, side, clock, threads, at) for side, at in ends.items()}
        try:
            for process in processes.values():
                ask(process, "step")  # each has compiled and warmed up before the first is timed
            steps: dict[str, list[list[float]]] = {side: [] for side in sides}
            for turn in range(rounds):
                for side in sides if turn % 2 else reversed(sides):
                    steps[side].append(ask(processes[side], "step"))
            peaks = {side: ask(process, "end")[0] for side, process in processes.items()}
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
        found = {side: torch.load(at) for side, at in ends.items()}
    tell(name, steps, peaks, {side: far(end, found["eager"]) for side, end in found.items()})


def tell(
    name: str,
    steps: dict[str, list[list[float]]],
    peaks: dict[str, int | None],
    distance: dict[str, tuple[float, float]],
) -> None:
    for side, taken in steps.items():
        seconds, faults = ([step[i] for step in taken] for i in (0, 1))
        ratio = timing.ratio([eager for eager, _ in steps["eager"]], seconds)
        allowed = [FACTOR * d + ROUNDING for d in distance["again"]] if "again" in distance else [float("inf")] * 2
        wrong = not all(d <= most for d, most in zip(distance[side], allowed, strict=True))
        told = "refused" if wrong else f"{ratio.median:.3f} ±{ratio.half:.3f}"
        apart = "losses {:.1e}, parameters {:.1e} apart".format(*distance[side])
        peak = f"{(peaks[side] or 0) / 1e6:.0f} MB"
        print(
            f"{name:7} {side:8} {statistics.median(seconds) * 1e3:7.1f} ms  {told:14} {peak:>7}  "
            f"{statistics.median(faults):6.0f} faults  {apart}",
            flush=True,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["llama", "vit", "resnet", "unet"])
    parser.add_argument("--sides", default="eager,again,kept,compile,trident,backend", help=", ".join(SIDES))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--clock", default="cpu", choices=tuple(timing.CLOCKS), help="cpu: of one thread")
    parser.add_argument("--threads", type=int, help="1, or 2 by --clock wall, if not given")
    parser.add_argument("--work", nargs=2, metavar=("SIDE", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    threads = options.threads or (1 if options.clock == "cpu" else 2)
    if options.work:
        work(options.names[0], options.work[0], options.clock, threads, Path(options.work[1]))
        return 0
    sides = options.sides.split(",")
    if sides[0] != "eager" or not set(sides) <= set(SIDES):
        parser.error(f"--sides {options.sides}: expected eager, then any of {', '.join(SIDES[1:])}")
    print(machine("cpu", options.clock), f"{threads} thread{'s' * (threads > 1)}", flush=True)
    for name in options.names:
        measure(name, sides, options.clock, threads, options.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
