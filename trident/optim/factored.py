"""Second moments of a matrix g [M, N] in its rows and columns (Shazeer and Stern 2018), and the kernels of a step.

    R += w (mean of g² along N - R)    C += w (mean of g² along M - C)    U = g / sqrt(max(R C / mean of R, floor))
    p = p keep - step U                step = rho max(rms of p, least) / max(1, rms of U / d)

A vector has V += w (g² - V), U = g / sqrt(max(V, floor)). A program has the rows from `start` to `stop` of a matrix, or
elements of a vector, whose size is M. It leaves in `sums` [3, programs] its sums of p², of R and of U², in `columns`
its sums of g² down the rows, and who needs the whole sums them again, in one order: no atomics, and nothing waits.
"""

import triton
import triton.language as tl

from trident.lang.lists import address
from trident.lang.tile import col_sum, load, nearest, row_sum
from trident.optim.rules import NUMBERS, numbers

# What kernels know of a matrix, besides four addresses. A tensor of more dimensions is a stack of matrices, whose
# programs follow each other; each has its number of rows, or of columns where a pass walks down these.
SIZES = ("M", "N", "rows", "numel", "tensor_first", "tensor_programs", "first", "programs", "column")


@triton.jit
def _rows(m, stop, BLOCK_M: tl.constexpr):
    rows = (m + tl.arange(0, BLOCK_M))[:, None]
    return rows, rows < stop


@triton.jit
def _cols(n, N, BLOCK_N: tl.constexpr):
    cols = (n + tl.arange(0, BLOCK_N))[None, :]
    return cols, cols < N


@triton.jit
def _total(sums, first, programs, BLOCK: tl.constexpr):
    """The sum of a range of `sums`, float64."""
    total = tl.zeros((BLOCK,), tl.float64)
    for i in range(0, programs, BLOCK):
        at = i + tl.arange(0, BLOCK)
        total += tl.load(sums + first + at, mask=at < programs, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def _wide(like, M: tl.constexpr, N: tl.constexpr):
    return tl.zeros((M, N), tl.float64 if like.dtype.element_ty == tl.float64 else tl.float32)


@triton.jit
def moments(p, g, r, c, sums, columns, ALL, mine, start, stop, at, s, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    _, N, _, _, _, _, first, _, column = at
    w, _, _, _, _, _, _, _ = s
    norm, total = _wide(p, BLOCK_M, BLOCK_N), _wide(p, BLOCK_M, 1)
    for m in range(start, stop, BLOCK_M):
        rows, in_m = _rows(m, stop, BLOCK_M)
        squares = _wide(p, BLOCK_M, BLOCK_N)
        for n in range(0, N, BLOCK_N):
            cols, in_n = _cols(n, N, BLOCK_N)
            b_p, b_g = load(p + (rows * N + cols), in_m & in_n), load(g + (rows * N + cols), in_m & in_n)
            norm += b_p * b_p
            squares += b_g * b_g
        b_r = load(r + rows, in_m)
        b_r += w * (row_sum(squares) / N - b_r)
        tl.store(r + rows, nearest(b_r, r), in_m)
        total += tl.where(in_m, b_r, 0.0)
    tl.store(sums + mine, tl.sum(tl.sum(norm, 1), 0).to(tl.float64))
    tl.store(sums + ALL + mine, tl.sum(tl.sum(total, 1), 0).to(tl.float64))
    for n in range(0, N, BLOCK_N):  # the gradients are in the cache
        cols, in_n = _cols(n, N, BLOCK_N)
        squares = _wide(p, BLOCK_M, BLOCK_N)
        for m in range(start, stop, BLOCK_M):
            rows, in_m = _rows(m, stop, BLOCK_M)
            b_g = load(g + (rows * N + cols), in_m & in_n)
            squares += b_g * b_g
        tl.store(columns + column + (mine - first) * N + cols, col_sum(squares), in_n)


@triton.jit
def columns_mean(
    p, g, r, c, sums, columns, ALL, mine, start, stop, at, s, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    """Here start and stop are of columns."""
    M, N, _, _, _, _, _, programs, column = at
    w, _, _, _, _, _, _, _ = s
    for n in range(start, stop, BLOCK_N):
        cols, in_n = _cols(n, stop, BLOCK_N)
        squares = _wide(p, BLOCK_M, BLOCK_N)
        for m in range(0, programs, BLOCK_M):
            rows, in_m = _rows(m, programs, BLOCK_M)
            squares += load(columns + column + (rows * N + cols), in_m & in_n)
        b_c = load(c + cols, in_n)
        b_c += w * (col_sum(squares) / M - b_c)
        tl.store(c + cols, nearest(b_c, c), in_n)


@triton.jit
def _matrix_update(g, r, c, rows, cols, in_m, in_n, N, mean, floor):
    b_v = load(r + rows, in_m) / mean * load(c + cols, in_n)
    return _update(load(g + (rows * N + cols), in_m & in_n), b_v, floor)


@triton.jit
def _update(b_g, b_v, floor):
    return b_g / tl.sqrt(tl.where(b_v < floor, floor, b_v))  # a NaN stays


@triton.jit
def _mean(sums, ALL, at, eps, like, BLOCK: tl.constexpr):
    """mean of R, at least eps."""
    M, _, _, _, _, _, first, programs, _ = at
    mean = (_total(sums + ALL, first, programs, BLOCK) / M).to(eps.dtype)
    return tl.where(mean < eps, eps, mean)


@triton.jit
def norms(p, g, r, c, sums, columns, ALL, mine, start, stop, at, s, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    _, N, _, _, _, _, _, _, _ = at
    _, _, _, _, floor, eps, _, _ = s
    mean = _mean(sums, ALL, at, eps, p, BLOCK_N)
    norm = _wide(p, BLOCK_M, BLOCK_N)
    for m in range(start, stop, BLOCK_M):
        rows, in_m = _rows(m, stop, BLOCK_M)
        for n in range(0, N, BLOCK_N):
            cols, in_n = _cols(n, N, BLOCK_N)
            b_u = _matrix_update(g, r, c, rows, cols, in_m, in_n, N, mean, floor)
            norm += b_u * b_u
    tl.store(sums + 2 * ALL + mine, tl.sum(tl.sum(norm, 1), 0).to(tl.float64))


@triton.jit
def _step(sums, ALL, at, s, BLOCK: tl.constexpr):
    """step of the formula, of a whole tensor."""
    _, _, _, numel, tensor_first, tensor_programs, _, _, _ = at
    _, _, rho, least, _, _, d, _ = s
    of_p = tl.sqrt(_total(sums, tensor_first, tensor_programs, BLOCK) / numel)
    of_u = tl.sqrt(_total(sums + 2 * ALL, tensor_first, tensor_programs, BLOCK) / numel) / d
    step = rho * tl.where(of_p > least, of_p, least) / tl.where(of_u > 1, of_u, 1.0)
    return step.to(rho.dtype)


@triton.jit
def move(p, g, r, c, sums, columns, ALL, mine, start, stop, at, s, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    _, N, _, _, _, _, _, _, _ = at
    _, keep, _, _, floor, eps, _, _ = s
    mean, step = _mean(sums, ALL, at, eps, p, BLOCK_N), _step(sums, ALL, at, s, BLOCK_N)
    for m in range(start, stop, BLOCK_M):
        rows, in_m = _rows(m, stop, BLOCK_M)
        for n in range(0, N, BLOCK_N):
            cols, in_n = _cols(n, N, BLOCK_N)
            inside = in_m & in_n
            b_p = load(p + (rows * N + cols), inside) * keep
            b_p -= step * _matrix_update(g, r, c, rows, cols, in_m, in_n, N, mean, floor)
            tl.store(p + (rows * N + cols), nearest(b_p, p), inside)


@triton.jit
def vector_moments(
    p, g, v, c, sums, columns, ALL, mine, start, stop, at, s, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr
):
    w, _, _, _, floor, _, _, _ = s
    norm_p, norm_u = _wide(p, 1, BLOCK_N), _wide(p, 1, BLOCK_N)
    for i in range(start, stop, BLOCK_N):
        n, inside = _cols(i, stop, BLOCK_N)
        b_p, b_g, b_v = load(p + n, inside), load(g + n, inside), load(v + n, inside)
        b_v += w * (b_g * b_g - b_v)
        tl.store(v + n, nearest(b_v, v), inside)
        b_u = _update(b_g, b_v, floor)
        norm_p += b_p * b_p
        norm_u += tl.where(inside, b_u * b_u, 0.0)
    tl.store(sums + mine, tl.sum(tl.sum(norm_p, 1), 0).to(tl.float64))
    tl.store(sums + 2 * ALL + mine, tl.sum(tl.sum(norm_u, 1), 0).to(tl.float64))


@triton.jit
def vector_move(p, g, v, c, sums, columns, ALL, mine, start, stop, at, s, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    _, keep, _, _, floor, _, _, _ = s
    step = _step(sums, ALL, at, s, BLOCK_N)
    for i in range(start, stop, BLOCK_N):
        n, inside = _cols(i, stop, BLOCK_N)
        b_u = _update(load(g + n, inside), load(v + n, inside), floor)
        tl.store(p + n, nearest(load(p + n, inside) * keep - step * b_u, p), inside)


@triton.jit(do_not_specialize=NUMBERS)
def list_kernel(
    table,  # a row of a matrix: addresses of p, g and two factors, then SIZES
    chunks,  # [programs, 2]: the row of the table, the first row of the matrix
    p,  # any of the list: their dtypes are all that is read of them
    g,
    a,
    b,
    sums,
    columns,
    ALL,
    s0: tl.int64,
    s1: tl.int64,
    s2: tl.int64,
    s3: tl.int64,
    s4: tl.int64,
    s5: tl.int64,
    s6: tl.int64,
    s7: tl.int64,
    WORK: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    ALIGNED: tl.constexpr,  # every address, and every row's size, to 16 bytes
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    mine = tl.program_id(0)
    row = table + tl.load(chunks + mine * 2) * 13
    start = tl.load(chunks + mine * 2 + 1)
    M, N, rows = tl.load(row + 4), tl.load(row + 5), tl.load(row + 6)
    if ALIGNED:
        N = tl.multiple_of(N, 8)
    p, g, a = address(row, 0, p, ALIGNED), address(row, 1, g, ALIGNED), address(row, 2, a, ALIGNED)
    if b is not None:
        b = address(row, 3, b, ALIGNED)
    at = (
        M, N, rows, tl.load(row + 7), tl.load(row + 8), tl.load(row + 9), tl.load(row + 10), tl.load(row + 11),
        tl.load(row + 12),
    )  # fmt: skip
    stop = tl.minimum(start + BLOCK_N, N) if BY_COLUMN else tl.minimum(start + rows, M)
    s = numbers(p, s0, s1, s2, s3, s4, s5, s6, s7)
    WORK(p, g, a, b, sums, columns, ALL, mine, start, stop, at, s, BLOCK_M, BLOCK_N)


@triton.jit(do_not_specialize=(*NUMBERS, *SIZES))
def matrix_kernel(
    p,
    g,
    a,
    b,
    M,
    N,
    rows,
    numel,
    tensor_first,
    tensor_programs,
    first,
    programs,
    column,
    sums,
    columns,
    ALL,
    s0: tl.int64,
    s1: tl.int64,
    s2: tl.int64,
    s3: tl.int64,
    s4: tl.int64,
    s5: tl.int64,
    s6: tl.int64,
    s7: tl.int64,
    WORK: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """One matrix, or vector: what the sanitizer can check."""
    start = tl.program_id(0).to(tl.int64) * (BLOCK_N if BY_COLUMN else rows)
    stop = tl.minimum(start + BLOCK_N, N) if BY_COLUMN else tl.minimum(start + rows, M)
    at = (M, N, rows, numel, tensor_first, tensor_programs, first, programs, column)
    s = numbers(p, s0, s1, s2, s3, s4, s5, s6, s7)
    WORK(p, g, a, b, sums, columns, ALL, first + tl.program_id(0), start, stop, at, s, BLOCK_M, BLOCK_N)
