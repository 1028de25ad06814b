"""Adam and AdamW: torch's classes, whose parameters step in one launch for all that are alike."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trident.optim import lists, rules
from trident.optim._options import reason

ONE = torch.tensor(1.0, device="cpu")  # as a number, each addition would make a tensor of it


def _step(group: dict[str, Any], rows: Sequence[lists.Row], t: float) -> None:
    lr, (beta1, beta2), decay = float(group["lr"]), map(float, group["betas"]), float(group["weight_decay"])
    decoupled = group["decoupled_weight_decay"]
    numbers = (
        -1.0 if group["maximize"] else 1.0,
        1 - lr * decay if decoupled else decay,
        1 - beta1,
        beta2,
        1 - beta2,
        lr / (1 - beta1**t),
        (1 - beta2**t) ** 0.5,
        float(group["eps"]),
    )
    lists.step(rules.adamw if decoupled else rules.adam, rows, numbers)


class _Steps:
    """Takes what kernels can do out of the lists that torch's step then works on."""

    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        exp_avgs: list[Tensor],
        exp_avg_sqs: list[Tensor],
        max_exp_avg_sqs: list[Tensor],
        state_steps: list[Tensor],
    ) -> bool:
        columns = (params, grads, exp_avgs, exp_avg_sqs)
        has_complex = super()._init_group(group, *columns, max_exp_avg_sqs, state_steps)  # type: ignore[misc]
        name = "AdamW" if group["decoupled_weight_decay"] else "Adam"
        why = reason(name, self, group, params)  # type: ignore[arg-type]
        for rows, beside in lists.take(name, why, columns, (state_steps,)):
            steps = [step for (step,) in beside]
            torch._foreach_add_(steps, ONE, alpha=1.0)
            reached = [*map(Tensor.item, steps)]
            for t in {*reached}:
                _step(group, [row for row, at in zip(rows, reached, strict=True) if at == t], t)
        return has_complex


class Adam(_Steps, torch.optim.Adam):
    __doc__ = torch.optim.Adam.__doc__


class AdamW(_Steps, torch.optim.AdamW):
    __doc__ = torch.optim.AdamW.__doc__
