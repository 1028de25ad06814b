"""The arithmetic of the optimizers, element by element, in float32 (float64 for float64), and the kernels that do it.

    p  parameter    g  gradient    s  the numbers of a step (`Optimizer` classes say what they are)

A rule takes blocks of p, g and its states, and returns p and the states after the step.
"""

import triton
import triton.language as tl

from trident.lang.lists import address, chunk, piece, whole_blocks
from trident.lang.tile import from_bits, load, nearest

NUMBERS = ("s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7")  # float64 as bits: exact.bits


@triton.jit
def adam(p, g, m, v, s):
    """Kingma and Ba 2015. L2 decay is added to the gradient."""
    sign, decay, w1, b2, w2, step, root, eps = s
    return _adam(p, g * sign + p * decay, m, v, w1, b2, w2, step, root, eps)


@triton.jit
def adamw(p, g, m, v, s):
    """Loshchilov and Hutter 2019. Decoupled decay: `keep` of the parameter stays."""
    sign, keep, w1, b2, w2, step, root, eps = s
    return _adam(p * keep, g * sign, m, v, w1, b2, w2, step, root, eps)


@triton.jit
def _adam(p, g, m, v, w1, b2, w2, step, root, eps):
    """m += w1 (g - m), v = b2 v + w2 g², p -= step m / (sqrt(v) / root + eps), root = sqrt(1 - b2^t)."""
    m += w1 * (g - m)
    v = b2 * v + w2 * g * g
    return p - step * (m / (tl.sqrt(v) / root + eps)), m, v


@triton.jit
def lion(p, g, m, s):
    """Chen et al. 2023: p moves by the sign of one average of the gradients, another one is kept. sign(NaN) = NaN."""
    sign, keep, w1, w2, lr, _, _, _ = s
    g = g * sign
    u = m + w1 * (g - m)
    direction = tl.where(u > 0, 1.0, tl.where(u < 0, -1.0, u * 0)).to(p.dtype)
    return p * keep - lr * direction, m + w2 * (g - m)


@triton.jit
def sgd(p, g, s):
    sign, decay, lr, _, _, _, _, _ = s
    return p - lr * (g * sign + p * decay)


@triton.jit
def momentum(p, g, m, s):
    sign, decay, lr, keep, w, _, _, _ = s
    m = keep * m + w * (g * sign + p * decay)
    return p - lr * m, m


@triton.jit
def nesterov(p, g, m, s):
    sign, decay, lr, keep, w, mu, _, _ = s
    g = g * sign + p * decay
    m = keep * m + w * g
    return p - lr * (g + mu * m), m


@triton.jit
def muon(u, g, m, s):
    """What Muon makes orthogonal: the average of the gradients. (p's place has that matrix.)"""
    w, _, _, _, _, _, _, _ = s
    m += w * (g - m)
    return m, m


@triton.jit
def muon_nesterov(u, g, m, s):
    w, mu, _, _, _, _, _, _ = s
    m += w * (g - m)
    return g + mu * (m - g), m


@triton.jit
def moved(p, u, s):
    """p (1 - lr decay) - lr' u"""
    keep, lr, _, _, _, _, _, _ = s
    return p * keep - lr * u


# -- kernels: `a` and `b` are the states of a rule that has some


@triton.jit
def _update(p, g, a, b, at, inside, s, RULE: tl.constexpr):
    b_p, b_g = load(p + at, inside), load(g + at, inside)
    if b is not None:
        b_p, b_a, b_b = RULE(b_p, b_g, load(a + at, inside), load(b + at, inside), s)
        tl.store(a + at, nearest(b_a, a), inside)
        tl.store(b + at, nearest(b_b, b), inside)
    elif a is not None:
        b_p, b_a = RULE(b_p, b_g, load(a + at, inside), s)
        tl.store(a + at, nearest(b_a, a), inside)
    else:
        b_p = RULE(b_p, b_g, s)
    tl.store(p + at, nearest(b_p, p), inside)


@triton.jit
def _number(bits, p):
    DTYPE: tl.constexpr = tl.float64 if p.dtype.element_ty == tl.float64 else tl.float32
    return from_bits(bits).to(DTYPE)


@triton.jit
def _walk(p, g, a, b, start, stop, s, RULE: tl.constexpr, BLOCK: tl.constexpr):
    whole = whole_blocks(start, stop, BLOCK)
    for i in range(start, whole, BLOCK):
        _update(p, g, a, b, i + tl.arange(0, BLOCK), tl.full((BLOCK,), True, tl.int1), s, RULE)
    if whole < stop:
        at = whole + tl.arange(0, BLOCK)
        _update(p, g, a, b, at, at < stop, s, RULE)


@triton.jit
def numbers(p, s0, s1, s2, s3, s4, s5, s6, s7):
    return (
        _number(s0, p),
        _number(s1, p),
        _number(s2, p),
        _number(s3, p),
        _number(s4, p),
        _number(s5, p),
        _number(s6, p),
        _number(s7, p),
    )


@triton.jit(do_not_specialize=NUMBERS)
def list_kernel(
    table,  # rows of 5
    chunks,
    p,  # any parameter, gradient and states of the list: their dtypes are all that is read of them
    g,
    a,
    b,
    s0: tl.int64,
    s1: tl.int64,
    s2: tl.int64,
    s3: tl.int64,
    s4: tl.int64,
    s5: tl.int64,
    s6: tl.int64,
    s7: tl.int64,
    RULE: tl.constexpr,
    ALIGNED: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, start, stop = chunk(table, chunks, 5, CHUNK)
    s = numbers(p, s0, s1, s2, s3, s4, s5, s6, s7)
    p, g = address(row, 0, p, ALIGNED), address(row, 1, g, ALIGNED)
    if a is not None:
        a = address(row, 2, a, ALIGNED)
    if b is not None:
        b = address(row, 3, b, ALIGNED)
    _walk(p, g, a, b, start, stop, s, RULE, BLOCK)


@triton.jit(do_not_specialize=NUMBERS)
def tensor_kernel(
    p,
    g,
    a,
    b,
    N,
    s0: tl.int64,
    s1: tl.int64,
    s2: tl.int64,
    s3: tl.int64,
    s4: tl.int64,
    s5: tl.int64,
    s6: tl.int64,
    s7: tl.int64,
    RULE: tl.constexpr,
    CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):
    start, stop = piece(N, CHUNK)
    _walk(p, g, a, b, start, stop, numbers(p, s0, s1, s2, s3, s4, s5, s6, s7), RULE, BLOCK)
