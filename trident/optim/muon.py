"""Muon: torch's class. One launch averages the gradients of all matrices and one moves all of a shape; what makes each
average orthogonal (Newton-Schulz, products of matrices in bfloat16) is torch's own.

In bfloat16 without nesterov torch 2.13 divides the average of the gradients by its norm, in place; here it stays what
the formula says.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim._muon import _adjust_lr, _zeropower_via_newtonschulz

from trident.optim import lists, rules
from trident.optim._options import reason
from trident.runtime.layout import lying_as


class Muon(torch.optim.Muon):
    __doc__ = torch.optim.Muon.__doc__

    def _init_group(
        self, group: Any, params: list[Tensor], grads: list[Tensor], muon_momentum_bufs: list[Tensor]
    ) -> bool:
        has_complex = super()._init_group(group, params, grads, muon_momentum_bufs)
        why = reason("Muon", self, group, params)
        for rows, _ in lists.take("Muon", why, (params, grads, muon_momentum_bufs), shards=False):
            _step(group, rows)
        return has_complex


def _step(group: dict[str, Any], rows: Sequence[lists.Row]) -> None:
    lr, mu = float(group["lr"]), float(group["momentum"])
    updates = [torch.zeros_like(g, dtype=torch.bfloat16) for _, g, _ in rows]  # the kernel reads before it writes
    averaged = [(u, g, m) for u, (_, g, m) in zip(updates, rows, strict=True)]
    lists.step(rules.muon_nesterov if group["nesterov"] else rules.muon, averaged, (1 - mu, mu))
    moves: dict[float, list[lists.Row]] = {}
    for (p, _, _), u in zip(rows, updates, strict=True):
        orthogonal = _zeropower_via_newtonschulz(u, group["ns_coefficients"], group["ns_steps"], group["eps"])
        at = _adjust_lr(lr, group["adjust_lr_fn"], p.shape)
        moves.setdefault(at, []).append((p, lying_as(orthogonal, p)))
    for at, together in moves.items():
        lists.step(rules.moved, together, (1 - lr * float(group["weight_decay"]), at))
