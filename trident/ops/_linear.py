"""A linear layer with an optional activation f in the same kernel: x [M, K], w [N, K], b [N].

forward     z = x wᵀ + b
            y = f(z)

backward    dz = f'(z) dy
            dx = dz w
            dw = dzᵀ x
            db = sum over M of dz

All three products are one kernel over strides. It keeps for the backward what torch keeps: y where f' is a function of
y, else z, which then the forward's kernel writes beside y. dw sums over M, often long while [N, K] is small: slices of
M are summed by several programs, and their results added in a fixed order. Of few rows (a language model's next token)
all the work is reading w: they have a kernel that sums along its rows.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import accumulator, load, matrix
from trident.ops._activation import ACTIVATIONS, FUSED, _activate
from trident.ops._activation import _backward as activation_backward
from trident.ops._slices import add_slices, new_slices
from trident.runtime import autocast, recompute, route, tuning_products
from trident.runtime.autograd import apply
from trident.runtime.exporting import surely
from trident.runtime.launch import launch
from trident.runtime.op import op

FEW_ROWS = 4  # most that `_few_rows_kernel` takes
ONE, FEW, FEW_HALVES = " (a row of bfloat16)", " (few rows)", " (few rows of bfloat16)"  # of `crossover`


@triton.jit
def _matmul_kernel(
    y, z, a, b, bias, M, N, K, a_m, a_k, b_k, b_n, STEPS,
    F: tl.constexpr, ADD: tl.constexpr, PRECISION: tl.constexpr, EVEN_K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """z = a [M, K] b [K, N] + bias [N] and y = F(z), both [M, N] contiguous; bias, z and F may be None. ADD: z is
    added to what y holds.

    a_m, ..., b_n: strides. STEPS of BLOCK_K for each program of axis 1, which writes its own y.
    """
    # GROUP_M tiles of rows, column by column: the tiles that run at one time share their rows of a and columns of b
    tiles_m, tiles_n = tl.cdiv(M, BLOCK_M), tl.cdiv(N, BLOCK_N)
    group = tl.program_id(0) // (GROUP_M * tiles_n)
    height = tl.minimum(tiles_m - group * GROUP_M, GROUP_M)
    inside = tl.program_id(0) % (GROUP_M * tiles_n)
    rows = (group * GROUP_M + inside % height) * BLOCK_M + tl.arange(0, BLOCK_M)[:, None]
    cols = inside // height * BLOCK_N + tl.arange(0, BLOCK_N)[None, :]

    first = tl.program_id(1) * STEPS
    begin = first * tl.full((), BLOCK_K, tl.int64)
    k = tl.arange(0, BLOCK_K)
    a += rows.to(tl.int64) * a_m + (begin + k[None, :]) * a_k
    b += (begin + k[:, None]) * b_k + cols.to(tl.int64) * b_n
    b_z = accumulator(a, BLOCK_M, BLOCK_N)
    for step in range(first, tl.minimum(first + STEPS, tl.cdiv(K, BLOCK_K))):
        if EVEN_K:
            in_a, in_b = rows < M, cols < N
        else:
            left = K - step * BLOCK_K
            in_a, in_b = (rows < M) & (k[None, :] < left), (cols < N) & (k[:, None] < left)
        b_z = tl.dot(matrix(a, in_a), matrix(b, in_b), b_z, input_precision=PRECISION, out_dtype=b_z.dtype)
        a += BLOCK_K * a_k
        b += BLOCK_K * b_k

    if bias is not None:
        b_z += load(bias + cols, cols < N)
    # the slice's place is one number: added to each row it would take registers, which float32 would spill
    at = tl.program_id(1).to(tl.int64) * M * N + (rows.to(tl.int64) * N + cols)
    inside = (rows < M) & (cols < N)
    if z is not None:
        tl.store(z + at, b_z, inside)
    if ADD:
        b_z += load(y + at, inside)
    tl.store(y + at, b_z if F is None else F(b_z, 0.0, 0.0), inside)


@triton.jit
def _few_rows_kernel(
    y, a, w, bias, M, N, K, a_m, w_n,
    F: tl.constexpr, EVEN_K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """y = F(a [M, K] wᵀ + bias [N]) with w [N, K], rows of a and w contiguous, all M rows of a in one program."""
    m = tl.arange(0, BLOCK_M).to(tl.int64)[:, None]
    n = (tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)).to(tl.int64)[None, :]
    # rows beyond the last are the last one again, so that no mask stands between the rows that share b_w
    a += tl.minimum(m, M - 1)[:, :, None] * a_m
    w += tl.minimum(n, N - 1)[:, :, None] * w_n
    b_z = accumulator(a, BLOCK_M, BLOCK_N)
    for step in range(0, tl.cdiv(K, BLOCK_K)):
        k = (step * BLOCK_K + tl.arange(0, BLOCK_K))[None, None, :]
        inside = (k < K) | EVEN_K
        b_w = load(w + k, inside)
        b_z += tl.sum(load(a + k, inside) * b_w, 2)
    if bias is not None:
        b_z += load(bias + n, n < N)
    tl.store(y + m * N + n, b_z if F is None else F(b_z, 0.0, 0.0), (m < M) & (n < N))


def _product(
    y: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None, z: Tensor | None = None,
    activation: str | None = None, add: bool = False,
) -> None:  # fmt: skip
    """Write y [M, N] (and z, if given) from a [M, K] and b [K, N] of any strides; or add to y."""
    (M, K), N = a.shape, b.shape[1]
    f = None if activation is None else ACTIVATIONS[activation].f
    few = type(M) is int and M <= FEW_ROWS and z is None and not add and a.device.type == "cpu"
    if few and a.stride(1) == b.stride(0) == 1:
        plan = tuning_products.few_rows(M, N, K, a.dtype, a.device)
        bias = None if bias is None else bias.contiguous()
        launch(_few_rows_kernel, plan.grid, y, a, b, bias, M, N, K, a.stride(0), b.stride(1), F=f, **plan.meta)
        return
    tf32 = tuning_products.tf32(a)
    may_slice = bias is None and z is None and f is None and not add
    plan = tuning_products.matmul(M, N, K, a.dtype, tf32, may_slice, torch.get_num_threads(), a.device)
    slices = plan.grid[-1] if len(plan.grid) > 1 else 1  # TRACED has one
    found = y if slices == 1 else new_slices(slices, y, a)
    launch(
        _matmul_kernel,
        plan.grid,
        *(found, z, a, b, None if bias is None else bias.contiguous(), M, N, K, *a.stride(), *b.stride()),
        F=f,
        ADD=add,
        PRECISION="tf32" if tf32 else "ieee",
        **plan.meta,
    )
    if slices > 1:
        add_slices(y, found)


def multiply(y: Tensor, a: Tensor, b: Tensor, bias: Tensor | None = None, add: bool = False) -> None:
    """Write a [M, K] b [K, N] + bias [N] to y, or add a b to it; by torch or by the kernel, whichever is faster."""
    way, work = _way(a, b.shape[1])
    if not route.faster_in_torch(f"linear{way}", a, work):
        _product(y, a, b, bias, add=add)
    elif add:
        y.addmm_(a, b)
    elif bias is None:
        torch.mm(a, b, out=y)
    else:
        torch.addmm(bias, a, b, out=y)


@op("linear")
def _forward(x: Tensor, w: Tensor, b: Tensor | None, activation: str | None, keep: bool) -> tuple[Tensor, Tensor]:
    """y [..., N], and z like y if `keep` (else empty)."""
    y = x.new_empty([*x.shape[:-1], w.shape[0]])
    z = torch.empty_like(y) if keep else None
    rows = x.reshape(-1, x.shape[-1])
    _product(y, rows, w.T, b, z, activation)
    return y, x.new_empty(0) if z is None else z


@op("matmul")
def _matmul(a: Tensor, b: Tensor) -> Tensor:
    """a [M, K] b [K, N], of any strides."""
    y = a.new_empty(a.shape[0], b.shape[1])
    _product(y, a, b)
    return y


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w: Tensor, b: Tensor | None, activation: str | None, grads_in_torch: bool
    ) -> Tensor:
        of_y = activation is None or ACTIVATIONS[activation].differentiable_grad is not None
        y, z = _forward(x, w, b, activation, not of_y and any(ctx.needs_input_grad))
        ctx.save_for_backward(x, w, b, None if activation is None else y if of_y else z)
        ctx.activation, ctx.matmul = activation, torch.mm if grads_in_torch else _matmul
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, b, s = ctx.saved_tensors
        if recompute.wanted():
            return *recompute.gradients(lambda x, w, b: _in_torch(x, w, b, ctx.activation), (x, w, b), dy), None, None
        dz = dy if s is None else activation_backward(dy, s, ctx.activation, 0.0, 0.0, dy.dtype)
        rows = dz.reshape(-1, dz.shape[-1])
        needs_dx, needs_dw, needs_db, *_ = ctx.needs_input_grad
        dx = ctx.matmul(rows, w).view_as(x) if needs_dx else None
        dw = ctx.matmul(rows.T, x.reshape(-1, x.shape[-1])) if needs_dw else None
        return dx, dw, rows.sum(0) if needs_db else None, None, None


def _in_torch(x: Tensor, w: Tensor, b: Tensor | None, activation: str | None) -> Tensor:
    z = torch.nn.functional.linear(x, w, b)
    return z if activation is None else ACTIVATIONS[activation].torch(z)


def _way(x: Tensor, N: int) -> tuple[str, int]:
    """In which a product of x [..., K] and a matrix of N columns is special, and its multiplications."""
    work = x.numel() * N
    K = x.shape[-1]
    # a graph for all sizes may not be asked for its own
    rows = x.numel() // max(1, K) if type(work) is int else FEW_ROWS + 1
    few = surely(rows <= FEW_ROWS)
    if x.dtype == torch.bfloat16 and few:
        return ONE if surely(rows == 1) else FEW_HALVES, work
    return " (halves)" if x.dtype.itemsize == 2 else FEW if few else "", work


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None, *, activation: str | None = None) -> Tensor:
    """As :func:`torch.nn.functional.linear`, then the activation of that name, if any, in the same kernel.

    Shapes: input [..., K], weight [N, K], bias [N]; the result [..., N]. activation: one of `FUSED`, else ValueError.
    float32 products follow torch.backends.cuda.matmul.allow_tf32.
    """
    if activation is not None and activation not in FUSED:
        raise ValueError(f"linear: activation is {activation!r}; expected one of {', '.join(sorted(FUSED))}")
    # of halves, which a language model asks for some hundred times a token, in one look instead of four: 4 us
    halves = activation is None and isinstance(input, Tensor) and input.dtype.itemsize == 2 and input.dim() > 0
    if halves and route.always_torchs((f"linear{_way(input, 1)[0]}",), input):
        return torch.nn.functional.linear(input, weight, bias)
    x, w, b = autocast.lowered("linear", input, weight, bias)
    assert x is not None and w is not None  # for mypy
    dtypes = {t.dtype for t in (x, w, b) if t is not None}
    fits = input.dim() > 0 and weight.dim() == 2 and input.shape[-1] == weight.shape[1] and weight.shape[0] > 0
    fits = fits and (bias is None or bias.shape == weight.shape[:1]) and len(dtypes) == 1
    way, work = _way(x, w.shape[0]) if fits else ("", 0)
    name = "linear" if activation is None else "linear_activation"
    if not route.to_torch(name + way, input, weight, bias, unless=None if fits else route.INVALID, work=work):
        # plain products, and so those of the gradients, may be faster in torch where the fused one is not; of few rows
        # they are: theirs are no sums along rows of w, but tiles that would be nearly empty
        few = way in (ONE, FEW, FEW_HALVES)
        in_torch = few or (activation is not None and route.to_torch(f"linear{way}", x, w, work=work))
        return apply(_Linear, x, w, b, activation, in_torch)
    if activation is None or input.numel() == 0:
        return _in_torch(input, weight, bias, activation)
    return _activate(activation, torch.nn.functional.linear(input, weight, bias))
