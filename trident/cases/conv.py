"""Cases of trident.nn.conv: few shapes, since each kernel of a convolution takes a second to compile.

In one and three dimensions kernels are those of two, and so is the program in front of them.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import Case, Errors, Shape, randn
from trident.ops._activation import ACTIVATIONS

BAD: Errors = (
    lambda f: f(torch.randn(2, 3), torch.randn(4, 3, 2, 2)),
    lambda f: f(torch.randn(2, 3, 5, 5), torch.randn(4, 2, 2, 2)),
    lambda f: f(torch.randn(2, 4, 5, 5), torch.randn(4, 4, 2, 2), torch.randn(3)),
    lambda f: f(torch.randn(2, 4, 5, 5), torch.randn(4, 4, 2, 2).double()),
    lambda f: f(torch.randn(2, 4, 5, 5), torch.randn(4, 4, 2, 2), None, 0),
    lambda f: f(torch.randn(2, 4, 5, 5), torch.randn(4, 4, 2, 2), None, 1, -1),
    lambda f: f(torch.randn(2, 4, 5, 5), torch.randn(4, 4, 2, 2), None, (1, 1, 1)),
)
BAD_FORWARD: Errors = (
    lambda f: f(torch.randn(2, 4, 5, 5), torch.randn(4, 4, 9, 9)),
    lambda f: f(torch.randn(2, 4, 5, 5), torch.randn(4, 4, 3, 3), None, 2, "same"),
    lambda f: f(torch.randn(2, 4, 5, 5), torch.randn(4, 2, 2, 2), None, 1, 0, 1, 3),
)
BAD_TRANSPOSED: Errors = (lambda f: f(torch.randn(2, 4, 5, 5), torch.randn(4, 4, 2, 2), None, 2, 0, 2),)


def _conv(
    name: str,
    shapes: Sequence[Shape],
    out: int,
    kernel: Sequence[int],
    groups: int = 1,
    bias: bool = True,
    activation: str | None = None,
    module: bool = False,
    errors: Errors = (),
    bench: Sequence[Shape] = (),
    **options: Any,
) -> Case:
    """out: channels of y in a group, of all shapes; those of x are the shapes', which a module wants to be alike."""
    transposed = "transpose" in name
    ours, theirs = getattr(T, name), getattr(F, name)
    options = {**options, **({"groups": groups} if groups != 1 else {})}
    n = len(kernel)

    def inputs(shape: Shape) -> list[torch.Tensor]:
        channels = shape[len(shape) - n - 1]
        w = (channels, out) if transposed else (out * groups, channels // groups)
        return [randn(*shape), randn(*w, *kernel), *([randn(out * groups)] if bias else [])]

    def outputs(shape: Shape) -> int:
        """Elements of y."""
        with torch.device("meta"):
            found: torch.Tensor = theirs(*inputs(shape), **options)
        return found.numel()

    def longest(shape: Shape) -> int:
        channels = shape[len(shape) - n - 1]
        wide = max(channels, out * groups)
        return max(math.prod(kernel) * wide, outputs(shape) // (out * groups), math.prod(shape) // channels)

    def flops(shape: Shape) -> float:
        channels = shape[len(shape) - n - 1]
        pairs = math.prod(shape) * out if transposed else outputs(shape) * channels // groups
        return 2.0 * pairs * math.prod(kernel)

    def reference(*t: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = theirs(*t, **options)
        return y if activation is None else ACTIVATIONS[activation].torch(y)

    extra = {} if activation is None else {"activation": activation}
    n_in = shapes[0][-n - 1]
    return Case(
        ours=lambda *t: ours(*t, **options, **extra),
        reference=reference,
        shapes=shapes,
        inputs=inputs,
        reduced=longest,
        errors=errors,
        cls=name.replace("conv", "Conv").replace("_t", "T") if module else "",
        module=(lambda cls: cls(n_in, out * groups, kernel, bias=bias, **options)) if module else None,
        bench=bench,
        flops=flops,
    )


LINES = ((2, 3, 8), (1, 5, 70))
PLANES = ((2, 3, 5, 6), (1, 3, 3, 4), (3, 17, 9, 7), (1, 3, 40, 33))
GROUPED = ((2, 6, 5, 6), (1, 6, 11, 9))
DEEP = ((2, 6, 5, 6), (2, 6, 17, 40))
SPACES = ((2, 2, 4, 3, 5), (2, 4, 3, 5, 6))  # of one small image torch forgets channels_last_3d
RESNET = ((1, 64, 8, 8), (2, 64, 28, 28), (8, 64, 56, 56))

CASES: dict[str, Case] = {
    "conv2d": _conv("conv2d", PLANES, 4, (3, 3), padding=1, module=True, errors=(*BAD, *BAD_FORWARD), bench=RESNET),
    "conv2d.stride": _conv("conv2d", PLANES[:3], 5, (3, 2), stride=(2, 1), dilation=(1, 2), bias=False, padding=(1, 1)),
    "conv2d.relu": _conv("conv2d", PLANES[::2], 4, (3, 3), padding="same", activation="relu", bench=RESNET[1:]),
    "conv2d.silu": _conv("conv2d", PLANES[::2], 4, (1, 1), activation="silu", bench=RESNET[1:]),
    "conv2d.groups": _conv("conv2d", GROUPED, 2, (3, 3), groups=2, stride=2, padding=1),
    "conv2d.depthwise": _conv(
        "conv2d", DEEP, 1, (3, 3), groups=6, padding=1, bench=((1, 6, 16, 16), (4, 6, 112, 112), (8, 6, 512, 512))
    ),
    "conv2d.depthwise_stride": _conv(
        "conv2d", DEEP, 1, (3, 5), groups=6, stride=2, padding=2, dilation=(2, 1), activation="silu"
    ),
    "conv1d": _conv("conv1d", LINES, 4, (4,), padding="same", module=True, bench=((8, 16, 512),)),
    "conv3d": _conv(
        "conv3d", SPACES, 3, (2, 3, 2), padding=1, stride=(1, 2, 1), module=True, bench=((2, 16, 8, 14, 14),)
    ),
    "conv_transpose2d": _conv(
        "conv_transpose2d",
        PLANES[::2],
        4,
        (3, 4),
        stride=2,
        padding=1,
        output_padding=1,
        module=True,
        errors=(*BAD, *BAD_TRANSPOSED),
        bench=RESNET[:2],
    ),
    "conv_transpose2d.groups": _conv(
        "conv_transpose2d", GROUPED, 2, (3, 3), groups=3, stride=(2, 3), dilation=(2, 2), activation="gelu"
    ),
    "conv_transpose1d": _conv("conv_transpose1d", LINES, 2, (3,), module=True, bench=((8, 16, 512),)),
    "conv_transpose3d": _conv(
        "conv_transpose3d", SPACES, 3, (2, 3, 2), stride=2, module=True, bench=((2, 16, 8, 14, 14),)
    ),
    "conv_tbc": Case(
        ours=lambda x, w, b: T.conv_tbc(x, w, b, 1),
        reference=lambda x, w, b: F.conv_tbc(x.contiguous(), w, b, 1),  # torch's gradient takes no other
        shapes=((6, 2, 3), (70, 1, 5)),
        inputs=lambda shape: [randn(*shape), randn(4, shape[2], 5), randn(5)],
        reduced=lambda shape: 20 * max(shape[0] * shape[1], shape[2]),
        errors=(
            lambda f: f(torch.randn(6, 2, 3), torch.randn(4, 4, 5), torch.randn(5), 1),
            lambda f: f(torch.randn(6, 2), torch.randn(4, 3, 5), torch.randn(5), 1),
        ),
    ),
}
