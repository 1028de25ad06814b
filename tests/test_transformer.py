"""MultiheadAttention and the layers built of it: torch's values, gradients, masks, inference path; over our kernels."""

import copy
import pickle

import pytest
import torch

import trident
from tests.test_laws import DEVICE, Recorder, close, same
from trident import nn

E, HEADS, L, S, B = 12, 3, 5, 7, 2
TWINS = (torch.nn.MultiheadAttention, torch.nn.TransformerEncoderLayer, torch.nn.TransformerDecoderLayer)
SIZES = {"dropout": 0.0, "dtype": torch.float64, "device": DEVICE}


def pair(name, *args, **kwargs):
    """torch's module and ours with the same parameters."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*args, **kwargs)
    ours = getattr(nn, name)(*args, **kwargs)
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def randn(*shape):
    return torch.randn(*shape, dtype=torch.float64, device=DEVICE, requires_grad=True)


def compare(ours, theirs, inputs, **kwargs):
    """Value and every gradient are torch's; returns the names of the operators of Trident that ran."""
    results, names = [], set()
    for module in (ours, theirs):
        leaves = [*dict.fromkeys(inputs), *module.parameters()]
        with Recorder() as recorder:
            y = module(*inputs, **kwargs)
            y = y[0] if isinstance(y, tuple) else y
            gradients = torch.autograd.grad(y.square().sum(), leaves)
        results.append([y, *gradients])
        names |= {func.__name__.split(".")[0] for func, _ in recorder.calls}
    close(*results, torch.float64, 1000)
    return names


MASKS = {
    "none": {},
    "padding": {"key_padding_mask": "padding"},
    "mask": {"attn_mask": "mask"},
    "both": {"key_padding_mask": "padding", "attn_mask": "mask"},
    "heads": {"attn_mask": "heads"},
    "float": {"attn_mask": "float"},
    "floats": {"key_padding_mask": "float_padding", "attn_mask": "float"},
    "causal": {"attn_mask": "causal", "is_causal": True},
}


def masks(L, S, batch=B):
    torch.manual_seed(1)
    padding = torch.rand(batch, S) < 0.3
    padding[:, 0] = False
    mask = torch.rand(L, S) < 0.3
    mask[:, 0] = False
    made = {"padding": padding, "mask": mask, "float": torch.randn(L, S).double()}
    made |= {"heads": (torch.rand(batch * HEADS, L, S) < 0.3) & (torch.arange(S) > 0)}
    made |= {"float_padding": torch.zeros(batch, S).double().masked_fill(padding, -torch.inf)}
    made |= {"causal": torch.ones(L, S).triu(1).bool()}
    return {name: t.to(DEVICE) for name, t in made.items()}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("batch_first", (False, True))
def test_masks(name, batch_first):
    ours, theirs = pair("MultiheadAttention", E, HEADS, batch_first=batch_first, **SIZES)
    query, key = (randn(*((B, n, E) if batch_first else (n, B, E))) for n in (L, S))
    given = masks(L, S)
    kwargs = {key: given.get(what, what) for key, what in MASKS[name].items()}
    names = compare(ours, theirs, (query, key, key), need_weights=False, **kwargs)
    assert names == {"attention", "attention_backward", "linear", "matmul"}


@pytest.mark.parametrize("options", ({}, {"bias": False}, {"kdim": 6, "vdim": 4}, {"add_bias_kv": True}))
@pytest.mark.parametrize("batch", ((), (B,)))
def test_projections(options, batch):
    ours, theirs = pair("MultiheadAttention", E, HEADS, **options, **SIZES)
    query, key, value = (
        randn(n, *batch, size) for n, size in ((L, E), (S, options.get("kdim", E)), (S, options.get("vdim", E)))
    )
    names = compare(ours, theirs, (query, key, value), need_weights=False)
    assert ("attention" in names) == ("add_bias_kv" not in options)
    if "kdim" not in options:
        compare(ours, theirs, (query, query, query), need_weights=False)


def test_weights_are_torchs():
    ours, theirs = pair("MultiheadAttention", E, HEADS, **SIZES)
    query, key = randn(L, B, E), randn(S, B, E)
    same(ours(query, key, key), theirs(query, key, key))


BAD = (
    lambda f: f(torch.randn(L, B, E + 1), *[torch.randn(S, B, E)] * 2, need_weights=False),
    lambda f: f(torch.randn(L, B, E), torch.randn(S, B, E), torch.randn(S + 1, B, E), need_weights=False),
    lambda f: f(torch.randn(L, E), *[torch.randn(S, B, E)] * 2, need_weights=False),
    lambda f: f(torch.randn(L, B + 1, E), *[torch.randn(S, B, E)] * 2, need_weights=False),
    lambda f: f(*[torch.randn(L, B, E)] * 3, attn_mask=torch.ones(L, L + 1).bool(), need_weights=False),
    lambda f: f(*[torch.randn(L, B, E)] * 3, key_padding_mask=torch.ones(L, B).bool(), need_weights=False),
    lambda f: f(*[torch.randn(L, B, E)] * 3, is_causal=True, need_weights=False),
)


@pytest.mark.parametrize("bad", BAD)
def test_errors_as_torch(bad):
    ours, theirs = pair("MultiheadAttention", E, HEADS)
    with pytest.raises(Exception) as expected:
        bad(theirs)
    with pytest.raises(type(expected.value)):
        bad(ours)


@pytest.mark.parametrize("activation", ("relu", "gelu", torch.nn.functional.silu))
@pytest.mark.parametrize("norm_first", (False, True))
@pytest.mark.parametrize("batch_first", (False, True))
def test_layers(activation, norm_first, batch_first):
    options = {"activation": activation, "norm_first": norm_first, "batch_first": batch_first, **SIZES}
    src, memory = (randn(*((B, n, E) if batch_first else (n, B, E))) for n in (L, S))
    given = masks(L, L)
    expected = {"attention", "linear", "layer_norm"} | ({"activation"} if isinstance(activation, str) else set())
    layers = pair("TransformerEncoderLayer", E, HEADS, 20, **options)
    names = compare(*layers, (src,), src_mask=given["causal"], is_causal=True, src_key_padding_mask=given["padding"])
    assert names >= expected
    layers = pair("TransformerDecoderLayer", E, HEADS, 20, **options)
    names = compare(*layers, (src, memory), tgt_mask=given["causal"], tgt_is_causal=True)
    assert names >= expected


@pytest.mark.parametrize("cls", TWINS[1:])
def test_optimized_layers(cls):
    """`optimize` gives what the constructor of our class gives."""
    ours, theirs = pair(cls.__name__, E, HEADS, 20, **SIZES)
    swapped = trident.optimize(copy.deepcopy(theirs))
    assert [type(m) for m in swapped.modules()] == [type(m) for m in ours.modules()]
    inputs = [randn(L, B, E), randn(S, B, E)][: 1 if "Encoder" in cls.__name__ else 2]
    compare(swapped, theirs, inputs)
    assert type(trident.restore(swapped).self_attn) is torch.nn.MultiheadAttention


def test_transformer():
    ours, theirs = pair("Transformer", E, HEADS, 1, 1, 20, **SIZES)
    assert repr(ours) == repr(theirs)
    names = compare(ours, theirs, (randn(L, B, E), randn(S, B, E)))
    assert names >= {"attention", "attention_backward", "linear", "layer_norm"}


@pytest.mark.parametrize("cls", TWINS[:2])
def test_torchs_inference_path_stays(cls):
    ours, theirs = pair(cls.__name__, E, 4, batch_first=True, **SIZES)
    x = randn(B, L, E)
    ours.eval(), theirs.eval()
    inputs, options = ((x, x, x), {"need_weights": False}) if cls is TWINS[0] else ((x,), {})
    with torch.no_grad(), Recorder() as recorder:
        same(ours(*inputs, **options), theirs(*inputs, **options))
    assert not recorder.calls


@pytest.mark.parametrize("cls", TWINS)
def test_is_its_twin(cls):
    ours, theirs = pair(cls.__name__, E, HEADS)
    assert repr(ours) == repr(theirs) and list(ours.state_dict()) == list(theirs.state_dict())
    again = pickle.loads(pickle.dumps(ours))
    assert type(again) is type(ours) and repr(again) == repr(ours)


@pytest.mark.parametrize("dynamic", (False, True))
def test_compiles_whole(dynamic):
    torch._dynamo.reset()
    ours, _ = pair("TransformerEncoderLayer", E, HEADS, 20, **{**SIZES, "dtype": torch.float32})
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for n in (L, S):
        x = randn(n, B, E).float()
        same(compiled(x), ours(x))


def test_dropout_is_applied():
    ours, _ = pair("MultiheadAttention", E, HEADS, dropout=0.5, device=DEVICE)
    x = torch.randn(L, B, E, device=DEVICE)
    first, second = (ours(x, x, x, need_weights=False)[0] for _ in range(2))
    assert (first != second).any()
    same(*(ours.eval()(x, x, x, need_weights=False)[0] for _ in range(2)))
