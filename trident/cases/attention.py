"""Cases of trident.functional's attention. Shapes are those of the query; there are a few more keys than queries."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import Case, Shape, randn
from trident.ops._attention import How, _four, _in_torch
from trident.runtime import route

SHAPES = ((2, 3, 5, 8), (1, 1, 1, 1), (6, 4), (2, 1, 2, 7, 16), (1, 2, 140, 20))
BENCH = ((1, 2, 16, 32), (1, 8, 512, 64), (4, 8, 1024, 64))
LONG_BENCH = ((1, 2, 16, 32), (1, 8, 512, 128))
WIDE_BENCH = ((1, 2, 16, 32), (1, 4, 256, 240))


def _exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None = None, **kwargs: Any):
    """torch's formula without torch's fused kernels, which have no second derivatives."""
    if mask is not None:
        mask = _four(mask.expand(*q.shape[:-1], k.shape[-2]))
    how = How(right=0 if kwargs.get("is_causal") else -1, scale=kwargs.get("scale"))
    y = _in_torch(_four(q), _four(k), _four(v), mask, None, how)
    return y.reshape(*q.shape[:-1], v.shape[-1])


def _seen(shape: Shape, S: int) -> torch.Tensor:
    """Booleans [L, S]; the second query sees no key."""
    mask = torch.rand(shape[-2], S) < 0.7
    mask[1:2] = False
    return mask


def _attention(
    shapes: Sequence[Shape] = SHAPES,
    mask: Callable[[Shape, int], torch.Tensor] | None = None,
    group: int = 1,
    more: int = 2,
    wider: int = 0,
    random: bool = False,
    bench: Sequence[Shape] = BENCH,
    **kwargs: Any,
) -> Case:
    """more: how many more keys than queries; wider: how much longer a value than a key is."""

    def inputs(shape: Shape) -> list[torch.Tensor]:
        *batch, L, E = shape
        if batch:
            batch[-1] //= group
        made = [randn(*shape), randn(*batch, L + more, E), randn(*batch, L + more, E + wider)]
        return made if mask is None else [*made, mask(shape, L + more)]

    return Case(
        ours=lambda *inputs: T.scaled_dot_product_attention(*inputs, **kwargs),
        reference=lambda *inputs: F.scaled_dot_product_attention(*inputs, **kwargs),
        exact=None if random else lambda *inputs: _exact(*inputs, **kwargs),
        twice=None if random else lambda *inputs: _exact(*inputs, **kwargs),
        shapes=shapes,
        inputs=inputs,
        reduced=lambda shape: shape[-1] * (shape[-2] + more),
        random=random,
        errors=(
            lambda f: f(torch.randn(5), torch.randn(7, 4), torch.randn(7, 4)),
            lambda f: f(torch.randn(2, 5, 4), torch.randn(2, 7, 3), torch.randn(2, 7, 4)),
            lambda f: f(torch.randn(2, 5, 4), torch.randn(2, 7, 4), torch.randn(2, 6, 4)),
            lambda f: f(torch.randn(2, 5, 4), torch.randn(2, 7, 4).double(), torch.randn(2, 7, 4)),
            lambda f: f(*[torch.randn(1, 4, 5, 4)] * 3, torch.ones(5, 5).int()),
            lambda f: f(*[torch.randn(1, 4, 5, 4)] * 3, torch.ones(4, 5).bool()),
            lambda f: f(*[torch.randn(1, 4, 5, 4)] * 3, torch.ones(5).bool()),
            lambda f: f(*[torch.randn(4, 5, 4)] * 3, torch.ones(5, 5).bool(), is_causal=True),
            lambda f: f(torch.randn(1, 4, 5, 4), torch.randn(1, 2, 5, 4), torch.randn(1, 2, 5, 4)),
            lambda f: f(*[torch.randn(1, 4, 5, 4)] * 3, dropout_p=1.5),
        ),
        bench=bench,
        # two products; half of each under a causal mask
        flops=lambda shape: (
            2.0
            * torch.Size(shape[:-1]).numel()
            * (shape[-2] + more)
            * (2 * shape[-1] + wider)
            / (2 if kwargs.get("is_causal") else 1)
        ),
    )


def _places(
    L: int, S: int, causal: bool = False, window_size: tuple[int, int] = (-1, -1), **kwargs: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Key minus place of the query [L, S], the last of both being at one place, and what is seen."""
    distances = torch.arange(S) - torch.arange(L)[:, None] - (S - L)
    left, right = window_size
    right = 0 if causal else right
    return distances, ((right < 0) | (distances <= right)) & ((left < 0) | (distances >= -left))


def _one(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, slopes: torch.Tensor | None, **kwargs: Any) -> torch.Tensor:
    """Of q [H, L, E], k and v [K, S, E]: the explicit formula."""
    k, v = (t.repeat_interleave(q.shape[0] // t.shape[0], 0) for t in (k, v))
    distances, seen = (t.to(q.device) for t in _places(q.shape[1], k.shape[1], **kwargs))
    z = q @ k.mT / q.shape[-1] ** 0.5
    if cap := kwargs.get("softcap"):
        z = cap * torch.tanh(z / cap)
    if slopes is not None:
        z = z - slopes[:, None, None].to(z.dtype) * distances.abs()
    z = z.masked_fill(~seen, float("-inf"))
    return torch._safe_softmax(z, -1) @ v


def _flash(
    shapes: Sequence[Shape], group: int = 1, more: int = 2, alibi: bool = False, packed: bool = False,
    bench: Sequence[Shape] = BENCH, **kwargs: Any,
) -> Case:  # fmt: skip
    """Shapes are [B, H, L, E], or [T, H, E] of three packed sequences, the second of them empty."""

    def slopes(heads: int, device: torch.device) -> torch.Tensor | None:
        return 2.0 ** -torch.arange(1, heads + 1, device=device).float() if alibi else None

    def offsets(T: int) -> torch.Tensor:
        return torch.tensor([0, T // 3, T // 3, T], dtype=torch.int32)

    def inputs(shape: Shape) -> list[torch.Tensor]:
        other = list(shape)
        other[1] //= group
        other[0 if packed else 2] += more
        made = [randn(*shape), randn(*other), randn(*other)]
        return [*made, offsets(shape[0]), offsets(other[0])] if packed else made

    def ours(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *cu: torch.Tensor) -> torch.Tensor:
        named: Any = dict(zip(("cu_seqlens_q", "cu_seqlens_k"), cu, strict=False))
        return T.flash_attention(q, k, v, alibi_slopes=slopes(q.shape[1], q.device), **named, **kwargs)

    def reference(q: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        """What is asked where no kernel is, lying in memory as the query does."""
        with route.forced("torch"):
            y = ours(q, *rest)
        return torch.where(torch.zeros_like(q, dtype=torch.bool), q.to(y.dtype), y)

    def exact(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *cu: torch.Tensor) -> torch.Tensor:
        s = slopes(q.shape[1], q.device)
        if not packed:
            return torch.stack([_one(*heads, s, **kwargs) for heads in zip(q, k, v, strict=True)])
        ys = []
        for (a, b), (c, d) in zip(*(itertools.pairwise(ends.tolist()) for ends in cu), strict=True):
            one_q, one_k, one_v = (t.transpose(0, 1) for t in (q[a:b], k[c:d], v[c:d]))
            ys.append(_one(one_q, one_k, one_v, s, **kwargs).transpose(0, 1))
        return torch.cat(ys)

    return Case(
        ours=ours,
        reference=reference,
        exact=exact,
        shapes=shapes,
        inputs=inputs,
        reduced=lambda shape: shape[-1] * (max(shape[:-1]) + more),
        bench=bench,
    )


CASES: dict[str, Case] = {
    "scaled_dot_product_attention": _attention(),
    "scaled_dot_product_attention.causal": _attention(((2, 3, 5, 8), (2, 150, 16)), more=-1, is_causal=True),
    "scaled_dot_product_attention.mask": _attention(((3, 5, 8), (1, 2, 140, 16)), mask=_seen, scale=0.3),
    "scaled_dot_product_attention.padding": _attention(
        ((2, 3, 5, 8),), mask=lambda shape, S: torch.rand(shape[0], 1, 1, S) < 0.7
    ),
    "scaled_dot_product_attention.bias": _attention(
        ((2, 3, 5, 8), (3, 130, 11)), mask=lambda shape, S: randn(*shape[-3:-1], S), more=0, wider=16, bench=WIDE_BENCH
    ),
    "scaled_dot_product_attention.gqa": _attention(
        ((2, 4, 5, 8), (1, 2, 150, 40)), group=2, more=3, bench=LONG_BENCH, enable_gqa=True, is_causal=True
    ),
    "scaled_dot_product_attention.dropout": _attention(((2, 3, 5, 8),), random=True, dropout_p=0.3),
    "flash_attention": _flash(((2, 4, 5, 8), (1, 2, 150, 40)), group=2, window_size=(3, 1)),
    "flash_attention.cap": _flash(((2, 3, 5, 8),), alibi=True, softcap=1.5, causal=True),
    "flash_attention.packed": _flash(
        ((7, 2, 8), (300, 2, 16)), group=2, packed=True, causal=True, bench=((32, 2, 32), (512, 8, 64), (4096, 8, 64))
    ),
}
