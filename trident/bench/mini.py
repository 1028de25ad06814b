"""Eight architectures in plain torch.nn, small: what tests train and `python -m trident bench --model` times.

    python -m trident bench --backward --model trident.bench.mini:llama

They are written as their libraries write them (functions where those call functions), so that what `trident.optimize`
finds in them is what it finds there.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BATCH = 2  # of the examples for the bench


def rotated(x: Tensor) -> Tensor:
    """x [B, H, L, E] turned by its positions, as GPT-NeoX and Llama pair the elements."""
    L, E = x.shape[-2:]
    dtype = torch.promote_types(x.dtype, torch.float32)
    steps = torch.arange(0, E, 2, device=x.device, dtype=dtype)
    angles = torch.arange(L, device=x.device, dtype=dtype)[:, None] * 10000 ** (-steps / E)
    cos, sin = (f(torch.cat((angles, angles), -1)).to(x.dtype) for f in (torch.cos, torch.sin))
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-right, left), -1) * sin


class Attention(nn.Module):
    """few: heads of keys for `heads` of queries. unit: norms of queries and keys. near: T5's learned distances."""

    def __init__(
        self, width: int, heads: int, few: int = 0, causal: bool = False, rotary: bool = False, unit: bool = False,
        near: bool = False, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.heads, self.few, self.causal, self.rotary = heads, few or heads, causal, rotary
        each = width // heads
        self.q, self.out = nn.Linear(width, width, bias=bias), nn.Linear(width, width, bias=bias)
        self.k, self.v = (nn.Linear(width, self.few * each, bias=bias) for _ in range(2))
        self.norms = nn.ModuleList(nn.RMSNorm(each) for _ in range(2 * unit))
        self.distances = nn.Embedding(15, heads) if near else None

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        memory = x if memory is None else memory
        q, k, v = (
            f(t).view(*t.shape[:2], h, -1).transpose(1, 2)
            for f, t, h in ((self.q, x, self.heads), (self.k, memory, self.few), (self.v, memory, self.few))
        )
        if self.norms:
            q, k = self.norms[0](q), self.norms[1](k)
        if self.rotary:
            q, k = rotated(q), rotated(k)
        mask, causal = None, self.causal and memory is x
        if self.distances is not None and memory is x:
            places = torch.arange(x.shape[1], device=x.device)
            apart = places[None, :] - places[:, None]
            mask = self.distances(apart.clamp(-7, 7) + 7).permute(2, 0, 1)[None]
            if causal:
                mask, causal = mask.masked_fill(apart > 0, torch.finfo(mask.dtype).min), False
            mask = mask.to(q.dtype)
        y = F.scaled_dot_product_attention(q, k, v, mask, 0.0, causal, enable_gqa=self.few != self.heads)
        return self.out(y.transpose(1, 2).flatten(2))


class Gated(nn.Module):
    """down(act(gate) up), as Llama and T5 have it"""

    def __init__(self, width: int, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gate, self.up = (nn.Linear(width, 3 * width, bias=False) for _ in range(2))
        self.down, self.act = nn.Linear(3 * width, width, bias=False), act

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.down(self.act(self.gate(x)) * self.up(x))
        return y


def _mlp(width: int, approximate: str = "none") -> nn.Module:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(approximate), nn.Linear(4 * width, width))


class Block(nn.Module):
    """x + f(norm(x)) for each f; `after`: norm(x + f(x)), as BERT."""

    def __init__(self, width: int, norm: type[nn.Module], *parts: nn.Module, after: bool = False) -> None:
        super().__init__()
        self.parts, self.after = nn.ModuleList(parts), after
        self.norms = nn.ModuleList(norm(width) for _ in parts)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        for i, (norm, part) in enumerate(zip(self.norms, self.parts, strict=True)):
            across = (memory,) if i == 1 and memory is not None else ()
            x = norm(x + part(x, *across)) if self.after else x + part(norm(x), *across)
        return x


class Language(nn.Module):
    """Tokens [B, L] -> logits [B, L, words]. tied: the head's weight is the table's."""

    def __init__(self, words: int, width: int, blocks: list[Block], places: int = 0, tied: bool = False) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(places, width) if places else None
        self.blocks, self.norm = nn.ModuleList(blocks), type(blocks[0].norms[0])(width)
        self.head = nn.Linear(width, words, bias=False)
        nn.init.normal_(self.words.weight, std=0.1 if tied else 0.5)
        if self.places is not None:
            nn.init.normal_(self.places.weight, std=0.02)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        if self.places is not None:
            x = x + self.places.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        y: Tensor = self.head(self.norm(x))
        return y


class T5(nn.Module):
    """What is read, and what was written so far -> logits of what is written next."""

    def __init__(self, words: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)

        def block(causal: bool) -> Block:
            own = Attention(width, heads, causal=causal, near=True, bias=False)
            across = [Attention(width, heads, bias=False)] if causal else []
            feed = Gated(width, functools.partial(F.gelu, approximate="tanh"))
            return Block(width, nn.RMSNorm, own, *across, feed)

        self.reader = nn.ModuleList(block(False) for _ in range(layers))
        self.writer = nn.ModuleList(block(True) for _ in range(layers))
        self.norms, self.head = nn.ModuleList(nn.RMSNorm(width) for _ in range(2)), nn.Linear(width, words, bias=False)

    def forward(self, tokens: Tensor, written: Tensor) -> Tensor:
        memory, x = self.words(tokens), self.words(written)
        for block in self.reader:
            memory = block(memory)
        memory = self.norms[0](memory)
        for block in self.writer:
            x = block(x, memory)
        y: Tensor = self.head(self.norms[1](x))
        return y


class ViT(nn.Module):
    def __init__(self, classes: int, size: int, patch: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.enter, self.first = nn.Conv2d(3, width, patch, patch), nn.Parameter(torch.zeros(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, (size // patch) ** 2 + 1, width) * 0.02)
        self.blocks = nn.Sequential(
            *(Block(width, nn.LayerNorm, Attention(width, heads), _mlp(width)) for _ in range(layers))
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, images: Tensor) -> Tensor:
        x = self.enter(images).flatten(2).transpose(1, 2)
        x = torch.cat((self.first.expand(len(x), -1, -1), x), 1) + self.places
        y: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return y


class Residual(nn.Module):
    """ResNet's basic block."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
        short = [nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out)] if channels != out else []
        self.short = nn.Sequential(*short)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.short(x))


def _resnet(classes: int, width: int, stages: int) -> nn.Module:
    stem = (nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
    body = [Residual(width << max(i - 1, 0), width << i, 1 + (i > 0)) for i in range(stages)]
    return nn.Sequential(*stem, *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width << stages - 1, classes))


class Noisy(nn.Module):
    """GroupNorm, SiLU, convolution, twice, with the time added in between: the block of diffusion's UNets."""

    def __init__(self, channels: int, out: int, time: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(4, channels), nn.GroupNorm(4, out)
        self.conv1, self.conv2 = nn.Conv2d(channels, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.time = nn.Linear(time, out)
        self.short = nn.Conv2d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.time(F.silu(time))[:, :, None, None]
        y = self.conv2(F.silu(self.norm2(y))) + self.short(x)
        return y


class UNet(nn.Module):
    """Noisy images [B, C, H, W] and their times [B] in 0..1 -> the noise in them."""

    def __init__(self, channels: int, width: int, heads: int = 2) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(width, 4 * width), nn.SiLU(), nn.Linear(4 * width, 4 * width))
        self.enter, self.leave = nn.Conv2d(channels, width, 3, padding=1), nn.Conv2d(width, channels, 3, padding=1)
        self.first, self.last = Noisy(width, width, 4 * width), Noisy(2 * width, width, 4 * width)
        self.shrink = nn.Conv2d(width, width, 3, 2, 1)
        self.low, self.back = Noisy(width, 2 * width, 4 * width), Noisy(2 * width, width, 4 * width)
        self.attention, self.attention_norm = Attention(2 * width, heads), nn.GroupNorm(4, 2 * width)
        self.norm = nn.GroupNorm(4, width)

    def forward(self, x: Tensor, when: Tensor) -> Tensor:
        half = self.enter.out_channels // 2
        waves = when[:, None] * 1000 ** torch.linspace(0, 1, half, dtype=x.dtype, device=x.device)
        time = self.time(torch.cat((waves.sin(), waves.cos()), -1))
        x = self.enter(x)
        kept = self.first(x, time)
        y = self.low(self.shrink(kept), time)
        z = self.attention(self.attention_norm(y).flatten(2).transpose(1, 2)).transpose(1, 2)
        y = self.back(y + z.reshape(y.shape), time)
        y = F.interpolate(y, scale_factor=2.0, mode="nearest")
        y = self.last(torch.cat((y, kept), 1), time)
        return self.leave(F.silu(self.norm(y)))


def _decoder(words: int, width: int, heads: int, layers: int, unit: bool) -> nn.Module:
    def block() -> Block:
        attention = Attention(width, heads, heads // 2, causal=True, rotary=True, unit=unit, bias=False)
        return Block(width, nn.RMSNorm, attention, Gated(width, F.silu))

    return Language(words, width, [block() for _ in range(layers)])


def _gpt2(words: int, width: int, heads: int, layers: int, places: int) -> nn.Module:
    blocks = [
        Block(width, nn.LayerNorm, Attention(width, heads, causal=True), _mlp(width, "tanh")) for _ in range(layers)
    ]
    return Language(words, width, blocks, places, tied=True)


def _bert(words: int, width: int, heads: int, layers: int, places: int) -> nn.Module:
    blocks = [Block(width, nn.LayerNorm, Attention(width, heads), _mlp(width), after=True) for _ in range(layers)]
    return Language(words, width, blocks, places)


class Size(NamedTuple):
    words: int  # or classes
    width: int
    heads: int
    layers: int
    length: int  # tokens, or pixels along an edge
    patch: int = 4


SMALL, REAL = Size(7, 16, 2, 2, 9), Size(4096, 256, 8, 4, 256)
REAL_IMAGES = {"vit": Size(100, 192, 3, 4, 224, 16), "resnet": Size(100, 64, 1, 4, 64), "unet": Size(3, 64, 4, 1, 32)}
SMALL_IMAGES = {"vit": Size(5, 16, 2, 2, 8), "resnet": Size(5, 8, 1, 2, 8), "unet": Size(1, 16, 2, 1, 8)}

MODELS: dict[str, Callable[[Size], nn.Module]] = {
    "llama": lambda s: _decoder(s.words, s.width, s.heads, s.layers, unit=False),
    "qwen3": lambda s: _decoder(s.words, s.width, s.heads, s.layers, unit=True),
    "gpt2": lambda s: _gpt2(s.words, s.width, s.heads, s.layers, s.length),
    "bert": lambda s: _bert(s.words, s.width, s.heads, s.layers, s.length),
    "t5": lambda s: T5(s.words, s.width, s.heads, s.layers),
    "vit": lambda s: ViT(s.words, s.length, s.patch, s.width, s.heads, s.layers),
    "resnet": lambda s: _resnet(s.words, s.width, s.layers),
    "unet": lambda s: UNet(s.words, s.width, s.heads),
}


def model(name: str, small: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[name](size(name, small))


def size(name: str, small: bool) -> Size:
    return (SMALL_IMAGES if small else REAL_IMAGES).get(name, SMALL if small else REAL)


def inputs(name: str, count: int, small: bool = False) -> list[Tensor]:
    """Random ones: what the model takes."""
    s = size(name, small)
    if name in REAL_IMAGES:
        images = torch.randn(count, s.words if name == "unet" else 3, s.length, s.length)
        return [images, torch.rand(count)] if name == "unet" else [images]
    return [torch.randint(s.words, (count, s.length)) for _ in range(1 + (name == "t5"))]


def _example(name: str) -> tuple[nn.Module, Any]:
    return model(name).train(), inputs(name, 4 if name in REAL_IMAGES else BATCH)


llama, qwen3, gpt2, bert, t5, vit, resnet, unet = (functools.partial(_example, name) for name in MODELS)
