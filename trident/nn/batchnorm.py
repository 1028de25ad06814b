"""Batch normalization layers, with an activation and a residual in the same kernel if asked for.

`activation=` is a keyword of the constructors, `residual` a second argument of forward; torch.nn has neither.
torch.nn.SyncBatchNorm.convert_sync_batchnorm makes torch's layers of these, without the activation.
"""

from typing import Any

import torch
from torch import Tensor

from trident import functional as F
from trident.nn._activated import Activated


class _BatchNorm(Activated):
    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:
        m: Any = self
        m._check_input_dim(input)
        momentum = 0.0 if m.momentum is None else m.momentum
        if m.training and m.track_running_stats and m.num_batches_tracked is not None:
            m.num_batches_tracked.add_(1)
            if m.momentum is None:  # the mean over all batches so far
                momentum = 1.0 / float(m.num_batches_tracked)
        tracked = m.track_running_stats or not m.training
        mean, var = (m.running_mean, m.running_var) if tracked else (None, None)
        training = m.training or (mean is None and var is None)
        return F.batch_norm(
            input,
            *(mean, var, m.weight, m.bias, training, momentum, m.eps),
            activation=m.activation,
            residual=residual,
        )


class BatchNorm1d(_BatchNorm, torch.nn.BatchNorm1d):
    __doc__ = torch.nn.BatchNorm1d.__doc__


class BatchNorm2d(_BatchNorm, torch.nn.BatchNorm2d):
    __doc__ = torch.nn.BatchNorm2d.__doc__


class BatchNorm3d(_BatchNorm, torch.nn.BatchNorm3d):
    __doc__ = torch.nn.BatchNorm3d.__doc__


# their first forward makes them the classes above
class LazyBatchNorm1d(_BatchNorm, torch.nn.LazyBatchNorm1d):
    __doc__ = torch.nn.LazyBatchNorm1d.__doc__
    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_BatchNorm, torch.nn.LazyBatchNorm2d):
    __doc__ = torch.nn.LazyBatchNorm2d.__doc__
    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_BatchNorm, torch.nn.LazyBatchNorm3d):
    __doc__ = torch.nn.LazyBatchNorm3d.__doc__
    cls_to_become = BatchNorm3d
