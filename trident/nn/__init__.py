"""torch.nn, with Trident's kernels where there are some: `from trident import nn` replaces `from torch import nn`."""

from torch.nn import *  # noqa: F403  every class that Trident does not have yet is torch's
from torch.nn import functional as functional
from torch.nn import init as init
from torch.nn import modules as modules
from torch.nn import parameter as parameter
from torch.nn import utils as utils

from trident.nn.activation import CELU as CELU
from trident.nn.activation import ELU as ELU
from trident.nn.activation import GELU as GELU
from trident.nn.activation import GLU as GLU
from trident.nn.activation import SELU as SELU
from trident.nn.activation import Hardshrink as Hardshrink
from trident.nn.activation import Hardsigmoid as Hardsigmoid
from trident.nn.activation import Hardswish as Hardswish
from trident.nn.activation import Hardtanh as Hardtanh
from trident.nn.activation import LeakyReLU as LeakyReLU
from trident.nn.activation import LogSigmoid as LogSigmoid
from trident.nn.activation import LogSoftmax as LogSoftmax
from trident.nn.activation import Mish as Mish
from trident.nn.activation import PReLU as PReLU
from trident.nn.activation import ReLU as ReLU
from trident.nn.activation import ReLU6 as ReLU6
from trident.nn.activation import RReLU as RReLU
from trident.nn.activation import Sigmoid as Sigmoid
from trident.nn.activation import SiLU as SiLU
from trident.nn.activation import Softmax as Softmax
from trident.nn.activation import Softmax2d as Softmax2d
from trident.nn.activation import Softmin as Softmin
from trident.nn.activation import Softplus as Softplus
from trident.nn.activation import Softshrink as Softshrink
from trident.nn.activation import Softsign as Softsign
from trident.nn.activation import Tanh as Tanh
from trident.nn.activation import Tanhshrink as Tanhshrink
from trident.nn.activation import Threshold as Threshold
from trident.nn.dropout import AlphaDropout as AlphaDropout
from trident.nn.dropout import Dropout as Dropout
from trident.nn.dropout import Dropout1d as Dropout1d
from trident.nn.dropout import Dropout2d as Dropout2d
from trident.nn.dropout import Dropout3d as Dropout3d
from trident.nn.dropout import FeatureAlphaDropout as FeatureAlphaDropout
from trident.nn.normalization import LayerNorm as LayerNorm
from trident.nn.normalization import RMSNorm as RMSNorm
from trident.nn.pooling import AdaptiveAvgPool1d as AdaptiveAvgPool1d
from trident.nn.pooling import AdaptiveAvgPool2d as AdaptiveAvgPool2d
from trident.nn.pooling import AdaptiveAvgPool3d as AdaptiveAvgPool3d
