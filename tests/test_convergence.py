"""Mini models trained for 50 steps: the losses lie as near to float64's as those of torch's own float32.

What the rounding of one run may do to a loss is measured, not assumed: the same model in torch's float32 and float64.
"""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import trident
from trident.cases.case import EVERYTHING

pytestmark = pytest.mark.once

WIDTH, HEADS, CLASSES, STEPS = 16, 2, 5, 50


class Block(nn.Module):
    """llama: RMSNorm, SwiGLU, causal. gpt: LayerNorm, tanh's GELU, causal. bert: norms after the sums. vit: before."""

    def __init__(self, kind):
        super().__init__()
        norm = nn.RMSNorm if kind == "llama" else nn.LayerNorm
        self.kind, self.norms = kind, nn.ModuleList([norm(WIDTH), norm(WIDTH)])
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, (4 if kind == "llama" else 2) * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def attend(self, x):
        B, L, _ = x.shape
        q, k, v = self.qkv(x).view(B, L, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.kind in ("llama", "gpt"))
        return self.out(y.transpose(1, 2).flatten(2))

    def feed(self, x):
        x = self.up(x)
        if self.kind == "llama":
            value, gate = x.chunk(2, -1)
            return self.down(value * F.silu(gate))
        return self.down(F.gelu(x, approximate="tanh" if self.kind == "gpt" else "none"))

    def forward(self, x):
        if self.kind == "bert":
            x = self.norms[0](x + self.attend(x))
            return self.norms[1](x + self.feed(x))
        x = x + self.attend(self.norms[0](x))
        return x + self.feed(self.norms[1](x))


class Transformer(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.enter = nn.Conv2d(1, WIDTH, 4, 4) if kind == "vit" else nn.Embedding(CLASSES, WIDTH)
        self.blocks = nn.Sequential(Block(kind), Block(kind))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, CLASSES)

    def forward(self, x):
        x = self.enter(x)
        x = x.flatten(2).transpose(1, 2) if self.kind == "vit" else x
        x = self.norm(self.blocks(x))
        return self.head(x.mean(1) if self.kind == "vit" else x).flatten(0, -2)


class ResNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.pool = nn.Conv2d(1, 8, 3, padding=1), nn.MaxPool2d(2)
        self.convolutions = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(2))
        self.norms = nn.ModuleList(nn.BatchNorm2d(8) for _ in range(2))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.pool(self.stem(x))
        y = self.norms[0](self.convolutions[0](x)).relu()
        x = F.relu(x + self.norms[1](self.convolutions[1](y)))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


MODELS = {kind: lambda kind=kind: Transformer(kind) for kind in ("llama", "gpt", "bert", "vit")} | {"resnet": ResNet}


def batches(kind, dtype):
    """Images whose mean tells their class; sequences that count, and ask for the next number or for hidden ones."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        if kind in ("vit", "resnet"):
            target = torch.randint(CLASSES, (16,), generator=generator)
            noise = torch.randn(16, 1, 8, 8, generator=generator, dtype=torch.float64)
            yield (noise + target.view(-1, 1, 1, 1)).to(dtype), target
            continue
        tokens = (torch.randint(CLASSES, (8, 1), generator=generator) + torch.arange(9)) % CLASSES
        if kind == "bert":
            hidden = torch.rand(tokens.shape, generator=generator) < 0.3
            yield tokens.masked_fill(hidden, 0), tokens.flatten()
        else:
            yield tokens[:, :-1], tokens[:, 1:].flatten()


def losses(kind, dtype, change=lambda model: model):
    torch.manual_seed(0)
    model = change(MODELS[kind]().to(dtype))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    found = []
    for x, target in batches(kind, dtype):
        loss = F.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("kind", MODELS if EVERYTHING else ["llama"])  # 20 seconds each
def test_fifty_steps(kind):
    exact, theirs = losses(kind, torch.float64), losses(kind, torch.float32)
    ours = losses(kind, torch.float32, trident.optimize)
    assert exact[-5:].mean() < 0.6 * math.log(CLASSES), "it learns"
    rounding = torch.finfo(torch.float32).eps * exact.amax()
    assert (ours - exact).abs().amax() <= 4 * (theirs - exact).abs().amax() + 4 * rounding
