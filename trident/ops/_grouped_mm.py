"""Products of groups of rows, each with a matrix of its own: experts of a mixture. x [S, K], w [G, K, N], offs [G].

    rows of group g   offs[g - 1] <= s < offs[g]    (offs[-1] is 0; behind the last one the result is 0)
    forward           y[s] = x[s] w[g]
    backward          dx[s] = dy[s] w[g]ᵀ,  dw[g] = sum over the group of x[s]ᵀ dy[s]

The host does not know how long a group is, and does not wait for it: tiles of BLOCK_M rows are as many as there can be
at most, S / BLOCK_M and one a group, and each finds its own. Tile offs[g - 1] / BLOCK_M + g is the first of group g.
"""

import functools
import itertools
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang.tile import accumulator, matrix, multiple
from trident.runtime import recompute, route, tuning, tuning_llm, tuning_products
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op

DTYPES = route.HALF_TO_DOUBLE | {torch.int32}


@triton.jit
def _bounds(offs, group, S, G):
    """The first row of a group, and the one past its last. Group G: what is behind the last one."""
    start = tl.load(offs + group - 1, mask=group > 0, other=0)
    end = tl.load(offs + group, mask=group < G, other=0)
    return _within(start, S), tl.where(group < G, _within(end, S), S)


@triton.jit
def _within(at, S):
    """Nobody has looked at the offsets: what is none reads no other memory."""
    return tl.minimum(tl.maximum(at, 0), S)


@triton.jit
def _rows_kernel(
    y, x, w, offs, S, G, K, N, x_m, x_k, w_g, w_k, w_n,
    PRECISION: tl.constexpr, ALIGN: tl.constexpr, EVEN_K: tl.constexpr, BLOCK_G: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr,
):  # fmt: skip
    """y [S, N] = x w of the row's group; x_m, ..., w_n: strides. ALIGN: what divides each number from K on."""
    if ALIGN is not None:
        K, N = multiple(K, ALIGN[0]), multiple(N, ALIGN[1])
        x_m, x_k = multiple(x_m, ALIGN[2]), multiple(x_k, ALIGN[3])
        w_g, w_k, w_n = multiple(w_g, ALIGN[4]), multiple(w_k, ALIGN[5]), multiple(w_n, ALIGN[6])
    tiles_m, tiles_n = S // BLOCK_M + G + 1, tl.cdiv(N, BLOCK_N)
    band = tl.program_id(0) // (GROUP_M * tiles_n)
    height = tl.minimum(tiles_m - band * GROUP_M, GROUP_M)
    within = tl.program_id(0) % (GROUP_M * tiles_n)
    tile = band * GROUP_M + within % height
    g = tl.arange(0, BLOCK_G)
    starts = _within(tl.load(offs + g - 1, mask=(g > 0) & (g <= G), other=0), S)
    group = tl.sum(tl.where((g <= G) & (starts // BLOCK_M + g <= tile), 1, 0), 0) - 1
    start, end = _bounds(offs, group, S, G)
    first = start + (tile - start // BLOCK_M - group) * BLOCK_M
    if (first >= start) & (first < end):
        rows = (first + tl.arange(0, BLOCK_M))[:, None]
        cols = (within // height * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
        k = tl.arange(0, BLOCK_K)
        a = x + rows.to(tl.int64) * x_m + k[None, :] * tl.full((), x_k, tl.int64)
        b = w + group.to(tl.int64) * w_g + k[:, None] * tl.full((), w_k, tl.int64) + cols.to(tl.int64) * w_n
        b_y = accumulator(x, BLOCK_M, BLOCK_N)
        for step in range(0, tl.where(group < G, tl.cdiv(K, BLOCK_K), 0)):
            if EVEN_K:
                in_a, in_b = rows < end, cols < N
            else:
                left = K - step * BLOCK_K
                in_a, in_b = (rows < end) & (k[None, :] < left), (cols < N) & (k[:, None] < left)
            b_y = tl.dot(matrix(a, in_a), matrix(b, in_b), b_y, input_precision=PRECISION, out_dtype=b_y.dtype)
            a += BLOCK_K * x_k
            b += BLOCK_K * w_k
        tl.store(y + rows.to(tl.int64) * N + cols, b_y, (rows < end) & (cols < N))


@triton.jit
def _sums_kernel(
    y, a, b, offs, S, G, M, N, a_s, a_m, b_s, b_n,
    PRECISION: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """y [G, M, N]: of each group, the sum of the products of its rows of a [S, M] and of b [S, N]. ALIGN: what divides
    each number from M on."""
    if ALIGN is not None:
        M, N = multiple(M, ALIGN[0]), multiple(N, ALIGN[1])
        a_s, a_m = multiple(a_s, ALIGN[2]), multiple(a_m, ALIGN[3])
        b_s, b_n = multiple(b_s, ALIGN[4]), multiple(b_n, ALIGN[5])
    group, tiles_n = tl.program_id(1), tl.cdiv(N, BLOCK_N)
    start, end = _bounds(offs, group, S, G)
    rows = (tl.program_id(0) // tiles_n * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    cols = (tl.program_id(0) % tiles_n * BLOCK_N + tl.arange(0, BLOCK_N))[None, :]
    b_y = accumulator(a, BLOCK_M, BLOCK_N)
    for i in range(start, end, BLOCK_K):
        s = i + tl.arange(0, BLOCK_K)
        at_a = s[None, :].to(tl.int64) * a_s + rows * tl.full((), a_m, tl.int64)
        at_b = s[:, None].to(tl.int64) * b_s + cols * tl.full((), b_n, tl.int64)
        b_a = matrix(a + at_a, (rows < M) & (s[None, :] < end))
        b_b = matrix(b + at_b, (s[:, None] < end) & (cols < N))
        b_y = tl.dot(b_a, b_b, b_y, input_precision=PRECISION, out_dtype=b_y.dtype)
    at = (group.to(tl.int64) * M + rows) * N + cols
    tl.store(y + at, b_y, (rows < M) & (cols < N))


def _precision(x: Tensor) -> str:
    return "tf32" if tuning_products.tf32(x) else "ieee"


@op("grouped_mm")
def _rows(x: Tensor, w: Tensor, offs: Tensor) -> Tensor:
    """x and w of any strides."""
    (S, K), (G, _, N) = x.shape, w.shape
    y = x.new_empty(S, N)
    plan = tuning_llm.grouped(S, G, N, K, x.dtype, tuning_products.tf32(x), x.device)
    numbers = K, N, *x.stride(), *w.stride()
    launch(
        _rows_kernel, plan.grid, y, x, w, offs.contiguous(), S, G, *numbers,
        PRECISION=_precision(x), ALIGN=tuning.all_aligned(x.device, *numbers), **plan.meta,
    )  # fmt: skip
    return y


@op("grouped_mm_sums")
def _sums(a: Tensor, b: Tensor, offs: Tensor) -> Tensor:
    """[G, M, N] of a [S, M] and b [S, N], of any strides."""
    (S, M), N, G = a.shape, b.shape[1], offs.shape[0]
    y = a.new_empty(G, M, N)
    plan = tuning_llm.grouped_sums(S, G, M, N, a.dtype, tuning_products.tf32(a), a.device)
    numbers = M, N, *a.stride(), *b.stride()
    launch(
        _sums_kernel, plan.grid, y, a, b, offs.contiguous(), S, G, *numbers,
        PRECISION=_precision(a), ALIGN=tuning.all_aligned(a.device, *numbers), **plan.meta,
    )  # fmt: skip
    return y


class _GroupedMM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, offs: Tensor) -> Tensor:
        ctx.save_for_backward(x, w, offs)
        return _rows(x, w, offs)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, w, offs = ctx.saved_tensors
        if recompute.wanted():
            return *recompute.gradients(lambda x, w: _by_groups(x, w, offs), (x, w), dy), None
        needs_dx, needs_dw, _ = ctx.needs_input_grad
        dx = _rows(dy, w.transpose(1, 2), offs) if needs_dx else None
        if not needs_dw:
            return dx, None, None
        # as w lies: a layer's weight is [G, N, K], seen the other way round
        dw = _sums(dy, x, offs).transpose(1, 2) if w.stride(1) == 1 else _sums(x, dy, offs)
        return dx, dw, None


class _Dense(torch.autograd.Function):
    """y. Its gradient is contiguous, as torch's backward wants it."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Tensor:
        return dy.contiguous()


def _by_groups(x: Tensor, w: Tensor, offs: Tensor) -> Tensor:
    """By torch's operators: they look at the offsets."""
    at = [0, *offs.tolist()]
    ys = [x[start:end] @ w[g] for g, (start, end) in enumerate(itertools.pairwise(at))]
    return torch.cat([*ys, x.new_zeros(max(0, x.shape[0] - at[-1]), w.shape[2])])


def _unfit(x: Tensor, w: Tensor, offs: Tensor | None, bias: Tensor | None, out_dtype: torch.dtype | None) -> str | None:
    if x.dim() != 2 or w.dim() != 3 or offs is None:
        return "no kernel for these dimensions"
    if bias is not None or offs.dtype != torch.int32 or offs.shape != w.shape[:1] or x.shape[1] != w.shape[1]:
        return route.INVALID
    if x.dtype != w.dtype:
        return "operands of several dtypes"
    if out_dtype not in (None, x.dtype):
        return "a result of another dtype"
    return None


def grouped_mm(
    mat_a: Tensor,
    mat_b: Tensor,
    *,
    offs: Tensor | None = None,
    bias: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
) -> Tensor:
    """As :func:`torch.nn.functional.grouped_mm`: rows of mat_a times the matrix of their group. No host sync.

    Shapes: mat_a [S, K], mat_b [G, K, N], offs [G] int32, where each group ends; the result [S, N]. Any strides and
    sizes, where torch asks for multiples of 16 bytes; rows behind the last group are 0, in gradients too. Other
    dimensions, bias and out_dtype are torch's.
    Dtypes: float16, bfloat16, float32, float64; sums in float32 (float64 for float64), as allow_tf32 says on GPUs.
    """
    reason = _unfit(mat_a, mat_b, offs, bias, out_dtype)
    known = reason is None and _torch_takes(mat_a, mat_b)
    name = _kind(mat_a, mat_b) if known or not torch.compiler.is_compiling() else "grouped_mm"
    if route.to_torch(name, mat_a, mat_b, offs, unless=reason, mixed=True, dtypes=DTYPES):
        if reason is None and offs is not None and not known:
            return _by_groups(mat_a, mat_b, offs)
        y: Tensor = torch.nn.functional.grouped_mm(mat_a, mat_b, offs=offs, bias=bias, out_dtype=out_dtype)
        return apply(_Dense, y) if reason is None and _learns(mat_a, mat_b) else y
    assert offs is not None  # for mypy
    y = apply(_GroupedMM, mat_a, mat_b, offs)
    return y


@functools.cache
def _multiplies_halves() -> bool:
    """May torch's products of halves be fast on this CPU? With AVX2 alone they take 40 times as long as ours."""
    return torch.backends.cpu.get_cpu_capability() != "AVX2"


def _kind(x: Tensor, w: Tensor) -> str:
    """The name by which `crossover` knows such a call."""
    if x.dtype.itemsize > 2 or (x.is_cpu and _multiplies_halves()):
        return "grouped_mm (full precision)"
    few = x.dim() == 2 and w.dim() == 3 and x.shape[0] < (4 if _learns(x, w) else 8) * w.shape[0]
    return "grouped_mm (few rows)" if few else "grouped_mm"


def _learns(x: Tensor, w: Tensor) -> bool:
    return torch.is_grad_enabled() and (x.requires_grad or w.requires_grad)


def _torch_takes(x: Tensor, w: Tensor) -> bool:
    """Do both lie so that torch reads them, and with gradients to come that of the result, too? (It has no float64.)"""
    fits = x.dtype != torch.float64 and x.numel() > 0
    if _learns(x, w) and w.shape[-1] * w.element_size() % 16 != 0:
        return False
    return fits and all(sum(stride * t.element_size() % 16 != 0 for stride in t.stride()) <= 1 for t in (x, w))
