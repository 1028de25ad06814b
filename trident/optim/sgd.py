"""Stochastic gradient descent: torch's class, whose parameters step in one launch for all that are alike."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trident.optim import lists, rules
from trident.optim._options import reason


class SGD(torch.optim.SGD):
    __doc__ = torch.optim.SGD.__doc__

    def _init_group(
        self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], momentum_buffers: list[Any]
    ) -> bool:
        has_sparse = super()._init_group(group, params, grads, momentum_buffers)
        plain = not group["momentum"] and not group["weight_decay"]
        why = reason("SGD (plain)" if plain else "SGD", self, group, params)
        if not group["momentum"]:
            for rows, _ in lists.take("SGD", why, (params, grads)):
                _step(group, rows, rules.sgd)
            return has_sparse
        rule = rules.nesterov if group["nesterov"] else rules.momentum
        old: tuple[list[Any], ...] = ([], [], [])
        new: tuple[list[Any], ...] = ([], [], [])
        for row in zip(params, grads, momentum_buffers, strict=True):
            for column, t in zip(new if row[2] is None else old, row, strict=True):
                column.append(t)
        for rows, _ in lists.take("SGD", why, old):
            _step(group, rows, rule, float(group["momentum"]), 1 - group["dampening"])
        for rows, beside in lists.take("SGD", why, new[:2], (new[2], [*new[0]])):
            begun = [(*row, self._begin(p)) for row, (_, p) in zip(rows, beside, strict=True)]
            _step(group, begun, rule, 0.0, 1.0)  # the first average is the gradient
        for column, *left in zip((params, grads, momentum_buffers), old, new, strict=True):
            column[:] = left[0] + left[1]
        return has_sparse

    def _begin(self, p: Tensor) -> Tensor:
        """This process's part of the average of p's gradients, of which there is none yet."""
        buffer: Any = torch.zeros_like(p.grad)  # type: ignore[arg-type]
        self.state[p]["momentum_buffer"] = buffer
        return buffer if type(buffer) in lists.PLAIN_TYPES else buffer.to_local()


def _step(group: dict[str, Any], rows: Sequence[lists.Row], rule: Any, keep: float = 0.0, weight: float = 0.0) -> None:
    sign = -1.0 if group["maximize"] else 1.0
    numbers = (sign, float(group["weight_decay"]), float(group["lr"]), keep, weight, float(group["momentum"]))
    lists.step(rule, rows, numbers)
