"""What the laws of tests/test_laws.py do not say of grouped_mm."""

import itertools

import pytest
import torch
import torch.nn.functional as F

import trident.functional as T
from trident.runtime import route


def made(S=40, K=16, N=24, G=5, dtype=torch.float32):
    torch.manual_seed(0)
    offs = torch.tensor([7, 7, 20, 33, S][:G], dtype=torch.int32)
    return torch.randn(S, K, dtype=dtype), torch.randn(G, K, N, dtype=dtype), offs


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("transposed", [False, True])
def test_as_torch_where_torch_takes_it(dtype, transposed):
    def run(f):
        x, w, offs = made(dtype=dtype)
        w = w.transpose(1, 2).contiguous() if transposed else w
        x.requires_grad_(), w.requires_grad_()
        y = f(x, w.transpose(1, 2) if transposed else w, offs=offs)
        dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        return y, *torch.autograd.grad(y, (x, w), dy)

    for a, b in zip(run(T.grouped_mm), run(F.grouped_mm), strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=2 * torch.finfo(dtype).eps, atol=32 * torch.finfo(dtype).eps)


def test_gradients_lie_as_the_weight():
    x, w, offs = made()
    layer = w.transpose(1, 2).contiguous().requires_grad_()
    (dw,) = torch.autograd.grad(T.grouped_mm(x, layer.transpose(1, 2), offs=offs).sum(), layer)
    assert dw.is_contiguous()


@pytest.mark.parametrize("policy", route.POLICIES)
@pytest.mark.parametrize("N", [24, 33])
def test_gradients_of_any_strides(policy, N):
    """torch's own backward refuses an expanded gradient, and rows of 33 float32."""
    x, w, offs = made(N=N)
    x.requires_grad_(), w.requires_grad_()
    with route.forced(policy):
        dx, dw = torch.autograd.grad(T.grouped_mm(x, w, offs=offs).sum(), (x, w))
    at = [0, *offs.tolist()]
    total = sum((x[i:j] @ w[g]).sum() for g, (i, j) in enumerate(itertools.pairwise(at)))
    for ours, theirs in zip((dx, dw), torch.autograd.grad(total, (x, w)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_what_is_torchs():
    """A stack by a stack, and columns in groups."""
    x, w, offs = made()
    for a, b, ends in ((torch.randn(5, 8, 16), w, None), (x.T, torch.randn(40, 24), offs)):
        torch.testing.assert_close(T.grouped_mm(a, b, offs=ends), F.grouped_mm(a, b, offs=ends))
    for bad, error in (({"offs": offs.long()}, "int32"), ({"offs": offs[:3]}, "batch sizes"), ({}, "offsets")):
        with pytest.raises(RuntimeError, match=error):
            T.grouped_mm(x, w, **bad)


def test_offsets_that_make_no_sense_read_nothing_else():
    """They may point behind the rows, or fall. Nobody looks at them on the host."""
    x, w, _ = made()
    for ends in ((7, 3, 20, 30, 40), (7, 7, 20, 33, 99), (-3, 7, 8, 9, 10)):
        assert T.grouped_mm(x, w, offs=torch.tensor(ends, dtype=torch.int32)).shape == (40, 24)


def test_without_a_kernel_every_size_is_taken():
    x, w, offs = made(K=7, N=5)
    with route.forced("torch"):
        expected = T.grouped_mm(x, w, offs=offs)
    torch.testing.assert_close(T.grouped_mm(x, w, offs=offs), expected)
