"""`python -m trident doctor`: what is installed, what runs where, and does one operator give the right numbers?"""

import importlib.metadata
import os
import platform
from collections.abc import Callable

import torch
from torch import Tensor

import trident
from trident.runtime import crossover, route, tuned
from trident.runtime.launch import executor

PACKAGES = ("torch", "triton", "llvmlite", "numpy")


def versions() -> dict[str, str]:
    found = {"trident": trident.__version__, "python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def devices() -> list[str]:
    return ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def self_test(device: str) -> float:
    """The greatest error of layer_norm, forward and backward, against float64. Raises AssertionError if it is wrong."""
    torch.manual_seed(0)
    inputs = torch.randn(33, 257), torch.randn(257), torch.randn(257)

    def run(function: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        x, w, b = (t.to(device, dtype, copy=True).requires_grad_() for t in inputs)
        y = function(x, (257,), w, b)
        return [y, *torch.autograd.grad(y.square().sum(), (x, w, b))]

    with route.forced("kernels"):
        actual = run(trident.functional.layer_norm, torch.float32)
    exact = run(torch.nn.functional.layer_norm, torch.float64)
    error = max(((a.double() - e).abs().max() / e.abs().max()).item() for a, e in zip(actual, exact, strict=True))
    if not error < 1e-5:
        raise AssertionError(f"layer_norm on {device} differs from float64 by {error:.1e}")
    return error


def tuning() -> str:
    """Whose sizes decide where kernels run on the CPU?"""
    file = tuned.path()
    if file is None or not file.exists():
        return "not tuned: sizes that ship with Trident (python -m trident tune)"
    try:
        found = tuned.read(file, crossover.known)
    except ValueError as error:
        return f"{file} is ignored: {error}"
    return f"{len(found.keys)} operators, {found.date}, {found.clock} time: {file}"


def main() -> int:
    for name, version in versions().items():
        print(f"{name:10} {version}")
    print(f"{'threads':10} {torch.get_num_threads()}")
    print(f"{'tuned':10} {tuning()}")
    for name, value in sorted(os.environ.items()):
        if name.startswith(("TRIDENT_", "TRITON_")):
            print(f"{name:10} = {value}")
    failed = 0
    for device in devices():
        how = executor(torch.device(device).type)
        if how is None:
            print(f"{device:10} no executor: calls go to torch")
            continue
        try:
            print(f"{device:10} {how}: layer_norm within {self_test(device):.1e} of float64")
        except Exception as error:  # a doctor names the illness and goes on
            print(f"{device:10} {how}: FAILED: {type(error).__name__}: {error}")
            failed += 1
    return 1 if failed else 0
