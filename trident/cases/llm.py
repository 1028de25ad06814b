"""Cases of operators of language models that torch lacks. The references are their formulas in torch's operators."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import FLAT_BENCH, Case, Shape, randn
from trident.runtime import route


def _rotary(
    shape: Shape, group: int = 1, sequence: int = -2, turned: int = 8, half: bool = False, batched: bool = False,
    interleaved: bool = False,
) -> Case:  # fmt: skip
    """turned: eighths of a head. half: tables have a number for each pair."""

    def tables(x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Of numbers that every dtype holds exactly, no two alike: a pair's need not be one angle's."""
        L, D = x.shape[sequence], x.shape[-1] * turned // 8 // (2 if half else 1)
        at = torch.arange((x.shape[0] if batched else 1) * L * D, device=x.device).view(-1, L, D)
        cos, sin = ((at * step % 97 - 48) / 64 for step in (29, 37))
        return {name: (t if batched else t[0]).to(x.dtype) for name, t in (("cos", cos), ("sin", sin))}

    def reference(q: torch.Tensor, k: torch.Tensor, **named: torch.Tensor) -> tuple[torch.Tensor, ...]:
        E, R = q.shape[-1], q.shape[-1] * turned // 8
        cos, sin = (t.unsqueeze(-5 - sequence) for t in (named or tables(q)).values())
        if half:
            cos, sin = (t.repeat_interleave(2, -1) if interleaved else t.tile(2) for t in (cos, sin))
        i = torch.arange(E, device=q.device)
        if interleaved:
            partner, first = i + 1 - i % 2 * 2, i % 2 == 0
        else:
            partner, first = torch.where(i < R // 2, i + R // 2, i - R // 2), i < R // 2
        cos, sin = F.pad(cos, (0, E - R), value=1.0), F.pad(torch.where(first[:R], -sin, sin), (0, E - R))
        return tuple(x * cos + x[..., torch.where(i < R, partner, i)] * sin for x in (q, k))

    def inputs(shape: Shape) -> list[torch.Tensor]:
        other = list(shape)
        other[-5 - sequence] //= group
        return [randn(*shape), randn(*other)]

    def ours(q: torch.Tensor, k: torch.Tensor, **named: torch.Tensor) -> Any:
        R = q.shape[-1] * turned // 8 if half else None
        cos, sin = (named or tables(q)).values()
        return T.rotary_embedding(q, k, cos, sin, sequence_dim=sequence, rotary_dim=R, interleaved=interleaved)

    shapes = (shape, (*shape[:-3], *(n + 40 if at == sequence + 3 else n for at, n in enumerate(shape[-3:]))))
    bench = ((1, 4, 16, 64), (1, 8, 256, 64), (1, 16, 2048, 128))
    return Case(ours, reference, shapes, inputs=inputs, also=tables, bench=bench)


def _jsd(shapes: Sequence[Shape], beta: float, reduction: str) -> Case:
    def exact(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """By torch's kl_div, log-probability of the mixture first."""
        if beta in (0, 1):
            pair = (t, x) if beta else (x, t)
            return F.kl_div(*pair, reduction=reduction, log_target=True)
        m = torch.stack((t + math.log(beta), x + math.log1p(-beta))).logsumexp(0)
        of_target, of_input = (F.kl_div(m, a, reduction=reduction, log_target=True) for a in (t, x))
        return beta * of_target + (1 - beta) * of_input

    def reference(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with route.forced("torch"):
            return T.jsd_loss(x, t, beta, reduction)

    return Case(
        ours=lambda x, t: T.jsd_loss(x, t, beta, reduction),
        reference=reference,
        exact=exact,
        shapes=shapes,
        inputs=lambda shape: [F.log_softmax(3 * randn(*shape), -1) for _ in range(2)],
        reduced=lambda shape: 1 if reduction == "none" else math.prod(shape),
        bench=FLAT_BENCH,
    )


def _choices(shapes: Sequence[Shape], k: int, renormalize: bool) -> Case:
    def reference(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        p = x.softmax(-1)
        places = p.topk(min(k, x.shape[-1]) or 1, -1).indices
        w = p.gather(-1, places)
        return (w / w.sum(-1, keepdim=True) if renormalize else w), places

    def inputs(shape: Shape) -> list[torch.Tensor]:
        """Numbers that every dtype holds and that differ within a row: torch may choose any of equal ones."""
        return [(torch.rand(shape).argsort(-1).double() - shape[-1] / 2) / 16]

    return Case(
        ours=lambda x: T.topk_softmax(x, min(k, x.shape[-1]) or 1, renormalize=renormalize),
        reference=reference,
        shapes=shapes,
        inputs=inputs,
        reduced=lambda shape: shape[-1],
        bench=((64, 64), (512, 64), (16384, 128)),
    )


def _groups(x: torch.Tensor, w: torch.Tensor, offs: torch.Tensor) -> torch.Tensor:
    """A product a group. What is behind the last one, 0 here, torch leaves as it finds it."""
    at = [0, *offs.tolist()]
    ys = [x[start:end] @ w[g] for g, (start, end) in enumerate(itertools.pairwise(at))]
    return torch.cat([*ys, x.new_zeros(x.shape[0] - at[-1], w.shape[2])])


def _grouped(shapes: Sequence[Shape], G: int, N: int, transposed: bool, left: int = 0) -> Case:
    """Shapes [S, K]; transposed: w lies as the weight of a layer. left: rows of no group."""

    def view(f: Any) -> Any:
        return lambda x, w, offs: f(x, w.transpose(1, 2) if transposed else w, offs)

    def inputs(shape: Shape) -> list[torch.Tensor]:
        S, K = shape
        ends = torch.randint(max(0, S - left) + 1, (G,)).sort().values.int()
        ends[-1] = max(0, S - left)
        if G > 2:
            ends[1] = ends[0]  # an empty one
        return [randn(S, K), randn(G, N, K) if transposed else randn(G, K, N), ends]

    return Case(
        ours=view(lambda x, w, offs: T.grouped_mm(x, w, offs=offs)),
        reference=view(_groups),
        shapes=shapes,
        inputs=inputs,
        reduced=lambda shape: max(shape[1], N, shape[0]),
        bench=((64, 64), (1024, 256)),
        flops=lambda shape: 2 * shape[0] * shape[1] * N,
    )


CASES: dict[str, Case] = {
    "rotary_embedding": _rotary((2, 4, 5, 12), group=2, batched=True),
    "rotary_embedding.interleaved": _rotary((2, 5, 2, 16), sequence=-3, turned=6, half=True, interleaved=True),
    "rotary_embedding.partial": _rotary((3, 5, 16), turned=5),
    "jsd_loss": _jsd(((2, 3, 4), (1, 1), (33, 1001)), 0.3, "batchmean"),
    "jsd_loss.none": _jsd(((5, 7),), 0.5, "none"),
    "jsd_loss.0": _jsd(((5, 7),), 0.0, "sum"),
    "jsd_loss.1": _jsd(((5, 7),), 1.0, "mean"),
    "grouped_mm": _grouped(((5, 3), (1, 1), (300, 70)), 4, 33, transposed=True),
    "grouped_mm.left": _grouped(((7, 16), (150, 8)), 3, 24, transposed=False, left=5),
    "topk_softmax": _choices(((2, 3, 5), (1, 1), (70, 60)), 2, True),
    "topk_softmax.plain": _choices(((5, 7), (33, 256)), 8, False),
}
