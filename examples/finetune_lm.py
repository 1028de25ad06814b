"""Fine-tune a causal language model on text that scikit-learn ships: descriptions of its data sets, byte by byte.

    python examples/finetune_lm.py [--steps 200] [--device cuda]

Pretrains on four descriptions, then continues on a fifth one and prints the loss on the rest of that one, before and
after. The model is plain torch; `trident.optimize` and `trident.optim` are the two words.
"""

import argparse

import torch
import torch.nn.functional as F
from sklearn import datasets
from torch import Tensor, nn

import trident

CONTEXT, WIDTH, HEADS, LAYERS = 64, 64, 4, 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.mlp_norm = nn.RMSNorm(WIDTH), nn.RMSNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH, bias=False), nn.Linear(WIDTH, WIDTH, bias=False)
        self.gate_up, self.down = nn.Linear(WIDTH, 8 * WIDTH, bias=False), nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, L, _ = x.shape
        q, k, v = self.qkv(self.attention_norm(x)).view(B, L, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        up, gate = self.gate_up(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.down(up * F.silu(gate))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(256, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.RMSNorm(WIDTH), nn.Linear(WIDTH, 256, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """[B, L] -> the loss of predicting each token from those before it."""
        x = self.tokens(tokens[:, :-1]) + self.places.weight[: tokens.shape[1] - 1]
        logits = self.head(self.norm(self.blocks(x)))
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def text(name: str, device: str) -> Tensor:
    return torch.tensor(list(getattr(datasets, f"load_{name}")().DESCR.encode()), device=device)


def train(model: nn.Module, tokens: Tensor, steps: int, lr: float) -> None:
    optimizer = trident.optim.AdamW(model.parameters(), lr=lr)
    for _ in range(steps):
        starts = torch.randint(len(tokens) - CONTEXT, (16,), device=tokens.device)
        loss = model(tokens[starts[:, None] + torch.arange(CONTEXT, device=tokens.device)])
        optimizer.zero_grad()
        loss.backward()
        trident.optim.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


@torch.no_grad()
def evaluate(model: nn.Module, tokens: Tensor) -> float:
    whole = tokens[: len(tokens) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    return model(whole).item()


def main(steps: int, device: str) -> tuple[float, float]:
    torch.manual_seed(0)
    model = trident.optimize(Model().to(device))
    base = torch.cat([text(name, device) for name in ("iris", "wine", "digits", "linnerud")])
    train(model, base, steps, 3e-3)
    pieces = text("breast_cancer", device).split(4 * CONTEXT)
    mine, held_out = torch.cat(pieces[::2]), torch.cat(pieces[1::2])
    before = evaluate(model, held_out)
    train(model, mine, steps // 2, 1e-3)
    after = evaluate(model, held_out)
    print(f"loss a byte of the held-out half: {before:.3f} before, {after:.3f} after fine-tuning")
    return before, after


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    main(**vars(parser.parse_args()))
