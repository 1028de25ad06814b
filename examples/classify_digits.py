"""Train a convolutional classifier of scikit-learn's handwritten digits.

python examples/classify_digits.py [--epochs 8] [--device cuda]
"""

import argparse

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import trident


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(32), nn.BatchNorm2d(64)])
        self.head = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1, 8, 8] -> [B, 10]"""
        x = F.max_pool2d(F.relu(self.norms[0](self.first(x))), 2)
        x = F.gelu(self.norms[1](self.second(x)))
        return self.head(x.mean((2, 3)))


def main(epochs: int, device: str) -> float:
    torch.manual_seed(0)
    digits = load_digits()
    x = torch.tensor(digits.images, dtype=torch.float32, device=device)[:, None] / 16
    y = torch.tensor(digits.target, device=device)
    order = torch.randperm(len(x), device=device)
    test, rest = order[:360], order[360:]

    model = trident.optimize(Net().to(device, memory_format=torch.channels_last))
    print(trident.optimize(model, report=True))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    steps = epochs * -(-len(rest) // 128)  # batches of 128
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for epoch in range(epochs):
        for batch in rest[torch.randperm(len(rest), device=device)].split(128):
            loss = F.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}")
    model.eval()
    with torch.no_grad():
        accuracy = (model(x[test]).argmax(1) == y[test]).float().mean().item()
    print(f"{accuracy:.1%} of {len(test)} unseen digits are right")
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    main(**vars(parser.parse_args()))
