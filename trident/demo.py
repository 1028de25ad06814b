"""`python -m trident demo`: the same small vision transformer trained with torch.nn and after `trident.optimize`.

Real images (scikit-learn's 1,797 handwritten digits, 8x8), the same seed, the same batches. Nothing is downloaded.
Three runs take their steps in turns, so that a busy machine is as busy for each: torch.nn, Trident as a user gets it,
and Trident with every operator forced into a kernel, also where torch's own is faster.
"""

import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
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
    "native": {"steps": 150, "width": 96, "depth": 2, "batch": 128},
    "gpu": {"steps": 1000, "width": 128, "depth": 4, "batch": 256},
}


CONTENDERS = {"torch.nn": "torch", "Trident": "auto", "Trident, all kernels": "kernels"}  # name -> route's policy


class Block(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.RMSNorm(width), nn.RMSNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.softmax = nn.Softmax(dim=-1)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))

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
        self.norm, self.pool, self.head = nn.RMSNorm(width), nn.AdaptiveAvgPool1d(1), nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:  # [B, 8, 8]
        patches = images.unfold(1, 2, 2).unfold(2, 2, 2).reshape(-1, 16, 4)
        x = self.norm(self.blocks(self.patch(patches) + self.position))
        return self.head(self.pool(x.mT).flatten(1))


@dataclass
class Run:
    """One contender. policy: where `route` sends its operators."""

    policy: str
    report: Report | None = None
    losses: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)  # per step
    accuracy: float = 0.0


def digits(device: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, test images and labels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32, device=device) / 16
    labels = torch.tensor(data.target, device=device)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)).to(device)
    images, labels = images[order], labels[order]
    return images[:1500], labels[:1500], images[1500:], labels[1500:]


def train(run: Run, device: str, size: dict[str, int]) -> Iterator[None]:
    """One step each time it is asked for another one, all under the run's policy; the accuracy after the last."""
    images, labels, test_images, test_labels = digits(device)
    torch.manual_seed(0)
    model, loss_of = ViT(size["width"], size["depth"]).to(device), nn.CrossEntropyLoss()
    if run.policy != "torch":
        run.report = trident.optimize(nn.ModuleList([model, loss_of]), report=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    batches = torch.Generator().manual_seed(1)
    for _ in range(size["steps"]):
        pick = torch.randint(len(images), (size["batch"],), generator=batches).to(device)
        with route.forced(run.policy):
            start = time.perf_counter()
            loss = loss_of(model(images[pick]), labels[pick])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.losses.append(loss.item())
            run.seconds.append(time.perf_counter() - start)
        yield
    with torch.no_grad(), route.forced(run.policy):
        run.accuracy = (model.eval()(test_images).argmax(1) == test_labels).float().mean().item()


def draw(runs: dict[str, Run], out: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (name, run), style in zip(runs.items(), ("-", "--", ":"), strict=True):
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
    runs = {name: Run(policy) for name, policy in CONTENDERS.items()}
    with Progress(transient=not sys.stdout.isatty()) as progress:
        task = progress.add_task("training", total=size["steps"])
        for _ in zip_longest(*(train(run, device, size) for run in runs.values())):
            progress.advance(task)
    draw(runs, out)
    tell(runs, how, device, out)
    return 0


def tell(runs: dict[str, Run], how: str, device: str, out: Path) -> None:
    theirs = runs["torch.nn"]
    swapped = next(run.report.swapped for run in runs.values() if run.report)
    print(f"executor              {how} ({device})")
    print(f"modules swapped       {len(swapped)}: {', '.join(sorted(set(swapped.values())))}")
    for name, run in runs.items():
        step = statistics.median(run.seconds)
        differ = max(abs(a - b) for a, b in zip(theirs.losses, run.losses, strict=True))
        print(
            f"{name:21} median step {step * 1e3:.2f} ms, {statistics.median(theirs.seconds) / step:.2f}x; accuracy "
            f"{run.accuracy:.1%}, last loss {run.losses[-1]:.4f}; "
            f"at most {differ:.1e} from torch's curve"
        )
    print("                      (all kernels: also where Trident by itself leaves a call to torch as the faster one)")
    print(f"picture               {out}")
