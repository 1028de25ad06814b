"""Cases of trident.nn.activation."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import (
    FLAT,
    FLAT_BENCH,
    ROWS_BENCH,
    Case,
    Errors,
    Shape,
    randn,
)


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


def _gated(name: str, gate: Callable[..., torch.Tensor], dim: int, shapes: Sequence[Shape], **kwargs: object) -> Case:
    """swiglu and its like, which torch does not have: both halves of a tensor, or (dim 9) two tensors."""

    def reference(a: torch.Tensor, b: torch.Tensor | None = None) -> torch.Tensor:
        if b is None:
            a, b = a.chunk(2, dim)
        return a * gate(b, **kwargs)

    two = dim == 9
    return Case(
        ours=lambda *x: getattr(T, name)(*x, **kwargs) if two else getattr(T, name)(*x, dim=dim, **kwargs),
        reference=reference,
        shapes=shapes,
        inputs=lambda shape: [randn(*shape) for _ in range(1 + two)],
        bench=ROWS_BENCH if dim == 1 else FLAT_BENCH,
    )


CASES: dict[str, Case] = {
    "shift_gelu": Case(
        ours=T.shift_gelu,
        reference=lambda x, b: F.gelu(x + b),
        shapes=((2, 3, 4), (1,), (7, 33), (257, 5), (3, 65537)),
        inputs=lambda shape: [randn(*shape), randn(shape[-1])],
        reduced=lambda shape: math.prod(shape[:-1]),
        bench=ROWS_BENCH,
    ),
    "swiglu": _gated("swiglu", F.silu, -1, ((2, 3, 4, 6), (2,), (7, 66), (2, 131074))),
    "swiglu.two": _gated("swiglu", F.silu, 9, ((2, 3, 4, 5), (1,), (7, 33), (65537,))),
    "geglu": _gated("geglu", F.gelu, 1, ((2, 4, 3, 5), (1, 2), (7, 10, 33))),
    "geglu.tanh": _gated("geglu", F.gelu, 9, ((2, 3, 4, 5), (257,)), approximate="tanh"),
    "reglu": _gated("reglu", F.relu, 0, ((2, 3, 4, 5), (2, 1), (66, 7))),
    "celu": _activation("celu", "CELU", errors=(lambda f: f(torch.randn(2), alpha=0.0),)),
    "celu.alpha": _activation(
        # torch's float64 backward rounds 1 / alpha to float32
        "celu",
        "CELU",
        0.3,
        exact=lambda x: torch.where(x > 0, x, 0.3 * torch.expm1(x / 0.3)),
    ),
    "elu": _activation("elu", "ELU"),
    "elu.alpha": _activation("elu", "ELU", 0.7),
    "relu": _activation("relu", "ReLU"),
    "gelu": _activation("gelu", "GELU", errors=(lambda f: f(torch.randn(2), approximate="no"),)),
    "gelu.tanh": _activation("gelu", "GELU", approximate="tanh"),
    "glu": _glu(-1, ((2, 3, 4, 6), (2,), (7, 66), (257, 2), (2, 131074))),
    "glu.channels": _glu(1, ((2, 4, 3, 5), (1, 2), (7, 10, 33), (3, 2, 20000))),
    "glu.first": _glu(0, ((2, 3, 4, 5), (2, 1), (66, 7), (4, 5, 33))),
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
    "quick_gelu": Case(
        ours=T.quick_gelu, reference=lambda x: x * torch.sigmoid(1.702 * x), shapes=FLAT, bench=FLAT_BENCH
    ),
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
    "prelu": _prelu(False, FLAT),
    "prelu.channels": _prelu(
        True, ((2, 3, 4, 5), (1, 1), (7, 33), (3, 4, 33), (2, 5, 3, 1, 2), (3, 2, 40000), (999, 70))
    ),
}
