"""Train a small transformer over several processes with FSDP2: parameters, gradients and optimizer state are sharded.

    torchrun --nproc-per-node 2 examples/train_fsdp.py [--steps 20]

Runs on CPUs (gloo) and GPUs (nccl) as it stands. `trident.optimize` comes before `fully_shard`.
"""

import argparse
import os

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

import trident

WIDTH, HEADS, LENGTH, LAYERS = 64, 4, 32, 2


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        B, L, _ = x.shape
        q, k, v = self.qkv(self.norms[0](x)).view(B, L, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norms[1](x))))


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, LENGTH)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False)  # activations are computed again in the backward
        return self.head(self.norm(x))


def batch(rank: int, step: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Counting up from a random number, modulo LENGTH: what comes next?"""
    generator = torch.Generator().manual_seed(1000 * step + rank)
    start = torch.randint(LENGTH, (8, 1), generator=generator)
    numbers = ((start + torch.arange(LENGTH + 1)) % LENGTH).to(device)
    return numbers[:, :-1], numbers[:, 1:]


def main(steps: int) -> None:
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if on_gpu else "gloo")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))

    torch.manual_seed(0)
    model = trident.optimize(Model().to(device))
    for block in model.blocks:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)

    optimizer = trident.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        x, target = batch(dist.get_rank(), step, device)
        loss = F.cross_entropy(model(x).flatten(0, 1), target.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        dist.all_reduce(loss.detach_(), dist.ReduceOp.SUM)
        if dist.get_rank() == 0:
            print(f"step {step}: loss {loss.item() / dist.get_world_size():.4f}", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    main(**vars(parser.parse_args()))
