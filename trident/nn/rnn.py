"""Recurrent cells and layers. Each is its torch.nn twin with another forward; what is wrong with a call, torch's says.

LSTM is torch's: oneDNN's loop on CPUs and cuDNN's on GPUs were measured faster (docs/coverage.md).
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from trident import functional as F


class _Cell(torch.nn.RNNCellBase):
    def _step(self, cell: Callable[..., Any], input: Tensor, states: tuple[Tensor, ...] | None) -> Any:
        """The cell's result; None for what torch's own forward is to refuse. An input may be a sample alone."""
        dims = input.dim()
        if dims not in (1, 2) or (states is not None and any(s.dim() != dims for s in states)):
            return None
        two = cell is F.lstm_cell
        if states is None:
            zeros = input.new_zeros((*input.shape[:-1], self.hidden_size))
            states = (zeros, zeros) if two else (zeros,)
        if dims == 1:
            input, states = input.unsqueeze(0), tuple([s.unsqueeze(0) for s in states])
        hx = states if two else states[0]
        found = cell(input, hx, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        if dims == 2:
            return found
        return (found[0].squeeze(0), found[1].squeeze(0)) if two else found.squeeze(0)


class RNNCell(_Cell, torch.nn.RNNCell):
    __doc__ = torch.nn.RNNCell.__doc__

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        cell = {"tanh": F.rnn_tanh_cell, "relu": F.rnn_relu_cell}.get(self.nonlinearity)
        found = None if cell is None else self._step(cell, input, None if hx is None else (hx,))
        return super().forward(input, hx) if found is None else found


class LSTMCell(_Cell, torch.nn.LSTMCell):
    __doc__ = torch.nn.LSTMCell.__doc__

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, Tensor]:
        found = self._step(F.lstm_cell, input, hx)
        return super().forward(input, hx) if found is None else found


class GRUCell(_Cell, torch.nn.GRUCell):
    __doc__ = torch.nn.GRUCell.__doc__

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        found = self._step(F.gru_cell, input, None if hx is None else (hx,))
        return super().forward(input, hx) if found is None else found


class _Layers(torch.nn.RNNBase):
    """As torch's own forward, whose last call, of torch.gru and its like, is Trident's here."""

    def forward(self, input: Any, hx: Tensor | None = None) -> Any:
        packed = isinstance(input, PackedSequence)
        if not packed and (input.dim() not in (2, 3) or (hx is not None and hx.dim() != input.dim())):
            return super().forward(input, hx)
        self._update_flat_weights()
        run = {"RNN_TANH": F.rnn_tanh, "RNN_RELU": F.rnn_relu, "GRU": F.gru}[self.mode]
        how = self.num_layers, self.dropout, self.training, self.bidirectional
        if packed:
            data, sizes, order, back = input
            hx = self.permute_hidden(self._zeros(data, int(sizes[0])) if hx is None else hx, order)
            self.check_forward_args(data, hx, sizes)
            y, h = run(data, sizes, hx, self._flat_weights, self.bias, *how)
            return PackedSequence(y, sizes, order, back), self.permute_hidden(h, back)
        batch, alone = 0 if self.batch_first else 1, input.dim() == 2
        if alone:
            input, hx = input.unsqueeze(batch), None if hx is None else hx.unsqueeze(1)
        hx = self._zeros(input, input.shape[batch]) if hx is None else hx
        self.check_forward_args(input, hx, None)
        y, h = run(input, hx, self._flat_weights, self.bias, *how, self.batch_first)
        return (y.squeeze(batch), h.squeeze(1)) if alone else (y, h)

    def _zeros(self, input: Tensor, batch: int) -> Tensor:
        return input.new_zeros(self.num_layers * (2 if self.bidirectional else 1), batch, self.hidden_size)


class RNN(_Layers, torch.nn.RNN):
    __doc__ = torch.nn.RNN.__doc__


class GRU(_Layers, torch.nn.GRU):
    __doc__ = torch.nn.GRU.__doc__
