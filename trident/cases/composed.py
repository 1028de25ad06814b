"""Cases of functions without a class of their own: one_hot, pdist, gumbel_softmax, attention by weights."""

import math
from typing import Any

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import Case, Shape, randn

PROJECTIONS = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


def _one_hot_inputs(shape: Shape) -> list[torch.Tensor]:
    """What is differentiated is x, which y chooses from: one_hot has no gradient."""
    return [randn(*shape), torch.randint(shape[-1], shape[:-1])]


def _pdist(p: float) -> Case:
    def reference(x: torch.Tensor) -> torch.Tensor:
        if x.numel() == 0:  # torch 2.13 crashes in the backward: Segmentation fault
            return x.sum().expand(x.shape[0] * (x.shape[0] - 1) // 2).clone()
        return F.pdist(x, p)

    return Case(
        ours=lambda x: T.pdist(x, p),
        reference=reference,
        shapes=((4, 3), (2, 1), (70, 33), (3, 1030)),
        reduced=lambda shape: shape[0] * shape[1] ** 2,
        dtypes=(torch.float32, torch.float64),
        autocast=(torch.float32,),
        errors=(lambda f: f(torch.randn(3)), lambda f: f(torch.randn(3, 2), -1.0), lambda f: f(torch.randn(2, 3, 4))),
        bench=((64, 64), (256, 256), (512, 128)),
    )


def _gumbel(**kwargs: Any) -> Case:
    return Case(
        ours=lambda x: T.gumbel_softmax(x, **kwargs),
        reference=lambda x: F.gumbel_softmax(x, **kwargs),
        shapes=((4, 3), (2, 5, 9), (3, 33000)),
        reduced=lambda shape: max(shape),
        random=True,
        errors=(lambda f: f(torch.randn(3), dim=2),),
        bench=((64, 64), (256, 1024)),
    )


def _heads(shape: Shape, heads: int = 2, more: int = 1, separate: bool = False, **kwargs: Any) -> Case:
    """shape: of the query, [L, B, E] or [L, E]."""
    E = shape[-1]

    def call(f: Any, q: Any, k: Any, v: Any, *w: Any) -> torch.Tensor:
        *projections, bias, out, out_bias = w
        packed, named = projections[0], {}
        if separate:
            packed, named = None, dict(zip(PROJECTIONS, projections, strict=True))
        rest = (packed, bias, None, None, False, 0.0, out, out_bias)
        y: torch.Tensor = f(
            q, k, v, E, heads, *rest, need_weights=False, use_separate_proj_weight=separate, **named, **kwargs
        )[0]
        return y

    def inputs(shape: Shape) -> list[torch.Tensor]:
        L, *batch, _ = shape
        keys = [randn(L + more, *batch, E) for _ in range(2)]
        scale = E**-0.5  # keeps what is rounded in between of the size of the inputs
        projections = [randn(E, E) * scale for _ in range(3)] if separate else [randn(3 * E, E) * scale]
        return [randn(*shape), *keys, *projections, randn(3 * E), randn(E, E) * scale, randn(E)]

    def exact(*inputs: torch.Tensor) -> torch.Tensor:
        """By the formula: torch's fused attention has no second derivative."""
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            return call(F.multi_head_attention_forward, *inputs)

    def bad(f: Any, q: torch.Tensor, size: int) -> Any:
        return f(
            q, q, q, size, 2, torch.randn(24, 8), torch.randn(24), None, None, False, 0.0, torch.randn(8, 8), None,
            need_weights=False,
        )  # fmt: skip

    return Case(
        ours=lambda *inputs: call(T.multi_head_attention_forward, *inputs),
        reference=lambda *inputs: call(F.multi_head_attention_forward, *inputs),
        exact=exact,
        twice=exact,
        shapes=(shape,),
        inputs=inputs,
        reduced=lambda shape: 10 * E**2,
        errors=(lambda f: bad(f, torch.randn(3, 2, 8), 6), lambda f: bad(f, torch.randn(3, 2, 2, 8), 8)),
    )


CASES: dict[str, Case] = {
    "one_hot": Case(
        ours=lambda x, index: x * T.one_hot(index, x.shape[-1]),
        reference=lambda x, index: x * F.one_hot(index, x.shape[-1]),
        shapes=((4, 3), (1, 1), (2, 5, 33), (3, 5000)),
        inputs=_one_hot_inputs,
        errors=(
            lambda f: f(torch.tensor([0, -1])),
            lambda f: f(torch.tensor([0, 3]), 3),
            lambda f: f(torch.tensor([0.0])),
            lambda f: f(torch.tensor([1]), 0),
            lambda f: f(torch.tensor([], dtype=torch.int64)),
        ),
        bench=((64, 64), (1024, 1000)),
    ),
    "pdist": _pdist(2.0),
    "pdist.one": _pdist(1.0),
    "pdist.inf": _pdist(math.inf),
    "pdist.3": _pdist(3.0),
    "gumbel_softmax": _gumbel(),
    "gumbel_softmax.hard": _gumbel(hard=True, tau=0.7, dim=0),
    "multi_head_attention_forward": _heads((5, 2, 8)),
    "multi_head_attention_forward.separate": _heads((3, 8), separate=True),
}
