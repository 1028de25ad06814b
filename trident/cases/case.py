"""What a case says, and the shapes that several families share."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

# TRIDENT_TESTS=all (`make test-all`): every dtype at every shape; else what finds nearly as much in a third of the time
EVERYTHING = os.environ.get("TRIDENT_TESTS") == "all"

Shape = tuple[int, ...]


Errors = Sequence[Callable[[Callable[..., torch.Tensor]], object]]


ALL = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Case:
    """ours and reference take the same tensors. Shapes are those of the input; the first one is the smallest."""

    ours: Callable[..., torch.Tensor | Sequence[torch.Tensor]]
    reference: Callable[..., torch.Tensor | Sequence[torch.Tensor]]
    shapes: Sequence[Shape]
    inputs: Callable[[Shape], list[torch.Tensor]] = lambda shape: [torch.randn(shape, dtype=torch.float64)]
    # float64 or integer tensors; the floating ones are cast to the dtype under test and are differentiated
    reduced: Callable[[Shape], int] = lambda shape: 1  # the longest sum behind an element of the results
    exact: Callable[..., torch.Tensor | Sequence[torch.Tensor]] | None = (
        None  # a better float64 reference, where torch's computes in float32
    )
    twice: Callable[..., torch.Tensor | Sequence[torch.Tensor]] | None = (
        None  # the reference for second derivatives, where torch's operator has none and ours has
    )
    dtypes: Sequence[torch.dtype] = ALL
    specials: Sequence[float] | None = None  # kinks of a pointwise operator, where sub-gradients must be torch's
    random: bool = False  # draws random numbers: values are checked in the operator's own test file
    errors: Errors = ()  # bad calls: f -> f(bad input)
    module: Callable[[type], torch.nn.Module] | None = None  # cls -> an instance with one input
    cls: str = ""  # its name in torch.nn and trident.nn
    takes: int = 1  # how many of the floating inputs it takes; the others are its parameters
    # what it takes by name too, made from the first input: by ours and reference themselves, if not handed to them
    also: Callable[[torch.Tensor], dict[str, torch.Tensor]] = lambda x: {}
    autocast: Sequence[torch.dtype] = (torch.bfloat16, torch.float32)  # input dtypes tried under autocast
    keeps_format: bool = False  # channels_last in, channels_last out, also where torch's CUDA operator loses it
    bench: Sequence[Shape] = ()
    flops: Callable[[Shape], float] | None = None  # of a forward, where arithmetic bounds it and not memory
    steps: Callable[[Shape], int] = lambda shape: 1  # of a layer over a sequence, one after another
    name: str = field(default="", compare=False)


def results(y: torch.Tensor | Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Of an operator with one result or, as max(x, dim), with several: all of them."""
    return [y] if isinstance(y, torch.Tensor) else list(y)


def floating(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [t for t in tensors if t.is_floating_point()]


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


ROWS = ((2, 3), (1, 1), (5, 7), (3, 4, 33), (257, 3), (2, 1000))


LONG_ROWS = (*ROWS, (2, 65537), (3, 32769))


CHANNELS_BENCH = {3: ((32, 64, 4096),), 4: ((1, 3, 16, 16), (64, 64, 56, 56)), 5: ((8, 64, 16, 28, 28),)}  # by dim


ROWS_BENCH = ((4, 256), (256, 1024), (4096, 4096))


FLAT = ((2, 3, 4, 5), (1,), (7, 33), (257,), (65537,))


FLAT_BENCH = ((1024,), (512, 512), (4096, 4096))
