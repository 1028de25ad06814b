"""torch.nn, with Trident's kernels where there are some: `from trident import nn` replaces `from torch import nn`."""

from torch.nn import *  # noqa: F403  every class that Trident does not have yet is torch's
from torch.nn import functional as functional
from torch.nn import init as init
from torch.nn import modules as modules
from torch.nn import parameter as parameter
from torch.nn import utils as utils

from trident.nn.activation import GELU as GELU
from trident.nn.activation import LogSoftmax as LogSoftmax
from trident.nn.activation import ReLU as ReLU
from trident.nn.activation import SiLU as SiLU
from trident.nn.activation import Softmax as Softmax
from trident.nn.activation import Softmax2d as Softmax2d
from trident.nn.activation import Softmin as Softmin
from trident.nn.normalization import LayerNorm as LayerNorm
from trident.nn.normalization import RMSNorm as RMSNorm
