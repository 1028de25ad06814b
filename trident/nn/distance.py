"""Distances. Each is its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident import functional as F


class PairwiseDistance(torch.nn.PairwiseDistance):
    __doc__ = torch.nn.PairwiseDistance.__doc__

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.pairwise_distance(x1, x2, self.norm, self.eps, self.keepdim)


class CosineSimilarity(torch.nn.CosineSimilarity):
    __doc__ = torch.nn.CosineSimilarity.__doc__

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        return F.cosine_similarity(x1, x2, self.dim, self.eps)
