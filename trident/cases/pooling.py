"""Cases of trident.nn.pooling."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import Case, Shape, randn


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


def _windows(
    name: str,
    args: tuple[object, ...],
    shapes: Sequence[Shape],
    bench: Sequence[Shape] = (),
    terms: int = 1,
    positive: bool = False,
) -> Case:
    """A call f(x, *args) whose windows are given. terms: elements of a window. positive: roots of sums need it."""
    pooled = int(name[-2])
    kernel = 1 if name.startswith("lp") else 0
    ours, reference = getattr(T, name), getattr(F, name)
    wrong: tuple[object, ...] = (-1, "2", (2,) * (pooled + 1))
    if not name.startswith("adaptive"):
        wrong += (0, 10**6)

    def bad(argument: object) -> Callable[[Callable[..., torch.Tensor]], object]:
        return lambda f: f(torch.randn(shapes[0]), *args[:kernel], argument)

    def inputs(shape: Shape) -> list[torch.Tensor]:
        return [randn(*shape).abs() + 0.1 if positive else randn(*shape)]

    return Case(
        ours=lambda x: ours(x, *args),
        reference=lambda x: reference(x, *args),
        shapes=shapes,
        inputs=inputs,
        reduced=lambda shape: terms,
        errors=(lambda f: f(torch.randn(3), *args), *map(bad, wrong)),
        cls=CLASSES[name[:-2]] + name[-2:],
        module=lambda cls: cls(*args),
        bench=bench,
    )


def _unpooled(name: str, shapes: Sequence[Shape], bench: Sequence[Shape] = ()) -> Case:
    """Windows of two: each value goes to one of the places that it may have come from."""
    pooled = int(name[-2])
    ours, reference = getattr(T, name), getattr(F, name)

    def inputs(shape: Shape) -> list[torch.Tensor]:
        index = torch.zeros(shape, dtype=torch.int64)
        for axis in range(len(shape) - pooled, len(shape)):
            along = [1] * len(shape)
            along[axis] = shape[axis]
            index = index * 2 * shape[axis] + 2 * torch.arange(shape[axis]).view(along) + torch.randint(0, 2, shape)
        return [randn(*shape), index]

    def bad(*arguments: object) -> Callable[[Callable[..., torch.Tensor]], object]:
        x, index = inputs(shapes[0])
        return lambda f: f(x, *(index if a is None else a for a in arguments))

    index = inputs(shapes[0])[1]
    wrong = (index.int(), index[:1, :1], index - 10**6, index + 10**6)
    return Case(
        ours=lambda x, index: ours(x, index, 2),
        reference=lambda x, index: reference(x, index, 2),
        shapes=shapes,
        inputs=inputs,
        errors=(*(bad(t, 2) for t in wrong), bad(None, (2,) * 4), bad(None, 2, None, 0, [10**6] * pooled)),
        cls=f"MaxUnpool{pooled}d",
        module=lambda cls: cls(2),
        bench=bench,
    )


CLASSES = {"max_pool": "MaxPool", "avg_pool": "AvgPool", "lp_pool": "LPPool", "adaptive_max_pool": "AdaptiveMaxPool"}
SMALL, CACHED, LARGE = (1, 1, 32, 32), (2, 32, 64, 64), (32, 256, 56, 56)
BENCH = (SMALL, CACHED, LARGE)
ROWS, VOLUMES = (
    ((1, 1, 1024), (8, 32, 1024), (32, 64, 8192)),
    ((1, 1, 8, 8, 16), (2, 8, 16, 32, 32), (8, 64, 16, 56, 56)),
)
WINDOWS = {
    "max_pool1d": _windows("max_pool1d", (3, 2, 1), ((2, 3, 7), (1, 2), (3, 257), (1, 20, 33)), ROWS),
    "max_pool1d.indices": _windows("max_pool1d", (4, 3, 2, 2, True, True), ((2, 3, 8), (3, 33))),
    "max_pool2d": _windows("max_pool2d", (3, 2, 1), ((2, 3, 5, 7), (1, 2, 2), (1, 20, 9, 9), (1, 2, 33, 40)), BENCH),
    "max_pool2d.halves": _windows("max_pool2d", (2,), ((2, 3, 4, 5), (7, 9, 64)), BENCH),
    "max_pool2d.indices": _windows(
        "max_pool2d", ((2, 3), (1, 3), (1, 0), (1, 2), True, True), ((2, 3, 4, 7), (1, 20, 9, 17))
    ),
    "max_pool2d.wide": _windows("max_pool2d", ((2, 9), 1, (1, 4)), ((2, 3, 4, 9), (1, 20, 5, 33))),
    "max_pool3d": _windows("max_pool3d", (2,), ((2, 3, 4, 5, 6), (1, 17, 6, 4, 9)), VOLUMES),
    "max_pool3d.indices": _windows("max_pool3d", ((1, 3, 3), (2, 1, 2), 0, 1, True, True), ((2, 3, 4, 5, 6),)),
    "avg_pool1d": _windows("avg_pool1d", (3, 2, 1), ((2, 3, 7), (1, 2), (3, 257), (1, 20, 33)), ROWS, 3),
    "avg_pool2d": _windows("avg_pool2d", (3, 2, 1), ((2, 3, 5, 7), (1, 2, 2), (1, 20, 9, 9), (2, 65, 64)), BENCH, 9),
    "avg_pool2d.halves": _windows("avg_pool2d", (2,), ((2, 3, 4, 5), (1, 20, 9, 33)), BENCH, 4),
    "avg_pool2d.own": _windows(
        "avg_pool2d", ((3, 4), (2, 3), (1, 2), True, False), ((2, 3, 5, 7), (20, 9, 17)), (), 12
    ),
    "avg_pool2d.divisor": _windows("avg_pool2d", (3, 1, 1, False, True, 5), ((2, 3, 5, 7), (20, 9, 17)), (), 9),
    "avg_pool3d": _windows("avg_pool3d", ((2, 3, 3), (2, 1, 2), (1, 1, 0), True), ((2, 3, 4, 5, 6),), VOLUMES, 18),
    "lp_pool1d": _windows("lp_pool1d", (2.0, 3, 2), ((2, 3, 7), (1, 3), (3, 257)), ROWS, 3),
    "lp_pool2d": _windows("lp_pool2d", (2.0, 2), ((2, 3, 5, 7), (1, 20, 9, 33)), BENCH, 4),
    "lp_pool2d.cubes": _windows("lp_pool2d", (3.0, (3, 2), (2, 3), True), ((2, 3, 5, 7),), (), 6, positive=True),
    "lp_pool3d": _windows("lp_pool3d", (1.5, 2), ((2, 3, 4, 5, 6),), VOLUMES, 8, positive=True),
    "max_unpool1d": _unpooled("max_unpool1d", ((2, 3, 4), (3, 65)), ROWS[1:]),
    "max_unpool2d": _unpooled("max_unpool2d", ((2, 3, 2, 4), (20, 3, 33)), ((2, 32, 32, 32), (32, 256, 28, 28))),
    "max_unpool3d": _unpooled("max_unpool3d", ((2, 3, 2, 3, 4),), ((8, 64, 8, 28, 28),)),
    "adaptive_max_pool1d": _windows("adaptive_max_pool1d", (3,), ((2, 3, 7), (1, 1), (3, 257)), ROWS),
    "adaptive_max_pool2d": _windows(
        "adaptive_max_pool2d", (7,), ((2, 3, 9, 11), (1, 1, 1), (1, 33, 14, 28)), (SMALL, CACHED, LARGE)
    ),
    "adaptive_max_pool2d.indices": _windows("adaptive_max_pool2d", ((None, 5), True), ((2, 3, 4, 8), (1, 20, 3, 35))),
    "adaptive_max_pool3d": _windows("adaptive_max_pool3d", ((2, 3, 1), True), ((2, 3, 4, 5, 6), (3, 2, 7, 6)), VOLUMES),
}


def _with_indices(name: str, args: tuple[Any, ...], shape: Shape) -> Case:
    ours, reference = (getattr(f, f"{name}_with_indices") for f in (T, F))
    return Case(
        ours=lambda x: ours(x, *args),
        reference=lambda x: reference(x, *args),
        shapes=(shape,),
        errors=(lambda f: f(torch.randn(3), *args),),
    )


BY_INDEX = {
    "max_pool1d_with_indices": _with_indices("max_pool1d", (3, 2, 1), (2, 3, 7)),
    "max_pool2d_with_indices": _with_indices("max_pool2d", (3, 2, 1), (2, 3, 5, 7)),
    "max_pool3d_with_indices": _with_indices("max_pool3d", (2,), (2, 3, 4, 5, 6)),
    "adaptive_max_pool1d_with_indices": _with_indices("adaptive_max_pool1d", (3,), (2, 3, 7)),
    "adaptive_max_pool2d_with_indices": _with_indices("adaptive_max_pool2d", (3,), (2, 3, 9, 11)),
    "adaptive_max_pool3d_with_indices": _with_indices("adaptive_max_pool3d", ((2, 3, 1),), (2, 3, 4, 5, 6)),
}


PLANE = (1, 1, 512, 512)


CASES: dict[str, Case] = {
    **WINDOWS,
    **BY_INDEX,
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
