"""`optimize` on models of other libraries, of small random weights: what is swapped, and that results stay."""

import copy
import inspect
import linecache
import pickle
import subprocess
import sys
import types
from pathlib import Path

import pytest
import torch
from torch import nn

import trident
from trident import zoo
from trident.bench.models import mend_torchvision
from trident.cases.case import EVERYTHING
from trident.optimize.logits import Logits
from trident.runtime import route
from trident.zoo.attention import attention
from trident.zoo.gated import gated

pytestmark = pytest.mark.once

mend_torchvision()
transformers = pytest.importorskip("transformers", reason="the zoo's adapters are for its classes")

SMALL = {
    "vocab_size": 32,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
GPT2 = {"vocab_size": 32, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "bos_token_id": 0}
T5 = {
    "vocab_size": 32,
    "d_model": 16,
    "d_kv": 8,
    "d_ff": 24,
    "num_layers": 1,
    "num_heads": 2,
    "decoder_start_token_id": 0,
}
MOE = {**SMALL, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8, "norm_topk_prob": True}
MOE["experts_implementation"] = "eager"  # it has float64
BERT = {key: value for key, value in SMALL.items() if key not in ("num_key_value_heads", "head_dim")}
CLIP = {**BERT, "hidden_act": "quick_gelu", "eos_token_id": 2}
WHISPER = dict.fromkeys(("d_model", "encoder_ffn_dim", "decoder_ffn_dim", "num_mel_bins", "vocab_size"), 16)
WHISPER |= {f"{part}_{what}": 2 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
WHISPER |= {"max_source_positions": 6, "max_target_positions": 8, "pad_token_id": 0, "decoder_start_token_id": 1}
IMAGE = {"image_size": 8, "patch_size": 4, "num_channels": 3}
# model's name -> its configuration, and what of it the zoo must find
MODELS = {
    "Llama": (SMALL, {"LlamaRMSNorm": 5, "LlamaMLP": 2, "LlamaAttention": 2}),
    "Mistral": (SMALL, {"MistralRMSNorm": 5, "MistralMLP": 2, "MistralAttention": 2}),
    "Qwen2": (SMALL, {"Qwen2RMSNorm": 5, "Qwen2MLP": 2, "Qwen2Attention": 2}),
    "Qwen3": (SMALL, {"Qwen3RMSNorm": 9, "Qwen3MLP": 2, "Qwen3Attention": 2}),
    "Gemma2": ({**SMALL, "query_pre_attn_scalar": 8}, {"Gemma2RMSNorm": 9, "Gemma2MLP": 2, "Gemma2Attention": 2}),
    "Phi3": ({k: v for k, v in SMALL.items() if k != "head_dim"}, {"Phi3RMSNorm": 5, "Phi3MLP": 2, "Phi3Attention": 2}),
    "Mixtral": (
        {
            **SMALL,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "output_router_logits": True,
            "experts_implementation": "eager",
        },
        {"MixtralRMSNorm": 5, "MixtralAttention": 2, "MixtralTopKRouter": 2},
    ),
    "Qwen3Moe": (MOE, {"Qwen3MoeTopKRouter": 2}),
    "GPTNeoX": (BERT, {"GPTNeoXAttention": 2}),
    "Gemma3Text": (SMALL, {"Gemma3RMSNorm": 13, "Gemma3MLP": 2, "Gemma3Attention": 2}),
    "Olmo2": (SMALL, {"Olmo2RMSNorm": 9, "Olmo2MLP": 2, "Olmo2Attention": 2}),
    "GPT2": (GPT2, {"NewGELUActivation": 2, "GPT2MLP": 2}),
    "CLIPText": (CLIP, {"CLIPMLP": 2, "QuickGELUActivation": 2}),
    "Phi": (BERT, {"PhiMLP": 2, "PhiAttention": 2}),
    "Bert": (BERT, {"BertIntermediate": 2}),
    "T5": (
        {**T5, "feed_forward_proj": "gated-gelu"},
        {"T5LayerNorm": 7, "NewGELUActivation": 2, "T5DenseGatedActDense": 2},
    ),
    "ViT": ({**BERT, **IMAGE}, {"ViTMLP": 2}),
    "Whisper": (WHISPER, {}),
}


# Kernels are compiled for every model and dtype: by default, and in CI, these few say what they say of all; the others
# with TRIDENT_TESTS=all
FEW = ("Llama", "GPT2", "Qwen3Moe")
minutes = pytest.mark.skipif(not EVERYTHING, reason="half a minute of compiling: with TRIDENT_TESTS=all")


def most(names, few=FEW):
    return [name for name in names if EVERYTHING or name in few]


def build(name):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**MODELS[name][0])
    model = getattr(transformers, f"{name}Model")(config).eval()
    return model.apply(lambda m: m.weight.data.add_(0.1) if "Norm" in type(m).__name__ else None)


def inputs(name):
    tokens = torch.arange(14).view(2, 7) % 31 + 1
    if name == "ViT":
        return {"pixel_values": torch.randn(2, 3, 8, 8)}
    if name == "Whisper":
        return {"input_features": torch.randn(2, 16, 12), "decoder_input_ids": tokens % 16}
    return {"input_ids": tokens, "decoder_input_ids": tokens} if name == "T5" else {"input_ids": tokens}


def run(model, given):
    for p in model.parameters():
        p.grad = None
    y = model(**given).last_hidden_state
    y.square().sum().backward()
    return y.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def error(tensors, exact):
    """Of all of them together, as a part of their size: float32 against the model in float64.

    Not of each: the gradient of a key's bias, say, is a sum that cancels, and nothing but rounding.
    """
    parts = [((t - e).square().sum(), e.square().sum()) for t, e in zip(tensors, exact, strict=True)]
    return (sum(d for d, _ in parts) / sum(n for _, n in parts)).sqrt().item()


@pytest.mark.parametrize("name", most(MODELS))
def test_a_models_results_stay(name):
    model, given = build(name), inputs(name)
    y, gradients = run(model, given)
    doubles = {k: t.double() if t.is_floating_point() else t for k, t in given.items()}
    exact, exact_gradients = run(copy.deepcopy(model).double(), doubles)
    report = trident.optimize(model, report=True)
    found = list(report.swapped.values())
    for cls, count in MODELS[name][1].items():
        assert found.count(cls) == count, report
    assert report.functions is None
    z, others = run(model, given)
    assert gradients.keys() == others.keys()
    assert error([z], [exact]) <= 4 * error([y], [exact])
    ours, theirs, references = (list(g.values()) for g in (others, gradients, exact_gradients))
    assert error(ours, references) <= 4 * error(theirs, references)
    trident.restore(model)
    assert all("trident" not in type(m).__module__ and not hasattr(m, "_before_trident") for m in model.modules())
    torch.testing.assert_close(run(model, given)[0], y, rtol=0, atol=0)


def layers():
    """Classes of other libraries -> one of them, of small random weights, and the shape that it takes."""
    names = ("timm.layers", "diffusers.models.activations", "diffusers.models.normalization")
    T, D, N = (pytest.importorskip(name, reason="its layers are adapted") for name in names)
    torch.manual_seed(0)
    return {
        "timm.RmsNorm": (T.RmsNorm(16), (3, 5, 16)),
        "timm.Mlp": (T.Mlp(16, 24, act_layer=T.GELU), (3, 5, 16)),
        "timm.Mlp of torch's": (T.Mlp(16, 24, norm_layer=T.LayerNorm), (3, 5, 16)),
        "timm.GluMlp": (T.GluMlp(16, 24, act_layer=nn.SiLU), (3, 5, 16)),
        "timm.SwiGLUPacked": (T.mlp.SwiGLUPacked(16, 24), (3, 5, 16)),
        "timm.GluMlp of planes": (T.GluMlp(16, 24, act_layer=nn.GELU, use_conv=True), (2, 16, 4, 3)),
        "timm.SwiGLU": (T.SwiGLU(16, 24), (3, 5, 16)),
        "diffusers.GELU": (D.GELU(16, 24), (3, 5, 16)),
        "diffusers.GELU of tanh": (D.GELU(16, 24, approximate="tanh"), (3, 5, 16)),
        "diffusers.GEGLU": (D.GEGLU(16, 24), (3, 5, 16)),
        "diffusers.SwiGLU": (D.SwiGLU(16, 24), (3, 5, 16)),
        "diffusers.RMSNorm": (N.RMSNorm(16, 1e-5), (3, 5, 16)),
    }


def test_layers_of_timm_and_diffusers():
    for name, (layer, shape) in layers().items():
        cls, x = type(layer), torch.randn(shape, dtype=torch.float64)
        exact = copy.deepcopy(layer).double()(x)
        report = trident.optimize(layer, report=True)
        assert report.swapped[""] == cls.__name__ and type(layer) is not cls, name
        assert error([layer(x.float())], [exact]) < 1e-6, name


def test_a_gate_that_is_none_of_ours_is_left():
    T = pytest.importorskip("timm.layers", reason="its layers are adapted")
    for layer in (T.GluMlp(16, 24), T.SwiGLU(16, 24, act_layer=nn.Tanh), T.Mlp(16, 24, act_layer=nn.Tanh)):
        x = torch.randn(3, 16)
        expected = layer(x)
        torch.testing.assert_close(trident.optimize(layer)(x), expected)


def test_small_calls_are_the_classs_own(monkeypatch):
    """A next token: what the adapter is for would be torch's. The policy of the tests asks for every kernel."""
    from transformers.models.llama import modeling_llama as llama

    asked = []
    monkeypatch.setattr(zoo.transformers, "gated", lambda act: asked.append(act) or gated(act))
    mlp, x = llama.LlamaMLP(transformers.LlamaConfig(**SMALL)), torch.randn(1, 1, SMALL["hidden_size"])
    expected = mlp(x)
    trident.optimize(mlp)
    with route.forced("auto"):
        torch.testing.assert_close(mlp(x), expected)
        assert asked == []
        monkeypatch.setattr(route, "WATCHERS", [lambda *_: None])
        torch.testing.assert_close(mlp(x), expected)
        assert asked == [mlp.act_fn]
    mlp(x)
    assert asked == [mlp.act_fn] * 2


def test_an_activation_whose_forward_was_replaced_is_called():
    from transformers.models.llama import modeling_llama as llama

    mlp = llama.LlamaMLP(transformers.LlamaConfig(**SMALL))
    mlp.act_fn.forward = torch.tanh
    x = torch.randn(1, 1, SMALL["hidden_size"])
    expected = mlp(x)
    torch.testing.assert_close(trident.optimize(mlp)(x), expected)


def test_a_causal_model_trains_saves_and_compiles(tmp_path):
    torch.manual_seed(0)
    model = trident.optimize(transformers.LlamaForCausalLM(transformers.LlamaConfig(**SMALL)))
    tokens = inputs("Llama")["input_ids"]
    loss = model(input_ids=tokens, labels=tokens).loss
    loss.backward()
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(twin) is type(model) and type(twin.model.norm) is type(model.model.norm)
        torch.testing.assert_close(twin(input_ids=tokens, labels=tokens).loss, loss)
    model.save_pretrained(tmp_path)
    again = transformers.LlamaForCausalLM.from_pretrained(tmp_path)
    assert type(again) is transformers.LlamaForCausalLM
    torch.testing.assert_close(again(input_ids=tokens, labels=tokens).loss, loss)
    new = model.eval().generate(tokens, max_new_tokens=3, do_sample=False, attention_mask=torch.ones_like(tokens))
    plain = again.eval().generate(tokens, max_new_tokens=3, do_sample=False, attention_mask=torch.ones_like(tokens))
    assert torch.equal(new, plain)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", most(["Llama", "T5", "Whisper", "GPT2", "Bert", "ViT"], ("GPT2",)))
def test_attention_by_its_name(name, masked):
    model, given = build(name).double(), inputs(name)
    given = {key: t.double() if t.is_floating_point() else t for key, t in given.items()}
    if masked and "input_ids" in given:
        given["attention_mask"] = torch.ones_like(given["input_ids"])
        given["attention_mask"][0, :3] = 0
    expected = run(model, given)
    zoo.register_attention()
    model.set_attn_implementation("trident")
    assert model.config._attn_implementation == "trident"
    torch.testing.assert_close(run(model, given), expected)


@pytest.mark.parametrize("name", most(["Mixtral", "Qwen3Moe"]))
def test_experts_by_their_name(name):
    """As "eager", a loop over experts; in float64, which torch's grouped product does not have."""
    model, given = build(name).double(), inputs(name)
    zoo.register_experts()
    results = []
    for implementation in ("eager", "trident"):
        model.set_experts_implementation(implementation)
        results.append(run(model, given))
    assert model.config._experts_implementation == "trident"
    torch.testing.assert_close(results[1], results[0])


def test_experts_of_the_default_are_redirected():
    model = build("Qwen3Moe")
    model.set_experts_implementation("grouped_mm")
    trident.optimize(model)
    assert model.config._experts_implementation == "grouped_mm"
    seen = set()
    watcher = lambda name, tensors, reason: seen.add(name)  # noqa: E731
    route.WATCHERS.append(watcher)
    try:
        model(**inputs("Qwen3Moe"))
    finally:
        route.WATCHERS.remove(watcher)
    assert {"topk_softmax", "embedding"} <= seen and any(name.startswith("grouped_mm") for name in seen)


@minutes
def test_attention_with_a_soft_cap():
    """As "eager", whose softmax is of float32 whatever the model is of; "sdpa" has no soft cap."""
    model, given = build("Gemma2").double(), inputs("Gemma2")
    results = []
    zoo.register_attention()
    for implementation in ("eager", "trident"):
        model.set_attn_implementation(implementation)
        results.append(run(model, given))
    (eager, _), (ours, gradients) = results  # gradients of a normed sum of squares are what float32 left of nothing
    torch.testing.assert_close(ours, eager, rtol=1e-5, atol=1e-5)
    assert all(g.isfinite().all() for g in gradients.values())


@pytest.mark.parametrize("mask", [None, (2, 1, 1, 9), (2, 4, 1, 9)], ids=str)
def test_attention_of_one_query_of_groups(mask):
    q, k, v = torch.randn(2, 4, 1, 8), torch.randn(2, 2, 9, 8), torch.randn(2, 2, 9, 8)
    mask = None if mask is None else torch.randn(mask) > -1
    expected = nn.functional.scaled_dot_product_attention(q, k, v, mask, enable_gqa=True)
    torch.testing.assert_close(attention(nn.Module(), q, k, v, mask)[0], expected.transpose(1, 2))


def test_attention_refuses_what_it_lacks():
    q = torch.randn(1, 2, 4, 8)
    with pytest.raises(ValueError, match="s_aux"):
        attention(nn.Module(), q, q, q, None, s_aux=torch.zeros(2))


CAUSAL = {
    "Llama": "LlamaForCausalLM",
    "Qwen3": "Qwen3ForCausalLM",
    "Mixtral": "MixtralForCausalLM",
    "GPT2": "GPT2LMHeadModel",
    "Bert": "BertForMaskedLM",
    "T5": "T5ForConditionalGeneration",
}


@pytest.mark.parametrize("name", most(CAUSAL, ("Llama",)))
def test_a_loss_through_lazy_logits(name, monkeypatch):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**MODELS[name][0])
    model = getattr(transformers, CAUSAL[name])(config).eval()
    given = {"input_ids": inputs(name)["input_ids"]}
    given["labels"] = given["input_ids"].masked_fill(given["input_ids"] == 5, -100)
    plain = model(**given)
    plain.loss.backward()
    gradients = {n: p.grad for n, p in model.named_parameters()}
    model.zero_grad()
    with monkeypatch.context() as patch:
        patch.delattr(sys.modules[Logits.__module__], "computed")
        lazy = trident.optimize(model, lazy_logits=True)(**given)
        lazy.loss.backward()
    torch.testing.assert_close(lazy.loss, plain.loss)
    torch.testing.assert_close({n: p.grad for n, p in model.named_parameters()}, gradients, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(torch.as_tensor(lazy.logits.detach()), plain.logits.detach())


@minutes
@pytest.mark.parametrize("name", ["Llama", "T5"])
def test_compiles_whole(name):
    model, given = build(name), inputs(name)
    given["use_cache"] = False
    expected = model(**given).last_hidden_state
    compiled = torch.compile(trident.optimize(model), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(**given).last_hidden_state, expected)


def test_gradient_checkpointing():
    torch.manual_seed(0)
    model = trident.optimize(transformers.LlamaModel(transformers.LlamaConfig(**SMALL)).train())
    expected = run(model, inputs("Llama"))
    model.gradient_checkpointing_enable({"use_reentrant": False})
    torch.testing.assert_close(run(model, inputs("Llama")), expected)


# The page that says what is taken

PAGE = Path(__file__).parents[1] / "docs" / "zoo.md"


def page():
    """docs/zoo.md: written by `python -m tests.test_zoo`."""
    of_others = layers()
    lines = [
        "# What of other libraries is taken",
        "",
        f"Written by `python -m tests.test_zoo` with transformers {transformers.__version__}. Classes of torch.nn that",
        "Trident has are swapped in every model; beside them these are the library's own, told by their source, whose",
        "forward gets Trident's kernels ([decision 031](decisions/031-classes-by-their-source.md)).",
        "Whatever else a forward calls of torch's functions is redirected.",
        "",
        "| model | classes adapted | of torch.nn |",
        "|---|---|---|",
    ]
    for name in MODELS:
        model = build(name)
        own = {type(m).__name__ for m in model.modules() if not type(m).__module__.startswith("torch.")}
        found = sorted(set(trident.optimize(model, report=True).swapped.values()))
        ours, torchs = ([cls for cls in found if (cls in own) == mine] for mine in (True, False))
        lines.append(f"| {name} | {', '.join(ours)} | {', '.join(torchs)} |")
    lines += ["", "| layer of timm or diffusers | adapted |", "|---|---|"]
    for name, (layer, _) in of_others.items():
        lines.append(f"| {name} | {'yes' if trident.optimize(layer, report=True).swapped.get('') else 'no'} |")
    return "\n".join(lines) + "\n"


def test_the_page_is_what_is_taken():
    text = PAGE.read_text(encoding="utf-8")
    if f"transformers {transformers.__version__}." not in text:
        pytest.skip("the page is of another version of transformers")
    assert text == page(), "python -m tests.test_zoo"


# Told by what the forward says


def like_llama(body, name="forward"):
    """A class of a user's own file: its source is found by the name of the file."""
    source = f"class Norm(nn.Module):\n    def {name}(self, hidden_states):\n{body}"
    file = f"<norm {hash(source)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    namespace = {"torch": torch, "nn": nn, "__name__": "users_file"}
    exec(compile(source, file, "exec"), namespace)
    return namespace["Norm"]


LLAMA = """\
        # a comment, and other spaces
        input_dtype = hidden_states.dtype
        hidden_states = hidden_states.to( torch.float32 )
        variance = hidden_states.pow(2).mean(-1, keepdim=True)
        hidden_states = hidden_states * torch.rsqrt(variance + self.variance_epsilon)
        return self.weight * hidden_states.to(input_dtype)
"""


def test_a_copy_of_the_lines_is_known_and_a_change_is_not():
    assert zoo.adapter(like_llama(LLAMA)).name == "rms_norm"
    for changed in (LLAMA.replace("pow(2)", "pow(4)"), LLAMA + "        # end\n        return None\n"):
        assert zoo.adapter(like_llama(changed)) is None
    assert zoo.adapter(like_llama(LLAMA, "other")) is None


def test_a_function_of_another_file_is_exchanged_in_copies_alone():
    module = sys.modules["transformers.models.llama.modeling_llama"]
    before, attention = module.apply_rotary_pos_emb, module.LlamaAttention
    copied = zoo.rewired(attention.forward)
    assert module.apply_rotary_pos_emb is before and attention.forward is not copied
    assert inspect.signature(copied) == inspect.signature(attention.forward)
    assert copied.__wrapped__.__globals__["apply_rotary_pos_emb"] is not before
    q, k = torch.randn(2, 4, 5, 8), torch.randn(2, 2, 5, 8)
    tables = torch.randn(1, 5, 8), torch.randn(1, 5, 8)
    ours = copied.__wrapped__.__globals__["apply_rotary_pos_emb"]
    for options in ({}, {"unsqueeze_dim": 0}):
        torch.testing.assert_close(ours(q, k, *tables, **options), before(q, k, *tables, **options))
    expected = before(q, k.double(), *tables)
    assert all(map(torch.equal, ours(q, k.double(), *tables), expected)), "what promotes is left to theirs"


def test_a_function_that_changed_is_left(monkeypatch):
    module = sys.modules["transformers.models.llama.modeling_llama"]
    monkeypatch.setattr(module, "rotate_half", lambda x: -x)
    assert zoo.rewired(module.LlamaAttention.forward) is None
    assert zoo.rewired(nn.Linear.forward) is None and zoo.rewired(len) is None


def test_another_torch_is_not_torch():
    cls = like_llama(LLAMA)
    cls.forward.__globals__["torch"] = types.SimpleNamespace()
    zoo.digest.cache_clear()
    assert zoo.adapter(cls) is None


@minutes
def test_no_library_is_imported():
    program = (
        "import sys, torch, trident; trident.optimize(torch.nn.Sequential(torch.nn.GELU())); "
        "sys.exit(any(name in sys.modules for name in ('transformers', 'timm', 'diffusers')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_weights_of_another_dtype_are_left_to_the_class():
    cls = type(build("Llama").norm)
    norm = cls(16)
    x = torch.randn(3, 16, dtype=torch.bfloat16)
    expected = norm(x)
    assert torch.equal(trident.optimize(norm)(x), expected) and expected.dtype == torch.float32


def test_an_activation_with_a_hook_is_called():
    model = build("Llama")
    calls = []
    model.layers[0].mlp.act_fn.register_forward_hook(lambda *_: calls.append(1))
    trident.optimize(model)(**inputs("Llama"))
    assert calls == [1]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
