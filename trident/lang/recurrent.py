"""One step of a recurrent cell, on blocks in float32 or float64: what the rows of the table in ops/_rnn_cell.py name.

    step(a, b, c, d, s)              (h', c'), the new state
    grad(dy, dc, a, b, c, d, s)      the gradients of a, b, c, d, and what reaches s beside the products

a, b, c, d are the gates before their activations, as many as the cell has; of a GRU c and d are the product with the
input and that with the state, which its third gate does not merely add. s is c of an LSTM, h of a GRU.
"""

import triton
import triton.language as tl

from trident.lang import pointwise as P
from trident.lang.tile import load


@triton.jit
def rnn_tanh(a, b, c, d, s):
    y = P.tanh(a, 0.0, 0.0)
    return y, y


@triton.jit
def rnn_relu(a, b, c, d, s):
    y = P.relu(a, 0.0, 0.0)
    return y, y


@triton.jit
def rnn_tanh_grad(dy, dc, a, b, c, d, s):
    """a: the step's result, of which the derivative is a function."""
    da = P.tanh_grad(dy, a, 0.0, 0.0)
    return da, da, da, da, dy


@triton.jit
def rnn_relu_grad(dy, dc, a, b, c, d, s):
    da = P.relu_grad(dy, a, 0.0, 0.0)
    return da, da, da, da, dy


@triton.jit
def _lstm_gates(a, b, c, d):
    return P.sigmoid(a, 0.0, 0.0), P.sigmoid(b, 0.0, 0.0), P.tanh(c, 0.0, 0.0), P.sigmoid(d, 0.0, 0.0)


@triton.jit
def lstm(a, b, c, d, s):
    i, f, g, o = _lstm_gates(a, b, c, d)
    cell = f * s + i * g
    return o * P.tanh(cell, 0.0, 0.0), cell


@triton.jit
def lstm_grad(dy, dc, a, b, c, d, s):
    i, f, g, o = _lstm_gates(a, b, c, d)
    t = P.tanh(f * s + i * g, 0.0, 0.0)
    do = tl.zeros_like(o)
    if dy is not None:  # None: h' was not used, and nothing reaches o, NaN or not
        dc += P.tanh_grad(dy * o, t, 0.0, 0.0)
        do = P.sigmoid_grad(dy * t, o, 0.0, 0.0)
    da, db = P.sigmoid_grad(dc * g, i, 0.0, 0.0), P.sigmoid_grad(dc * s, f, 0.0, 0.0)
    return da, db, P.tanh_grad(dc * i, g, 0.0, 0.0), do, dc * f


@triton.jit
def gru(a, b, c, d, s):
    n = P.tanh(c + P.sigmoid(a, 0.0, 0.0) * d, 0.0, 0.0)
    y = n + P.sigmoid(b, 0.0, 0.0) * (s - n)
    return y, y


@triton.jit
def gru_grad(dy, dc, a, b, c, d, s):
    r, z = P.sigmoid(a, 0.0, 0.0), P.sigmoid(b, 0.0, 0.0)
    n = P.tanh(c + r * d, 0.0, 0.0)
    dn = P.tanh_grad(dy * (1 - z), n, 0.0, 0.0)
    return P.sigmoid_grad(dn * d, r, 0.0, 0.0), P.sigmoid_grad(dy * (s - n), z, 0.0, 0.0), dn, dn * r, dy * z


@triton.jit
def total(g, other, b, other_b, at, cols, inside):
    """Of what is given."""
    z = load(g + at, inside)
    if other is not None:
        z += load(other + at, inside)
    if b is not None:
        z += load(b + cols, inside)
    if other_b is not None:
        z += load(other_b + cols, inside)
    return z


@triton.jit
def gates(gi, gh, b_i, b_h, at, cols, inside, H, GATES: tl.constexpr):
    """a, b, c, d of a step. gi and gh [M, GATES H]: the products, gi their sum where gh is None; `at` is a row's first
    gate, H the distance to the next one. Of a cell with one gate all four are that."""
    a = total(gi, gh, b_i, b_h, at, cols, inside)
    b, c, d = a, a, a
    if GATES > 1:
        b = total(gi, gh, b_i, b_h, at + H, cols + H, inside)
        last, col = at + 2 * H, cols + 2 * H
        if GATES == 3:
            c = total(gi, None, b_i, None, last, col, inside)
            d = total(gh, None, b_h, None, last, col, inside)
        else:
            c = total(gi, gh, b_i, b_h, last, col, inside)
            d = total(gi, gh, b_i, b_h, last + H, col + H, inside)
    return a, b, c, d


@triton.jit
def store_gates(dgi, dgh, da, db, dc, dd, at, inside, H, GATES: tl.constexpr):
    """Store the gradients of both products; dgh is None where they have one gradient."""
    tl.store(dgi + at, da, inside)
    if GATES > 1:
        tl.store(dgi + at + H, db, inside)
        tl.store(dgi + at + 2 * H, dc, inside)
        if GATES == 3:
            tl.store(dgh + at, da, inside)
            tl.store(dgh + at + H, db, inside)
            tl.store(dgh + at + 2 * H, dd, inside)
        else:
            tl.store(dgi + at + 3 * H, dd, inside)
