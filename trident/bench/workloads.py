"""What is timed: a case at a shape, in a dtype, forward or backward or both, as callables that take fresh inputs.

Inputs change from call to call among copies that together exceed twice the last-level cache, so a call finds them in
memory, as a layer of a model that does not fit the cache does. Outputs are allocated by each call.
"""

import dataclasses
import fnmatch
import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from trident.cases import CASES, FAMILIES, Case
from trident.cases.case import Shape, floating, results

Function = Callable[..., Tensor | Sequence[Tensor]]
Call = Callable[[], object]
Graph = tuple[list[Tensor], list[Tensor], list[Tensor]]  # results, leaves, a gradient of each result

WAYS = ("forward", "backward", "both")
MOST_COPIES = 1024  # of small inputs: more would measure the list of them
MOST_GRAPHS = 64  # and of a backward's, whose graphs are kept
FEWEST_GRAPHS, MAKING = 4, 1.0  # of a slow function not all: seconds after which no more are made
FAMILY_OF = {name: family.__name__.split(".")[-1] for family in FAMILIES for name in family.CASES}


@functools.cache
def last_level_cache(device: str) -> int:
    """Bytes; 32 MiB where the system does not say."""
    if device == "cuda":
        return int(torch.cuda.get_device_properties(0).L2_cache_size)
    found = [p.read_text().strip() for p in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    return max((int(size[:-1]) * units[size[-1]] for size in found if size[-1:] in units), default=32 << 20)


def nbytes(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


@dataclass(frozen=True)
class Workload:
    name: str
    case: Case
    shape: Shape
    dtype: torch.dtype
    way: str
    device: str = "cpu"
    cold: bool = True  # inputs rotated past the cache

    @property
    def family(self) -> str:
        return FAMILY_OF.get(self.name, "other")

    def inputs(self) -> list[Tensor]:
        """The same each time; the floating ones are leaves that want a gradient."""
        torch.manual_seed(0)
        made = [t.to(self.device) for t in self.case.inputs(self.shape)]
        return [t.to(self.dtype).requires_grad_() if t.is_floating_point() else t for t in made]

    def copies(self, inputs: list[Tensor]) -> list[list[Tensor]]:
        """Inputs to rotate through."""
        enough = -(-2 * last_level_cache(self.device) // max(1, nbytes(inputs)))
        count = min(MOST_COPIES, enough) if self.cold else 1

        def copy(t: Tensor) -> Tensor:
            return t.detach().clone().requires_grad_(t.requires_grad)

        return [inputs, *([copy(t) for t in inputs] for _ in range(count - 1))]

    def shared(self) -> list[list[Tensor]]:
        """The same for all ways of a case at one shape, which follow each other: with a large cache to leave, making
        them takes longer than what is timed."""
        return _shared(dataclasses.replace(self, way="forward"))

    def call(self, fn: Function, copies: list[list[Tensor]]) -> Call:
        """One call of it. A forward is to be called under torch.no_grad()."""
        if self.way == "backward":
            graphs = itertools.cycle(list(self._graphs(fn, copies))).__next__
            return lambda: torch.autograd.grad(*graphs(), retain_graph=True)
        turn = itertools.cycle([(inputs, self._named(inputs)) for inputs in copies]).__next__

        def forward() -> Tensor | Sequence[Tensor]:
            inputs, named = turn()
            return fn(*inputs, **named)

        if self.way == "forward":
            return forward
        dy = [torch.ones_like(t) for t in floating(results(forward()))]

        def both() -> object:
            inputs, named = turn()
            return torch.autograd.grad(floating(results(fn(*inputs, **named))), leaves(inputs), dy)

        return both

    def _named(self, inputs: list[Tensor]) -> dict[str, Tensor]:
        """What the function takes by name: making it is nobody's work that is timed."""
        return self.case.also(inputs[0].detach())

    def _graphs(self, fn: Function, copies: list[list[Tensor]]) -> Iterator[Graph]:
        start = time.perf_counter()
        for i, inputs in enumerate(copies[:MOST_GRAPHS]):
            if i < FEWEST_GRAPHS or time.perf_counter() - start < MAKING:
                yield graph(functools.partial(fn, **self._named(inputs)), inputs)

    @property
    def differentiable(self) -> bool:
        """Has it a gradient? argmax has none."""
        small = Workload(self.name, self.case, self.case.shapes[0], self.dtype, "both", self.device)
        return any(t.requires_grad for t in results(self.case.reference(*small.inputs())))

    def traffic(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> int:
        """Compulsory bytes: each tensor read once and written once. A backward reads the inputs and the gradient of
        the outputs, and writes a gradient of each floating input."""
        forward = nbytes(inputs) + nbytes(outputs)
        backward = nbytes(inputs) + nbytes(floating(outputs)) + nbytes(floating(inputs))
        return {"forward": forward, "backward": backward, "both": forward + backward}[self.way]

    def flops(self) -> float | None:
        """A backward has two products for each of the forward's."""
        once = self.case.flops and self.case.flops(self.shape)
        return {"forward": 1, "backward": 2, "both": 3}[self.way] * once if once else None


@functools.lru_cache(maxsize=1)
def _shared(workload: Workload) -> list[list[Tensor]]:
    return workload.copies(workload.inputs())


def leaves(inputs: Sequence[Tensor]) -> list[Tensor]:
    return [t for t in inputs if t.requires_grad]


def graph(fn: Function, inputs: Sequence[Tensor]) -> Graph:
    """Results, leaves and a gradient of each result: what torch.autograd.grad takes."""
    y = floating(results(fn(*inputs)))
    return y, leaves(inputs), [torch.ones_like(t) for t in y]


def select(
    names: Sequence[str],
    ways: Sequence[str],
    dtype: torch.dtype,
    sizes: Sequence[Shape] = (),
    largest: int | None = None,
    device: str = "cpu",
    cold: bool = True,
) -> list[Workload]:
    """The workloads of the named cases; `rms_norm*` names a function with its variants, no names every function
    without them. sizes: instead of a case's own, where some have as many dimensions.

    Raises ValueError naming what is not a case.
    """
    chosen: dict[str, Case] = {}
    for name in names:
        found = {n: case for n, case in CASES.items() if fnmatch.fnmatchcase(n, name)}
        if not found:
            raise ValueError(f"bench: {name!r} is not a case; one of: {', '.join(sorted(CASES))}")
        chosen |= found
    if not names:
        chosen = {name: case for name, case in CASES.items() if "." not in name}
    made = []
    for name, case in chosen.items():
        if dtype not in case.dtypes:
            continue
        dims = len(case.bench[-1] if case.bench else case.shapes[0])
        shapes = [shape for shape in sizes if len(shape) == dims] or case.bench
        for shape in shapes:
            if largest is None or torch.Size(shape).numel() <= largest:
                made += [Workload(name, case, tuple(shape), dtype, way, device, cold) for way in ways]
    return made
