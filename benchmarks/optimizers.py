"""A step of `trident.optim` against torch's: as it is by default, foreach=True and fused=True. One thread, CPU time.

    python -m benchmarks.optimizers [part of a row's name ...]

Microseconds, medians of rounds in turns. The parameters: of a Llama of eight layers, 256 wide (7.6 million elements in
75 tensors), and lists of small ones; gradients stay where they are, as with zero_grad(set_to_none=False).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from trident import optim
from trident.runtime import route

LAYER = ((256,), (256, 256), (64, 256), (64, 256), (256, 256), (256,), (688, 256), (688, 256), (256, 688))
LISTS = {
    "llama": [(4096, 256), *LAYER * 8, (256,), (4096, 256)],
    "300 of 64": [(64,)] * 300,
    "75 of 256": [(256,)] * 75,
    "12 of 256": [(256,)] * 12,
    "3 of 256": [(256,)] * 3,
    "1 of 256": [(256,)],
    "1 of 65536": [(65536,)],
    "4 of 1048576": [(1024, 1024)] * 4,
}
STEPS: dict[str, dict[str, Any]] = {
    "AdamW": {},
    "SGD": {},
    "SGD momentum": {"momentum": 0.9, "weight_decay": 0.01},
    "Lion": {},
    "Adafactor": {},
    "clip_grad_norm_": {},
}
WAYS: tuple[dict[str, Any], ...] = ({}, {"foreach": True}, {"fused": True})
ROUNDS = 25


def parameters(shapes: list[tuple[int, ...]]) -> list[nn.Parameter]:
    torch.manual_seed(0)
    made = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in made:
        p.grad = torch.randn_like(p)
    return made


def calls(name: str, shapes: list[tuple[int, ...]]) -> dict[str, Callable[[], Any]]:
    """Ours first."""
    kind, options = name.split()[0], STEPS[name]
    if kind == "clip_grad_norm_":
        ours, theirs = parameters(shapes), parameters(shapes)
        return {
            "trident": lambda: optim.clip_grad_norm_(ours, 1e-3),
            "torch": lambda: nn.utils.clip_grad_norm_(theirs, 1e-3),
        }
    found = {"trident": getattr(optim, kind)(parameters(shapes), **options).step}
    if hasattr(torch.optim, kind):
        for way in WAYS[: 2 if kind == "Adafactor" else None]:  # which has no fused=True
            label = "torch " + " ".join(way)
            found[label.strip()] = getattr(torch.optim, kind)(parameters(shapes), **options, **way).step
    return found


def microseconds(fns: list[Callable[[], Any]]) -> list[float]:
    taken: list[list[float]] = [[] for _ in fns]
    for i in range(ROUNDS + 2):
        for fn, times in zip(fns, taken, strict=True):
            start = time.thread_time()
            fn()
            if i >= 2:  # the first ones compile and make states
                times.append(time.thread_time() - start)
    return [statistics.median(times) * 1e6 for times in taken]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in STEPS:
        for label, shapes in LISTS.items():
            if options.names and not any(part in f"{name} {label}" for part in options.names):
                continue
            made = calls(name, shapes)
            with route.forced("kernels"):
                row = microseconds(list(made.values()))
            cells = "  ".join(f"{way} {us:.0f}" for way, us in zip(made, row, strict=True))
            print(f"{name:16} {label:14} {cells}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
