"""`trident_cpu.launch`: what a call compiles, what it passes, what it refuses."""

import threading

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

import trident_cpu
from trident_cpu import binder
from trident_cpu.launcher import prepared


@triton.jit
def add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, at < n) + tl.load(y + at, at < n), at < n)


@triton.jit
def fill(out, value, N: tl.constexpr):
    tl.store(out + tl.arange(0, N), value)


@triton.jit
def where_am_i(out):
    x, y, z = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    index = (z * tl.num_programs(1) + y) * tl.num_programs(0) + x
    tl.store(out + index, x + 100 * y + 10000 * z)


def entries(kernel):
    return prepared(kernel).__globals__["_table"]


@pytest.mark.parametrize("n", [1, 7, 1000, 1024, 100_003])
def test_pointwise(n):
    x, y = torch.randn(n), torch.randn(n)
    out = torch.full((n + 8,), -1.0)
    trident_cpu.launch(add, lambda meta: (triton.cdiv(meta["n"], meta["BLOCK"]),), x, y, out, n, BLOCK=256)
    assert torch.equal(out[:n], x + y)
    assert (out[n:] == -1).all()


@pytest.mark.parametrize("grid", [6, (6,), [6], (6, 1), (6, 1, 1), lambda meta: (6,), lambda meta: [6, 1]])
def test_grid_forms(grid):
    out = torch.zeros(6, dtype=torch.int32)
    trident_cpu.launch(where_am_i, grid, out)
    assert out.tolist() == list(range(6))


def test_program_ids_in_three_dimensions():
    out = torch.zeros(2, 3, 4, dtype=torch.int32)
    trident_cpu.launch(where_am_i, (4, 3, 2), out)
    z, y, x = torch.meshgrid(torch.arange(2), torch.arange(3), torch.arange(4), indexing="ij")
    assert torch.equal(out.long(), x + 100 * y + 10000 * z)


@pytest.mark.parametrize("grid", [(0,), (0, 5), (3, 0, 2), (0, 0, 0)])
def test_empty_grid_runs_nothing(grid):
    out = torch.zeros(1, dtype=torch.int32) - 1
    trident_cpu.launch(where_am_i, grid, out)
    assert out.item() == -1


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ((-1,), "negative"),
        ((2**16, 2**16), "at most"),
        ((2**31,), "at most"),
        ((1, 2, 3, 4), "one to three"),
        ((), "one"),
    ],
)
def test_impossible_grids(grid, message):
    with pytest.raises(ValueError, match=message):
        trident_cpu.launch(where_am_i, grid, torch.zeros(1, dtype=torch.int32))


def test_many_programs():
    @triton.jit
    def count(out):
        if tl.program_id(0) == 3_000_000:
            tl.store(out, tl.num_programs(0))

    out = torch.zeros(1, dtype=torch.int32)
    trident_cpu.launch(count, (3_000_001,), out)
    assert out.item() == 3_000_001


VALUES = [
    (torch.int8, -5), (torch.int32, 2**31 - 1), (torch.int32, -(2**31)), (torch.int64, 2**31), (torch.int64, -(2**63)),
    (torch.int32, 1), (torch.int32, 0), (torch.float32, 0.1), (torch.float32, float("inf")), (torch.bool, True),
    (torch.bool, False), (torch.float64, 0.1),
]  # fmt: skip


@pytest.mark.parametrize(("dtype", "value"), VALUES)
def test_scalar_arguments(dtype, value):
    out = torch.zeros(4, dtype=dtype)
    trident_cpu.launch(fill, (1,), out, value, N=4)
    expected = torch.tensor(value, dtype=torch.float32) if isinstance(value, float) else torch.tensor(value)
    assert torch.equal(out, expected.to(dtype).expand(4))


def test_unsigned_64_bit_scalar():
    out = torch.zeros(4, dtype=torch.int64)
    trident_cpu.launch(fill, (1,), out, 2**64 - 2, N=4)
    assert out.tolist() == [-2] * 4


def test_float_scalar_out_of_range_becomes_infinite():
    out = torch.zeros(4)
    trident_cpu.launch(fill, (1,), out, -1e300, N=4)
    assert out.tolist() == [-float("inf")] * 4


@pytest.mark.parametrize(
    ("annotation", "value", "expected"),
    [("fp16", 0.1, 0.0999755859375), ("bf16", 0.1, 0.10009765625), ("fp64", 0.1, 0.1), ("fp32", 1e300, float("inf"))],
)
def test_annotated_float_scalars(annotation, value, expected):
    @triton.jit
    def typed(out, value):
        tl.store(out, value.to(tl.float64))

    typed.params[1].__dict__["annotation"] = annotation
    typed.params[1].__dict__["annotation_type"] = annotation
    out = torch.zeros(1, dtype=torch.float64)
    trident_cpu.launch(typed, (1,), out, value)
    assert out.item() == expected


def test_annotated_integer_keeps_its_type():
    @triton.jit
    def shift(out, value: tl.int64):
        tl.store(out, value << 40)

    out = torch.zeros(1, dtype=torch.int64)
    for value in (1, 2):
        trident_cpu.launch(shift, (1,), out, value)
        assert out.item() == value << 40
    assert len(entries(shift)) == 1


def test_specialisation_is_tritons():
    @triton.jit
    def scaled(x, out, n, stride, scale, FLAG: tl.constexpr):
        at = tl.arange(0, 4)
        tl.store(out + at, tl.load(x + at * stride, at < n) * scale, at < n)

    x, out = torch.arange(64.0), torch.zeros(64)
    shared = [(4, 2), (3, 5), (16, 4)]  # sizes do not matter ...
    for n, stride in shared:
        trident_cpu.launch(scaled, (1,), x, out, n, stride, 2.0, FLAG=1)
    assert len(entries(scaled)) == 1
    trident_cpu.launch(scaled, (1,), x[1:], out[1:], 4, 2, 2.0, FLAG=1)  # ... nor does alignment
    assert len(entries(scaled)) == 1
    trident_cpu.launch(scaled, (1,), x, out, 4, 1, 2.0, FLAG=1)  # a stride of 1 does
    assert len(entries(scaled)) == 2
    assert torch.equal(out[:4], x[:4] * 2)
    trident_cpu.launch(scaled, (1,), x, out, 0, 2**31 + 2, 2.0, FLAG=1)  # and a wider type
    assert len(entries(scaled)) == 3
    for flag in (True, 1.0, "1", None):  # equal values of another type are another constexpr
        trident_cpu.launch(scaled, (1,), x, out, 4, 2, 2.0, FLAG=flag)
    assert len(entries(scaled)) == 7


def test_do_not_specialize():
    @triton.jit(do_not_specialize=["n"])
    def counted(out, n):
        tl.store(out, n)

    out = torch.zeros(1, dtype=torch.int32)
    for n in (1, 2, 16):
        trident_cpu.launch(counted, (1,), out, n)
        assert out.item() == n
    assert len(entries(counted)) == 1


def test_none_pointer_is_a_flag():
    @triton.jit
    def biased(x, bias, out):
        value = tl.load(x)
        if bias is not None:
            value += tl.load(bias)
        tl.store(out, value)

    x, bias, out = torch.ones(1), torch.ones(1) * 5, torch.zeros(1)
    for b, expected in ((None, 1.0), (bias, 6.0), (None, 1.0)):
        trident_cpu.launch(biased, (1,), x, b, out)
        assert out.item() == expected


def test_parameters_subclasses_and_defaults():
    class Mine(torch.Tensor):
        pass

    @triton.jit
    def twice(x, out, N: tl.constexpr = 4):
        tl.store(out + tl.arange(0, N), tl.load(x + tl.arange(0, N)) * 2)

    out = torch.zeros(4)
    for x in (torch.nn.Parameter(torch.randn(4)), torch.randn(4).as_subclass(Mine)):
        trident_cpu.launch(twice, (1,), x, out)
        assert torch.equal(out, (x * 2).as_subclass(torch.Tensor))


def test_numpy_scalars():
    out = torch.zeros(4, dtype=torch.float64)
    trident_cpu.launch(fill, (1,), out, np.float64(2.5), N=4)
    assert out.tolist() == [2.5] * 4
    with pytest.raises(TypeError, match="int64"):  # as under Triton: it has no type for these
        trident_cpu.launch(fill, (1,), out, np.int64(3), N=4)


def test_tuple_argument():
    @triton.jit
    def gather(parts, out):
        tl.store(out, tl.load(parts[0]) + parts[1] * tl.load(parts[2][0]))

    out = torch.zeros(1)
    trident_cpu.launch(gather, (1,), (torch.ones(1), 3, (torch.ones(1) * 2,)), out)
    assert out.item() == 7


@pytest.mark.parametrize("where", ["x", "y", "out"])
def test_tensor_elsewhere_is_named(where):
    tensors = {name: torch.zeros(4, device="meta" if name == where else "cpu") for name in ("x", "y", "out")}
    with pytest.raises(ValueError, match=f"argument '{where}' is on meta"):
        trident_cpu.launch(add, (1,), **tensors, n=4, BLOCK=4)


def test_wrong_calls():
    x = torch.zeros(4)
    with pytest.raises(KeyError, match="nonsense"):
        trident_cpu.launch(add, (1,), x, x, x, 4, BLOCK=4, nonsense=3)
    with pytest.raises(TypeError, match="missing"):
        trident_cpu.launch(add, (1,), x, x)
    with pytest.raises(TypeError, match="runs @triton"):
        trident_cpu.launch(lambda: None, (1,))


def test_gpu_options_are_accepted():
    x, out = torch.ones(4), torch.zeros(4)
    for options in ({"num_warps": 8}, {"num_warps": 2, "num_stages": 3}):
        trident_cpu.launch(add, (1,), x, x, out, 4, BLOCK=4, **options)
    assert out.tolist() == [2.0] * 4


def test_threads_share_a_kernel():
    """Launches from several Python threads at once: each has its own block, scratch and report."""
    n = 200_000
    x, failures = torch.randn(n), []

    def work(seed):
        y = torch.randn(n, generator=torch.Generator().manual_seed(seed))
        for _ in range(20):
            out = torch.empty(n)
            trident_cpu.launch(add, (triton.cdiv(n, 1024),), x, y, out, n, BLOCK=1024)
            if not torch.equal(out, x + y):
                failures.append(seed)

    crowd = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in crowd:
        thread.start()
    for thread in crowd:
        thread.join()
    assert failures == []


def test_serial_below_the_threshold_and_torchs_thread_count(monkeypatch):
    asked = []
    monkeypatch.setattr(binder.threads, "team_size", lambda: asked.append(1) or 2)
    n = binder.PARALLEL_ELEMENTS
    x = torch.randn(n)
    out = torch.empty(n)
    for size, expected in ((1024, 0), (n - 1024, 0), (n, 1)):
        asked.clear()
        trident_cpu.launch(add, (size // 1024,), x, x, out, size, BLOCK=1024)
        assert len(asked) == expected
        assert torch.equal(out[:size], x[:size] * 2)


def test_changed_global_raises():
    scope = {"triton": triton, "tl": tl}
    globals()["_SCALE"] = tl.constexpr(2)
    try:
        x, out = torch.ones(1), torch.zeros(1)
        trident_cpu.launch(_reads_global, (1,), x, out)
        assert out.item() == 2
        globals()["_SCALE"] = tl.constexpr(3)
        with pytest.raises(RuntimeError, match="_SCALE has changed"):
            trident_cpu.launch(_reads_global, (1,), x, out)
    finally:
        globals()["_SCALE"] = tl.constexpr(2)
    assert scope


_SCALE = tl.constexpr(2)


@triton.jit
def _reads_global(x, out):
    tl.store(out, tl.load(x) * _SCALE)


def test_hooks_run_only_when_set():
    from triton import knobs

    seen = []
    x, out = torch.ones(4), torch.zeros(4)

    def enter(metadata):
        seen.append(metadata.get()["name"])

    knobs.runtime.launch_enter_hook.add(enter)
    try:
        trident_cpu.launch(add, (1,), x, x, out, 4, BLOCK=4)
    finally:
        knobs.runtime.launch_enter_hook.remove(enter)
    trident_cpu.launch(add, (1,), x, x, out, 4, BLOCK=4)
    assert seen == ["add"]


def test_heuristics_and_autotune():
    tried = []

    def block(arguments):
        return triton.next_power_of_2(arguments["n"])

    guessed = triton.heuristics({"BLOCK": block})(add)
    x, out = torch.randn(100), torch.zeros(100)
    trident_cpu.launch(guessed, (1,), x, x, out, 100)
    assert torch.equal(out, x * 2)

    def grid(meta):
        tried.append(meta["BLOCK"])
        return (triton.cdiv(meta["n"], meta["BLOCK"]),)

    tuned = triton.autotune([triton.Config({"BLOCK": 32}), triton.Config({"BLOCK": 64})], key=["n"])(add)
    out.zero_()
    trident_cpu.launch(tuned, grid, x, x, out, 100)
    assert torch.equal(out, x * 2)
    assert set(tried) == {32, 64}


def test_a_gpu_driver_stays_active(monkeypatch):
    """Where another driver is active CPU tensors run all the same, and kernels see the CPU as their target."""
    from triton.backends.compiler import GPUTarget
    from triton.language.target_info import is_cuda
    from triton.runtime import driver as config

    class Cuda:
        @staticmethod
        def get_current_target():
            return GPUTarget("cuda", 90, 32)

    @triton.jit
    def which(out, N: tl.constexpr):
        tl.store(out + tl.arange(0, N), 7.0 if is_cuda() else 3.0)

    monkeypatch.setattr(config, "_active", Cuda)
    out = torch.zeros(4)
    trident_cpu.launch(which, (1,), out, N=4)
    assert out.tolist() == [3.0] * 4
    assert config._active is Cuda
