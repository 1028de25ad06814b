"""Cases of trident.nn.normalization."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import (
    LONG_ROWS,
    ROWS_BENCH,
    Case,
    Shape,
    randn,
)
from trident.runtime.layout import memory_format

PLANES_BENCH = ((2, 64, 16, 16), (16, 64, 56, 56), (1, 32, 512, 512))


def _format(x: torch.Tensor, channels_last: bool) -> torch.Tensor:
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def _finish(activation: str | None) -> Callable[..., torch.Tensor]:
    """What a fused activation and residual are in torch's operators."""
    f = (lambda z: z) if activation is None else getattr(F, activation)
    return lambda z, residual=None: f(z if residual is None else z + residual)


def _batch_norm(
    dims: int,
    shapes: Sequence[Shape],
    affine: int = 2,
    training: bool = True,
    activation: str | None = None,
    residual: bool = False,
    channels_last: bool = False,
) -> Case:
    def running(x: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if training:
            return None, None
        steps = torch.arange(x.shape[1], device=x.device) % 5  # numbers that every dtype holds
        return ((steps - 2) / 4).to(x.dtype), ((steps + 2) / 4).to(x.dtype)

    def split(rest: Sequence[torch.Tensor]) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        w, b = [*rest[:affine], None, None][:2]
        return w, b, rest[affine] if residual else None

    def ours(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        (w, b, r), (mean, var) = split(rest), running(x)
        return T.batch_norm(x, mean, var, w, b, training, activation=activation, residual=r)

    def reference(x: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        (w, b, r), (mean, var) = split(rest), running(x)
        return _finish(activation)(F.batch_norm(x, mean, var, w, b, training), r)

    plain = activation is None and not residual and not channels_last
    return Case(
        ours=ours,
        reference=reference,
        shapes=shapes,
        inputs=lambda shape: [
            _format(randn(*shape), channels_last),
            *(1 + randn(shape[1]) for _ in range(affine)),
            *(_format(randn(*shape), channels_last) for _ in range(residual)),
        ],
        reduced=lambda shape: torch.Size(shape).numel(),
        errors=(
            lambda f: f(torch.randn(2, 3), None, None),
            lambda f: f(torch.randn(1, 3), None, None, training=True),
            lambda f: f(torch.randn(2, 3), None, None, torch.randn(2), training=True),
            lambda f: f(torch.randn(2, 3), None, None, training=True, eps=0.0),
            lambda f: f(torch.randn(2, 3), torch.randn(4), torch.rand(4)),
            lambda f: f(torch.randn(2), None, None, training=True),
        )
        if plain and training
        else (),
        cls=f"BatchNorm{dims}d" if plain else "",
        module=(lambda cls: cls(shapes[0][1], affine=affine > 0).train(training)) if plain else None,
        bench=PLANES_BENCH if dims == 2 else ((128, 64), (512, 1024), (4096, 4096)) if dims == 1 else (),
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


def _group_norm(
    groups: int, shapes: Sequence[Shape], affine: int = 2, activation: str | None = None, channels_last: bool = False
) -> Case:
    return Case(
        ours=lambda x, w=None, b=None: T.group_norm(x, groups, w, b, activation=activation),
        reference=lambda x, w=None, b=None: _finish(activation)(F.group_norm(x, groups, w, b)),
        shapes=shapes,
        inputs=lambda shape: [
            _format(randn(*shape), channels_last),
            *(1 + randn(shape[1]) for _ in range(affine)),
        ],
        reduced=lambda shape: torch.Size(shape).numel(),
        errors=(
            lambda f: f(torch.randn(2, 3), 2),
            lambda f: f(torch.randn(2, 4), 2, torch.randn(3)),
            lambda f: f(torch.randn(1, 2), 2),
            lambda f: f(torch.randn(2), 1),
            lambda f: f(torch.randn(2, 4), 0),
        ),
        keeps_format=True,
        cls="GroupNorm",
        module=None if activation else lambda cls: cls(groups, shapes[0][1], affine=affine > 0),
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


def _row_norm_residual(ours: Callable[..., torch.Tensor], reference: Callable[..., torch.Tensor], affine: int) -> Case:
    def theirs(x: torch.Tensor, residual: torch.Tensor, *affine: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        s = x + residual
        return reference(s, x.shape[-1:], *affine), s

    return Case(
        ours=lambda x, residual, *affine: ours(x, x.shape[-1:], *affine, residual=residual),
        reference=theirs,
        # rows long enough that rounding the sum, as torch does, does not decide their deviation
        shapes=((2, 8), (3, 4, 33), (257, 33), (2, 32769)),
        inputs=lambda shape: [randn(*shape), randn(*shape), *(1 + randn(shape[-1]) for _ in range(affine))],
        reduced=lambda shape: torch.Size(shape).numel(),
        bench=ROWS_BENCH,
    )


def _rms_norm_beyond_torch(p: float, affine: bool) -> Case:
    """With a bias, over a part of each row."""

    def reference(x: torch.Tensor, w: torch.Tensor | None = None, b: torch.Tensor | None = None) -> torch.Tensor:
        x = x.contiguous(memory_format=memory_format(x))
        mean = x[..., : math.ceil(p * x.shape[-1])].square().mean(-1, keepdim=True)
        y = x * torch.rsqrt(mean + 1.0)
        return y if w is None or b is None else y * w + b

    return Case(
        ours=lambda x, w=None, b=None: T.rms_norm(x, x.shape[-1:], w, 1.0, bias=b, p=p),
        reference=reference,
        shapes=((2, 3), (3, 4, 33), (257, 3), (2, 65537)),
        inputs=lambda shape: [randn(*shape), *(1 + randn(shape[-1]) for _ in range(2 * affine))],
        reduced=lambda shape: torch.Size(shape).numel(),
        bench=ROWS_BENCH,
    )


def _normalize(p: float = 2.0, dim: int = 1, shapes: Sequence[Shape] = ((2, 3), (3, 4, 33), (257, 3))) -> Case:
    return Case(
        ours=lambda x: T.normalize(x, p, dim, 0.5),  # so large an eps that some lines are below it
        reference=lambda x: F.normalize(x, p, dim, 0.5),
        shapes=shapes,
        inputs=lambda shape: [randn(*shape)],
        reduced=lambda shape: shape[dim],
        errors=(lambda f: f(torch.randn(3)), lambda f: f(torch.randn(3, 2), 2, 2)),
        bench=ROWS_BENCH,
    )


def _local_response_norm(size: int, shapes: Sequence[Shape]) -> Case:
    return Case(
        ours=lambda x: T.local_response_norm(x, size, 0.5, 0.6, 0.7),
        reference=lambda x: F.local_response_norm(x, size, 0.5, 0.6, 0.7),
        shapes=shapes,
        inputs=lambda shape: [randn(*shape)],
        reduced=lambda shape: size,
        errors=(lambda f: f(torch.randn(2, 3), 2), lambda f: f(torch.randn(2, 3, 4), 0)),
        cls="LocalResponseNorm",
        module=lambda cls: cls(size, 0.5, 0.6, 0.7),
        bench=PLANES_BENCH,
    )


CASES: dict[str, Case] = {
    "local_response_norm": _local_response_norm(3, ((2, 4, 3, 5), (1, 7, 33, 17))),
    "local_response_norm.even": _local_response_norm(4, ((2, 3, 4), (3, 9, 130))),
    "normalize": _normalize(shapes=((2, 3), (2, 3, 5, 4), (257, 3), (3, 40000))),
    "normalize.sum": _normalize(1, -2, ((2, 3, 2), (70000, 2), (5, 130))),
    "normalize.cubic": _normalize(3, -1),
    "batch_norm": _batch_norm(2, ((2, 3, 4, 5), (40, 7, 5, 3), (2, 3, 181, 182), (1, 130, 9, 9))),
    "batch_norm.1d": _batch_norm(1, ((4, 3, 5), (5, 3), (300, 130), (3, 1, 7)), affine=1),
    "batch_norm.3d": _batch_norm(3, ((2, 3, 4, 2, 3),), affine=0),
    "batch_norm.eval": _batch_norm(2, ((2, 3, 4, 5), (2, 70, 33, 5)), training=False),
    "batch_norm.eval_3d": _batch_norm(3, ((2, 3, 4, 2, 3),), affine=0, training=False),
    "batch_norm.relu_residual": _batch_norm(2, ((2, 3, 4, 5), (2, 3, 181, 182)), activation="relu", residual=True),
    "batch_norm.silu_residual": _batch_norm(
        2, ((2, 3, 4, 5), (3, 70, 30, 31)), activation="silu", residual=True, channels_last=True
    ),
    "batch_norm.residual": _batch_norm(2, ((2, 3, 4, 5),), residual=True),
    "batch_norm.relu_eval": _batch_norm(2, ((2, 3, 4, 5),), training=False, activation="relu", channels_last=True),
    "batch_norm.channels_last": _batch_norm(2, ((2, 3, 4, 5), (3, 70, 30, 31)), channels_last=True),
    "layer_norm": _layer_norm(),
    "layer_norm.plain": _layer_norm(affine=False),
    "layer_norm.no_bias": _layer_norm(bias=False),
    "layer_norm.2d": _layer_norm(ndim=2),
    "group_norm": _group_norm(2, ((2, 4, 3), (1, 2, 3), (3, 6), (2, 6, 5, 7), (1, 2, 33, 257), (1, 4, 2, 3, 5))),
    "group_norm.long": _group_norm(2, ((2, 4, 3), (1, 4, 181, 182), (1, 6, 65537), (5, 4, 92, 92))),
    "group_norm.one": _group_norm(1, ((2, 4, 3, 5), (1, 65, 1000), (7, 33)), affine=0),
    "group_norm.no_bias": _group_norm(3, ((2, 6, 3), (2, 9, 200, 33)), affine=1),
    "group_norm.silu": _group_norm(2, ((2, 4, 3), (1, 4, 181, 182)), activation="silu"),
    "group_norm.channels_last": _group_norm(
        2, ((2, 4, 3, 5), (3, 70, 30, 31), (9, 6, 16, 31)), activation="silu", channels_last=True
    ),
    "instance_norm": _instance_norm(2, ((2, 3, 4, 5), (1, 1, 3, 2), (2, 5, 33, 257), (1, 2, 256, 257))),
    "instance_norm.1d": _instance_norm(1, ((2, 3, 4), (3, 2, 65537)), affine=0),
    "instance_norm.3d": _instance_norm(3, ((2, 3, 4, 2, 3), (1, 2, 33, 33, 33))),
    "layer_norm.residual": _row_norm_residual(T.layer_norm, F.layer_norm, 2),
    "rms_norm.residual": _row_norm_residual(
        lambda x, shape, w, residual: T.rms_norm(x, shape, w, 1.0, residual=residual),
        lambda x, shape, w: F.rms_norm(x, shape, w, 1.0),
        1,
    ),
    "rms_norm.partial": _rms_norm_beyond_torch(0.3, False),
    "rms_norm.bias": _rms_norm_beyond_torch(1.0, True),
    "rms_norm": _rms_norm(),
    "rms_norm.plain": _rms_norm(affine=False),
    "rms_norm.2d": _rms_norm(ndim=2),
}
