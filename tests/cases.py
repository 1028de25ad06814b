"""What each operator is checked against, and at which sizes it is timed. Tests and the bench both read this."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

import trident.functional as T

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
LONG_ROWS = (*ROWS, (2, 65537), (3, 32769))
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
        bench=ROWS_BENCH,
    )


COLUMNS = ((2, 3, 4, 5), (1, 1, 1, 1), (7, 33, 2, 1), (2, 257, 5, 3), (3, 5, 9, 33), (1, 4097, 5, 13))


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


FLAT = ((2, 3, 4, 5), (1,), (7, 33), (257,), (65537,))
FLAT_BENCH = ((1024,), (512, 512), (4096, 4096))

CASES: dict[str, Case] = {
    "relu": _activation("relu", "ReLU"),
    "gelu": _activation("gelu", "GELU", errors=(lambda f: f(torch.randn(2), approximate="no"),)),
    "gelu.tanh": _activation("gelu", "GELU", approximate="tanh"),
    "silu": _activation("silu", "SiLU"),
    "softmax": _softmax("softmax", "Softmax"),
    "softmax.0": _softmax("softmax", "Softmax", 0, ((3, 2), (1, 1), (7, 5), (65537, 2), (129, 2, 257))),
    "softmax.2d": _softmax("softmax", "Softmax2d", -3, COLUMNS),
    "log_softmax": _softmax("log_softmax", "LogSoftmax"),
    "log_softmax.1": _softmax("log_softmax", "LogSoftmax", 1, COLUMNS),
    "softmin": _softmax("softmin", "Softmin"),
    "softmin.1": _softmax("softmin", "Softmin", 1, COLUMNS),
    "layer_norm": _layer_norm(),
    "layer_norm.plain": _layer_norm(affine=False),
    "layer_norm.no_bias": _layer_norm(bias=False),
    "layer_norm.2d": _layer_norm(ndim=2),
    "rms_norm": _rms_norm(),
    "rms_norm.plain": _rms_norm(affine=False),
    "rms_norm.2d": _rms_norm(ndim=2),
}

CASES = {name: dataclasses.replace(case, name=name.split(".")[0]) for name, case in CASES.items()}
