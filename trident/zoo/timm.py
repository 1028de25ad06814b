"""timm: its root mean square norm and its MLPs. Other norms, activations and its attention call torch's functions."""

from typing import Any

from torch import Tensor

from trident import functional as F
from trident.runtime.redirect import aside
from trident.zoo.adapter import Adapter
from trident.zoo.gated import activated, gated


@aside
def rms_norm(self: Any, x: Tensor) -> Any:
    w = self.weight
    if self._fast_norm or (w is not None and w.dtype != x.dtype):
        return NotImplemented
    return F.rms_norm(x, self.normalized_shape, w, self.eps)


def mlp(self: Any, x: Tensor) -> Any:
    first = activated(self.fc1, self.act)
    return NotImplemented if first is None else self.drop2(self.fc2(self.norm(self.drop1(first(x)))))


def glu_mlp(self: Any, x: Tensor) -> Any:
    """The halves of one product: x1 act(x2), or act(x1) x2."""
    multiply = gated(self.act)
    if multiply is None:
        return NotImplemented
    x1, x2 = self.fc1(x).chunk(2, dim=self.chunk_dim)
    y = multiply(x1, x2) if self.gate_last else multiply(x2, x1)
    return self.drop2(self.fc2(self.norm(self.drop1(y))))


def swiglu(self: Any, x: Tensor) -> Any:
    """act(fc1_g) fc1_x"""
    multiply = gated(self.act)
    if multiply is None:
        return NotImplemented
    gate = self.fc1_g(x)
    return self.drop2(self.fc2(self.norm(self.drop1(multiply(self.fc1_x(x), gate)))))


ADAPTERS: dict[str, Adapter] = {
    "aa34033a5f36": Adapter("rms_norm", rms_norm, ("forward", "rms_norm")),  # RmsNorm
    "f2fe57510e1e": Adapter("mlp", mlp),  # Mlp
    "92cc1995c5be": Adapter("glu_mlp", glu_mlp),  # GluMlp, SwiGLUPacked
    "4a93c431dbbd": Adapter("swiglu", swiglu),  # SwiGLU
}
