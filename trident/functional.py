"""The functions of torch.nn.functional that Trident has kernels for, with torch's signatures."""

from trident.ops._activation import gelu as gelu
from trident.ops._activation import relu as relu
from trident.ops._activation import silu as silu
from trident.ops._adaptive_avg_pool import adaptive_avg_pool1d as adaptive_avg_pool1d
from trident.ops._adaptive_avg_pool import adaptive_avg_pool2d as adaptive_avg_pool2d
from trident.ops._adaptive_avg_pool import adaptive_avg_pool3d as adaptive_avg_pool3d
from trident.ops._layer_norm import layer_norm as layer_norm
from trident.ops._linear import linear as linear
