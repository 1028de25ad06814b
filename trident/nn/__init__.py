"""torch.nn, with Trident's kernels where there are some: `from trident import nn` replaces `from torch import nn`."""

from torch.nn import *  # noqa: F403  every class that Trident does not have yet is torch's
from torch.nn import functional as functional
from torch.nn import init as init
from torch.nn import modules as modules
from torch.nn import parameter as parameter
from torch.nn import utils as utils

from trident.nn.activation import GELU as GELU
from trident.nn.activation import ReLU as ReLU
from trident.nn.activation import SiLU as SiLU
from trident.nn.linear import LazyLinear as LazyLinear
from trident.nn.linear import Linear as Linear
from trident.nn.normalization import LayerNorm as LayerNorm
from trident.nn.pooling import AdaptiveAvgPool1d as AdaptiveAvgPool1d
from trident.nn.pooling import AdaptiveAvgPool2d as AdaptiveAvgPool2d
from trident.nn.pooling import AdaptiveAvgPool3d as AdaptiveAvgPool3d
