"""transformers 5: root mean square norms and MLPs. Its other classes call functions, which are redirected.

Left to it: GPT-2's Conv1D where no activation follows (a product), norms of weights in another dtype than their input.
"""

import math
from typing import Any

import torch
from torch import Tensor

from trident import functional as F
from trident.runtime.redirect import aside
from trident.zoo.adapter import Adapter
from trident.zoo.gated import activated, activated_conv1d, gated


@aside
def rms_norm(self: Any, hidden_states: Tensor) -> Any:
    """w x / √(E[x²] + ε)"""
    w = self.weight
    if w.dtype != hidden_states.dtype:
        return NotImplemented
    return F.rms_norm(hidden_states, w.shape, w, self.variance_epsilon)


@aside
def gemma(self: Any, x: Tensor) -> Any:
    """(1 + w) x / √(E[x²] + ε). In half precision 1 + w is rounded, where Gemma's own is not."""
    w = self.weight
    if w.dtype != x.dtype or w.dtype not in (torch.float32, torch.float64):
        return NotImplemented
    return F.rms_norm(x, w.shape, 1 + w, self.eps)


@aside
def gelu_tanh(self: Any, input: Tensor) -> Any:
    return F.gelu(input, approximate="tanh")


@aside
def accurate_gelu(self: Any, input: Tensor) -> Any:
    if self.precomputed_constant != math.sqrt(2 / math.pi):
        return NotImplemented
    return F.gelu(input, approximate="tanh")


@aside
def quick_gelu(self: Any, input: Tensor) -> Any:
    return F.quick_gelu(input)


def mlp_of_conv1d(self: Any, hidden_states: Tensor) -> Any:
    """dropout(c_proj(act(c_fc)))"""
    first = activated_conv1d(self.c_fc, self.act)
    return NotImplemented if first is None else self.dropout(self.c_proj(first(hidden_states)))


def gated_mlp(self: Any, x: Tensor) -> Any:
    """down(act(gate(x)) up(x))"""
    multiply = gated(self.act_fn)
    return NotImplemented if multiply is None else self.down_proj(multiply(self.up_proj(x), self.gate_proj(x)))


def gated_mlp_of_one(self: Any, hidden_states: Tensor) -> Any:
    """down(up act(gate)), gate and up the halves of one product"""
    multiply = gated(self.activation_fn)
    if multiply is None:
        return NotImplemented
    gate, up = self.gate_up_proj(hidden_states).chunk(2, dim=-1)
    return self.down_proj(multiply(up, gate))


def gated_t5(self: Any, hidden_states: Tensor) -> Any:
    """wo(dropout(act(wi_0) wi_1))"""
    multiply = gated(self.act)
    if multiply is None or self.wo.weight.dtype != self.wi_0.weight.dtype:
        return NotImplemented  # kept in float32: it casts
    return self.wo(self.dropout(multiply(self.wi_1(hidden_states), self.wi_0(hidden_states))))


def mlp(self: Any, hidden_states: Tensor) -> Any:
    """fc2(act(fc1))"""
    first = activated(self.fc1, self.activation_fn)
    return NotImplemented if first is None else self.fc2(first(hidden_states))


def intermediate(self: Any, hidden_states: Tensor) -> Any:
    """act(dense): the first half of an MLP"""
    first = activated(self.dense, self.intermediate_act_fn)
    return NotImplemented if first is None else first(hidden_states)


@aside
def router(self: Any, hidden_states: Tensor) -> Any:
    """The k best experts of each token, their probabilities divided by their sum if it says so"""
    return _routed(self, hidden_states, self.norm_topk_prob)


@aside
def router_renormalized(self: Any, hidden_states: Tensor) -> Any:
    return _routed(self, hidden_states, True)


@aside
def router_in_float32(self: Any, hidden_states: Tensor) -> Any:
    logits = F.linear(hidden_states.reshape(-1, self.hidden_dim), self.weight)
    return logits, *F.topk_softmax(logits.float(), self.top_k, renormalize=True)


def _routed(self: Any, hidden_states: Tensor, renormalize: bool) -> tuple[Tensor, Tensor, Tensor]:
    logits = F.linear(hidden_states.reshape(-1, self.hidden_dim), self.weight)
    scores, places = F.topk_softmax(logits, self.top_k, renormalize=renormalize)
    return logits, scores.to(logits.dtype), places


# 8: no MLP is wider than so many times its input
_NORM, _MLP = Adapter("rms_norm", rms_norm), Adapter("gated_mlp", gated_mlp, gains=("swiglu", 8))

ADAPTERS: dict[str, Adapter] = {
    "9635bcd843f3": _NORM,  # LlamaRMSNorm and the 140 that say the same: Mistral, Mixtral, Qwen 2 and 3, Phi ...
    "eef4e978a32a": _NORM,  # Olmo2RMSNorm, GptOssRMSNorm ...: the product with w before the cast
    "3152525beceb": _NORM,  # T5LayerNorm
    "e5559c7750c3": Adapter("gemma", gemma, ("forward", "_norm")),  # GemmaRMSNorm, Gemma3RMSNorm
    "7d2027d4464e": _MLP,  # LlamaMLP and 125 more
    "e8d404cbecb9": Adapter("gated_mlp_of_one", gated_mlp_of_one),  # Phi3MLP, GlmMLP
    "95b63e5ccb21": Adapter("gated_t5", gated_t5),  # T5DenseGatedActDense
    "13885f42f2bb": Adapter("mlp", mlp),  # PhiMLP, ViTMLP, SiglipMLP ...
    "ab3f9454469b": Adapter("intermediate", intermediate),  # BertIntermediate ...
    "0b6a7b1ab2be": Adapter("router", router),  # Qwen2MoeTopKRouter, Qwen 3's, OLMoE's and 6 more
    "af486dec6b00": Adapter("router_renormalized", router_renormalized),  # Qwen3_5MoeTopKRouter, Qwen3VLMoe's
    "bfaa8bbbaf25": Adapter("router_in_float32", router_in_float32),  # MixtralTopKRouter
    "9d0b9dd71753": Adapter("gelu_tanh", gelu_tanh),  # NewGELUActivation
    "4caa3bda3218": Adapter("gelu_tanh", gelu_tanh),  # FastGELUActivation
    "1f9121cf6b0a": Adapter("accurate_gelu", accurate_gelu),  # AccurateGELUActivation
    "95ac42583b21": Adapter("quick_gelu", quick_gelu),  # QuickGELUActivation: CLIP
    "41ab05398d2a": Adapter("mlp_of_conv1d", mlp_of_conv1d),  # GPT2MLP and its kin
}
