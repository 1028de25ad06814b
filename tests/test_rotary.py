"""What is peculiar to rotary_embedding: its tables, one tensor alone, what goes to torch, its own errors."""

import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE, Recorder, same
from trident.runtime import route

pytestmark = pytest.mark.once


def operands(dtype=torch.float64, grad=True):
    angles = torch.outer(torch.arange(5, dtype=torch.float64), 100.0 ** -torch.linspace(0, 1, 4))
    made = torch.randn(2, 4, 5, 10, dtype=dtype), torch.randn(2, 2, 5, 10, dtype=dtype), angles.cos(), angles.sin()
    q, k, cos, sin = (t.to(DEVICE) for t in made)
    return q.requires_grad_(grad), k, cos, sin


@pytest.mark.parametrize("interleaved", (False, True))
def test_lengths_stay_and_dots_depend_on_distances(interleaved):
    q, _, cos, sin = operands(grad=False)
    q = q[:, :, :1].expand(-1, -1, 5, -1)
    y, nothing = T.rotary_embedding(q, None, cos, sin, rotary_dim=8, interleaved=interleaved)
    assert nothing is None
    torch.testing.assert_close(y.norm(dim=-1), q.norm(dim=-1))
    dots = y @ y.mT
    for distance in range(5):
        line = dots.diagonal(distance, -2, -1)
        torch.testing.assert_close(line, line[..., :1].expand_as(line))


@pytest.mark.parametrize("interleaved", (False, True))
def test_tables_of_both_widths_and_of_a_batch(interleaved):
    q, k, cos, sin = operands()
    found = T.rotary_embedding(q, k, cos, sin, rotary_dim=8, interleaved=interleaved)
    wide = [t.repeat_interleave(2, -1) if interleaved else t.tile(2) for t in (cos, sin)]
    same(T.rotary_embedding(q, k, *wide, interleaved=interleaved), found)
    many = [t.expand(2, -1, -1) for t in wide]
    same(T.rotary_embedding(q, k, *many, interleaved=interleaved), found)
    swapped = [t.transpose(1, 2) for t in (q, k)]
    found = [t.transpose(1, 2) for t in found]
    same(T.rotary_embedding(*swapped, *wide, interleaved=interleaved, sequence_dim=-3), tuple(found))


def test_float32_tables_of_halves():
    q, k, cos, sin = operands(torch.bfloat16)
    exact, _ = T.rotary_embedding(q.double(), k.double(), cos, sin, rotary_dim=8)
    with Recorder() as recorder:
        y, _ = T.rotary_embedding(q, k, cos.float(), sin.float(), rotary_dim=8)
    assert recorder.calls and y.dtype == torch.bfloat16
    torch.testing.assert_close(y.double(), exact, rtol=2**-8, atol=1e-6)


def test_third_derivatives():
    q, k, cos, sin = operands()
    q, k = q.detach()[:1, :2].requires_grad_(), k[:1, :1]  # each element is moved alone: of all 400 it took 13 s

    def turned(q):
        return T.rotary_embedding(q, k, cos, sin, rotary_dim=8)[0].sin()

    assert torch.autograd.gradcheck(turned, q) and torch.autograd.gradgradcheck(turned, q)


def test_learned_tables_and_other_dtypes_go_to_torch():
    q, k, cos, sin = operands()
    with Recorder() as recorder:
        y, z = T.rotary_embedding(q, k, cos.requires_grad_(), sin, rotary_dim=8)
        assert T.rotary_embedding(q, k.float(), cos, sin, rotary_dim=8)[1].dtype == torch.float32
    assert not recorder.calls
    assert torch.autograd.grad(y.sum() + z.sum(), cos)[0].shape == cos.shape
    with torch.no_grad(), Recorder() as recorder:
        torch.testing.assert_close(T.rotary_embedding(q, k, cos, sin, rotary_dim=8), (y, z))
    assert recorder.calls
    with route.forced("torch"):
        same(T.rotary_embedding(q[0], None, cos, sin, rotary_dim=8)[0], y[0])


WRONG = {
    "sequence_dim is 1": {"sequence_dim": 1},
    "rotary_dim is 6": {"rotary_dim": 6},
    "rotary_dim is 16": {"rotary_dim": 16},
    "query is": {"query": torch.randn(5, 8)},
    "key is": {"key": torch.randn(2, 2, 5, 8)},
    "sin is": {"sin": torch.randn(4, 4)},
}


@pytest.mark.parametrize("what", WRONG)
def test_errors_name_what_is_wrong(what):
    q, k, cos, sin = operands()
    given = {"query": q, "key": k, "cos": cos, "sin": sin, "rotary_dim": 8, **WRONG[what]}
    with pytest.raises(ValueError, match=f"rotary_embedding: {what}"):
        T.rotary_embedding(**{name: t.to(DEVICE) if isinstance(t, torch.Tensor) else t for name, t in given.items()})
