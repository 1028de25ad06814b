"""Cases of trident.nn.sparse. Shapes are those of the table, which comes first; then its indices."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import Case, Errors, Shape, randn

TABLES = ((4, 3), (1, 1), (257, 33), (5, 1030))
BENCH = ((100, 64), (5000, 64), (1000, 512))


def _indices(shape: Shape) -> torch.Tensor:
    """About as many as the table has rows, in a matrix; some rows are read often, some never."""
    V = shape[0]
    return torch.randint(V, (2, V + 17)) // (1 + torch.randint(3, (2, V + 17)))


def _embedding(module: bool = True, dtype: torch.dtype = torch.int64, **kwargs: Any) -> Case:
    w = torch.randn(3, 2)
    return Case(
        ours=lambda w, index: T.embedding(index, w, **kwargs),
        reference=lambda w, index: F.embedding(index, w, **kwargs),
        shapes=TABLES,
        inputs=lambda shape: [randn(*shape), _indices(shape).to(dtype)],
        reduced=lambda shape: 2 * (shape[0] + 17),
        errors=(
            lambda f: f(torch.tensor([3]), w),
            lambda f: f(torch.tensor([-1]), w),
            lambda f: f(torch.tensor([1.0]), w),
            lambda f: f(torch.tensor([1]), w, padding_idx=3),
        ),
        cls="Embedding",
        module=(lambda cls: cls(4, 3, **kwargs)) if module else None,
        takes=0,
        bench=BENCH,
    )


def _offsets(T: int, last: bool) -> torch.Tensor:
    """Of bags in a row of T: an empty one, one of one, and four others. last: and where the last one ends."""
    return torch.tensor([0, 0, 1, T // 5, T // 3, T - T // 4, *([T] if last else [])])


BAD_BAGS: Errors = (
    lambda f: f(torch.tensor([3]), torch.randn(3, 2), torch.tensor([0])),
    lambda f: f(torch.tensor([1]), torch.randn(3, 2), torch.tensor([1])),
    lambda f: f(torch.tensor([1]), torch.randn(3, 2), torch.tensor([0, 2])),
    lambda f: f(torch.tensor([1]), torch.randn(3, 2)),
    lambda f: f(torch.tensor([[1]]), torch.randn(3, 2), torch.tensor([0])),
    lambda f: f(torch.tensor([[1]]), torch.randn(3, 2), mode="least"),
    lambda f: f(torch.tensor([[1]]), torch.randn(3, 2), mode="mean", per_sample_weights=torch.ones(1, 1)),
    lambda f: f(torch.tensor([[1]]), torch.randn(3, 2), mode="max", scale_grad_by_freq=True),
)


def _bag(
    module: bool = True, offsets: bool = True, weighted: bool = False, shapes: Sequence[Shape] = TABLES, **kwargs: Any
) -> Case:
    def call(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def bag(w: torch.Tensor, index: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
            named = dict(zip(("offsets",) if offsets else (), rest, strict=False))
            if weighted:
                named["per_sample_weights"] = rest[-1]
            return f(index, w, **named, **kwargs)

        return bag

    def inputs(shape: Shape) -> list[torch.Tensor]:
        index = _indices(shape)
        index = index.view(-1) if offsets else index
        made = [randn(*shape), index]
        if offsets:
            made.append(_offsets(index.numel(), bool(kwargs.get("include_last_offset"))))
        return [*made, randn(*index.shape)] if weighted else made

    return Case(
        ours=call(T.embedding_bag),
        reference=call(F.embedding_bag),
        shapes=shapes,
        inputs=inputs,
        reduced=lambda shape: 2 * (shape[0] + 17) * shape[1],
        errors=BAD_BAGS,
        cls="EmbeddingBag",
        module=(lambda cls: cls(4, 3, **kwargs)) if module and not weighted else None,
        takes=0,
        bench=BENCH,
    )


CASES: dict[str, Case] = {
    "embedding": _embedding(),
    "embedding.padding": _embedding(padding_idx=-1, scale_grad_by_freq=True, module=False, dtype=torch.int32),
    "embedding_bag": _bag(),
    "embedding_bag.sum": _bag(mode="sum", weighted=True, padding_idx=0, shapes=TABLES[:1]),
    "embedding_bag.last": _bag(mode="sum", include_last_offset=True, shapes=TABLES[:1]),
    "embedding_bag.max": _bag(mode="max", padding_idx=1, offsets=False, shapes=TABLES[::2]),
}
