"""Two gloo processes train a model of Trident's modules and functions as one process does, whichever way it is spread.

One pair of processes goes through all the ways: starting one takes longer than all of them.
"""

import contextlib
import itertools
import os
import time

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    PrepareModuleInput,
    RowwiseParallel,
    SequenceParallel,
    parallelize_module,
)
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import trident
import trident.functional as TF
from trident.runtime import route

pytestmark = pytest.mark.once

X, TARGET = torch.linspace(-1, 1, 8 * 12).view(8, 12), torch.arange(8) % 4


class Block(nn.Module):
    def __init__(self, checkpointed):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(12), nn.Linear(12, 16), nn.Linear(16, 12)
        self.checkpointed = checkpointed

    def forward(self, x):
        if self.checkpointed:
            return checkpoint(self.body, x, use_reentrant=False)
        return self.body(x)

    def body(self, x):
        return x + self.down(F.gelu(self.up(self.norm(x))))


def model(checkpointed=False):
    torch.manual_seed(0)
    return trident.optimize(nn.Sequential(Block(checkpointed), Block(checkpointed), nn.LayerNorm(12), nn.Linear(12, 4)))


# Trident's take shards of DTensors
OPTIMIZERS = {
    "SGD": lambda library, params: library.SGD(params, lr=0.1, momentum=0.5, nesterov=True),
    "AdamW": lambda library, params: library.AdamW(params, lr=0.01),
}


def losses(model, x, target, pieces=1, optimizer="SGD", library=trident.optim):
    """Of 5 steps; each in so many pieces of the batch, whose gradients add up."""
    optimizer = OPTIMIZERS[optimizer](library, model.parameters())
    found = []
    for _ in range(5):
        optimizer.zero_grad()
        total = 0.0
        for i, (a, b) in enumerate(zip(x.chunk(pieces), target.chunk(pieces), strict=True)):
            wait = i + 1 < pieces and isinstance(model, DistributedDataParallel)
            with model.no_sync() if wait else contextlib.nullcontext():
                loss = F.cross_entropy(model(a), b) / pieces
                loss.backward()
            total += loss.item()
        optimizer.step()
        found.append(total)
    return torch.tensor(found, dtype=torch.float64)


# Each takes the mesh of both processes and gives (the model, whether each process takes half of the batch, pieces)


def data_parallel(mesh):
    return DistributedDataParallel(model()), True, 1


def accumulated(mesh):
    return DistributedDataParallel(model()), True, 2


def sharded(mesh, checkpointed=False, half=False):
    whole = model(checkpointed)
    policy = {"param_dtype": torch.bfloat16} if half else {}
    for block in whole[:2]:
        fully_shard(block, mesh=mesh, mp_policy=MixedPrecisionPolicy(**policy))
    fully_shard(whole, mesh=mesh, mp_policy=MixedPrecisionPolicy(**policy, output_dtype=torch.float32))
    assert all(isinstance(p, DTensor) for p in whole.parameters())
    return whole, True, 1


def sharded_and_checkpointed(mesh):
    return sharded(mesh, checkpointed=True)


def sharded_in_bfloat16(mesh):
    return sharded(mesh, half=True)


def tensor_parallel(mesh):
    whole = model()
    for block in whole[:2]:
        parallelize_module(block, mesh, {"up": ColwiseParallel(), "down": RowwiseParallel()})
    assert isinstance(whole[0].up.weight, DTensor)
    return whole, False, 1


def sequence_parallel(mesh):
    whole = model()
    for block in whole[:2]:
        plan = {
            "norm": SequenceParallel(sequence_dim=0),
            "up": ColwiseParallel(input_layouts=Shard(0)),
            "down": RowwiseParallel(output_layouts=Shard(0), use_local_output=False),
        }
        parallelize_module(block, mesh, plan)
    gathered = PrepareModuleInput(input_layouts=Replicate(), desired_input_layouts=Shard(0))
    parallelize_module(whole, mesh, {"0": gathered, "2": SequenceParallel(sequence_dim=0)})
    whole[2].register_forward_hook(lambda module, args, y: y.full_tensor())
    return whole, False, 1


WAYS = (
    data_parallel,
    accumulated,
    sharded,
    sharded_and_checkpointed,
    sharded_in_bfloat16,
    tensor_parallel,
    sequence_parallel,
)

# name -> (function of tensors, their shapes, how the first ones are spread, where it goes: None is a kernel). The rest
# of the tensors are weights, whole everywhere. Five rows on two processes are three and two.
FUNCTIONS = {
    "silu": (TF.silu, [(5, 4)], Shard(0), None),
    "gelu": (lambda x: TF.gelu(x, approximate="tanh"), [(4, 5)], Shard(1), None),
    "softmax": (lambda x: TF.softmax(x, 1), [(5, 6)], Shard(0), None),
    "softmax along": (lambda x: TF.softmax(x, 0), [(5, 6)], Shard(0), "DTensor is not a plain tensor"),
    "swiglu": (TF.swiglu, [(5, 4), (5, 4)], Shard(0), None),
    "swiglu halves": (lambda x: TF.swiglu(x), [(5, 4)], Shard(0), None),
    "rms_norm": (lambda x, w: TF.rms_norm(x, (4,), w), [(2, 5, 4), (4,)], Shard(1), None),
    "layer_norm": (lambda x, w, b: TF.layer_norm(x, (4,), w, b), [(5, 4), (4,), (4,)], Shard(0), None),
    "layer_norm whole": (lambda x, w, b: TF.layer_norm(x, (4,), w, b), [(5, 4), (4,), (4,)], Replicate(), None),
    "residual": (lambda x, r: TF.rms_norm(x, (4,), residual=r)[0], [(5, 4), (5, 4)], Shard(0), None),
    "attention": (TF.scaled_dot_product_attention, [(2, 2, 3, 4)] * 3, Shard(1), None),
    "linear": (TF.linear, [(5, 4), (3, 4)], Shard(0), "DTensor is not a plain tensor"),
}


def tensors_of(name):
    shapes = FUNCTIONS[name][1]
    g = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=g) for shape in shapes]


def with_gradients(function, tensors):
    """The result, and the gradients of its squares' sum."""
    y = function(*tensors)
    (y * y).sum().backward()
    return [y, *(t.grad for t in tensors)]


def on_shards(mesh, name):
    """What FUNCTIONS says of it, on DTensors; asserts where it went."""
    function, shapes, placement, where = FUNCTIONS[name]
    spread = [
        distribute_tensor(t, mesh, [placement if len(shape) == len(shapes[0]) and name != "linear" else Replicate()])
        for t, shape in zip(tensors_of(name), shapes, strict=True)
    ]
    if name == "linear":
        spread[0] = spread[0].redistribute(placements=[placement])
    seen = []
    route.WATCHERS.append(lambda name, tensors, reason: seen.append(reason))
    found = with_gradients(function, [t.detach().requires_grad_() for t in spread])
    route.WATCHERS.pop()
    assert set(seen) <= {where, None} and where in seen, (name, seen)
    assert all(isinstance(t, DTensor) for t in found)
    if where is None:
        assert found[0].placements == found[1].placements == (placement,), name
    return [t.full_tensor().detach() for t in found]


def worker(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,))
    with route.forced("kernels"):
        for way, optimizer in itertools.product(WAYS, OPTIMIZERS):
            spread, halved, pieces = way(mesh)
            mine = slice(4 * rank, 4 * rank + 4) if halved else slice(None)
            seen = []
            route.WATCHERS.append(lambda name, tensors, reason, seen=seen: seen.append((name, reason)))
            found = losses(spread, X[mine], TARGET[mine], pieces, optimizer)
            route.WATCHERS.pop()
            reasons = {reason for name, reason in seen if name == optimizer}
            # the norms' gradients are sums yet to be made, which torch's step makes
            assert reasons == ({None, "DTensor is not a plain tensor"} if way is sequence_parallel else {None}), reasons
            dist.all_reduce(found)
            if rank == 0:
                torch.save(found / 2, f"{folder}/{way.__name__} {optimizer}")
        for name in FUNCTIONS:
            found = on_shards(mesh, name)
            if rank == 0:
                torch.save(found, f"{folder}/{name}")
    time.sleep(0.5)  # gloo's thread needs the GIL for its last piece of work: torch 2.13 joins it while holding that
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def spread(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(worker, (os.fspath(folder),), nprocs=2, start_method="spawn")
    return folder


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("way", [way.__name__ for way in WAYS])
def test_losses_are_one_processs(spread, way, optimizer):
    alone = losses(model(), X, TARGET, optimizer=optimizer, library=torch.optim)
    half = way == "sharded_in_bfloat16"  # weights rounded to 8 bits: the losses move by as much
    torch.testing.assert_close(torch.load(spread / f"{way} {optimizer}"), alone, rtol=2e-2 if half else 1e-5, atol=1e-6)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_shards(spread, name):
    alone = with_gradients(FUNCTIONS[name][0], [t.requires_grad_() for t in tensors_of(name)])
    for found, expected in zip(torch.load(spread / name), alone, strict=True):
        torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-6)
