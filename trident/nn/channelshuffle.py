"""ChannelShuffle: its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident import functional as F


class ChannelShuffle(torch.nn.ChannelShuffle):
    __doc__ = torch.nn.ChannelShuffle.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.channel_shuffle(input, self.groups)
