"""Activations. Each is its torch.nn twin with another forward."""

import torch
from torch import Tensor

from trident import functional as F


class CELU(torch.nn.CELU):
    __doc__ = torch.nn.CELU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.celu(input, self.alpha, self.inplace)


class ELU(torch.nn.ELU):
    __doc__ = torch.nn.ELU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.elu(input, self.alpha, self.inplace)


class GELU(torch.nn.GELU):
    __doc__ = torch.nn.GELU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.gelu(input, approximate=self.approximate)


class GLU(torch.nn.GLU):
    __doc__ = torch.nn.GLU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.glu(input, self.dim)


class Hardshrink(torch.nn.Hardshrink):
    __doc__ = torch.nn.Hardshrink.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.hardshrink(input, self.lambd)


class Hardsigmoid(torch.nn.Hardsigmoid):
    __doc__ = torch.nn.Hardsigmoid.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.hardsigmoid(input, self.inplace)


class Hardswish(torch.nn.Hardswish):
    __doc__ = torch.nn.Hardswish.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.hardswish(input, self.inplace)


class Hardtanh(torch.nn.Hardtanh):
    __doc__ = torch.nn.Hardtanh.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.hardtanh(input, self.min_val, self.max_val, self.inplace)


class LeakyReLU(torch.nn.LeakyReLU):
    __doc__ = torch.nn.LeakyReLU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.leaky_relu(input, self.negative_slope, self.inplace)


class LogSigmoid(torch.nn.LogSigmoid):
    __doc__ = torch.nn.LogSigmoid.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.logsigmoid(input)


class Mish(torch.nn.Mish):
    __doc__ = torch.nn.Mish.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.mish(input, inplace=self.inplace)


class LogSoftmax(torch.nn.LogSoftmax):
    __doc__ = torch.nn.LogSoftmax.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.log_softmax(input, self.dim, _stacklevel=5)


class PReLU(torch.nn.PReLU):
    __doc__ = torch.nn.PReLU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)


class ReLU(torch.nn.ReLU):
    __doc__ = torch.nn.ReLU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.relu(input, inplace=self.inplace)


class ReLU6(torch.nn.ReLU6):
    __doc__ = torch.nn.ReLU6.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.relu6(input, inplace=self.inplace)


class RReLU(torch.nn.RReLU):
    __doc__ = torch.nn.RReLU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.rrelu(input, self.lower, self.upper, self.training, self.inplace)


class SELU(torch.nn.SELU):
    __doc__ = torch.nn.SELU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.selu(input, self.inplace)


class SiLU(torch.nn.SiLU):
    __doc__ = torch.nn.SiLU.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.silu(input, inplace=self.inplace)


class Sigmoid(torch.nn.Sigmoid):
    __doc__ = torch.nn.Sigmoid.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.sigmoid(input)


class Softplus(torch.nn.Softplus):
    __doc__ = torch.nn.Softplus.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.softplus(input, self.beta, self.threshold)


class Softshrink(torch.nn.Softshrink):
    __doc__ = torch.nn.Softshrink.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.softshrink(input, self.lambd)


class Softsign(torch.nn.Softsign):
    __doc__ = torch.nn.Softsign.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.softsign(input)


class Tanh(torch.nn.Tanh):
    __doc__ = torch.nn.Tanh.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.tanh(input)


class Tanhshrink(torch.nn.Tanhshrink):
    __doc__ = torch.nn.Tanhshrink.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.tanhshrink(input)


class Threshold(torch.nn.Threshold):
    __doc__ = torch.nn.Threshold.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.threshold(input, self.threshold, self.value, self.inplace)


class Softmax(torch.nn.Softmax):
    __doc__ = torch.nn.Softmax.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, self.dim, _stacklevel=5)


class Softmax2d(torch.nn.Softmax2d):
    __doc__ = torch.nn.Softmax2d.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.softmax(input, -3) if input.dim() in (3, 4) else super().forward(input)  # which raises


class Softmin(torch.nn.Softmin):
    __doc__ = torch.nn.Softmin.__doc__

    def forward(self, input: Tensor) -> Tensor:
        return F.softmin(input, self.dim, _stacklevel=5)
