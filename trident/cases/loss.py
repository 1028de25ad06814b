"""Cases of trident.nn.loss."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

import trident.functional as T
from trident.cases.case import (
    FLAT,
    FLAT_BENCH,
    Case,
    Errors,
    Shape,
    randn,
)


def _loss(
    name: str,
    cls: str,
    *,
    inputs: Callable[[Shape], list[torch.Tensor]] = lambda shape: [randn(*shape), randn(*shape)],
    extra: Callable[[torch.Tensor], dict[str, torch.Tensor]] = lambda x: {},  # made from the input, not differentiated
    module: bool = True,
    specials: Sequence[float] | None = None,
    takes: int = 2,
    **options: object,
) -> Case:
    def call(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda x, *t, **named: f(x, *t, **(named or extra(x.detach())), **options)

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
        takes=takes,
        also=extra,
        bench=FLAT_BENCH,
    )


def _ramp(x: torch.Tensor) -> torch.Tensor:
    """[x.shape[-1]], in [0, 2)."""
    return torch.arange(x.shape[-1], device=x.device).remainder(5).to(x.dtype) * 0.5


def _weight(x: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"weight": _ramp(x)}


def _signs(x: torch.Tensor) -> dict[str, torch.Tensor]:
    n = x.numel()
    signs = torch.tensor([1, -1, -1], dtype=x.dtype, device=x.device).repeat(-(-n // 3))
    return {"target": signs[:n].view(x.shape)}


def _shares(shape: Shape) -> list[torch.Tensor]:
    return [0.05 + 0.9 * torch.rand(shape, dtype=torch.float64), torch.rand(shape, dtype=torch.float64)]


def _logits(shape: Shape) -> list[torch.Tensor]:
    return [3 * randn(*shape), torch.rand(shape, dtype=torch.float64)]


def _divergence(shape: Shape) -> list[torch.Tensor]:
    return [randn(*shape), 0.05 + torch.rand(shape, dtype=torch.float64)]


def _rates(shape: Shape) -> list[torch.Tensor]:
    return [0.1 + torch.rand(shape, dtype=torch.float64), 3 * torch.rand(shape, dtype=torch.float64)]


def _spreads(shape: Shape) -> list[torch.Tensor]:
    """Two tensors, and variances of which some are held at an eps of 0.1."""
    return [randn(*shape), randn(*shape), 1.5 * torch.rand(shape, dtype=torch.float64)]


def _row_signs(x: torch.Tensor) -> dict[str, torch.Tensor]:
    """1 or -1 for each row."""
    return {"target": torch.where(torch.arange(x.shape[0], device=x.device) % 3 == 0, 1, -1)}


VECTORS = ((4, 3), (1, 2), (257, 33), (2, 65537))


def _vector_loss(
    name: str,
    cls: str,
    count: int,
    extra: Callable[[torch.Tensor], dict[str, torch.Tensor]] = lambda x: {},
    **kwargs: Any,
) -> Case:
    """Of `count` tensors [N, D]."""

    def call(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        return lambda *x, **named: f(*x, **(named or extra(x[0].detach())), **kwargs)

    bad = [torch.rand(2, 3)] * count
    named: dict[str, torch.Tensor] = extra(bad[0])
    return Case(
        ours=call(getattr(T, name)),
        reference=call(getattr(F, name)),
        shapes=VECTORS,
        inputs=lambda shape: [randn(*shape) for _ in range(count)],
        reduced=lambda shape: math.prod(shape) ** 2,
        errors=(
            lambda f: f(*bad, **named, reduction="no"),
            lambda f: f(*bad[1:], torch.rand(5, 4), **named),
        ),
        cls=cls,
        module=lambda cls: cls(**kwargs),
        takes=count,
        also=extra,
        bench=((4, 256), (2048, 128), (65536, 256)),
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
            w = None
            if weighted:  # numbers that every dtype holds exactly
                V = x.shape[min(1, x.dim() - 1)]
                w = torch.tensor([1, 1.25, 1.5, 1.75], dtype=x.dtype, device=x.device).repeat(-(-V // 4))[:V]
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

    bad = [(torch.randn(2, 3), torch.tensor([0, 3])), (torch.randn(2, 3), torch.tensor([0, -1]))]
    bad += [(torch.randn(2, 3), torch.tensor([0])), (torch.randn(2, 3), torch.tensor([0, 1], dtype=torch.int32))]
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


def _multi_margin(weighted: bool, module: bool = True, **kwargs: Any) -> Case:
    def call(f: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        def loss(x: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            return f(x, target, weight=_ramp(x) + 0.5 if weighted else None, **kwargs)

        return loss

    x = torch.randn(2, 3)
    return Case(
        ours=call(T.multi_margin_loss),
        reference=call(F.multi_margin_loss),
        shapes=CLASSES,
        inputs=lambda shape: [randn(*shape), torch.randint(shape[1], (shape[0],))],
        reduced=math.prod,
        dtypes=(torch.float32, torch.float64),  # torch has no others on a CPU
        autocast=(torch.float32,),
        errors=(
            lambda f: f(x, torch.tensor([0, 3])),
            lambda f: f(x, torch.tensor([0])),
            lambda f: f(x, torch.tensor([0, 1], dtype=torch.int32)),
            lambda f: f(x, torch.tensor([0, 1]), p=3),
            lambda f: f(x, torch.tensor([0, 1]), reduction="no"),
        ),
        cls="MultiMarginLoss",
        module=(lambda cls: cls(**kwargs)) if module else None,
        bench=((16, 1000), (256, 4096), (2048, 8192)),
    )


def _multilabel_margin(**kwargs: Any) -> Case:
    def inputs(shape: Shape) -> list[torch.Tensor]:
        """Up to five targets a row; what follows the first -1 is none."""
        target = torch.randint(-1, shape[1], shape)
        target[:, min(5, shape[1] - 1) :] = -1
        return [randn(*shape), target]

    x = torch.randn(2, 3)
    return Case(
        ours=lambda x, target: T.multilabel_margin_loss(x, target, **kwargs),
        reference=lambda x, target: F.multilabel_margin_loss(x, target, **kwargs),
        shapes=((4, 3), (1, 1), (257, 33), (2, 3001)),
        inputs=inputs,
        reduced=math.prod,
        dtypes=(torch.float32, torch.float64),  # torch has no others on a CPU
        autocast=(torch.float32,),
        errors=(
            lambda f: f(x, torch.tensor([[0, 3, -1], [0, -1, -1]])),
            lambda f: f(x, torch.tensor([[0, -2, -1], [0, -1, -1]])),
            lambda f: f(x, torch.tensor([0, 1])),
            lambda f: f(x, torch.zeros(2, 3, dtype=torch.int64), reduction="no"),
        ),
        cls="MultiLabelMarginLoss",
        module=lambda cls: cls(**kwargs),
        bench=((16, 100), (256, 1000), (2048, 1000)),
    )


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
    "huber_loss": _loss("huber_loss", "HuberLoss", delta=0.7),
    "huber_loss.none": _loss("huber_loss", "HuberLoss", delta=0.7, reduction="none", specials=()),
    "mse_loss": _loss("mse_loss", "MSELoss"),
    "mse_loss.none": _loss("mse_loss", "MSELoss", reduction="none", specials=()),
    "mse_loss.sum": _loss("mse_loss", "MSELoss", reduction="sum"),
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
    "gaussian_nll_loss": _loss("gaussian_nll_loss", "GaussianNLLLoss", inputs=_spreads, takes=3),
    "gaussian_nll_loss.full": _loss(
        "gaussian_nll_loss", "GaussianNLLLoss", inputs=_spreads, takes=3, full=True, eps=0.1, reduction="none"
    ),
    "hinge_embedding_loss": _loss(
        "hinge_embedding_loss", "HingeEmbeddingLoss", inputs=lambda shape: [randn(*shape)], extra=_signs, margin=0.5
    ),
    "margin_ranking_loss": _loss("margin_ranking_loss", "MarginRankingLoss", extra=_signs, margin=0.5),
    "multilabel_soft_margin_loss": _loss(
        "multilabel_soft_margin_loss", "MultiLabelSoftMarginLoss", inputs=_logits, reduction="none"
    ),
    "multilabel_soft_margin_loss.weight": _loss(
        "multilabel_soft_margin_loss", "MultiLabelSoftMarginLoss", inputs=_logits, extra=_weight, module=False
    ),
    "multilabel_margin_loss": _multilabel_margin(),
    "multilabel_margin_loss.none": _multilabel_margin(reduction="none"),
    "multi_margin_loss": _multi_margin(False, margin=0.7),
    "multi_margin_loss.2": _multi_margin(True, module=False, p=2, reduction="none"),
    "cosine_embedding_loss": _vector_loss("cosine_embedding_loss", "CosineEmbeddingLoss", 2, _row_signs, margin=0.1),
    "triplet_margin_loss": _vector_loss("triplet_margin_loss", "TripletMarginLoss", 3, swap=True),
    "triplet_margin_loss.none": _vector_loss("triplet_margin_loss", "TripletMarginLoss", 3, p=1.5, reduction="none"),
    "triplet_margin_with_distance_loss": _vector_loss(
        "triplet_margin_with_distance_loss", "TripletMarginWithDistanceLoss", 3, margin=0.5, reduction="sum"
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
}
