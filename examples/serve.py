"""Export a model with Trident's operators in its graph, save it, load it where only torch and trident are, and run it.

    python examples/serve.py model.pt2 [--batch 5]

Who serves needs no source of the model: the file holds the graph and the weights. The batch size stays free.
"""

import argparse
from pathlib import Path

import torch
from torch import nn

import trident


def export(path: Path) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.LayerNorm(64), nn.Linear(64, 4), nn.Softmax(-1)).eval()
    trident.optimize(model)
    batch = torch.export.Dim("batch", min=2)
    with torch.no_grad():
        program = torch.export.export(model, (torch.randn(8, 16),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return model


def serve(path: Path, x: torch.Tensor) -> torch.Tensor:
    program = torch.export.load(path)  # `import trident` has registered the operators that the graph calls
    with torch.no_grad():
        return program.module()(x)


def main(path: Path, batch: int) -> None:
    model = export(path)
    x = torch.randn(batch, 16)
    y = serve(path, x)
    torch.testing.assert_close(y, model(x))
    print(f"{path}: {path.stat().st_size} bytes, {list(x.shape)} -> {list(y.shape)}, as the model itself")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--batch", type=int, default=5)
    main(**vars(parser.parse_args()))
