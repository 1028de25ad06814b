"""`experts_implementation="trident"` in transformers: its registry's name for mixtures of experts by `grouped_mm`.

"grouped_mm", its default, calls torch's function, which `trident.optimize` redirects: nothing need be chosen. This one
besides gates in one kernel, and its gradients of gathered rows are sums in one order, where indexing adds by atomics.
"""

from typing import Any

import torch
from torch import Tensor

from trident import functional as F
from trident.zoo.gated import gated

NAME = "trident"


def experts(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """down(act(gate) up) of each expert for its tokens, weighted and summed. hidden_states [T, H], the others [T, k].

    Weights [experts, 2 I, H] and [experts, H, I]; what differs (biases, weights the other way round, experts on several
    machines, norms behind them) is transformers' own "grouped_mm".
    """
    special = ("has_bias", "is_transposed", "has_post_expert_norm", "_is_expert_parallel")
    if not self.has_gate or not self.is_concatenated or any(getattr(self, name, False) for name in special):
        from transformers.integrations.moe import grouped_mm_experts_forward

        y: Tensor = grouped_mm_experts_forward(self, hidden_states, top_k_index, top_k_weights)
        return y
    tokens, k = top_k_index.shape
    ids, order = top_k_index.reshape(-1).sort(stable=True)
    every = torch.arange(self.num_experts, device=ids.device)
    offs = torch.searchsorted(ids, every, right=True, out_int32=True)
    x = F.embedding(order // k, hidden_states).to(self.gate_up_proj.dtype)
    h = F.grouped_mm(x, self.gate_up_proj.transpose(1, 2), offs=offs)
    multiply = gated(self.act_fn) if _gates_as_usual(self) else None
    gate, up = h.chunk(2, dim=-1)
    h = self._apply_gate(h) if multiply is None else multiply(up, gate)
    h = F.grouped_mm(h, self.down_proj.transpose(1, 2), offs=offs)
    back = torch.empty_like(order).scatter_(0, order, torch.arange(tokens * k, device=order.device))
    each = F.embedding(back, h).view(tokens, k, -1)
    return (each * top_k_weights.unsqueeze(-1)).sum(1).to(hidden_states.dtype)


def _gates_as_usual(module: Any) -> bool:
    """act(gate) up, and not a class's own way."""
    return getattr(type(module)._apply_gate, "__name__", "") == "_default_apply_gate"


def register_experts() -> None:
    """Make the name known to transformers, which must be installed. Then `experts_implementation="trident"` loads, and
    `model.set_experts_implementation("trident")` changes, a model."""
    from transformers.integrations.moe import ExpertsInterface

    ExpertsInterface.register(NAME, experts)
