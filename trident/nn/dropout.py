"""Dropout layers. Each is its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident import functional as F


class AlphaDropout(torch.nn.AlphaDropout):
    __doc__ = torch.nn.AlphaDropout.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.alpha_dropout(input, self.p, self.training)


class Dropout(torch.nn.Dropout):
    __doc__ = torch.nn.Dropout.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(input, self.p, self.training, self.inplace)


class Dropout1d(torch.nn.Dropout1d):
    __doc__ = torch.nn.Dropout1d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(torch.nn.Dropout2d):
    __doc__ = torch.nn.Dropout2d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(torch.nn.Dropout3d):
    __doc__ = torch.nn.Dropout3d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.dropout3d(input, self.p, self.training, self.inplace)


class FeatureAlphaDropout(torch.nn.FeatureAlphaDropout):
    __doc__ = torch.nn.FeatureAlphaDropout.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.feature_alpha_dropout(input, self.p, self.training)
