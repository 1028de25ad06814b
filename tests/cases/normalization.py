"""Cases of trident.nn.normalization."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

import trident.functional as T
from tests.cases.case import (
    LONG_ROWS,
    ROWS_BENCH,
    Case,
    Shape,
    randn,
)


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


PLANES_BENCH = ((2, 64, 16, 16), (16, 64, 56, 56), (1, 32, 512, 512))


CASES: dict[str, Case] = {
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
