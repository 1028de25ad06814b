"""`python -m trident demo`: the same small vision transformer trained with torch.nn and after `trident.optimize`.

Real images (scikit-learn's 1,797 handwritten digits, 8x8), the same seed, the same batches. Nothing is downloaded.
"""

import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

import trident
from trident.optimize import Report
from trident.runtime import route
from trident.runtime.launch import executor

# Steps and sizes that end well under two minutes on two cores. The interpreter runs kernels as Python.
SIZES = {
    "interpreter": {"steps": 30, "width": 32, "depth": 1, "batch": 64},
    "native": {"steps": 200, "width": 64, "depth": 2, "batch": 128},
    "gpu": {"steps": 1000, "width": 128, "depth": 4, "batch": 256},
}


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.softmax = nn.Softmax(dim=-1)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:  # [B, T, C]
        B, T, C = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        weights = self.softmax(q @ k.mT / (C // self.heads) ** 0.5)
        x = x + self.out((weights @ v).transpose(1, 2).reshape(B, T, C))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """8x8 images as 16 patches of 2x2; the mean of the tokens is classified."""

    def __init__(self, width: int, depth: int):
        super().__init__()
        self.patch, self.position = nn.Linear(4, width), nn.Parameter(torch.randn(16, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads=4) for _ in range(depth)))
        self.norm, self.pool, self.head = nn.LayerNorm(width), nn.AdaptiveAvgPool1d(1), nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:  # [B, 8, 8]
        patches = images.unfold(1, 2, 2).unfold(2, 2, 2).reshape(-1, 16, 4)
        x = self.norm(self.blocks(self.patch(patches) + self.position))
        return self.head(self.pool(x.mT).flatten(1))


@dataclass
class Run:
    losses: list[float]
    seconds: list[float]  # per step
    accuracy: float
    report: Report | None


def digits(device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, test images and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32, device=device) / 16
    labels = torch.tensor(data.target, device=device)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).to(device)
    images, labels = images[order], labels[order]
    return images[:1500], labels[:1500], images[1500:], labels[1500:]


def train(with_trident: bool, device: str, size: dict[str, int], advance) -> Run:
    images, labels, test_images, test_labels = digits(device)
    torch.manual_seed(0)
    model, loss_of = ViT(size["width"], size["depth"]).to(device), nn.CrossEntropyLoss()
    report = trident.optimize(nn.ModuleList([model, loss_of]), report=True) if with_trident else None
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    batches = torch.Generator().manual_seed(1)
    losses, seconds = [], []
    for _ in range(size["steps"]):
        pick = torch.randint(len(images), (size["batch"],), generator=batches).to(device)
        start = time.perf_counter()
        loss = loss_of(model(images[pick]), labels[pick])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        seconds.append(time.perf_counter() - start)
        advance()
    with torch.no_grad():
        accuracy = (model(test_images).argmax(1) == test_labels).float().mean().item()
    return Run(losses, seconds, accuracy, report)


def draw(runs: dict[str, Run], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (name, run), style in zip(runs.items(), ("-", "--"), strict=True):
        axes.plot(run.losses, style, label=f"{name}: accuracy {run.accuracy:.1%}", linewidth=2, alpha=0.8)
    axes.set(xlabel="step", ylabel="cross entropy", title="The same loss curve: torch.nn and Trident", yscale="log")
    axes.legend()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)


def main(out: Path, steps: int | None = None, device: str | None = None) -> int:
    try:
        import matplotlib  # noqa: F401
        import sklearn  # noqa: F401
        from rich.progress import Progress
    except ImportError as error:
        print(f'{error.name} is missing; install it with: pip install "trident-kernels[demo]"', file=sys.stderr)
        return 1
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    how = executor(torch.device(device).type)
    if how is None:
        print(f"Trident has no executor for {device}; see: python -m trident doctor", file=sys.stderr)
        return 1
    size = SIZES[how] | ({"steps": steps} if steps else {})
    runs = {}
    with Progress(transient=not sys.stdout.isatty()) as progress:
        for name in ("torch.nn", "Trident"):
            task = progress.add_task(f"{name:9}", total=size["steps"])
            with route.forced("kernels"):  # the model is tiny: by itself Trident would send most of it to torch
                runs[name] = train(name == "Trident", device, size, lambda task=task: progress.advance(task))
    draw(runs, out)
    tell(runs, how, device, out)
    return 0


def tell(runs: dict[str, Run], how: str, device: str, out: Path) -> None:
    theirs, ours = runs["torch.nn"], runs["Trident"]
    difference = max(abs(a - b) for a, b in zip(theirs.losses, ours.losses, strict=True))
    swapped = ours.report.swapped if ours.report else {}
    print(f"executor            {how} ({device})")
    print(f"modules swapped     {len(swapped)}: {', '.join(sorted(set(swapped.values())))}")
    for name, run in runs.items():
        step = statistics.median(run.seconds) * 1e3
        print(f"{name:19} accuracy {run.accuracy:.1%}, last loss {run.losses[-1]:.4f}, median step {step:.2f} ms")
    print(
        "                    (every operator in a kernel; unforced, Trident sends calls to torch where that is faster)"
    )
    print(f"loss curves         differ by at most {difference:.1e}")
    print(f"picture             {out}")
