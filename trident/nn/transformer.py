"""Transformer layers: torch.nn's own, whose parts are Trident's.

torch's inference path, where padding comes out as zeros, is not taken while a mode redirects functions: `aside`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from trident import functional as F
from trident.nn.attention import MultiheadAttention
from trident.nn.dropout import Dropout
from trident.nn.linear import Linear
from trident.nn.normalization import LayerNorm
from trident.runtime.redirect import aside

ACTIVATIONS: dict[Any, Callable[[Tensor], Tensor]] = {
    torch.nn.functional.relu: F.relu,
    torch.nn.functional.gelu: F.gelu,
}


class TransformerEncoderLayer(torch.nn.TransformerEncoderLayer):
    __doc__ = torch.nn.TransformerEncoderLayer.__doc__
    forward = aside(torch.nn.TransformerEncoderLayer.forward)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _adopt(self)

    def _ff_block(self, x: Tensor) -> Tensor:
        return self.dropout2(self.linear2(self.dropout(_activated(self.activation, self.linear1(x)))))


class TransformerEncoder(torch.nn.TransformerEncoder):
    __doc__ = torch.nn.TransformerEncoder.__doc__
    forward = aside(torch.nn.TransformerEncoder.forward)


class TransformerDecoderLayer(torch.nn.TransformerDecoderLayer):
    __doc__ = torch.nn.TransformerDecoderLayer.__doc__

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _adopt(self)

    def _ff_block(self, x: Tensor) -> Tensor:
        return self.dropout3(self.linear2(self.dropout(_activated(self.activation, self.linear1(x)))))


class Transformer(torch.nn.Transformer):
    __doc__ = torch.nn.Transformer.__doc__

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _adopt(self)


PARTS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    torch.nn.Dropout: Dropout,
    torch.nn.LayerNorm: LayerNorm,
    torch.nn.Linear: Linear,
    torch.nn.MultiheadAttention: MultiheadAttention,
    torch.nn.TransformerDecoderLayer: TransformerDecoderLayer,
    torch.nn.TransformerEncoder: TransformerEncoder,
    torch.nn.TransformerEncoderLayer: TransformerEncoderLayer,
}


def _activated(activation: Any, x: Tensor) -> Tensor:
    """A layer keeps torch's function: `optimize` makes layers ours by their class alone."""
    return ACTIVATIONS.get(activation, activation)(x)


def _adopt(module: torch.nn.Module) -> None:
    """Make the parts that torch's constructor built Trident's, as `trident.optimize` does."""
    for part in module.modules():
        part.__class__ = PARTS.get(type(part), type(part))
