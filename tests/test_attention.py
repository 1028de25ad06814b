"""What is peculiar to attention: dropout, rows that see nothing, GPU tiles on this machine, what goes to torch."""

import math

import pytest
import torch
import torch.nn.functional as F

import trident.functional as T
from tests.test_laws import DEVICE, Recorder, close, double, gradients_of, run, same, second_order
from trident.ops import _attention
from trident.runtime import crossover_tables, route, tuning_llm


def operands(*shape, S=None, dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    *batch, L, E = shape
    made = [torch.randn(*batch, n, E, dtype=torch.float64) for n in (L, S or L, S or L)]
    return [t.to(DEVICE, dtype).requires_grad_() for t in made]


def explicit(q, k, v, mask=None, kept=None, causal=False):
    return _attention._in_torch(q, k, v, mask, kept, _attention.How(right=0 if causal else -1))


@pytest.mark.parametrize("causal", (False, True))
def test_dropout_is_one_mask_in_both_directions(causal):
    inputs = operands(2, 3, 140, 8, S=150)
    torch.manual_seed(5)
    actual = run(lambda *t: T.scaled_dot_product_attention(*t, dropout_p=0.3, is_causal=causal), inputs)
    torch.manual_seed(2)  # as `run` does
    kept = _attention._kept(*inputs[:2], _attention.seed_for(inputs[0]), 0.3)
    exact = double(inputs)
    expected = run(lambda *t: explicit(*t, kept=kept.double(), causal=causal), exact, gradients_of(actual[0]))
    close(actual, expected, torch.float32, 150)


@pytest.mark.parametrize("p", (0.1, 0.5))
def test_dropout_rate(p):
    inputs = operands(2, 4, 128, 8)
    kept = _attention._kept(*inputs[:2], _attention.seed_for(inputs[0]), p)
    n = kept.numel()
    assert set(kept.unique().tolist()) == {0.0, torch.tensor(1 / (1 - p)).item()}
    rates = [(kept != 0).double().mean(dim) for dim in ((0, 1, 2), (0, 1, 3), (2, 3))]  # of keys, queries, heads
    for rate in rates:
        assert ((rate - (1 - p)).abs() < 6 * math.sqrt(p * (1 - p) * rate.numel() / n)).all()
    other = _attention._kept(*inputs[:2], _attention.seed_for(inputs[0]), p)
    assert 0.4 < (kept == other).double().mean() < 0.9


def test_second_derivatives_with_dropout():
    inputs = operands(1, 2, 5, 4, dtype=torch.float64)
    torch.manual_seed(2)  # as `second_order` does
    kept = _attention._kept(*inputs[:2], _attention.seed_for(inputs[0]), 0.5)
    actual = second_order(lambda *t: T.scaled_dot_product_attention(*t, dropout_p=0.5), inputs)
    close(actual, second_order(lambda *t: explicit(*t, kept=kept), inputs), torch.float64, 100)


def nothing(kind, L, S):
    if kind == "bool":
        mask = torch.ones(L, S, dtype=torch.bool)
        mask[1::2] = False
        return mask.to(DEVICE)
    return torch.zeros(L, S).masked_fill(~nothing("bool", L, S).cpu(), -math.inf).to(DEVICE)


@pytest.mark.parametrize("kind", ("bool", "float"))
def test_queries_that_see_nothing(kind):
    """Their result and gradients are 0, as in torch's operator."""
    inputs, mask = operands(1, 2, 6, 8, S=200), nothing(kind, 6, 200)
    wide = mask.double() if kind == "float" else mask  # torch reads a float32 mask wrongly beside float64
    actual = run(lambda *t: T.scaled_dot_product_attention(*t, mask), inputs)
    expected = run(lambda *t: F.scaled_dot_product_attention(*t, wide), double(inputs), gradients_of(actual[0]))
    close(actual, expected, torch.float32, 200)
    assert not actual[0][..., 1::2, :].any() and not actual[1][..., 1::2, :].any()


@pytest.mark.parametrize("value", (math.nan, math.inf, -math.inf))
def test_special_numbers(value):
    q, k, v = operands(1, 1, 5, 8, S=7)
    with torch.no_grad():
        q[0, 0, 2, 3] = k[0, 0, 4, 3] = value
        v[0, 0, 6, 1] = value
    ours, theirs = T.scaled_dot_product_attention(q, k, v), explicit(q, k, v)
    torch.testing.assert_close(ours, theirs, equal_nan=True)


def test_large_logits():
    q, k, v = operands(1, 1, 40, 8)
    with torch.no_grad():
        q *= 1e4
    same_rows = T.scaled_dot_product_attention(q, k, v)
    torch.testing.assert_close(same_rows, explicit(*double((q, k, v))).float(), rtol=1e-4, atol=1e-4)


def test_heads_beside_each_other_are_read_in_place(monkeypatch):
    """q, k and v cut from one projection [B, L, 3, H, E]: no copy, and the result lies as torch's."""
    packed = torch.randn(2, 20, 3, 2, 16, device=DEVICE)
    q, k, v = packed.permute(2, 0, 3, 1, 4)
    launched = []
    monkeypatch.setattr(_attention, "launch", lambda kernel, grid, *args, **meta: launched.append(args))
    y = T.scaled_dot_product_attention(q, k, v)
    assert [t.data_ptr() for t in launched[0][2:5]] == [t.data_ptr() for t in (q, k, v)]
    assert y.stride() == F.scaled_dot_product_attention(q, k, v).stride()


@pytest.mark.parametrize("causal", (False, True))
@pytest.mark.parametrize("heads", (1, 2))
def test_walks(monkeypatch, heads, causal):
    """Small tiles, so that all loops turn; one head takes the kernels of a GPU: dq apart from dk and dv."""
    plan = tuning_llm._attention_meta
    monkeypatch.setattr(tuning_llm, "_attention_meta", lambda *args: plan(*args) | {"BLOCK_L": 32, "BLOCK_S": 16})
    for L, S in ((70, 90), (90, 41)):
        for heuristic in (tuning_llm.attention, tuning_llm.attention_keys, tuning_llm.attention_queries):
            name = heuristic.__name__
            monkeypatch.setattr(tuning_llm, name, getattr(heuristic, "__wrapped__", heuristic))
        inputs = operands(1, heads, L, 20, S=S)
        actual = run(lambda *t: T.scaled_dot_product_attention(*t, is_causal=causal), inputs)
        exact = double(inputs)
        expected = run(lambda *t: explicit(*t, causal=causal), exact, gradients_of(actual[0]))
        close(actual, expected, torch.float32, S)


ELSEWHERE = {
    "a mask and is_causal": ((2, 4, 5, 8), (2, 4, 5, 8), {"attn_mask": torch.ones(5, 5).bool(), "is_causal": True}),
    "operands of several ranks": ((5, 8), (2, 4, 5, 8), {}),
    "operands that are broadcast": ((2, 4, 5, 8), (1, 4, 5, 8), {}),
    "heads that are broadcast": ((2, 4, 5, 8), (2, 1, 5, 8), {}),
    "heads of more than 256 elements": ((1, 1, 2, 257), (1, 1, 2, 257), {}),
    "no elements": ((2, 4, 0, 8), (2, 4, 5, 8), {}),
    "nothing is drawn": ((2, 4, 5, 8), (2, 4, 5, 8), {"dropout_p": 1.0}),
}


@pytest.mark.parametrize("reason", ELSEWHERE)
def test_goes_to_torch(reason, monkeypatch):
    query, key, options = ELSEWHERE[reason]
    reasons = []
    noted = route.to_torch
    monkeypatch.setattr(
        route, "to_torch", lambda *args, unless=None, **kw: reasons.append(unless) or noted(*args, unless=unless, **kw)
    )
    q, k = torch.randn(query, device=DEVICE), torch.randn(key, device=DEVICE)
    options = {name: o.to(DEVICE) if isinstance(o, torch.Tensor) else o for name, o in options.items()}
    same(T.scaled_dot_product_attention(q, k, k, **options), F.scaled_dot_product_attention(q, k, k, **options))
    assert reasons[0] == reason


def test_float_mask_with_halves():
    q, k, v = operands(1, 2, 5, 8, dtype=torch.bfloat16)
    mask = torch.randn(5, 5, device=DEVICE)
    with Recorder() as recorder:
        y = T.scaled_dot_product_attention(q, k, v, mask)
    assert recorder.calls and y.dtype == torch.bfloat16
    close([y], [explicit(*double((q, k, v)), mask.double())], torch.bfloat16, 5)


@pytest.mark.parametrize(
    "sizes, fused, padded",
    (
        ((512, 512, 64, 64), True, False),
        ((197, 197, 64, 64), True, True),  # 256 x 256 would be computed
        ((197, 197, 64, 64), False, True),
        ((250, 250, 64, 64), True, False),
        ((512, 512, 80, 80), True, True),
        ((220, 256, 64, 64), True, True),
        ((220, 256, 64, 64), False, False),
    ),
)
def test_padded_tiles_have_a_crossover_of_their_own(sizes, fused, padded):
    name = tuning_llm.attention_kind(*sizes, fused, causal=True)
    assert name.endswith("(padded)") == padded
    # but for the kinds of CPU that say otherwise, torch's at every size
    assert any(name in names for names in crossover_tables.NEVER.values()) == padded
