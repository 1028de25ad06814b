"""Train a small diffusion UNet on scikit-learn's 8x8 digits for some seconds, then draw digits with it.

    python examples/sample_diffusion.py [--steps 600] [--device cuda]

The network learns the straight way from noise to digits (rectified flow) and sampling walks it in 20 steps. Prints how
far drawn images are from the nearest real one, against noise, and two of them. The model is plain torch;
`trident.optimize` is the one line.
"""

import argparse
import math

import torch
import torch.nn.functional as F
from sklearn import datasets
from torch import Tensor, nn

import trident

WIDTH, WALK = 32, 20


class Block(nn.Module):
    """GroupNorm, SiLU, convolution, twice; the time and the digit are added in between."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(8, channels), nn.GroupNorm(8, out)
        self.conv1, self.conv2 = nn.Conv2d(channels, out, 3, padding=1), nn.Conv2d(out, out, 3, padding=1)
        self.hint = nn.Linear(WIDTH, out)
        self.short = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor, hint: Tensor) -> Tensor:
        y = self.conv1(F.silu(self.norm1(x))) + self.hint(hint)[:, :, None, None]
        return self.conv2(F.silu(self.norm2(y))) + self.short(x)


class UNet(nn.Module):
    """Images [B, 1, 8, 8] on their way, the time [B] in 0..1 and the digits [B] -> where the way leads."""

    def __init__(self) -> None:
        super().__init__()
        self.digit, self.time = nn.Embedding(10, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.enter, self.leave = nn.Conv2d(1, WIDTH, 3, padding=1), nn.Conv2d(WIDTH, 1, 3, padding=1)
        self.first, self.last = Block(WIDTH, WIDTH), Block(3 * WIDTH, WIDTH)
        self.shrink, self.low = nn.Conv2d(WIDTH, 2 * WIDTH, 3, 2, 1), Block(2 * WIDTH, 2 * WIDTH)
        self.attention = nn.MultiheadAttention(2 * WIDTH, 4, batch_first=True)

    def forward(self, x: Tensor, time: Tensor, digit: Tensor) -> Tensor:
        waves = time[:, None] * torch.logspace(0, 3, WIDTH // 2, device=x.device)
        hint = F.silu(self.time(torch.cat((waves.sin(), waves.cos()), -1)) + self.digit(digit))
        kept = self.first(self.enter(x), hint)
        y = self.low(self.shrink(kept), hint)
        places = y.flatten(2).transpose(1, 2)
        y = y + self.attention(places, places, places, need_weights=False)[0].transpose(1, 2).view_as(y)
        y = F.interpolate(y, scale_factor=2.0, mode="nearest")
        return self.leave(F.silu(self.last(torch.cat((y, kept), 1), hint)))


def train(model: nn.Module, images: Tensor, digits: Tensor, steps: int) -> float:
    """The mean loss of the last tenth."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for _ in range(steps):
        chosen = torch.randint(len(images), (64,), device=images.device)
        image, noise = images[chosen], torch.randn_like(images[chosen])
        time = torch.rand(64, device=images.device)
        part = time[:, None, None, None]
        loss = F.mse_loss(model((1 - part) * noise + part * image, time, digits[chosen]), image - noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    last = losses[-math.ceil(steps / 10) :]
    return sum(last) / len(last)


@torch.no_grad()
def sample(model: nn.Module, digits: Tensor) -> Tensor:
    x = torch.randn(len(digits), 1, 8, 8, device=digits.device)
    for i in range(WALK):
        x = x + model(x, torch.full((len(x),), i / WALK, device=x.device), digits) / WALK
    return x


def nearest(found: Tensor, real: Tensor) -> float:
    """Root mean square of a pixel's distance to the nearest real image's."""
    return (torch.cdist(found.flatten(1), real.flatten(1)).amin(1) / 8).mean().item()


def drawn(image: Tensor) -> str:
    return "\n".join(
        "".join(" .:-=+*#%@"[int(p)] * 2 for p in row) for row in ((image + 1) * 4.99).clamp(0, 9).tolist()
    )


def main(steps: int, device: str) -> tuple[float, float]:
    torch.manual_seed(0)
    images, digits = (torch.tensor(t, device=device) for t in datasets.load_digits(return_X_y=True))
    images = (images.float() / 8 - 1).view(-1, 1, 8, 8)
    model = trident.optimize(UNet().to(device))
    loss = train(model.train(), images, digits, steps)
    asked = torch.arange(50, device=device) % 10
    found = sample(model.eval(), asked)
    near, far = nearest(found, images), nearest(torch.randn_like(found), images)
    print(f"loss {loss:.3f}; from the nearest digit: {near:.3f} drawn, {far:.3f} noise")
    print(drawn(found[0, 0]), drawn(found[7, 0]), sep="\n\n")
    return near, far


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    main(**vars(parser.parse_args()))
