"""What is peculiar to flash_attention, against the explicit formula in float64: caches, packed sequences, tiles."""

import functools
import math

import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE, Recorder, close, double, gradients_of, run, same
from trident.cases.attention import _one
from trident.ops import _attention
from trident.runtime import route, tuning_llm


def operands(*shape, K, S, V=None, dtype=torch.float32):
    """q [B, H, L, E] and keys of K heads, or q [T, H, E]."""
    torch.manual_seed(0)
    other = (shape[0], K, S) if len(shape) == 4 else (S, K)
    made = (torch.randn(s, dtype=torch.float64) for s in (shape, (*other, shape[-1]), (*other, V or shape[-1])))
    return [t.to(DEVICE, dtype).requires_grad_() for t in made]


def explicit(q, k, v, used=None, slopes=None, **how):
    """A head of a batch at a time."""
    counts = [k.shape[2]] * len(q) if used is None else used.tolist()
    rows = zip(q, k, v, counts, strict=True)
    return torch.stack([_one(a, b[:, :n], c[:, :n], slopes, **how) for a, b, c, n in rows])


def packed(q, k, v, cu_q, cu_k, used=None, slopes=None, **how):
    ys = []
    for n in range(len(cu_q) - 1):
        a, b, c, d = (int(cu[n + i]) for cu in (cu_q, cu_k) for i in (0, 1))
        count = d - c if used is None else int(used[n])
        one = (t.transpose(0, 1) for t in (q[a:b], k[c : c + count], v[c : c + count]))
        ys.append(_one(*one, slopes, **how).transpose(0, 1))
    return torch.cat([*ys, q.new_zeros(len(q) - int(cu_q[-1]), q.shape[1], v.shape[2])])


def check(ours, reference, inputs, terms):
    actual = run(ours, inputs)
    close(actual, run(reference, double(inputs), gradients_of(actual[0])), inputs[0].dtype, terms)


CACHES = (
    (4, 2, 7, 150, {"window_size": (33, 17), "softcap": 2.0}),
    (1, 1, 190, 150, {"causal": True, "window_size": (90, -1)}),
    (4, 2, 1, 300, {"causal": True}),
)


@pytest.mark.once
@pytest.mark.parametrize("H, K, L, S, how", CACHES)
def test_a_cache_with_room(H, K, L, S, how):
    """What lies in the room is never read, and there is no gradient to it."""
    inputs = operands(2, H, L, 16, K=K, S=S, V=24)
    used = torch.tensor([S // 3, S - 5], device=DEVICE)
    slopes = torch.rand(H, device=DEVICE) if "softcap" in how else None

    def ours(q, k, v):
        k, v = (
            torch.where(torch.arange(S, device=DEVICE)[:, None] < used[:, None, None, None], t, math.nan)
            for t in (k, v)
        )
        return T.flash_attention(q, k, v, seqused_k=used, alibi_slopes=slopes, **how)

    check(ours, lambda *t: explicit(*t, used=used, slopes=slopes, **how), inputs, 16 * S)


def test_few_queries_are_walked_over_in_parts():
    inputs = operands(1, 2, 3, 16, K=1, S=2100)
    assert tuning_llm.attention(2, 3, 2100, 16, 16, 0, torch.float32, False, inputs[0].device).meta["PARTS"] > 1
    check(lambda *t: T.flash_attention(*t, causal=True), lambda *t: explicit(*t, causal=True), inputs, 2100)
    used = torch.tensor([7], device=DEVICE)  # most parts see nothing
    check(lambda *t: T.flash_attention(*t, seqused_k=used), lambda *t: explicit(*t, used=used), inputs, 2100)


ENDS = (0, 10, 10, 90, 91, 110), (0, 30, 40, 120, 121, 140)


@pytest.mark.once
@pytest.mark.parametrize("whole, dtype", ((True, torch.int32), (False, torch.int64)), ids=("by heads", "by tiles"))
def test_packed_sequences(monkeypatch, whole, dtype):
    """Empty ones, ones without keys, a rest that is no sequence's; small tiles; as CPUs walk, and as GPUs do."""
    plan = tuning_llm._attention_meta
    monkeypatch.setattr(tuning_llm, "_attention_meta", lambda *args: plan(*args) | {"BLOCK_L": 16, "BLOCK_S": 32})
    for name in ("attention", "attention_keys", "attention_queries"):
        monkeypatch.setattr(tuning_llm, name, getattr(tuning_llm, name).__wrapped__)
    if not whole:
        monkeypatch.setattr(
            tuning_llm,
            "attention_keys",
            lambda heads, L, S, E, V, N, *rest: tuning_llm.Plan(
                (S // 32 + N, heads), tuning_llm._attention_meta("keys", L, S, E, V, *rest)
            ),
        )
    inputs = operands(115, 4, 16, K=2, S=145, V=8)
    cu_q, cu_k = (torch.tensor(ends, dtype=dtype, device=DEVICE) for ends in ENDS)
    used = torch.tensor([30, 10, 70, 0, 1], dtype=dtype, device=DEVICE)
    slopes = torch.rand(4, device=DEVICE)
    named = {"cu_seqlens_q": cu_q, "cu_seqlens_k": cu_k, "alibi_slopes": slopes}
    for how in ({"causal": True, "softcap": 2.0}, {"window_size": (7, 2)}):
        check(
            functools.partial(T.flash_attention, **named, **how),
            functools.partial(packed, cu_q=cu_q, cu_k=cu_k, slopes=slopes, **how),
            inputs,
            500,
        )
    check(
        functools.partial(T.flash_attention, **named, seqused_k=used),
        functools.partial(packed, cu_q=cu_q, cu_k=cu_k, slopes=slopes, used=used),
        inputs,
        500,
    )


@pytest.mark.once
def test_a_mask_that_learns_beside_a_window_and_a_cap():
    inputs = operands(1, 2, 140, 16, K=1, S=150)
    mask = torch.randn(140, 150, device=DEVICE, requires_grad=True)
    how = {"causal": True, "softcap": 2.0, "window_size": (20, -1)}

    def formula(q, k, v, mask):
        z = 2 * torch.tanh(q @ k.mT / 4 / 2) + mask
        place = torch.arange(150, device=DEVICE) - torch.arange(140, device=DEVICE)[:, None] - 10
        return z.masked_fill((place > 0) | (place < -20), -math.inf).softmax(-1) @ v

    check(lambda *t: T.flash_attention(*t, **how), formula, [*inputs, mask], 150 * 16)


@pytest.mark.once
def test_dropout_of_packed_sequences_is_one_mask_in_both_directions():
    inputs = operands(110, 2, 8, K=2, S=140)
    cu_q, cu_k = (torch.tensor(ends, device=DEVICE) for ends in ENDS)
    also = _attention.Also(cu_q=cu_q, cu_k=cu_k)
    actual = run(lambda *t: T.flash_attention(*t, dropout_p=0.3, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k), inputs)
    torch.manual_seed(2)  # as `run` does
    four = [t.transpose(0, 1)[None] for t in inputs]
    kept = _attention._kept(*four[:2], _attention.seed_for(inputs[0]), 0.3).double()

    def reference(*t):
        t = (a.transpose(0, 1)[None] for a in t)
        return _attention._in_torch(*t, None, kept, _attention.How(from_end=True), also)[0].transpose(0, 1)

    close(actual, run(reference, double(inputs), gradients_of(actual[0])), torch.float32, 140)


@pytest.mark.once
def test_what_torch_has_is_scaled_dot_product_attention():
    q, k, v = operands(1, 4, 20, 8, K=2, S=20)
    with Recorder() as recorder:
        y = T.flash_attention(q, k, v, causal=True)
        z = T.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    same(y, z)
    assert len(recorder.calls) == 2 and recorder.calls[0][1][8:] == recorder.calls[1][1][8:]


@pytest.mark.once
@pytest.mark.parametrize("E", (128, 256))
def test_head_sizes_in_bfloat16(E):
    inputs = operands(1, 2, 40, E, K=1, S=60, dtype=torch.bfloat16)
    how = {"causal": True, "softcap": 5.0}
    check(lambda *t: T.flash_attention(*t, **how), lambda *t: explicit(*t, **how), inputs, 60 * E)


WRONG = {
    "expected 4 dimensions": {"query": torch.randn(4, 5, 8)},
    "expected 3 dimensions": {"cu_seqlens_q": torch.tensor([0, 2]), "cu_seqlens_k": torch.tensor([0, 2])},
    "expected both": {"cu_seqlens_k": torch.tensor([0, 2])},
    "one last size": {"key": torch.randn(2, 2, 7, 6)},
    "multiple of key's heads": {"query": torch.randn(2, 3, 5, 8)},
    "one floating dtype": {"value": torch.randn(2, 2, 7, 8).double()},
    "seqused_k is": {"seqused_k": torch.tensor([1])},
    "expected int32 or int64": {"seqused_k": torch.tensor([1.0, 2.0])},
    "alibi_slopes is": {"alibi_slopes": torch.rand(3)},
    "attn_mask is .* broadcasts": {"attn_mask": torch.ones(5, 6, dtype=torch.bool)},
    "attn_mask is torch.int64": {"attn_mask": torch.ones(5, 7, dtype=torch.int64)},
    "window_size": {"window_size": (-2, 0)},
    "softcap -1": {"softcap": -1.0},
    "dropout_p 1": {"dropout_p": 1.0},
}


@pytest.mark.once
@pytest.mark.parametrize("what", WRONG)
def test_errors_name_what_is_wrong(what):
    given = {"query": torch.randn(2, 4, 5, 8), "key": torch.randn(2, 2, 7, 8), "value": torch.randn(2, 2, 7, 8)}
    with pytest.raises(ValueError, match=f"flash_attention: .*{what}"):
        T.flash_attention(**{**given, **WRONG[what]})


@pytest.mark.skipif(DEVICE != "cpu", reason="the host reads lengths on CPUs alone")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("counts", [(40, 40), (7, 0), (1, 33)])
@pytest.mark.parametrize(
    "H, K, L, causal", [(4, 4, 1, True), (4, 2, 1, False), (6, 2, 3, True), (4, 1, 4, True), (2, 2, 9, False)]
)
def test_a_cache_in_slices(H, K, L, causal, counts, dtype):
    """Few queries on a CPU are torch's attention of the keys that are there; what is not written yet is not read."""
    torch.manual_seed(0)
    q, k, v = torch.randn(2, H, L, 16), torch.randn(2, K, 50, 16), torch.randn(2, K, 50, 16)
    used = torch.tensor(counts)
    k, v = (torch.where(torch.arange(50)[:, None] < used[:, None, None, None], t, math.nan) for t in (k, v))
    expected = explicit(q.double(), k.double().nan_to_num(), v.double().nan_to_num(), used=used, causal=causal)
    q, k, v = (t.to(dtype) for t in (q, k, v))
    seen = []
    watcher = lambda name, tensors, reason: seen.append(name)  # noqa: E731
    route.WATCHERS.append(watcher)
    try:
        with route.forced("auto"):
            y = T.flash_attention(q, k, v, causal=causal, seqused_k=used)
            k.requires_grad_()
            z = T.flash_attention(q, k, v, causal=causal, seqused_k=used)
    finally:
        route.WATCHERS.remove(watcher)
    assert seen == ["flash_attention (slices)", "flash_attention"]
    for found in (y, z):
        bound = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float64: 1e-12}[dtype]
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=bound)
