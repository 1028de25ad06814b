"""tt.reduce and tt.scan: any combine function, any axis, several operands, all element types."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import launch

SHAPES = [(1, 1), (1, 8), (8, 1), (4, 16), (16, 4), (32, 64), (64, 2), (128, 128)]


@triton.jit
def load2(x, M: tl.constexpr, N: tl.constexpr):
    return tl.load(x + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :])


@triton.jit
def store2(y, b_y, M: tl.constexpr, N: tl.constexpr):
    tl.store(y + tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :], b_y)


@triton.jit
def reduce_kernel(x, y, OP: tl.constexpr, AXIS: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    b_x = load2(x, M, N)
    if OP == "sum":
        b_y = tl.sum(b_x, AXIS)
    elif OP == "max":
        b_y = tl.max(b_x, AXIS)
    elif OP == "min":
        b_y = tl.min(b_x, AXIS)
    elif OP == "argmax":
        b_y = tl.argmax(b_x, AXIS)
    elif OP == "argmin":
        b_y = tl.argmin(b_x, AXIS)
    elif OP == "xor":
        b_y = tl.xor_sum(b_x, AXIS)
    tl.store(y + tl.arange(0, N if AXIS == 0 else M), b_y)


FLOATS, INTS = [torch.float32, torch.float64, torch.float16], [torch.int32, torch.int64, torch.int8]
REDUCTIONS = [(op, dtype) for op in ("sum", "max", "min", "argmax", "argmin") for dtype in FLOATS + INTS]


@pytest.mark.parametrize(("op", "dtype"), REDUCTIONS + [("xor", dtype) for dtype in INTS], ids=str)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reduce(op: str, dtype: torch.dtype, axis: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.randint(-9, 9, shape).to(dtype) if not dtype.is_floating_point else torch.randn(shape).to(dtype)
    if op.startswith("arg"):
        want = torch.from_numpy(getattr(x.float().numpy(), op)(axis)).int()  # the first of equals
    elif op == "xor":
        want = torch.zeros_like(x.select(axis, 0))
        for part in x.unbind(axis):
            want = want ^ part
    else:
        want = {"sum": torch.sum, "max": torch.amax, "min": torch.amin}[op](x.double() if op == "sum" else x, axis)
        want = want.to(dtype if dtype != torch.int8 or op != "sum" else torch.int32)
    y = torch.empty(want.shape, dtype=want.dtype)
    launch(reduce_kernel, (1,), x, y, OP=op, AXIS=axis, M=shape[0], N=shape[1])
    if dtype.is_floating_point and op == "sum":
        torch.testing.assert_close(y.double(), want.double(), rtol=1e-2 if dtype == torch.float16 else 1e-4, atol=2e-2)
    else:
        assert torch.equal(y, want)


@triton.jit
def nan_kernel(x, y, N: tl.constexpr):
    tl.store(y, tl.max(tl.load(x + tl.arange(0, N)), 0))


@pytest.mark.parametrize("n", [1, 2, 16, 128])
def test_max_of_nan_only_is_nan(n: int) -> None:
    y = torch.zeros(1)
    launch(nan_kernel, (1,), torch.full((n,), float("nan")), y, N=n)
    assert y.isnan().all()


@triton.jit
def _welford(mean_a, m2_a, n_a, mean_b, m2_b, n_b):
    n = n_a + n_b
    delta = mean_b - mean_a
    return mean_a + delta * (n_b / n), m2_a + m2_b + delta * delta * n_a * n_b / n, n


@triton.jit
def welford_kernel(x, mean, var, AXIS: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    b_x = load2(x, M, N)
    b_mean, b_m2, b_n = tl.reduce((b_x, tl.zeros_like(b_x), tl.full((M, N), 1.0, tl.float32)), AXIS, _welford)
    at = tl.arange(0, N if AXIS == 0 else M)
    tl.store(mean + at, b_mean)
    tl.store(var + at, b_m2 / b_n)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_welford(axis: int, shape: tuple[int, int]) -> None:
    """A combine function of three operands without a neutral element."""
    x = torch.randn(shape)
    mean, var = torch.empty(shape[1 - axis]), torch.empty(shape[1 - axis])
    launch(welford_kernel, (1,), x, mean, var, AXIS=axis, M=shape[0], N=shape[1])
    torch.testing.assert_close(mean, x.mean(axis))
    torch.testing.assert_close(var, x.var(axis, correction=0))


@triton.jit
def _linear(a1, b1, a2, b2):
    return a1 * a2, b1 * a2 + b2


@triton.jit
def scan_kernel(x, y, OP: tl.constexpr, AXIS: tl.constexpr, REVERSE: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    b_x = load2(x, M, N)
    if OP == "sum":
        b_y = tl.cumsum(b_x, AXIS, reverse=REVERSE)
    elif OP == "prod":
        b_y = tl.cumprod(b_x, AXIS, reverse=REVERSE)
    else:
        _a, b_y = tl.associative_scan((b_x * 0.5, b_x), AXIS, _linear, reverse=REVERSE)
    store2(y, b_y, M, N)


@pytest.mark.parametrize("op", ["sum", "prod", "linear"])
@pytest.mark.parametrize("reverse", [False, True], ids=["forwards", "reverse"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_scan(op: str, reverse: bool, axis: int, shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    x = torch.rand(shape) + 0.5
    y = torch.empty(shape)
    launch(scan_kernel, (1,), x, y, OP=op, AXIS=axis, REVERSE=reverse, M=shape[0], N=shape[1])
    z = x.double().flip(axis) if reverse else x.double()
    if op == "linear":
        state, states = torch.zeros(shape[1 - axis], dtype=torch.float64), []
        for part in z.unbind(axis):
            state = part * 0.5 * state + part
            states.append(state)
        want = torch.stack(states, axis)
    else:
        want = {"sum": torch.cumsum, "prod": torch.cumprod}[op](z, axis)
    torch.testing.assert_close(y.double(), want.flip(axis) if reverse else want, rtol=1e-4, atol=1e-5)


@triton.jit
def softmax_kernel(x, y, n, BLOCK: tl.constexpr):
    row, cols = tl.program_id(0).to(tl.int64), tl.arange(0, BLOCK)
    b_x = tl.load(x + row * n + cols, cols < n, other=-float("inf")).to(tl.float32)
    e = tl.exp(b_x - tl.max(b_x, 0))
    tl.store(y + row * n + cols, e / tl.sum(e, 0), cols < n)


@pytest.mark.parametrize("n", [1, 2, 7, 16, 33, 257, 1000, 4096, 40000])
def test_softmax(n: int) -> None:
    x, y = torch.randn(5, n), torch.full((5, n), float("nan"))
    launch(softmax_kernel, (5,), x, y, n, BLOCK=triton.next_power_of_2(n))
    torch.testing.assert_close(y, torch.softmax(x, 1))


@triton.jit
def center_kernel(x, y, M: tl.constexpr, N: tl.constexpr):
    b_x = load2(x, M, N)
    b_x -= tl.sum(b_x, 1)[:, None] / N
    b_x -= tl.sum(b_x, 0)[None, :] / M
    b_x *= tl.sum(tl.sum(b_x * b_x, 1), 0)
    store2(y, b_x, M, N)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_reductions_feed_each_other(shape: tuple[int, int]) -> None:
    x, y = torch.randn(shape), torch.empty(shape)
    launch(center_kernel, (1,), x, y, M=shape[0], N=shape[1])
    z = x.double() - x.double().mean(1, keepdim=True)
    z = z - z.mean(0, keepdim=True)
    want = z * (z * z).sum()
    torch.testing.assert_close(y.double(), want, rtol=1e-4, atol=1e-6 * want.abs().max().item())


@triton.jit
def reduce3_kernel(x, y, AXIS: tl.constexpr, A: tl.constexpr, B: tl.constexpr, C: tl.constexpr):
    a, b, c = tl.arange(0, A)[:, None, None], tl.arange(0, B)[None, :, None], tl.arange(0, C)[None, None, :]
    b_y = tl.sum(tl.load(x + (a * B + b) * C + c), AXIS, keep_dims=True)
    tl.store(
        y
        + (a * b_y.shape[1] + tl.arange(0, b_y.shape[1])[None, :, None]) * b_y.shape[2]
        + tl.arange(0, b_y.shape[2])[None, None, :]
        if AXIS != 0
        else y + b * C + c,
        b_y,
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shape", [(2, 4, 8), (8, 4, 2), (4, 16, 32), (1, 64, 4)], ids=str)
def test_three_dimensions(axis: int, shape: tuple[int, int, int]) -> None:
    x = torch.randint(-9, 9, shape).float()
    want = x.sum(axis, keepdim=True)
    y = torch.empty_like(want)
    launch(reduce3_kernel, (1,), x, y, AXIS=axis, A=shape[0], B=shape[1], C=shape[2])
    assert torch.equal(y, want)


@triton.jit
def one_row_kernel(x, total, top, at, N, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    cols = tl.arange(0, BLOCK)
    b_x = tl.load(x + tl.arange(0, ROWS)[:, None] * N + cols[None, :], (cols < N)[None, :], other=0)
    inside = cols < N
    tl.store(total + cols, tl.sum(b_x * 2, 0), inside)
    largest, where = tl.max(b_x, 0, return_indices=True)
    tl.store(top + cols, largest, inside)
    tl.store(at + cols, where, inside)


@pytest.mark.parametrize("rows", [1, 2])
def test_one_row(rows: int) -> None:
    """A reduction over one element is that element, and its index 0."""
    x = torch.randn(rows, 77)
    total, top, at = torch.empty(77), torch.empty(77), torch.empty(77, dtype=torch.int32)
    launch(one_row_kernel, (1,), x, total, top, at, 77, ROWS=rows, BLOCK=128)
    torch.testing.assert_close(total, 2 * x.sum(0))
    assert torch.equal(top, x.amax(0)) and torch.equal(at.long(), x.argmax(0))


@triton.jit
def masked_sums_kernel(x, total, squares, most, R, C, M: tl.constexpr, N: tl.constexpr):
    rows, cols = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :]
    b_x = tl.load(x + rows * C + cols, (rows < R) & (cols < C), other=0.0)
    tl.store(total + cols, tl.sum(b_x, 0, keep_dims=True), cols < C)
    tl.store(squares + cols, tl.sum(b_x * b_x, 0, keep_dims=True), cols < C)
    tl.store(most + cols, tl.max(b_x, 0, keep_dims=True), cols < C)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int32], ids=str)
@pytest.mark.parametrize("rows", [1, 3, 4, 62, 64])
@pytest.mark.parametrize(("columns", "block"), [(64, 64), (61, 64), (7, 16), (2, 2), (250, 256)])
def test_rows_that_are_added_at_once(dtype: torch.dtype, rows: int, columns: int, block: int) -> None:
    """Narrow rows are taken four at a time where all are there; integers, so that every order gives the same."""
    torch.manual_seed(0)
    x = torch.randint(-4, 5, (rows, columns)).to(dtype)
    total, squares, most = (torch.full((columns,), 77, dtype=dtype) for _ in range(3))
    launch(masked_sums_kernel, (1,), x, total, squares, most, rows, columns, M=64, N=block)
    assert torch.equal(total, x.sum(0, dtype=dtype)) and torch.equal(squares, x.square().sum(0, dtype=dtype))
    assert torch.equal(most, x.amax(0) if rows == 64 else x.amax(0).clamp(min=0))
