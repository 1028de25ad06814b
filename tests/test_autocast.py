"""The autocast tables of Trident are torch's, read from torch's dispatcher (which knows CUDA's without a GPU)."""

import pytest
import torch

from trident.runtime import autocast

KEYS = {"cuda": "AutocastCUDA", "cpu": "AutocastCPU"}


def has_rule(name: str, device: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{autocast.ATEN[name]}", KEYS[device])


# torch decomposes it before its dispatcher sees autocast: log_softmax and nll_loss have the rules
DECOMPOSED = {("cuda", "cross_entropy")}


@pytest.mark.parametrize("device", KEYS)
@pytest.mark.parametrize("name", autocast.ATEN)
def test_tables_are_torchs(name, device):
    ours = any(name in table[device] for table in (autocast.FLOAT32, autocast.LOWER, autocast.REFUSED))
    assert ours == has_rule(name, device) or (device, name) in DECOMPOSED


def test_no_name_without_its_aten_operator():
    for table in (autocast.FLOAT32, autocast.LOWER, autocast.REFUSED):
        assert set().union(*table.values()) <= set(autocast.ATEN)


def test_float64_is_never_cast():
    x = torch.randn(2, dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        assert autocast.output_dtype("cross_entropy", x) == torch.float64
        assert autocast.lowered("linear", x)[0] is x
