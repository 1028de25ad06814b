"""Losses. Each is its torch.nn twin with another forward: its function, which takes some of its attributes by name."""

import torch
from torch import Tensor

from trident import functional as F
from trident.nn._calling import calling


class BCELoss(torch.nn.BCELoss):
    __doc__ = torch.nn.BCELoss.__doc__
    forward = calling(F.binary_cross_entropy, "weight", "reduction")


class BCEWithLogitsLoss(torch.nn.BCEWithLogitsLoss):
    __doc__ = torch.nn.BCEWithLogitsLoss.__doc__
    forward = calling(F.binary_cross_entropy_with_logits, "weight", "reduction", "pos_weight")


class CosineEmbeddingLoss(torch.nn.CosineEmbeddingLoss):
    __doc__ = torch.nn.CosineEmbeddingLoss.__doc__
    forward = calling(F.cosine_embedding_loss, "margin", "reduction")


class CrossEntropyLoss(torch.nn.CrossEntropyLoss):
    __doc__ = torch.nn.CrossEntropyLoss.__doc__
    forward = calling(F.cross_entropy, "weight", "ignore_index", "reduction", "label_smoothing")


class GaussianNLLLoss(torch.nn.GaussianNLLLoss):
    __doc__ = torch.nn.GaussianNLLLoss.__doc__
    forward = calling(F.gaussian_nll_loss, "full", "eps", "reduction")


class HingeEmbeddingLoss(torch.nn.HingeEmbeddingLoss):
    __doc__ = torch.nn.HingeEmbeddingLoss.__doc__
    forward = calling(F.hinge_embedding_loss, "margin", "reduction")


class HuberLoss(torch.nn.HuberLoss):
    __doc__ = torch.nn.HuberLoss.__doc__
    forward = calling(F.huber_loss, "reduction", "delta")


class KLDivLoss(torch.nn.KLDivLoss):
    __doc__ = torch.nn.KLDivLoss.__doc__
    forward = calling(F.kl_div, "reduction", "log_target")


class L1Loss(torch.nn.L1Loss):
    __doc__ = torch.nn.L1Loss.__doc__
    forward = calling(F.l1_loss, "reduction")


class MarginRankingLoss(torch.nn.MarginRankingLoss):
    __doc__ = torch.nn.MarginRankingLoss.__doc__
    forward = calling(F.margin_ranking_loss, "margin", "reduction")


class MSELoss(torch.nn.MSELoss):
    __doc__ = torch.nn.MSELoss.__doc__
    forward = calling(F.mse_loss, "reduction")


class MultiLabelMarginLoss(torch.nn.MultiLabelMarginLoss):
    __doc__ = torch.nn.MultiLabelMarginLoss.__doc__
    forward = calling(F.multilabel_margin_loss, "reduction")


class MultiLabelSoftMarginLoss(torch.nn.MultiLabelSoftMarginLoss):
    __doc__ = torch.nn.MultiLabelSoftMarginLoss.__doc__
    forward = calling(F.multilabel_soft_margin_loss, "weight", "reduction")


class MultiMarginLoss(torch.nn.MultiMarginLoss):
    __doc__ = torch.nn.MultiMarginLoss.__doc__
    forward = calling(F.multi_margin_loss, "p", "margin", "weight", "reduction")


class NLLLoss(torch.nn.NLLLoss):
    __doc__ = torch.nn.NLLLoss.__doc__
    forward = calling(F.nll_loss, "weight", "ignore_index", "reduction")


class PoissonNLLLoss(torch.nn.PoissonNLLLoss):
    __doc__ = torch.nn.PoissonNLLLoss.__doc__

    def forward(self, log_input: Tensor, target: Tensor) -> Tensor:  # the function's log_input is the attribute
        return F.poisson_nll_loss(log_input, target, self.log_input, self.full, eps=self.eps, reduction=self.reduction)


class SmoothL1Loss(torch.nn.SmoothL1Loss):
    __doc__ = torch.nn.SmoothL1Loss.__doc__
    forward = calling(F.smooth_l1_loss, "reduction", "beta")


class SoftMarginLoss(torch.nn.SoftMarginLoss):
    __doc__ = torch.nn.SoftMarginLoss.__doc__
    forward = calling(F.soft_margin_loss, "reduction")


class TripletMarginLoss(torch.nn.TripletMarginLoss):
    __doc__ = torch.nn.TripletMarginLoss.__doc__
    forward = calling(F.triplet_margin_loss, "margin", "p", "eps", "swap", "reduction")


class TripletMarginWithDistanceLoss(torch.nn.TripletMarginWithDistanceLoss):
    __doc__ = torch.nn.TripletMarginWithDistanceLoss.__doc__
    forward = calling(F.triplet_margin_with_distance_loss, "distance_function", "margin", "swap", "reduction")
