"""Whom Trident is compared with: eager torch, torch.compile, Liger-Kernel. Who is not there is left out by name."""

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch._functorch.config
from torch import Tensor

from trident.bench.results import LACKS
from trident.bench.workloads import Function, Workload


@dataclass(frozen=True)
class Rival:
    name: str
    make: Callable[[Workload], Function]
    missing: Callable[[], str | None] = lambda: None  # why it cannot take part here
    overwrites: bool = False  # its backward writes over its inputs
    absent: Callable[[Workload], str | None] = lambda workload: None  # why it is not compared with in a workload


# Dynamo unrolls layers over a sequence: 16 steps take 15 to 45 s to compile, 64 up to 99 s (docs/measured.md)
MOST_STEPS = 4


def _unrolled(workload: Workload) -> str | None:
    steps = workload.case.steps(workload.shape)
    return f"would compile each of {steps} steps, 1 to 3 s for one" if steps > MOST_STEPS else None


def _compiled(workload: Workload) -> Function:
    torch._functorch.config.donated_buffer = False  # else a backward can be called only once
    torch._dynamo.reset()  # else the cases, whose references are closures of one function, reach the recompile limit
    return torch.compile(workload.case.reference, dynamic=False)


# case -> Liger's function, called with what the case's functions take. Names, not imports: loaded if asked for.
LIGER: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "cross_entropy": ("cross_entropy.LigerCrossEntropyFunction", lambda f, x, target: f(x, target, None)[0]),
    "geglu.tanh": ("geglu.LigerGELUMulFunction", lambda f, a, b: f(b, a)),
    "group_norm": ("group_norm.LigerGroupNormFunction", lambda f, x, w, b: f(x, w, b, x.shape[1], 2, 1e-5)),
    "layer_norm": ("layer_norm.LigerLayerNormFunction", lambda f, x, w, b: f(x, w, b, 1e-5)),
    "rms_norm": ("rms_norm.LigerRMSNormFunction", lambda f, x, w: f(x, w, 1.0, 0.0, "llama", False)),
    "softmax": ("softmax.LigerSoftmaxFunction", lambda f, x: f(x)),
    "swiglu.two": ("swiglu.LigerSiLUMulFunction", lambda f, a, b: f(b, a)),
}


def _liger(workload: Workload) -> Function:
    if workload.device == "cpu":
        import trident_cpu

        trident_cpu.install()  # Liger's own kernels, compiled by Trident's backend: Triton has none for CPUs
    path, call = LIGER[workload.name]
    module, cls = path.split(".")
    function = getattr(importlib.import_module(f"liger_kernel.ops.{module}"), cls).apply
    return lambda *inputs: call(function, *inputs)


def _not_ligers(workload: Workload) -> str | None:
    return None if workload.name in LIGER else LACKS


def _no_liger() -> str | None:
    return None if importlib.util.find_spec("liger_kernel") else "liger-kernel is not installed"


RIVALS = {
    rival.name: rival
    for rival in (
        Rival("eager", lambda workload: workload.case.reference),
        Rival("compile", _compiled, absent=_unrolled),
        Rival("liger", _liger, _no_liger, overwrites=True, absent=_not_ligers),
    )
}


def available(names: Sequence[str]) -> tuple[list[Rival], dict[str, str]]:
    """Those of the named rivals that are here, and why the others are not. Raises ValueError naming an unknown one."""
    for name in names:
        if name not in RIVALS:
            raise ValueError(f"bench: {name!r} is not a rival; one of: {', '.join(RIVALS)}")
    missing = {name: reason for name in names if (reason := RIVALS[name].missing())}
    return [RIVALS[name] for name in names if name not in missing], missing
