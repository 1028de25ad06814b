"""`trident_cpu.fixed`: the short way does what `launch` does, and knows when it must not be taken."""

import pytest
import torch
import triton
import triton.language as tl
from triton import knobs

import trident_cpu
from trident_cpu.compiler import sanitizing


@triton.jit
def scale(out, x, n, factor, half: tl.bfloat16, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, at < n) * factor + half, at < n)


@triton.jit
def doubled(x, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(x + at, 2 * tl.load(x + at, at < n), at < n)


@triton.jit
def affine(out, x, w, b, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    y = tl.load(x + at, at < n)
    if w is not None:
        y *= tl.load(w + at, at < n)
    if b is not None:
        y += tl.load(b + at, at < n)
    tl.store(out + at, y, at < n)


@triton.jit
def asserting(x, most):
    tl.device_assert(tl.load(x) < most, "too much")
    tl.store(x, 0.0)


def fixed(kernel, grid, tensors, **meta):
    """A fixed launch, and the list of those that went the long way."""
    long_way = []

    def otherwise(*given):
        long_way.append(given)
        trident_cpu.launch(kernel, grid, *given, **meta)

    return trident_cpu.fixed(kernel, grid, tensors, otherwise, **meta), long_way


@pytest.mark.parametrize(("n", "block"), [(1000, 256), (300_000, 16384)])
def test_as_launch(n, block):
    grid = (triton.cdiv(n, block),)
    run, long_way = fixed(scale, grid, 2, n=n, factor=3.0, half=0.5, BLOCK=block)
    for dtype in (torch.float32, torch.float64):
        for turn in range(3):
            x, out = torch.randn(n, dtype=dtype), torch.full((n + 8,), -1.0, dtype=dtype)
            run(out, x)
            torch.testing.assert_close(out[:n], x * 3 + 0.5)
            assert (out[n:] == -1).all()
            if not sanitizing():
                assert len(long_way) == 1 + (dtype == torch.float64), f"turn {turn}: {len(long_way)} long ways"


def test_one_tensor_and_arguments_that_struct_refuses():
    run, _ = fixed(doubled, (1,), 1, n=5, BLOCK=8)
    x = torch.arange(5.0)
    run(x), run(x)
    assert torch.equal(x, torch.arange(5.0) * 4)
    run, _ = fixed(scale, (1,), 2, n=2, factor=1e300, half=0.0, BLOCK=2)
    for _ in range(2):
        run(out := torch.zeros(2), torch.ones(2))
        assert out.tolist() == [float("inf")] * 2


def test_none_and_parameters():
    run, long_way = fixed(affine, (1,), 4, n=5, BLOCK=8)
    x, w, b = torch.randn(3, 5)
    for kinds, (w_given, b_given) in enumerate([(w, b), (None, b), (w, None), (None, None)], 1):
        for as_parameters in (False, True):
            given = [None if t is None else torch.nn.Parameter(t) if as_parameters else t for t in (w_given, b_given)]
            run(out := torch.empty(5), x, *given)
            expected = (x if w_given is None else x * w) + (0 if b_given is None else b)
            torch.testing.assert_close(out, expected, rtol=1e-6, atol=1e-6)
            if not sanitizing():
                assert len(long_way) == kinds


def test_what_is_not_plain_goes_the_long_way():
    run, long_way = fixed(doubled, (1,), 1, n=4, BLOCK=4)
    x = torch.ones(4)
    run(x)
    run(x.as_subclass(type("Other", (torch.Tensor,), {})))
    assert len(long_way) == 2
    assert x.tolist() == [4.0] * 4
    with pytest.raises(ValueError, match="'x' is on meta"):
        run(x.to("meta"))
    entered = []
    knobs.runtime.launch_enter_hook.add(entered.append)
    try:
        run(x)
    finally:
        knobs.runtime.launch_enter_hook.remove(entered.append)
    assert len(entered) == 1
    assert x.tolist() == [8.0] * 4


def test_faults_are_reported_each_time():
    run, _ = fixed(asserting, (1,), 1, most=5.0, debug=True)
    run(torch.ones(1)), run(torch.ones(1))
    for _ in range(2):
        with pytest.raises(AssertionError, match="too much"):
            run(torch.full((1,), 7.0))


def test_tensors_are_parameters():
    if sanitizing():
        pytest.skip("the sanitizer always takes the long way")
    with pytest.raises(TypeError, match="not all tensors"):
        fixed(doubled, (1,), 3)
