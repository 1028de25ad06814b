"""linear_cross_entropy: memory, several chunks in halves, what goes to torch."""

import json
import os
import subprocess
import sys

import pytest
import torch

import trident.functional as T
from tests.test_laws import DEVICE, Recorder, same

F = torch.nn.functional

STEP = """
import json, resource, torch
import trident.functional as T
from trident.runtime import route

F = torch.nn.functional
torch.manual_seed(0)
N, K, V = {N}, {K}, {V}
x, w = torch.randn(N, K, requires_grad=True), torch.randn(V, K, requires_grad=True)
target = torch.randint(V, (N,))


def now():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def peak():
    with open("/proc/self/status") as file:  # ru_maxrss is at least that of the process that started this one
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) / 1024


def ours(n=N):
    T.linear_cross_entropy(x[:n], w, target[:n]).backward()
    x.grad = w.grad = None


def eager(n=N):
    F.cross_entropy(F.linear(x[:n], w), target[:n]).backward()
    x.grad = w.grad = None


with route.forced("kernels"):
    ours(2), eager(2)  # what kernels and threads need for themselves
    found = [now()]
    for step in (ours, eager):  # the smaller one first: a peak never falls
        step()
        found.append(peak())
print(json.dumps([found[1] - found[0], found[2] - found[0]]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_step_takes_at_most_half_of_the_memory():
    """Of 2,048 tokens and 32,000 classes, beyond the inputs and what the warm-up left room for."""
    program = STEP.format(N=2048, K=64, V=32000)
    environment = {k: v for k, v in os.environ.items() if k != "TRIDENT_CPU_SANITIZE"}  # which keeps books of its own
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    ours, eager = json.loads(done.stdout)
    assert eager > 450, "logits of 250 MB, twice at least: else this measures something else"
    assert ours < eager / 2


def test_gradients_of_halves_are_summed_in_float32():
    """Four chunks on a CPU: each product is rounded to bfloat16, their sum only once."""
    torch.manual_seed(0)
    x, w = torch.randn(1000, 8, device=DEVICE), torch.randn(5, 8, device=DEVICE)
    target = torch.randint(5, (1000,), device=DEVICE)

    def gradients(f, dtype):
        leaves = [x.to(dtype).requires_grad_(), w.to(torch.bfloat16).to(dtype).requires_grad_()]
        return torch.autograd.grad(f(*leaves, target), leaves)

    ours = gradients(T.linear_cross_entropy, torch.bfloat16)
    exact = gradients(lambda x, w, t: F.cross_entropy(F.linear(x, w), t), torch.float64)
    for a, b in zip(ours, exact, strict=True):
        assert (a.double() - b).abs().max() <= 0.02 * b.abs().max()


def test_one_token():
    x, w, target = torch.randn(8), torch.randn(5, 8), torch.tensor(3)
    for reduction in ("none", "mean"):
        with Recorder() as recorder:
            y = T.linear_cross_entropy(x, w, target, reduction=reduction)
        assert recorder.calls and y.shape == ()
        torch.testing.assert_close(y, F.cross_entropy(F.linear(x, w), target))


def test_probabilities_are_cross_entropy_of_logits():
    x, w, target = torch.randn(6, 8), torch.randn(5, 8), torch.rand(6, 5)
    if not hasattr(F, "linear_cross_entropy"):  # in parts, which have kernels of their own
        return torch.testing.assert_close(T.linear_cross_entropy(x, w, target), F.cross_entropy(F.linear(x, w), target))
    same(T.linear_cross_entropy(x, w, target), F.linear_cross_entropy(x, w, target))


def test_every_target_ignored():
    x, w = torch.randn(6, 8, requires_grad=True), torch.randn(5, 8)
    y = T.linear_cross_entropy(x, w, torch.full((6,), -100), reduction="sum")
    (dx,) = torch.autograd.grad(y, x)
    assert y == 0 and not dx.any()
    assert T.linear_cross_entropy(x, w, torch.full((6,), -100)).isnan()
