"""What each operator is checked against, and at which sizes it is timed. Tests and the bench both read this."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    exact: Callable[..., torch.Tensor] | None = None  # a better float64 reference, where torch's computes in float32
    dtypes: Sequence[torch.dtype] = ALL
    specials: Sequence[float] | None = None  # kinks of a pointwise operator, where sub-gradients must be torch's
    random: bool = False  # draws random numbers: values are checked in the operator's own test file
    errors: Errors = ()  # bad calls: f -> f(bad input)
    module: Callable[[type], torch.nn.Module] | None = None  # cls -> an instance with one input
    cls: str = ""  # its name in torch.nn and trident.nn
    takes: int = 1  # how many of the floating inputs it takes; the others are its parameters
    also: Callable[[torch.Tensor], dict[str, torch.Tensor]] = lambda x: {}  # and what it takes by name, from the first
    autocast: Sequence[torch.dtype] = (torch.bfloat16, torch.float32)  # input dtypes tried under autocast
    bench: Sequence[Shape] = ()
    name: str = field(default="", compare=False)


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64)


ROWS = ((2, 3), (1, 1), (5, 7), (3, 4, 33), (257, 3), (2, 1000))
LONG_ROWS = (*ROWS, (2, 65537), (3, 32769))
CHANNELS_BENCH = {3: ((32, 64, 4096),), 4: ((1, 3, 16, 16), (64, 64, 56, 56)), 5: ((8, 64, 16, 28, 28),)}  # by dim
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


def _group_norm(groups: int, shapes: Sequence[Shape], affine: int = 2) -> Case:
    return Case(
        ours=lambda x, w=None, b=None: T.group_norm(x, groups, w, b),
        reference=lambda x, w=None, b=None: F.group_norm(x, groups, w, b),
        shapes=shapes,
        inputs=lambda shape: [randn(*shape), *(1 + randn(shape[1]) for _ in range(affine))],
        reduced=lambda shape: torch.Size(shape).numel(),
        errors=(
            lambda f: f(torch.randn(2, 3), 2),
            lambda f: f(torch.randn(2, 4), 2, torch.randn(3)),
            lambda f: f(torch.randn(1, 2), 2),
            lambda f: f(torch.randn(2), 1),
            lambda f: f(torch.randn(2, 4), 0),
        ),
        cls="GroupNorm",
        module=lambda cls: cls(groups, shapes[0][1], affine=affine > 0),
        bench=PLANES_BENCH if 32 % groups == 0 else (),
    )


def _instance_norm(dims: int, shapes: Sequence[Shape], affine: int = 2) -> Case:
    return Case(
        ours=lambda x, w=None, b=None: T.instance_norm(x, weight=w, bias=b),
        reference=lambda x, w=None, b=None: F.instance_norm(x, weight=w, bias=b),
        shapes=shapes,
        inputs=lambda shape: [randn(*shape), *(1 + randn(shape[1]) for _ in range(affine))],
        reduced=lambda shape: torch.Size(shape).numel(),
        errors=(lambda f: f(torch.randn(2, 3, 1)), lambda f: f(torch.randn(2, 3, 4), weight=torch.randn(2))),
        cls=f"InstanceNorm{dims}d",
        module=lambda cls: cls(shapes[0][1], affine=affine > 0),
        bench=PLANES_BENCH if dims == 2 else (),
    )


PLANES_BENCH = ((2, 64, 16, 16), (16, 64, 56, 56), (1, 32, 512, 512))


def _rms_norm(ndim: int = 1, affine: bool = True, eps: float = 1.0) -> Case:
    # so large an eps that a row of one element has a gradient that is more than rounding noise
    return Case(
        ours=lambda x, w=None: T.rms_norm(x, x.shape[-ndim:], w, eps),
        reference=lambda x, w=None: F.rms_norm(x, x.shape[-ndim:], w, eps),
        shapes=LONG_ROWS if ndim == 1 else ((2, 3, 4), (3, 1, 1), (2, 3, 5, 33)),
        inputs=lambda shape: [randn(*shape), *(1 + randn(*shape[-ndim:]) for _ in range(affine))],
        reduced=lambda shape: max(torch.Size(shape).numel() // max(1, shape[-1]), torch.Size(shape[-ndim:]).numel()),
        errors=(lambda f: f(torch.randn(2, 3), (4,)), lambda f: f(torch.randn(2, 3), (3,), torch.randn(2))),
        cls="RMSNorm",
        module=lambda cls: cls(3, eps) if ndim == 1 else cls((3, 4), eps),
        bench=ROWS_BENCH,
    )


def _class_loss(
    name: str,
    cls: str,
    shapes: Sequence[Shape],
    weighted: bool = False,
    probabilities: bool = False,
    ignored: int | None = None,
    **kwargs: Any,
) -> Case:
    """cross_entropy and nll_loss. Some targets are the ignored class, if there is one."""

    def call(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def loss(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            # weights that every dtype holds exactly
            classes = torch.arange(x.shape[min(1, x.dim() - 1)], device=x.device)
            w = (1 + classes % 4 / 4).to(x.dtype) if weighted else None
            return f(x, target, w, **kwargs, **({} if ignored is None else {"ignore_index": ignored}))

        return loss

    def inputs(shape: Shape) -> list[torch.Tensor]:
        x = randn(*shape)
        if probabilities:
            return [x, randn(*shape).softmax(1)]
        target = torch.randint(shape[1], (shape[0], *shape[2:]))
        if ignored is not None:
            target[..., ::3] = ignored
        return [x, target]

    bad = ((torch.randn(2, 3), torch.tensor([0, 3])), (torch.randn(2, 3), torch.tensor([0, -1])))
    bad += ((torch.randn(2, 3), torch.tensor([0])), (torch.randn(2, 3), torch.tensor([0, 1], dtype=torch.int32)))
    return Case(
        ours=call(getattr(T, name)),
        reference=call(getattr(F, name)),
        shapes=shapes,
        inputs=inputs,
        reduced=lambda shape: torch.Size(shape).numel(),
        errors=(
            *(lambda f, x=x, target=target: f(x, target) for x, target in bad),
            lambda f: f(*bad[0], reduction="no"),
            lambda f: f(torch.randn(2, 3), torch.tensor([0, 1]), torch.rand(2)),
            lambda f: f(torch.randn(()), torch.tensor(0)),
        ),
        cls=cls,
        module=None if probabilities or weighted else lambda cls: cls(**kwargs),
        bench=((16, 1000), (256, 32000), (2048, 50257)),
    )


CLASSES = ((4, 3), (1, 1), (5, 7), (257, 33), (3, 32769), (2, 65537))
MAPS = ((2, 3, 4, 5), (1, 1, 1), (3, 21, 7), (2, 5, 9, 33), (1, 4097, 13), (2, 3, 4, 3, 2))


def _softmax(
    name: str, cls: str, dim: int = -1, shapes: Sequence[Shape] = (), module: bool = True, **kwargs: object
) -> Case:
    return Case(
        ours=lambda x: getattr(T, name)(x, dim, **kwargs),
        reference=lambda x: getattr(F, name)(x, dim, **kwargs),
        shapes=shapes or LONG_ROWS,
        reduced=lambda shape: shape[dim],
        errors=(lambda f: f(torch.randn(2, 3), 2), lambda f: f(torch.randn(2, 3), "a")),
        cls=cls,
        module=(lambda cls: cls(dim) if cls.__name__ != "Softmax2d" else cls()) if module else None,
        bench=CHANNELS_BENCH[4] if shapes is COLUMNS else ROWS_BENCH,
    )


COLUMNS = ((2, 3, 4, 5), (1, 1, 1, 1), (7, 33, 2, 1), (2, 257, 5, 3), (3, 5, 9, 33), (1, 4097, 5, 13))


def _activation(
    name: str,
    cls: str,
    *args: object,
    specials: Sequence[float] = (),
    errors: Errors = (),
    exact: Callable[..., torch.Tensor] | None = None,
    module: Callable[[type], torch.nn.Module] | None = None,
    **kwargs: object,
) -> Case:
    return Case(
        ours=lambda x: getattr(T, name)(x, *args, **kwargs),
        reference=lambda x: getattr(F, name)(x, *args, **kwargs),
        shapes=FLAT,
        exact=exact,
        specials=specials,
        errors=errors,
        cls=cls,
        module=module or (lambda cls: cls(*args, **kwargs)),
        bench=FLAT_BENCH,
    )


def _prelu(channels: bool, shapes: Sequence[Shape]) -> Case:
    def size(shape: Shape) -> int:
        return shape[1] if channels else 1

    return Case(
        ours=T.prelu,
        reference=F.prelu,
        shapes=shapes,
        inputs=lambda shape: [randn(*shape), randn(size(shape))],
        reduced=lambda shape: math.prod(shape) // max(1, size(shape)),
        specials=None if channels else (),
        errors=(lambda f: f(torch.randn(2, 3), torch.randn(2)), lambda f: f(torch.randn(2, 3), torch.randn(1, 3))),
        cls="PReLU",
        module=lambda cls: cls(size(shapes[0])),
        bench=((4, 256), (64, 64, 8, 8), (64, 64, 64, 64)) if channels else FLAT_BENCH,
    )


def _glu(dim: int, shapes: Sequence[Shape]) -> Case:
    return Case(
        ours=lambda x: T.glu(x, dim),
        reference=lambda x: F.glu(x, dim),
        shapes=shapes,
        errors=(lambda f: f(torch.randn(2, 3)), lambda f: f(torch.randn(2), 1), lambda f: f(torch.randn(()))),
        cls="GLU",
        module=lambda cls: cls(dim),
        bench=FLAT_BENCH,
    )


def _dropout(name: str, cls: str, shapes: Sequence[Shape], errors: Errors = ()) -> Case:
    return Case(
        ours=lambda x: getattr(T, name)(x, 0.3, True),
        reference=lambda x: getattr(F, name)(x, 0.3, True),
        shapes=shapes,
        random=True,
        errors=(lambda f: f(torch.randn(2, 3), -0.1), lambda f: f(torch.randn(2, 3), 1.1), *errors),
        cls=cls,
        module=lambda cls: cls(0.3),
        bench=FLAT_BENCH if shapes is FLAT else CHANNELS_BENCH[len(shapes[0])],
    )


PLANES = ((2, 3, 4, 5), (1, 1, 1, 1), (5, 7, 33, 1))


def _loss(
    name: str,
    cls: str,
    *,
    inputs: Callable[[Shape], list[torch.Tensor]] = lambda shape: [randn(*shape), randn(*shape)],
    extra: Callable[[torch.Tensor], dict[str, torch.Tensor]] = lambda x: {},  # made from the input, not differentiated
    module: bool = True,
    specials: Sequence[float] | None = None,
    **options: object,
) -> Case:
    def call(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda x, *t: f(x, *t, **extra(x.detach()), **options)

    reduced = options.get("reduction") != "none"
    bad: Errors = (
        lambda f: f(torch.rand(2), torch.rand(2), reduction="no"),
        lambda f: f(torch.rand(2), torch.rand(3)),
    )
    return Case(
        ours=call(getattr(T, name)),
        reference=call(getattr(F, name)),
        shapes=FLAT,
        inputs=inputs,
        reduced=(lambda shape: math.prod(shape)) if reduced else (lambda shape: 1),
        specials=specials,
        errors=bad,
        cls=cls,
        module=(lambda cls: cls(**options)) if module else None,
        takes=2,
        also=extra,
        bench=FLAT_BENCH,
    )


def _ramp(x: torch.Tensor) -> torch.Tensor:
    """[x.shape[-1]], in [0, 2)."""
    return torch.arange(x.shape[-1], device=x.device).remainder(5).to(x.dtype) * 0.5


def _weight(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"weight": _ramp(x)}


def _signs(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"target": torch.where(torch.arange(x.numel(), device=x.device) % 3 == 0, 1, -1).to(x.dtype).view(x.shape)}


def _shares(shape: Shape) -> list[torch.Tensor]:
    return [0.05 + 0.9 * torch.rand(shape, dtype=torch.float64), torch.rand(shape, dtype=torch.float64)]


def _logits(shape: Shape) -> list[torch.Tensor]:
    return [3 * randn(*shape), torch.rand(shape, dtype=torch.float64)]


def _divergence(shape: Shape) -> list[torch.Tensor]:
    return [randn(*shape), 0.05 + torch.rand(shape, dtype=torch.float64)]


def _rates(shape: Shape) -> list[torch.Tensor]:
    return [0.1 + torch.rand(shape, dtype=torch.float64), 3 * torch.rand(shape, dtype=torch.float64)]


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
    "binary_cross_entropy": _loss("binary_cross_entropy", "BCELoss", inputs=_shares),
    "binary_cross_entropy.none": _loss("binary_cross_entropy", "BCELoss", inputs=_shares, reduction="none"),
    "binary_cross_entropy.weight": _loss(
        "binary_cross_entropy", "BCELoss", inputs=_shares, extra=_weight, module=False, reduction="sum"
    ),
    "binary_cross_entropy_with_logits": _loss("binary_cross_entropy_with_logits", "BCEWithLogitsLoss", inputs=_logits),
    "binary_cross_entropy_with_logits.none": _loss(
        "binary_cross_entropy_with_logits", "BCEWithLogitsLoss", inputs=_logits, reduction="none", specials=()
    ),
    "binary_cross_entropy_with_logits.weights": _loss(
        "binary_cross_entropy_with_logits",
        "BCEWithLogitsLoss",
        inputs=_logits,
        extra=lambda x: {**_weight(x), "pos_weight": _ramp(x) + 0.5},
        module=False,
        reduction="none",
    ),
    "linear": _linear(),
    "linear.no_bias": _linear(bias=False),
    "linear.wide": _linear(N=257),
    "linear.gelu": _linear(activation="gelu"),
    "linear.relu": _linear(activation="relu", N=33),
    "linear.silu": _linear(activation="silu", bias=False),
    "celu": _activation("celu", "CELU", errors=(lambda f: f(torch.randn(2), alpha=0.0),)),
    "celu.alpha": _activation(
        # torch's float64 backward rounds 1 / alpha to float32
        "celu",
        "CELU",
        0.3,
        exact=lambda x: torch.where(x > 0, x, 0.3 * torch.expm1(x / 0.3)),
    ),
    "alpha_dropout": _dropout("alpha_dropout", "AlphaDropout", FLAT),
    "dropout": _dropout("dropout", "Dropout", FLAT),
    "dropout1d": _dropout("dropout1d", "Dropout1d", ((2, 3, 4), (1, 1), (5, 33)), (lambda f: f(torch.randn(3)),)),
    "dropout2d": _dropout("dropout2d", "Dropout2d", PLANES),
    "dropout3d": _dropout("dropout3d", "Dropout3d", ((2, 3, 4, 2, 5), (1, 1, 1, 1), (5, 7, 33, 1))),
    "elu": _activation("elu", "ELU"),
    "elu.alpha": _activation("elu", "ELU", 0.7),
    "feature_alpha_dropout": _dropout(
        "feature_alpha_dropout", "FeatureAlphaDropout", PLANES, (lambda f: f(torch.randn(3), 0.5, True),)
    ),
    **POOLS,
    "relu": _activation("relu", "ReLU"),
    "gelu": _activation("gelu", "GELU", errors=(lambda f: f(torch.randn(2), approximate="no"),)),
    "gelu.tanh": _activation("gelu", "GELU", approximate="tanh"),
    "glu": _glu(-1, ((2, 3, 4, 6), (2,), (7, 66), (257, 2), (2, 131074))),
    "glu.channels": _glu(1, ((2, 4, 3, 5), (1, 2), (7, 10, 33), (3, 2, 20000))),
    "glu.first": _glu(0, ((2, 3, 4, 5), (2, 1), (66, 7), (4, 5, 33))),
    "huber_loss": _loss("huber_loss", "HuberLoss", delta=0.7),
    "huber_loss.none": _loss("huber_loss", "HuberLoss", delta=0.7, reduction="none", specials=()),
    "hardshrink": _activation("hardshrink", "Hardshrink", specials=(-0.5, 0.5)),
    "hardshrink.lambd": _activation("hardshrink", "Hardshrink", 0.0),
    "hardsigmoid": _activation(
        # torch's float64 backward rounds 1 / 6 to float32
        "hardsigmoid",
        "Hardsigmoid",
        specials=(-3.0, 3.0),
        exact=lambda x: torch.where((x > -3) & (x < 3), x / 6 + 0.5, (x > 0).to(x.dtype)),
    ),
    "hardswish": _activation("hardswish", "Hardswish", specials=(-3.0, 3.0)),
    "hardtanh": _activation(
        "hardtanh", "Hardtanh", specials=(-1.0, 1.0), errors=(lambda f: f(torch.randn(2), 1.0, 0.0),)
    ),
    "hardtanh.one_sided": _activation("hardtanh", "Hardtanh", -0.125, math.inf, specials=(-0.125,)),
    "leaky_relu": _activation("leaky_relu", "LeakyReLU"),
    "leaky_relu.slope": _activation("leaky_relu", "LeakyReLU", -0.3),
    "logsigmoid": _activation("logsigmoid", "LogSigmoid"),
    "mse_loss": _loss("mse_loss", "MSELoss"),
    "mse_loss.none": _loss("mse_loss", "MSELoss", reduction="none", specials=()),
    "mse_loss.sum": _loss("mse_loss", "MSELoss", reduction="sum"),
    "mish": _activation("mish", "Mish", specials=(19.5, 20.5)),
    "relu6": _activation("relu6", "ReLU6", specials=(6.0,)),
    "rrelu": Case(
        ours=lambda x: T.rrelu(x, 0.1, 0.4, True),
        reference=lambda x: F.rrelu(x, 0.1, 0.4, True),
        shapes=FLAT,
        random=True,
        errors=(lambda f: f(torch.randn(2), 0.5, 0.1, True),),
        cls="RReLU",
        module=lambda cls: cls(0.1, 0.4),
        bench=FLAT_BENCH,
    ),
    "rrelu.eval": _activation("rrelu", "RReLU", 0.1, 0.4, module=lambda cls: cls(0.1, 0.4).eval()),
    "selu": _activation("selu", "SELU"),
    "sigmoid": _activation("sigmoid", "Sigmoid"),
    "silu": _activation("silu", "SiLU"),
    "softplus": _activation("softplus", "Softplus", specials=(20.0, 20.5)),
    "softplus.beta": _activation("softplus", "Softplus", 3.0, 1.5, specials=(0.5,)),
    "softshrink": _activation(
        "softshrink", "Softshrink", specials=(-0.5, 0.5), errors=(lambda f: f(torch.randn(2), -1.0),)
    ),
    "softshrink.lambd": _activation("softshrink", "Softshrink", 0.1),
    "softsign": _activation("softsign", "Softsign"),
    "tanh": _activation("tanh", "Tanh", specials=(19.5, 20.5)),
    "tanhshrink": _activation("tanhshrink", "Tanhshrink"),
    "threshold": _activation("threshold", "Threshold", 0.25, -2.5, specials=(0.25,)),
    "softmax": _softmax("softmax", "Softmax"),
    "softmax.0": _softmax("softmax", "Softmax", 0, ((3, 2), (1, 1), (7, 5), (65537, 2), (129, 2, 257))),
    "softmax.2d": _softmax("softmax", "Softmax2d", -3, COLUMNS),
    "log_softmax": _softmax("log_softmax", "LogSoftmax"),
    "log_softmax.1": _softmax("log_softmax", "LogSoftmax", 1, COLUMNS),
    "softmin": _softmax("softmin", "Softmin"),
    "softmin.1": _softmax("softmin", "Softmin", 1, COLUMNS),
    "prelu": _prelu(False, FLAT),
    "prelu.channels": _prelu(
        True, ((2, 3, 4, 5), (1, 1), (7, 33), (3, 4, 33), (2, 5, 3, 1, 2), (3, 2, 40000), (999, 70))
    ),
    "kl_div": _loss("kl_div", "KLDivLoss", inputs=_divergence),
    "kl_div.none": _loss("kl_div", "KLDivLoss", inputs=_divergence, reduction="none", specials=()),
    "kl_div.batchmean": _loss("kl_div", "KLDivLoss", inputs=_divergence, reduction="batchmean"),
    "kl_div.log": _loss("kl_div", "KLDivLoss", reduction="none", log_target=True, specials=()),
    "l1_loss": _loss("l1_loss", "L1Loss"),
    "l1_loss.none": _loss("l1_loss", "L1Loss", reduction="none", specials=()),
    "poisson_nll_loss": _loss("poisson_nll_loss", "PoissonNLLLoss"),
    "poisson_nll_loss.none": _loss("poisson_nll_loss", "PoissonNLLLoss", reduction="none", specials=()),
    "poisson_nll_loss.rate": _loss(
        "poisson_nll_loss", "PoissonNLLLoss", inputs=_rates, log_input=False, eps=1e-3, reduction="sum"
    ),
    "poisson_nll_loss.full": _loss(
        "poisson_nll_loss",
        "PoissonNLLLoss",
        inputs=lambda shape: [randn(*shape)],
        extra=lambda x: {"target": _ramp(x).mul(2).expand(x.shape)},
        module=False,
        full=True,
        reduction="none",
    ),
    "smooth_l1_loss": _loss("smooth_l1_loss", "SmoothL1Loss", beta=0.6),
    "smooth_l1_loss.none": _loss("smooth_l1_loss", "SmoothL1Loss", beta=0.6, reduction="none", specials=()),
    "smooth_l1_loss.l1": _loss("smooth_l1_loss", "SmoothL1Loss", beta=0.0),
    "soft_margin_loss": _loss(
        "soft_margin_loss",
        "SoftMarginLoss",
        inputs=lambda shape: [3 * randn(*shape)],
        extra=_signs,
    ),
    "soft_margin_loss.none": _loss(
        "soft_margin_loss",
        "SoftMarginLoss",
        inputs=lambda shape: [3 * randn(*shape)],
        extra=_signs,
        reduction="none",
    ),
    "cross_entropy": _class_loss("cross_entropy", "CrossEntropyLoss", CLASSES),
    "cross_entropy.none": _class_loss("cross_entropy", "CrossEntropyLoss", CLASSES, reduction="none"),
    "cross_entropy.weight": _class_loss("cross_entropy", "CrossEntropyLoss", CLASSES, weighted=True, ignored=-1),
    "cross_entropy.smooth": _class_loss("cross_entropy", "CrossEntropyLoss", CLASSES, ignored=1, label_smoothing=0.1),
    "cross_entropy.all": _class_loss(
        "cross_entropy", "CrossEntropyLoss", MAPS, weighted=True, ignored=-100, label_smoothing=0.3, reduction="sum"
    ),
    "cross_entropy.maps": _class_loss("cross_entropy", "CrossEntropyLoss", MAPS, ignored=2, reduction="none"),
    "cross_entropy.q": _class_loss("cross_entropy", "CrossEntropyLoss", CLASSES, probabilities=True),
    "cross_entropy.q_all": _class_loss(
        "cross_entropy", "CrossEntropyLoss", MAPS, True, True, label_smoothing=0.1, reduction="none"
    ),
    "cross_entropy.q_sum": _class_loss(
        "cross_entropy", "CrossEntropyLoss", MAPS, True, True, label_smoothing=1.0, reduction="sum"
    ),
    "nll_loss": _class_loss("nll_loss", "NLLLoss", CLASSES),
    "nll_loss.weight": _class_loss("nll_loss", "NLLLoss", MAPS, weighted=True, ignored=2),
    "nll_loss.none": _class_loss("nll_loss", "NLLLoss", MAPS, reduction="none"),
    "nll_loss.sum": _class_loss("nll_loss", "NLLLoss", CLASSES, weighted=True, ignored=-3, reduction="sum"),
    "layer_norm": _layer_norm(),
    "layer_norm.plain": _layer_norm(affine=False),
    "layer_norm.no_bias": _layer_norm(bias=False),
    "layer_norm.2d": _layer_norm(ndim=2),
    "group_norm": _group_norm(2, ((2, 4, 3), (1, 2, 3), (3, 6), (2, 6, 5, 7), (1, 2, 33, 257), (1, 4, 2, 3, 5))),
    "group_norm.long": _group_norm(2, ((2, 4, 3), (1, 4, 181, 182), (1, 6, 65537), (5, 4, 92, 92))),
    "group_norm.one": _group_norm(1, ((2, 4, 3, 5), (1, 65, 1000), (7, 33)), affine=0),
    "group_norm.no_bias": _group_norm(3, ((2, 6, 3), (2, 9, 200, 33)), affine=1),
    "instance_norm": _instance_norm(2, ((2, 3, 4, 5), (1, 1, 3, 2), (2, 5, 33, 257), (1, 2, 256, 257))),
    "instance_norm.1d": _instance_norm(1, ((2, 3, 4), (3, 2, 65537)), affine=0),
    "instance_norm.3d": _instance_norm(3, ((2, 3, 4, 2, 3), (1, 2, 33, 33, 33))),
    "rms_norm": _rms_norm(),
    "rms_norm.plain": _rms_norm(affine=False),
    "rms_norm.2d": _rms_norm(ndim=2),
}

CASES = {name: dataclasses.replace(case, name=name.split(".")[0]) for name, case in CASES.items()}
