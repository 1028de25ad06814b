"""The functions of torch.nn.functional that Trident has kernels for, with torch's signatures."""

from trident.ops._activation import gelu as gelu
from trident.ops._activation import relu as relu
from trident.ops._activation import silu as silu
from trident.ops._layer_norm import layer_norm as layer_norm
from trident.ops._rms_norm import rms_norm as rms_norm
from trident.ops._softmax import log_softmax as log_softmax
from trident.ops._softmax import softmax as softmax
from trident.ops._softmax import softmin as softmin
