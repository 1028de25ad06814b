"""Instance normalization layers. torch's forward handles inputs without a batch; what it then calls is Trident's."""

import torch
from torch import Tensor

from trident import functional as F


class _Apply:
    def _apply_instance_norm(self, input: Tensor) -> Tensor:
        return F.instance_norm(
            input,
            self.running_mean,  # type: ignore[attr-defined]
            self.running_var,  # type: ignore[attr-defined]
            self.weight,  # type: ignore[attr-defined]
            self.bias,  # type: ignore[attr-defined]
            self.training or not self.track_running_stats,  # type: ignore[attr-defined]
            self.momentum if self.momentum is not None else 0.0,  # type: ignore[attr-defined]
            self.eps,  # type: ignore[attr-defined]
        )


class InstanceNorm1d(_Apply, torch.nn.InstanceNorm1d):
    __doc__ = torch.nn.InstanceNorm1d.__doc__


class InstanceNorm2d(_Apply, torch.nn.InstanceNorm2d):
    __doc__ = torch.nn.InstanceNorm2d.__doc__


class InstanceNorm3d(_Apply, torch.nn.InstanceNorm3d):
    __doc__ = torch.nn.InstanceNorm3d.__doc__


# their first forward makes them the classes above
class LazyInstanceNorm1d(_Apply, torch.nn.LazyInstanceNorm1d):
    __doc__ = torch.nn.LazyInstanceNorm1d.__doc__
    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(_Apply, torch.nn.LazyInstanceNorm2d):
    __doc__ = torch.nn.LazyInstanceNorm2d.__doc__
    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(_Apply, torch.nn.LazyInstanceNorm3d):
    __doc__ = torch.nn.LazyInstanceNorm3d.__doc__
    cls_to_become = InstanceNorm3d
