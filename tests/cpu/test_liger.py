"""Liger-Kernel's own kernels, unchanged, on CPU tensors: forward and backward against torch.

Run where it is installed, as by `make test`: `pip install --no-deps liger-kernel==0.8.5`.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

import trident_cpu

pytest.importorskip("liger_kernel", reason="Liger-Kernel is not installed")
trident_cpu.install()

from liger_kernel.ops.cross_entropy import LigerCrossEntropyFunction  # noqa: E402
from liger_kernel.ops.fused_linear_cross_entropy import LigerFusedLinearCrossEntropyFunction  # noqa: E402
from liger_kernel.ops.geglu import LigerGELUMulFunction  # noqa: E402
from liger_kernel.ops.group_norm import LigerGroupNormFunction  # noqa: E402
from liger_kernel.ops.jsd import LigerJSDFunction  # noqa: E402
from liger_kernel.ops.kl_div import LigerKLDivLossFunction  # noqa: E402
from liger_kernel.ops.layer_norm import LigerLayerNormFunction  # noqa: E402
from liger_kernel.ops.rms_norm import LigerRMSNormFunction  # noqa: E402
from liger_kernel.ops.rope import LigerRopeFunction  # noqa: E402
from liger_kernel.ops.softmax import LigerSoftmaxFunction  # noqa: E402
from liger_kernel.ops.swiglu import LigerSiLUMulFunction  # noqa: E402

B, T, H, V = 2, 13, 64, 101
Function = Callable[..., torch.Tensor]


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(shape, requires_grad=True)


def check(ours: Function, reference: Function, *leaves: torch.Tensor, tolerance: float = 1e-4) -> None:
    """Values and every gradient."""
    copies = [x.detach().double().requires_grad_() for x in leaves]
    y, want = ours(*leaves), reference(*copies)
    torch.testing.assert_close(y.double(), want, rtol=tolerance, atol=tolerance)
    dy = torch.randn_like(y)
    got = torch.autograd.grad(y, leaves, dy.clone())
    for g, w in zip(got, torch.autograd.grad(want, copies, dy.double()), strict=True):
        torch.testing.assert_close(g.double(), w, rtol=tolerance, atol=tolerance)


def test_rms_norm() -> None:
    check(
        lambda x, w: LigerRMSNormFunction.apply(x, w, 1e-6, 0.0, "llama", False),
        lambda x, w: F.rms_norm(x, (H,), w, 1e-6), leaf(B, T, H), leaf(H),
    )  # fmt: skip


def test_layer_norm() -> None:
    check(
        lambda x, w, b: LigerLayerNormFunction.apply(x, w, b, 1e-6),
        lambda x, w, b: F.layer_norm(x, (H,), w, b, 1e-6), leaf(B, T, H), leaf(H), leaf(H),
    )  # fmt: skip


def test_group_norm() -> None:
    check(
        lambda x, w, b: LigerGroupNormFunction.apply(x, w, b, 8, 4, 1e-6),
        lambda x, w, b: F.group_norm(x, 4, w, b, 1e-6), leaf(B, 8, T), leaf(8), leaf(8),
    )  # fmt: skip


def test_swiglu() -> None:
    check(LigerSiLUMulFunction.apply, lambda a, b: F.silu(a) * b, leaf(B, T, H), leaf(B, T, H))


def test_geglu() -> None:
    check(LigerGELUMulFunction.apply, lambda a, b: F.gelu(a, approximate="tanh") * b, leaf(B, T, H), leaf(B, T, H))


@pytest.mark.parametrize("n", [H, 5000])
def test_softmax(n: int) -> None:
    check(LigerSoftmaxFunction.apply, lambda x: x.softmax(-1), leaf(B * T, n))


def test_cross_entropy() -> None:
    target = torch.randint(0, V, (B * T,))
    target[3] = -100
    check(
        lambda x: LigerCrossEntropyFunction.apply(x, target, None)[0], lambda x: F.cross_entropy(x, target),
        leaf(B * T, V),
    )  # fmt: skip


def test_fused_linear_cross_entropy() -> None:
    target = torch.randint(0, V, (B * T,))
    check(
        lambda x, w: LigerFusedLinearCrossEntropyFunction.apply(x, w, target)[0],
        lambda x, w: F.cross_entropy(x @ w.t(), target), leaf(B * T, H), leaf(V, H),
    )  # fmt: skip


def test_kl_div() -> None:
    target = torch.randn(B * T, V).softmax(-1)
    check(
        lambda x: LigerKLDivLossFunction.apply(x.log_softmax(-1), target, "batchmean"),
        lambda x: F.kl_div(x.log_softmax(-1), target.double(), reduction="batchmean"), leaf(B * T, V),
    )  # fmt: skip


def test_jsd() -> None:
    target = torch.randn(B * T, V).log_softmax(-1)

    def reference(x: torch.Tensor) -> torch.Tensor:
        p, q = target.double(), x.log_softmax(-1)
        m = torch.log(0.5 * p.exp() + 0.5 * q.exp())
        return (
            0.5
            * (F.kl_div(m, p, log_target=True, reduction="sum") + F.kl_div(m, q, log_target=True, reduction="sum"))
            / (B * T)
        )

    check(lambda x: LigerJSDFunction.apply(x.log_softmax(-1), target, None, 0.5), reference, leaf(B * T, V))


def test_rope() -> None:
    heads, dim = 4, 16
    angle = torch.outer(torch.arange(T).float(), 0.1 ** torch.arange(dim // 2))
    cos, sin = (torch.cat([f(angle), f(angle)], -1)[None] for f in (torch.cos, torch.sin))

    def rotate(x: torch.Tensor) -> torch.Tensor:
        half = torch.cat([-x[..., dim // 2 :], x[..., : dim // 2]], -1)
        return x * cos.to(x.dtype) + half * sin.to(x.dtype)

    q, k = leaf(B, heads, T, dim), leaf(B, heads, T, dim)
    check(
        lambda q, k: torch.cat(LigerRopeFunction.apply(q * 1, k * 1, cos, sin)),
        lambda q, k: torch.cat([rotate(q), rotate(k)]),
        q,
        k,
    )
