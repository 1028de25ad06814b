"""The functions of torch.nn.functional that Trident has kernels for, with torch's signatures."""

from trident.ops._activation import celu as celu
from trident.ops._activation import elu as elu
from trident.ops._activation import gelu as gelu
from trident.ops._activation import hardshrink as hardshrink
from trident.ops._activation import hardsigmoid as hardsigmoid
from trident.ops._activation import hardswish as hardswish
from trident.ops._activation import hardtanh as hardtanh
from trident.ops._activation import leaky_relu as leaky_relu
from trident.ops._activation import logsigmoid as logsigmoid
from trident.ops._activation import mish as mish
from trident.ops._activation import relu as relu
from trident.ops._activation import relu6 as relu6
from trident.ops._activation import selu as selu
from trident.ops._activation import sigmoid as sigmoid
from trident.ops._activation import silu as silu
from trident.ops._activation import softplus as softplus
from trident.ops._activation import softshrink as softshrink
from trident.ops._activation import softsign as softsign
from trident.ops._activation import tanh as tanh
from trident.ops._activation import tanhshrink as tanhshrink
from trident.ops._activation import threshold as threshold
from trident.ops._glu import glu as glu
from trident.ops._layer_norm import layer_norm as layer_norm
from trident.ops._prelu import prelu as prelu
