"""Real architectures with small random weights, for `python -m trident bench --model trident.bench.models:vit`.

They need timm or transformers: pip install timm transformers.
"""

from typing import Any

import torch

Example = tuple[torch.nn.Module, Any]


def mend_torchvision() -> None:
    """timm and transformers import torchvision, whose CUDA build does not load its operators beside a CPU torch and
    then fails for want of their names. None of the examples calls one."""
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return
    except RuntimeError:
        for name in ("nms", "qnms"):
            torch.library.define(f"torchvision::{name}", "(Tensor dets, Tensor scores, float threshold) -> Tensor")


def _timm(name: str, size: int, **options: Any) -> Example:
    mend_torchvision()
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, **options).train()
    return model, torch.randn(4, 3, size, size)


def resnet() -> Example:
    """ResNet-18 on 64x64 images."""
    return _timm("resnet18", 64)


def vit() -> Example:
    """ViT-Tiny of 4 blocks on 224x224 images."""
    return _timm("vit_tiny_patch16_224", 224, depth=4)


def llama() -> Example:
    """A Llama of 4 layers, 256 wide."""
    mend_torchvision()
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=4096,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        use_cache=False,
    )
    return LlamaForCausalLM(config).train(), {"input_ids": torch.randint(4096, (2, 256))}


def bert() -> Example:
    """A BERT of 4 layers, 256 wide; with dropout."""
    mend_torchvision()
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=4096, hidden_size=256, num_hidden_layers=4, num_attention_heads=8, intermediate_size=1024
    )
    return BertForMaskedLM(config).train(), {"input_ids": torch.randint(4096, (2, 256))}
