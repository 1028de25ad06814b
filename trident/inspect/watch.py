"""What an operator does, event by event: the kernels it launches under the plans of a GPU, and the operators of torch
that it calls beside them. On tensors of the meta device nothing is computed: the events are all there is.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trident.cases import Case
from trident.cases.case import floating, results
from trident.runtime import launch, route, tuning
from trident.runtime.op import REGISTERED

CUDA = torch.device("cuda")
MULTIPROCESSORS = 132  # of an H100; plans differ from other cards' in the number of programs that walk


@dataclass
class Event:
    """A launch (kernel is not None) or an operator of torch. Tensors are kept, so that no storage is taken twice."""

    name: str
    reads: dict[str, Tensor]  # of a launch: all its tensors; which are read and which written only a run can tell
    writes: dict[str, Tensor]
    kernel: Any = None
    grid: tuple[int, ...] = ()
    args: tuple[Any, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    counted: Any = None  # what a counting run attaches (counting.Counts)


@dataclass
class Direction:
    """One direction of a call of an operator, from outside: `inputs` were there before, `results` are asked for."""

    name: str  # forward or backward
    inputs: list[Tensor]
    results: list[Tensor]
    events: list[Event]


def storage(t: Tensor) -> int:
    return t.untyped_storage()._cdata


def nbytes(t: Tensor) -> int:
    """Bytes of memory under a tensor: an expanded dimension has none."""
    used = 1
    for size, stride in zip(t.shape, t.stride(), strict=True):
        used *= size if stride else 1
    return used * t.element_size()


# operators of torch that write their first operand, or make a tensor like it, whatever is in it
OVERWRITES = {"copy_", "zero_", "fill_", "exponential_", "uniform_", "normal_", "bernoulli_", "random_"}


def _overwrites(name: str) -> bool:
    name = name.split(".")[0]
    return name in OVERWRITES or name.startswith("new_") or name.endswith("_like")


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    return [t for v in value for t in _tensors(v)] if isinstance(value, tuple | list) else []


class Watch(TorchDispatchMode):
    """Within the block the operators of torch are noted in `events`, and Trident's are looked into.

    clean: fresh memory is zero, so that indices which a kernel was to write, and did not, are at least valid.
    """

    def __init__(self, clean: bool = False) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.clean = clean
        self.paused = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.paused:
            return func(*args, **(kwargs or {}))
        if func.namespace == "trident":
            with self:
                return REGISTERED[func.name().removeprefix("trident::")]._init_fn(*args, **(kwargs or {}))
        out = func(*args, **(kwargs or {}))
        name = func.name().removeprefix("aten::")
        before, after = _tensors(list(args)), _tensors(out)
        if "empty" in name:
            return out.zero_() if self.clean and out.device.type != "meta" else out
        if func._schema.is_mutable or {storage(t) for t in after} - {storage(t) for t in before}:
            reads = {f"operand {i}": t for i, t in enumerate(before)}
            if _overwrites(name):
                del reads["operand 0"]
            self.events.append(Event(name, reads, {f"result {i}": t for i, t in enumerate(after)}))
        return out


@contextmanager
def planned_for_gpus(note: Callable[..., None], of: str = "") -> Iterator[None]:
    """Within the block tuning plans for a GPU of 132 multiprocessors, and launches are handed to `note` only.

    Those of Trident's operators, and of the module named `of`.
    """

    def for_gpu(decide: Callable[..., Any]) -> Callable[..., Any]:
        plain = getattr(decide, "__wrapped__", decide)  # a heuristic without its cache
        return lambda *args: plain(*(CUDA if isinstance(a, torch.device) else a for a in args))

    def of_device(value: Any) -> bool:
        """A plan, or another choice of `tuning`'s: both are asked with the device."""
        said = getattr(value, "__annotations__", {})
        in_tuning = getattr(value, "__module__", "").startswith("trident.runtime.tuning")
        return said.get("return") is tuning.Plan or (in_tuning and torch.device in said.values())

    def planned(kernel: Any, plan: tuning.Plan, *tensors: Tensor) -> None:
        note(kernel, plan.grid, *tensors, **plan.meta)

    operators = [module for name, module in list(sys.modules.items()) if name.startswith("trident.ops.") or name == of]
    planners = [module for name, module in list(sys.modules.items()) if name.startswith("trident.runtime.tuning")]
    with ExitStack() as patches, route.forced("kernels"):
        patches.enter_context(mock.patch.object(tuning, "multiprocessors", lambda device: MULTIPROCESSORS))
        for module in [*planners, *operators]:
            for key, value in list(vars(module).items()):
                if value is launch.launch and module not in planners:
                    patches.enter_context(mock.patch.object(module, key, note))
                elif value is launch.launch_planned:
                    patches.enter_context(mock.patch.object(module, key, planned))
                elif of_device(value):
                    patches.enter_context(mock.patch.object(module, key, for_gpu(value)))
        yield


def named(kernel: Any, args: tuple[Any, ...]) -> dict[str, Any]:
    """Positional arguments of a launch by the names of the kernel's parameters."""
    names = getattr(kernel, "arg_names", None) or [p.name for p in kernel.params]
    return dict(zip(names, args, strict=False))


def watched(
    case: Case,
    shape: Sequence[int],
    dtype: torch.dtype,
    device: str = "meta",
    run: Callable[[Event], None] | None = None,
) -> list[Direction]:
    """The forward and the backward of a case as a GPU would be asked for them. `run` is given each launch.

    On another device than meta values are computed as far as `run` computes them; fresh memory is zero.
    """
    watch = Watch(clean=device != "meta")

    def note(kernel: Any, grid: tuple[int, ...], *args: Any, **meta: Any) -> None:
        if 0 in grid:
            return
        tensors = {k: v for k, v in {**named(kernel, args), **meta}.items() if isinstance(v, Tensor)}
        event = Event(getattr(kernel, "__name__", str(kernel)), tensors, tensors, kernel, grid, args, meta)
        watch.events.append(event)
        if run is not None:
            watch.paused = True  # the interpreter moves tensors about
            run(event)
            watch.paused = False

    with torch.device(device):
        made = case.inputs(tuple(shape))
    inputs = [t.to(dtype).requires_grad_() if t.is_floating_point() else t for t in made]
    wanted = [t for t in inputs if t.requires_grad]
    also = case.also(inputs[0].detach())  # as bench does: making it is not the operator's work
    with planned_for_gpus(note, case.ours.__module__):
        with watch:
            y = floating(results(case.ours(*inputs, **also)))
        directions = [Direction("forward", inputs, [t.detach() for t in y], watch.events)]
        watch.events = []
        dy = [torch.empty_like(t) if device == "meta" else torch.ones_like(t) for t in y]
        with watch:
            dx = torch.autograd.grad(y, wanted, dy)
    return [*directions, Direction("backward", [*inputs, *dy], list(dx), watch.events)]
