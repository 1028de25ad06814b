"""Two gloo processes train a model of Trident's modules under DistributedDataParallel as one process does."""

import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

import trident
from trident.runtime import route

X, TARGET = torch.linspace(-1, 1, 8 * 12).view(8, 12), torch.arange(8) % 4


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = [torch.nn.Linear(12, 16), torch.nn.LayerNorm(16), torch.nn.GELU(), torch.nn.Linear(16, 4)]
    return trident.optimize(torch.nn.Sequential(*layers))


def losses(model: torch.nn.Module, x: torch.Tensor, target: torch.Tensor) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    found = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    with route.forced("kernels"):
        half = slice(4 * rank, 4 * rank + 4)
        found = losses(torch.nn.parallel.DistributedDataParallel(model()), X[half], TARGET[half])
    mean = torch.tensor(found, dtype=torch.float64)
    dist.all_reduce(mean)
    if rank == 0:
        torch.save(mean / 2, f"{folder}/losses")
    dist.destroy_process_group()


def test_ddp_equals_one_process(tmp_path):
    mp.start_processes(worker, (os.fspath(tmp_path),), nprocs=2, start_method="spawn")
    alone = torch.tensor(losses(model(), X, TARGET), dtype=torch.float64)
    torch.testing.assert_close(torch.load(tmp_path / "losses"), alone, rtol=1e-5, atol=1e-6)
