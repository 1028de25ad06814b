"""Lion (Chen et al. 2023, arXiv:2302.06675), which torch does not have.

u = sign(β1 m + (1 - β1) g)    p = p (1 - lr λ) - lr u    m = β2 m + (1 - β2) g
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from trident.optim import lists, rules
from trident.optim._options import reason


class Lion(Optimizer):
    """Half the state of AdamW: the sign of an average of the gradients moves the parameters, all by as much.

    The paper's advice: a third to a tenth of AdamW's learning rate, a decay larger by as much. weight_decay is
    decoupled. The state of a parameter is `exp_avg`, of its dtype. Raises ValueError for numbers out of range,
    RuntimeError for sparse gradients.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
    ) -> None:
        if not lr >= 0.0:
            raise ValueError(f"Lion: lr is {lr}; it must be at least 0")
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ValueError(f"Lion: betas are {betas}; both must be in [0, 1)")
        if not weight_decay >= 0.0:
            raise ValueError(f"Lion: weight_decay is {weight_decay}; it must be at least 0")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("maximize", False)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; `closure` evaluates the model again and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            for p in params:
                if p.grad.is_sparse:
                    raise RuntimeError("Lion does not support sparse gradients")
                if not self.state[p]:
                    self.state[p]["exp_avg"] = torch.zeros_like(p)
            columns: tuple[list[Tensor], ...] = (
                params,
                [p.grad for p in params],
                [self.state[p]["exp_avg"] for p in params],
            )
            lr, (beta1, beta2), sign = float(group["lr"]), group["betas"], -1.0 if group["maximize"] else 1.0
            keep = 1 - lr * group["weight_decay"]
            for rows, _ in lists.take("Lion", reason("Lion", self, group, params), columns):
                lists.step(rules.lion, rows, (sign, keep, 1 - beta1, 1 - beta2, lr))
            for p, g, m in zip(*columns, strict=True):
                _in_torch(p, g * sign, m, keep, 1 - beta1, 1 - beta2, lr)
        return loss


def _in_torch(p: Tensor, g: Tensor, m: Tensor, keep: float, w1: float, w2: float, lr: float) -> None:
    """The step of one parameter by torch's operators. Of complex numbers both parts step, as in torch's optimizers."""
    if p.is_complex():
        p, g, m = torch.view_as_real(p), torch.view_as_real(g), torch.view_as_real(m)
    p.mul_(keep).add_(torch.sign(m.lerp(g, w1)), alpha=-lr)
    m.lerp_(g, w2)
