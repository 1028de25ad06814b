"""What each operator is checked against, and at which sizes it is timed. Tests and the bench both read this."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.ops._activation import ACTIVATIONS

Shape = tuple[int, ...]
Errors = Sequence[Callable[[Callable[..., torch.Tensor]], object]]
ALL = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@dataclass(frozen=True)
class Case:
    """ours and reference take the same tensors. Shapes are those of the input; the first one is the smallest."""

    ours: Callable[..., torch.Tensor]
    reference: Callable[..., torch.Tensor]
    shapes: Sequence[Shape]
    inputs: Callable[[Shape], list[torch.Tensor]] = lambda shape: [torch.randn(shape, dtype=torch.float64)]
    # float64 or integer tensors; the floating ones are cast to the dtype under test and are differentiated
    reduced: Callable[[Shape], int] = lambda shape: 1  # the longest sum behind an element of the results
    dtypes: Sequence[torch.dtype] = ALL
    specials: Sequence[float] | None = None  # kinks of a pointwise operator, where sub-gradients must be torch's
    random: bool = False  # draws random numbers: values are checked in the operator's own test file
    errors: Errors = ()  # bad calls: f -> f(bad input)
    module: Callable[[type], torch.nn.Module] | None = None  # cls -> an instance with one input
    cls: str = ""  # its name in torch.nn and trident.nn
    autocast: Sequence[torch.dtype] = (torch.bfloat16, torch.float32)  # input dtypes tried under autocast
    bench: Sequence[Shape] = ()
    name: str = field(default="", compare=False)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


ROWS = ((2, 3), (1, 1), (5, 7), (3, 4, 33), (257, 3), (2, 1000))
LONG_ROWS = (*ROWS, (2, 65537))
ROWS_BENCH = ((4, 256), (256, 1024), (4096, 4096))


def _layer_norm(ndim: int = 1, affine: bool = True, bias: bool = True) -> Case:
    def call(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda x, w=None, b=None: f(x, x.shape[-ndim:], w, b)

    return Case(
        ours=call(T.layer_norm),
        reference=call(F.layer_norm),
        shapes=LONG_ROWS if ndim == 1 else ((2, 3, 4), (3, 1, 1), (2, 3, 5, 33)),
        inputs=lambda shape: [randn(*shape), *(1 + randn(*shape[-ndim:]) for _ in range(affine + (affine and bias)))],
        reduced=lambda shape: max(torch.Size(shape).numel() // max(1, shape[-1]), torch.Size(shape[-ndim:]).numel()),
        errors=(lambda f: f(torch.randn(2, 3), (4,)), lambda f: f(torch.randn(2, 3), (3,), torch.randn(2))),
        cls="LayerNorm",
        module=lambda cls: cls(3) if ndim == 1 else cls((3, 4)),
        bench=ROWS_BENCH,
    )


def _activation(
    name: str, cls: str, *args: object, specials: Sequence[float] = (), errors: Errors = (), **kwargs: object
) -> Case:
    return Case(
        ours=lambda x: getattr(T, name)(x, *args, **kwargs),
        reference=lambda x: getattr(F, name)(x, *args, **kwargs),
        shapes=FLAT,
        specials=specials,
        errors=errors,
        cls=cls,
        module=lambda cls: cls(*args, **kwargs),
        bench=FLAT_BENCH,
    )


def _pool(pooled: int, size: object, shapes: Sequence[Shape], bench: Sequence[Shape] = ()) -> Case:
    name = f"adaptive_avg_pool{pooled}d"
    return Case(
        ours=lambda x: getattr(T, name)(x, size),
        reference=lambda x: getattr(F, name)(x, size),
        shapes=shapes,
        reduced=lambda shape: torch.Size(shape[-pooled:]).numel(),
        errors=(
            lambda f: f(torch.randn(3), size),
            lambda f: f(torch.randn(1, *shapes[0]), 2),
            lambda f: f(torch.randn(shapes[0]), (2,) * (pooled + 1)),
            lambda f: f(torch.randn(shapes[0]), (-1,) * pooled),
            lambda f: f(torch.randn(shapes[0]), "2"),
        ),
        cls=f"AdaptiveAvgPool{pooled}d",
        module=lambda cls: cls(size),
        bench=bench,
    )


def _linear(N: int = 5, bias: bool = True, activation: str | None = None) -> Case:
    def reference(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        y = F.linear(x, *rest)
        return y if activation is None else ACTIVATIONS[activation].torch(y)

    plain = activation is None
    return Case(
        ours=lambda *inputs: T.linear(*inputs, activation=activation),
        reference=reference,
        # not one element alone: a single f'(z) near its zero has the error of z's rounding and nothing to scale it by
        shapes=((2, 3, 4), (1, 1) if plain else (5, 1), (7,), (33, 257), (2, 130, 33), (1030, 7)),
        inputs=lambda shape: [randn(*shape), *([randn(N, shape[-1]), randn(N)][: 1 + bias])],
        reduced=lambda shape: max(shape[-1], N, torch.Size(shape[:-1]).numel()),
        errors=(
            lambda f: f(torch.randn(2, 3), torch.randn(5, 4)),
            lambda f: f(torch.randn(2, 4), torch.randn(5, 4), torch.randn(3)),
            lambda f: f(torch.randn(2, 4), torch.randn(2, 5, 4)),
            lambda f: f(torch.randn(2, 4), torch.randn(5, 4).double()),
            lambda f: f(torch.tensor(2.0), torch.randn(5, 4)),
        ),
        cls="Linear" if plain else "",
        module=(lambda cls: cls(4, N, bias)) if plain else None,
        bench=((256, 256), (4096, 1024)),
    )


PLANE = (1, 1, 512, 512)
POOLS: dict[str, Case] = {
    "adaptive_avg_pool1d": _pool(1, 3, ((2, 3, 7), (1, 1), (3, 257), (1, 2, 33), (1, 1, 65537)), ((32, 64, 4096),)),
    "adaptive_avg_pool1d.one": _pool(1, 1, ((2, 3, 7), (5, 1), (2, 65537))),
    "adaptive_avg_pool1d.more": _pool(1, (12,), ((2, 3, 5), (4, 1), (1, 2, 12))),
    "adaptive_avg_pool2d": _pool(
        2, 7, ((2, 3, 9, 11), (1, 1, 1), (1, 33, 14, 28), PLANE), ((32, 256, 112, 112), PLANE)
    ),
    "adaptive_avg_pool2d.one": _pool(2, 1, ((2, 3, 4, 5), (1, 1, 1), (7, 33, 7, 7), PLANE), ((64, 2048, 7, 7), PLANE)),
    "adaptive_avg_pool2d.two": _pool(2, (2, 2), ((2, 3, 4, 6), (1, 1, 257, 33), PLANE), (PLANE,)),
    "adaptive_avg_pool2d.oblong": _pool(2, (4, 3), ((2, 3, 8, 5), (2, 1, 7), (1, 20, 33, 7))),
    "adaptive_avg_pool2d.more": _pool(2, (9, 12), ((2, 3, 5, 6), (1, 1, 1, 1), (1, 17, 3, 4)), ((16, 64, 6, 6),)),
    "adaptive_avg_pool2d.none": _pool(2, (None, 2), ((2, 3, 4, 5), (1, 3, 1), (1, 3, 257, 7))),
    "adaptive_avg_pool2d.rows": _pool(2, (2, None), ((2, 3, 5, 4), (1, 3, 1), (1, 3, 33, 65))),
    "adaptive_avg_pool2d.same": _pool(2, (None, None), ((2, 3, 4, 5), (3, 7, 7))),
    "adaptive_avg_pool2d.half": _pool(2, 256, ((1, 1, 256, 512), PLANE), (PLANE,)),
    "adaptive_avg_pool3d": _pool(
        3, (2, 3, 4), ((2, 3, 4, 5, 8), (1, 1, 1, 1), (1, 17, 7, 9, 8)), ((8, 64, 16, 56, 56),)
    ),
    "adaptive_avg_pool3d.one": _pool(3, 1, ((2, 3, 4, 5, 6), (1, 1, 1, 1), (1, 2, 33, 17, 65))),
    "adaptive_avg_pool3d.none": _pool(3, (None, 2, None), ((2, 3, 4, 5, 2), (3, 2, 4, 2))),
    "adaptive_avg_pool3d.mixed": _pool(3, (6, 2, 1), ((2, 3, 4, 4, 5), (2, 3, 5, 7))),
}

FLAT = ((2, 3, 4, 5), (1,), (7, 33), (257,), (65537,))
FLAT_BENCH = ((1024,), (512, 512), (4096, 4096))

CASES: dict[str, Case] = {
    "linear": _linear(),
    "linear.no_bias": _linear(bias=False),
    "linear.wide": _linear(N=257),
    "linear.gelu": _linear(activation="gelu"),
    "linear.relu": _linear(activation="relu", N=33),
    "linear.silu": _linear(activation="silu", bias=False),
    **POOLS,
    "relu": _activation("relu", "ReLU"),
    "gelu": _activation("gelu", "GELU", errors=(lambda f: f(torch.randn(2), approximate="no"),)),
    "gelu.tanh": _activation("gelu", "GELU", approximate="tanh"),
    "silu": _activation("silu", "SiLU"),
    "layer_norm": _layer_norm(),
    "layer_norm.plain": _layer_norm(affine=False),
    "layer_norm.no_bias": _layer_norm(bias=False),
    "layer_norm.2d": _layer_norm(ndim=2),
}

CASES = {name: dataclasses.replace(case, name=name.split(".")[0]) for name, case in CASES.items()}
