"""Recurrent cells, one step: x [M, I], h and c [M, H]; w_ih [G H, I], w_hh [G H, H], b_ih and b_hh [G H], G gates.

forward     a = x w_ihᵀ + b_ih + h w_hhᵀ + b_hh, cut into G gates
  rnn       h' = tanh(a) or relu(a)
  lstm      i, f, o = σ(a_i), σ(a_f), σ(a_o), g = tanh(a_g)
            c' = f c + i g
            h' = o tanh(c')
  gru       r, z = σ(a_r), σ(a_z), q = h w_hnᵀ + b_hn
            n = tanh(x w_inᵀ + b_in + r q)
            h' = n + z (h - n)
backward    da of each gate, and what reaches c, or h beside the product, in one kernel; then
            dx = da w_ih, dh = da w_hh, dw_ih = daᵀ x, dw_hh = daᵀ h, db = sum over M of da

The products are `linear`'s, the second added to the first where nothing comes between; all else of a step is one
kernel. What is kept for the backward are the products, not the gates, which are computed again (decision 118).
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang import recurrent as R
from trident.lang.tile import load, matrix_tile, multiple
from trident.ops._linear import multiply
from trident.runtime import autocast, recompute, route, tuning_rnn
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op


class Cell(NamedTuple):
    gates: int
    step: Any
    grad: Any
    apart: bool  # the two products are not merely added
    of_result: bool  # the derivative is a function of h'
    torch: Callable[..., Any]


CELLS = {
    "rnn_tanh_cell": Cell(1, R.rnn_tanh, R.rnn_tanh_grad, False, True, torch.rnn_tanh_cell),
    "rnn_relu_cell": Cell(1, R.rnn_relu, R.rnn_relu_grad, False, True, torch.rnn_relu_cell),
    "lstm_cell": Cell(4, R.lstm, R.lstm_grad, False, False, torch.lstm_cell),
    "gru_cell": Cell(3, R.gru, R.gru_grad, True, False, torch.gru_cell),
}


@triton.jit
def _read(gi, gh, b_ih, b_hh, s, M, H, GATES: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr):
    """Of this program's tile of [M, H]: where its elements and their first gates are, its mask, and a, b, c, d, s."""
    rows, cols, inside = matrix_tile(tl.program_id(0), tl.program_id(1), M, H, BLOCK_M, BLOCK_N)
    own, at = rows * H + cols, rows * (GATES * H) + cols
    b_s = 0.0 if s is None else load(s + own, inside)
    a, b, c, d = R.gates(gi, gh, b_ih, b_hh, at, cols, inside, H, GATES)
    return own, at, inside, a, b, c, d, b_s


@triton.jit
def _step_kernel(
    y, c, gi, gh, b_ih, b_hh, s, M, H,
    STEP: tl.constexpr, GATES: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    own, _, inside, a, b, c_, d, b_s = _read(gi, gh, b_ih, b_hh, s, M, multiple(H, ALIGN), GATES, BLOCK_M, BLOCK_N)
    b_y, b_c = STEP(a, b, c_, d, b_s)
    tl.store(y + own, b_y, inside)
    if c is not None:
        tl.store(c + own, b_c, inside)


@triton.jit
def _step_backward_kernel(
    dgi, dgh, ds, dy, dh, dc, gi, gh, b_ih, b_hh, s, M, H,
    GRAD: tl.constexpr, GATES: tl.constexpr,
    ALIGN: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """dy and dh are added; any of dy, dh, dc may be None."""
    H = multiple(H, ALIGN)
    own, at, inside, a, b, c, d, b_s = _read(gi, gh, b_ih, b_hh, s, M, H, GATES, BLOCK_M, BLOCK_N)
    zero = tl.zeros((BLOCK_M, BLOCK_N), tl.float64 if gi.dtype.element_ty == tl.float64 else tl.float32)
    b_dy = None if dy is None else load(dy + own, inside)
    if dh is not None:
        b_dh = load(dh + own, inside)
        b_dy = b_dh if dy is None else b_dy + b_dh
    b_dc = zero if dc is None else load(dc + own, inside)
    da, db, dc_, dd, b_ds = GRAD(b_dy, b_dc, a, b, c, d, b_s)
    R.store_gates(dgi, dgh, da, db, dc_, dd, at, inside, H, GATES)
    if ds is not None:
        tl.store(ds + own, b_ds, inside)


def step(name: str, y: Tensor, c: Tensor | None, *read: Tensor | None) -> None:
    """Write h' and c'. read: gi, gh, b_ih, b_hh and what a step reads of the state; all contiguous."""
    M, H = y.shape
    plan = tuning_rnn.step(M, H, y.dtype, y.device)
    launch(_step_kernel, plan.grid, y, c, *read, M, H, STEP=CELLS[name].step, GATES=CELLS[name].gates, **plan.meta)


def step_backward(name: str, M: int, H: int, dgi: Tensor, *rest: Tensor | None) -> None:
    """Write dgi, dgh, ds. rest: these two, dy, dh, dc, and what `step` reads; all contiguous. gi: h' where the
    derivative is of that, and then no biases."""
    cell, plan = CELLS[name], tuning_rnn.step(M, H, dgi.dtype, dgi.device)
    launch(_step_backward_kernel, plan.grid, dgi, *rest, M, H, GRAD=cell.grad, GATES=cell.gates, **plan.meta)


def biases(name: str, b_ih: Tensor | None, b_hh: Tensor | None) -> tuple[Tensor | None, ...]:
    """Those that a backward reads."""
    return (None, None) if CELLS[name].of_result else contiguous(b_ih, b_hh)


def contiguous(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    return tuple([None if t is None else t.contiguous() for t in tensors])


@op("rnn_cell")
def _forward(
    x: Tensor, h: Tensor, s: Tensor | None, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
    name: str, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """h'; c'; if `keep`, gi and gh for the backward: each empty where the cell has none. s: see `_Cell`."""
    cell, (M, H) = CELLS[name], h.shape
    gi = x.new_empty(M, cell.gates * H)
    gh = torch.empty_like(gi) if cell.apart else None
    multiply(gi, x, w_ih.T)
    multiply(gi if gh is None else gh, h, w_hh.T, add=gh is None)
    state = h if s is None else s
    y = x.new_empty(M, H, dtype=x.dtype if cell.of_result else torch.promote_types(x.dtype, state.dtype))
    c = torch.empty_like(y) if name == "lstm_cell" else None
    step(name, y, c, gi, gh, *contiguous(b_ih, b_hh, None if cell.of_result else state))
    kept = (gi, gh) if keep and not cell.of_result else (None, None)
    c, gi_kept, gh_kept = (x.new_empty(0) if t is None else t for t in (c, *kept))
    return y, c, gi_kept, gh_kept


@op("rnn_cell_backward")
def _backward(
    dy: Tensor | None, dc: Tensor | None, x: Tensor, h: Tensor, s: Tensor | None, w_ih: Tensor, w_hh: Tensor,
    b_ih: Tensor | None, b_hh: Tensor | None, gi: Tensor, gh: Tensor,
    name: str, needs: Sequence[bool],
) -> list[Tensor]:  # fmt: skip
    """Gradients of x, h, s, w_ih, w_hh, b_ih, b_hh; empty where not needed. gi: h' where the derivative is of that."""
    cell, (M, H) = CELLS[name], h.shape
    needs_x, needs_h, needs_s, *needs_weights = needs
    dgi = x.new_empty(M, cell.gates * H)
    dgh = torch.empty_like(dgi) if cell.apart else dgi
    state = None if cell.of_result else h if s is None else s
    beside = state is h and needs_h  # of a GRU: what reaches h beside the product
    ds = None
    if state is not None and (needs_s or beside):
        ds = torch.empty_like(state, memory_format=torch.contiguous_format)
    grads = dgh if cell.apart else None, ds, *contiguous(dy), None, *contiguous(dc)
    step_backward(
        name, M, H, dgi, *grads, gi, gh if cell.apart else None, *biases(name, b_ih, b_hh), *contiguous(state)
    )

    dh = x.new_empty(0)
    if needs_h:
        dh = ds if beside and ds is not None else x.new_empty(M, H)
        multiply(dh, dgh, w_hh, add=beside)
    dx, *of_weights = gradients(x, h, w_ih, dgi, dgh, (needs_x, *needs_weights))
    return [dx, dh, x.new_empty(0) if ds is None or beside else ds, *of_weights]


def gradients(
    x: Tensor, h: Tensor, w_ih: Tensor, dgi: Tensor, dgh: Tensor, needs: Sequence[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Of x, w_ih, w_hh, b_ih, b_hh, from those of both products; empty where not needed. dgh may be dgi."""

    def product(wanted: bool, a: Tensor, b: Tensor) -> Tensor:
        y = x.new_empty((a.shape[0], b.shape[1]) if wanted else 0)
        if wanted:
            multiply(y, a, b)
        return y

    needs_x, needs_w, needs_r, needs_bi, needs_bh = needs
    db_ih = dgi.sum(0) if needs_bi else x.new_empty(0)
    alike = needs_bi and dgi is dgh  # but no alias of each other
    db_hh = (db_ih.clone() if alike else dgh.sum(0)) if needs_bh else x.new_empty(0)
    return product(needs_x, dgi, w_ih), product(needs_w, dgi.T, x), product(needs_r, dgh.T, h), db_ih, db_hh


class _Cell(torch.autograd.Function):
    """s: c of an LSTM; of a GRU h where the products are of another dtype (autocast), else None."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, s: Tensor | None, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None,
        b_hh: Tensor | None, name: str,
    ) -> Any:  # fmt: skip
        inputs = x, h, s, w_ih, w_hh, b_ih, b_hh
        y, c, gi, gh = _forward(*inputs, name, any(ctx.needs_input_grad))
        ctx.save_for_backward(*inputs, y if CELLS[name].of_result else gi, gh)
        ctx.name = name
        ctx.set_materialize_grads(False)
        return (y, c) if name == "lstm_cell" else y

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dc: Tensor | None = None) -> tuple[Tensor | None, ...]:
        if dy is None and dc is None:
            return (None,) * 8
        *inputs, gi, gh = ctx.saved_tensors
        if recompute.wanted():
            dys = (dy, dc) if ctx.name == "lstm_cell" else (dy,)
            return *recompute.gradients(lambda *inputs: _formula(ctx.name, *inputs), inputs, *dys), None
        needs = ctx.needs_input_grad[:7]
        given: Any = dy, dc, *inputs, gi, gh, ctx.name, needs
        found = _backward(*given)
        return *[t if needed else None for t, needed in zip(found, needs, strict=True)], None


def _formula(
    name: str, x: Tensor, h: Tensor, s: Tensor | None, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None,
    b_hh: Tensor | None,
) -> Any:  # fmt: skip
    """In torch's operators: its cell, but for a GRU whose products are of another dtype."""
    if s is None or name == "lstm_cell":
        return CELLS[name].torch(x, h if s is None else (h, s), w_ih, w_hh, b_ih, b_hh)
    r_i, z_i, n_i = torch.nn.functional.linear(x, w_ih, b_ih).chunk(3, 1)
    r_h, z_h, q = torch.nn.functional.linear(h, w_hh, b_hh).chunk(3, 1)
    n = torch.tanh(n_i + torch.sigmoid(r_i + r_h) * q)
    return n + torch.sigmoid(z_i + z_h) * (s - n)


def _cell(
    name: str, input: Tensor, hx: Any, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> Any:
    states = list(hx) if name == "lstm_cell" and isinstance(hx, tuple | list) else [hx]
    tensors = input, *states, w_ih, w_hh, b_ih, b_hh
    reason = None if _fits(name, input, states, w_ih, w_hh, b_ih, b_hh) else route.INVALID
    x, h, *weights = autocast.lowered("linear", input, states[0], w_ih, w_hh, b_ih, b_hh) if reason is None else tensors
    if reason is None and len({t.dtype for t in (x, h, *weights) if t is not None}) > 1:
        reason = "operands of several dtypes"
    work = min(input.numel(), states[0].numel()) if reason is None else 0
    if route.to_torch(name, *tensors, unless=reason, work=work):
        return CELLS[name].torch(input, hx, w_ih, w_hh, b_ih, b_hh)
    state: Any = autocast.lowered(name, states[-1])[0]
    h = _not(x, h)
    blended = name == "gru_cell" and state.dtype != h.dtype
    return apply(_Cell, x, h, _not(h, state) if name == "lstm_cell" or blended else None, *weights, name)


def _not(other: Any, t: Any) -> Any:
    """t, but not the same object: Dynamo takes no tensor twice, zeros for both states, say."""
    return t.view_as(t) if t is other else t


def _fits(
    name: str, input: Tensor, states: list[Tensor], w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None
) -> bool:
    """Are these sizes that torch accepts?"""
    tensors = [input, *states, w_ih, w_hh]
    if not all(isinstance(t, Tensor) and t.dim() == 2 for t in tensors):
        return False
    (M, I), (N, H) = input.shape, w_hh.shape  # noqa: E741
    gates = CELLS[name].gates
    return (
        len(states) == (2 if name == "lstm_cell" else 1)
        and all(tuple(t.shape) == (M, H) for t in states)
        and tuple(w_ih.shape) == (N, I)
        and gates * H == N
        and H > 0
        and all(b is None or tuple(b.shape) == (N,) for b in (b_ih, b_hh))
    )


def rnn_tanh_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """tanh(input w_ihᵀ + b_ih + hx w_hhᵀ + b_hh). Same contract as :func:`torch.rnn_tanh_cell`.

    Shapes: input [M, I], hx [M, H], w_ih [H, I], w_hh [H, H], biases [H]; the result [M, H].
    """
    found: Tensor = _cell("rnn_tanh_cell", input, hx, w_ih, w_hh, b_ih, b_hh)
    return found


def rnn_relu_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """relu in place of tanh; otherwise as :func:`rnn_tanh_cell`."""
    found: Tensor = _cell("rnn_relu_cell", input, hx, w_ih, w_hh, b_ih, b_hh)
    return found


def gru_cell(
    input: Tensor, hx: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None = None, b_hh: Tensor | None = None
) -> Tensor:
    """Same contract as :func:`torch.gru_cell`: as :func:`rnn_tanh_cell`, with weights of three gates, [3 H, ...]."""
    found: Tensor = _cell("gru_cell", input, hx, w_ih, w_hh, b_ih, b_hh)
    return found


def lstm_cell(
    input: Tensor,
    hx: Sequence[Tensor],
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None = None,
    b_hh: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Same contract as :func:`torch.lstm_cell`: weights of four gates, [4 H, ...]; (h, c) -> (h', c')."""
    found: tuple[Tensor, Tensor] = _cell("lstm_cell", input, hx, w_ih, w_hh, b_ih, b_hh)
    return found
