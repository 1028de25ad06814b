"""Recurrent layers over a sequence: x [T, B, I], states [L D, B, H] of L layers in D directions; packed data, too.

A layer in one direction is the loop of its cell (ops/_rnn_cell.py) over time,

forward     gi = x w_ihᵀ of all steps at once; for each step gh = h w_hhᵀ, and the cell's step
backward    for each step, from the last, the gradient of the cell's step, and dh = dgh w_hh;
            then dx = dgi w_ih, dw_ih = dgiᵀ x, dw_hh = dghᵀ h of all steps at once

Where w_hh is small one kernel takes all steps: a program takes some rows of the batch, which need nothing of the
others, through all of time, with w_hh in a cache. Else there is a product and a kernel for each step.

What a batch of sequences of several lengths, packed, has at a step are its first so many rows, as torch sorts them;
`sizes` says how many. Without packing all sizes are B. A reversed direction takes the steps from the end.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from trident.lang import recurrent as R
from trident.lang.tile import load
from trident.ops._linear import multiply
from trident.ops._rnn_cell import CELLS, biases, contiguous, gradients, step, step_backward
from trident.runtime import autocast, recompute, route, tuning, tuning_rnn
from trident.runtime.autograd import apply
from trident.runtime.launch import launch
from trident.runtime.op import op


class Layer(NamedTuple):
    cell: str
    torch: Callable[..., Any]


LAYERS = {
    "rnn_tanh": Layer("rnn_tanh_cell", torch.rnn_tanh),
    "rnn_relu": Layer("rnn_relu_cell", torch.rnn_relu),
    "gru": Layer("gru_cell", torch.gru),
}


@triton.jit
def _tile(BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr):
    """This program's rows of the batch [BLOCK_B, 1] (int64), and columns [1, BLOCK_H]."""
    rows = (tl.program_id(0) * tl.full((), BLOCK_B, tl.int64) + tl.arange(0, BLOCK_B))[:, None]
    return rows, tl.arange(0, BLOCK_H)[None, :]


@triton.jit
def _weight(w, gate: tl.constexpr, H, BLOCK_H: tl.constexpr):
    """One gate's matrix of w [gates, H, H]."""
    down, right = tl.arange(0, BLOCK_H)[:, None], tl.arange(0, BLOCK_H)[None, :]
    return load(w + gate * H * H + down * H + right, (down < H) & (right < H))


@triton.jit
def _product(x, w, z):
    return tl.dot(x, w, z, input_precision="ieee", out_dtype=z.dtype)


@triton.jit
def _gate(gi, gh, b_ih, b_hh, product, at, cols, inside):
    """A gate before its activation; the product with the state is kept in gh, if that is given."""
    if gh is not None:
        tl.store(gh + at, product, inside)
    return R.total(gi, None, b_ih, b_hh, at, cols, inside) + product


@triton.jit
def _layer_kernel(
    y, gi, gh, b_ih, b_hh, h, w, T, B, H,
    STEP: tl.constexpr, GATES: tl.constexpr, REVERSE: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """y [T, B, H]; gi and gh [T, B, GATES H]; gh may be None. w: each gate's matrix transposed."""
    rows, cols = _tile(BLOCK_B, BLOCK_H)
    inside = (rows < B) & (cols < H)
    b_h = load(h + rows * H + cols, inside)
    zero = tl.zeros((BLOCK_B, BLOCK_H), b_h.dtype)
    w_a = _weight(w, 0, H, BLOCK_H)
    if GATES == 3:
        w_b, w_c = _weight(w, 1, H, BLOCK_H), _weight(w, 2, H, BLOCK_H)
    for number in range(0, T):
        row = (T - 1 - number if REVERSE else number) * tl.full((), B, tl.int64) + rows
        at = row * (GATES * H) + cols
        a = _gate(gi, gh, b_ih, b_hh, _product(b_h, w_a, zero), at, cols, inside)
        b, c, d = a, a, a
        if GATES == 3:
            b = _gate(gi, gh, b_ih, b_hh, _product(b_h, w_b, zero), at + H, cols + H, inside)
            at += 2 * H
            d = _product(b_h, w_c, zero)
            if gh is not None:
                tl.store(gh + at, d, inside)
            if b_hh is not None:
                d += load(b_hh + cols + 2 * H, inside)
            c = R.total(gi, None, b_ih, None, at, cols + 2 * H, inside)
        b_h, _ = STEP(a, b, c, d, b_h)
        tl.store(y + row * H + cols, b_h, inside)


@triton.jit
def _layer_backward_kernel(
    dgi, dgh, dh_0, dy, dh, gi, gh, b_ih, b_hh, s, w, T, B, H,
    GRAD: tl.constexpr, GATES: tl.constexpr, REVERSE: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    """dh: of the last state; dh_0: of the first. dy, dh may be None. s: the state before each step, of a GRU."""
    rows, cols = _tile(BLOCK_B, BLOCK_H)
    inside, first = (rows < B) & (cols < H), rows * H + cols
    w_a = _weight(w, 0, H, BLOCK_H)
    if GATES == 3:
        w_b, w_c = _weight(w, 1, H, BLOCK_H), _weight(w, 2, H, BLOCK_H)
    zero = tl.zeros((BLOCK_B, BLOCK_H), w_a.dtype)
    b_dh = zero if dh is None else load(dh + first, inside)
    for number in range(0, T):
        row = (number if REVERSE else T - 1 - number) * tl.full((), B, tl.int64) + rows
        at, own = row * (GATES * H) + cols, row * H + cols
        if dy is not None:
            b_dh += load(dy + own, inside)
        b_s = zero if s is None else load(s + own, inside)
        a, b, c, d = R.gates(gi, gh, b_ih, b_hh, at, cols, inside, H, GATES)
        da, db, dc, dd, b_ds = GRAD(b_dh, zero, a, b, c, d, b_s)
        R.store_gates(dgi, dgh, da, db, dc, dd, at, inside, H, GATES)
        b_dh = _product(da, w_a, zero)
        if GATES == 3:
            b_dh = _product(dd, w_c, _product(db, w_b, b_dh)) + b_ds
    tl.store(dh_0 + first, b_dh, inside)


def _whole(sizes: Sequence[int], H: int, x: Tensor) -> tuning.Plan | None:
    """How one kernel takes all steps, None if it is not to."""
    plan = tuning_rnn.layer(sizes[0], H, x.dtype, x.device) if min(sizes) == max(sizes) else None
    return None if plan is None or plan.loops else plan


def _order(sizes: Sequence[int], reverse: bool) -> list[int]:
    """The steps as they are taken."""
    return list(range(len(sizes)))[:: -1 if reverse else 1]


def _rows(state: Tensor, first: Tensor, n: int) -> Tensor:
    """The state of n rows, of which more may begin than there were."""
    have = state.shape[0]
    return state if have == n else state[:n] if n < have else torch.cat([state, first[have:n]])


def _last(states: Sequence[Tensor], sizes: Sequence[int], order: Sequence[int]) -> Tensor:
    """The state in which each sequence ends."""
    following = [*(sizes[at] for at in order[1:]), 0]
    ended = [states[at][m:] for at, m in zip(order, following, strict=True) if m < sizes[at]]
    return torch.cat(ended[::-1])


@op("rnn_layer")
def _forward(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
    name: str, sizes: Sequence[int], reverse: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """y [N, H], the last state; if `keep`, gi and gh for the backward, where the cell has both (else empty)."""
    cell, order, (N, H) = CELLS[name], _order(sizes, reverse), (x.shape[0], w_hh.shape[1])
    some_ih, some_hh = contiguous(b_ih, b_hh)
    gi, y, first = x.new_empty(N, cell.gates * H), x.new_empty(N, H), h.contiguous()
    multiply(gi, x, w_ih.T)
    gh, ys = torch.empty_like(gi) if cell.apart else gi, y.split_with_sizes(sizes)
    if plan := _whole(sizes, H, x):
        w, kept = w_hh.view(cell.gates, H, H).mT.contiguous(), gh if cell.apart and keep else None
        how = {"STEP": cell.step, "GATES": cell.gates, "REVERSE": reverse, **plan.meta}
        launch(_layer_kernel, plan.grid, y, gi, kept, some_ih, some_hh, first, w, len(sizes), sizes[0], H, **how)
    else:
        last = first
        gis, ghs = gi.split_with_sizes(sizes), gh.split_with_sizes(sizes)
        for at in order:
            last = _rows(last, first, sizes[at])
            multiply(ghs[at], last, w_hh.T, add=not cell.apart)
            apart = (ghs[at], some_ih, some_hh, last) if cell.apart else (None, some_ih, some_hh, None)
            step(name, ys[at], None, gis[at], *apart)
            last = ys[at]
    last = _last(ys, sizes, order)
    return (y, last, gi, gh) if cell.apart and keep else (y, last, x.new_empty(0), x.new_empty(0))


@op("rnn_layer_backward")
def _backward(
    dy: Tensor | None, dh: Tensor | None, x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None,
    b_hh: Tensor | None, y: Tensor, gi: Tensor, gh: Tensor,
    name: str, sizes: Sequence[int], reverse: bool, needs: Sequence[bool],
) -> list[Tensor]:  # fmt: skip
    """Gradients of x, h, w_ih, w_hh, b_ih, b_hh; empty where not needed."""
    cell, (N, H) = CELLS[name], y.shape
    some_dy, some_dh, first = contiguous(dy, dh, h)
    assert first is not None  # for mypy
    states = _states_before(first, y, sizes, reverse)
    dgi = x.new_empty(N, cell.gates * H)
    dgh = torch.empty_like(dgi) if cell.apart else dgi
    read = (gi, gh, *biases(name, b_ih, b_hh), states) if cell.apart else (y, None, None, None, None)
    if plan := _whole(sizes, H, x):
        dh_0, w = torch.empty_like(first), w_hh.contiguous()
        how = {"GRAD": cell.grad, "GATES": cell.gates, "REVERSE": reverse, **plan.meta}
        grads = dgi, dgh if cell.apart else None, dh_0, some_dy, some_dh
        launch(_layer_backward_kernel, plan.grid, *grads, *read, w, len(sizes), sizes[0], H, **how)
    else:
        # goes back from step to step in its place: rows that a step does not have stay as they are
        dh_0 = torch.zeros_like(first) if some_dh is None else some_dh.clone()
        end = N
        begins = [end := end - n for n in reversed(sizes)][::-1]
        for at in reversed(_order(sizes, reverse)):
            n, rows = sizes[at], slice(begins[at], begins[at] + sizes[at])
            of_h, to_h = dgh[rows], dh_0[:n]
            of_step = of_h if cell.apart else None, to_h if cell.apart else None
            kept = (t if t is None or i in (2, 3) else t[rows] for i, t in enumerate(read))
            step_backward(
                name, n, H, dgi[rows], *of_step, None if some_dy is None else some_dy[rows], to_h, None, *kept
            )
            multiply(to_h, of_h, w_hh, add=cell.apart)
    needs_x, _, *needs_weights = needs
    dx, *of_weights = gradients(x, states, w_ih, dgi, dgh, (needs_x, *needs_weights))
    return [dx, dh_0, *of_weights]


def _states_before(first: Tensor, y: Tensor, sizes: Sequence[int], reverse: bool) -> Tensor:
    """The state before each step, [N, H]."""
    ys, last, found = y.split_with_sizes(sizes), first, {}
    for at in _order(sizes, reverse):
        found[at] = _rows(last, first, sizes[at])
        last = ys[at]
    return torch.cat([found[at] for at in range(len(sizes))])


class _Layer(torch.autograd.Function):
    """y and the last state, of one layer in one direction."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
        name: str, sizes: list[int], reverse: bool,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        inputs = x, h, w_ih, w_hh, b_ih, b_hh
        y, last, *kept = _forward(*inputs, name, sizes, reverse, any(ctx.needs_input_grad))
        ctx.save_for_backward(*inputs, y, *kept)
        ctx.how = name, sizes, reverse
        ctx.set_materialize_grads(False)
        return y, last

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, dh: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None and dh is None:
            return (None,) * 9
        saved = ctx.saved_tensors  # once: a checkpoint makes them when they are asked for
        inputs, kept = saved[:6], saved[6:]
        if recompute.wanted():
            again = recompute.gradients(lambda *inputs: _in_cells(*inputs, *ctx.how), inputs, dy, dh)
            return *again, None, None, None
        needs = ctx.needs_input_grad[:6]
        given: Any = dy, dh, *inputs, *kept, *ctx.how, needs
        found = _backward(*given)
        return *[t if needed else None for t, needed in zip(found, needs, strict=True)], None, None, None


def _in_cells(
    x: Tensor, h: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None,
    name: str, sizes: list[int], reverse: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """A layer as a loop of torch's cells."""
    xs, order, last, found = x.split_with_sizes(sizes), _order(sizes, reverse), h, {}
    for at in order:
        last = found[at] = CELLS[name].torch(xs[at], _rows(last, h, sizes[at]), w_ih, w_hh, b_ih, b_hh)
    ys = [found[at] for at in range(len(sizes))]
    return torch.cat(ys), _last(ys, sizes, order)


def _layers(
    name: str, x: Tensor, sizes: list[int], hx: Tensor, params: Sequence[Tensor], num_layers: int, dropout: float,
    bidirectional: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y [N, D H] of the last layer, and the last states of all."""
    D = 2 if bidirectional else 1
    each, ends = len(params) // (num_layers * D), []
    for layer in range(num_layers):
        ys = []
        for at in range(layer * D, layer * D + D):
            weights = [*params[at * each : at * each + each], None, None][:4]
            y, end = apply(_Layer, x, hx[at], *weights, LAYERS[name].cell, sizes, at % D == 1)
            ys.append(y)
            ends.append(end)
        x = ys[0] if D == 1 else torch.cat(ys, 1)
        if dropout and layer < num_layers - 1:
            x = torch.dropout(x, dropout, True)  # as torch's own layers, drawing the same numbers
    return x, torch.stack(ends)


def _run(name: str, *args: Any) -> tuple[Tensor, Tensor]:
    """args: those of torch's function of that name, for a tensor or for packed data; see :func:`gru`."""
    packed = isinstance(args[3], list | tuple)
    x, *given = args
    torchs: Callable[..., tuple[Tensor, Tensor]] = LAYERS[name].torch
    sizes_of, hx, params, _, num_layers, dropout, train, bidirectional, batch_first = (
        (*given, False) if packed else (None, *given)
    )
    if hx.dim() != 3 or x.dim() != (2 if packed else 3):
        return torchs(*args)
    sizes = sizes_of.tolist() if packed else [x.shape[0 if batch_first else 1]] * x.shape[1 if batch_first else 0]
    way = _way(name, x, hx, params, sizes)
    if route.policy == "auto" and not route.WATCHERS and route.faster_in_torch(way, x, len(sizes)):
        return torchs(*args)  # of few steps: to look at every weight's size would take as long
    reason = _unfit(name, x, sizes[0] if sizes else 0, hx, params, num_layers, bidirectional)
    if route.to_torch(way, x, hx, *params, unless=reason, work=len(sizes)):
        return torchs(*args)
    rows = x if packed else (x.transpose(0, 1) if batch_first else x).reshape(sum(sizes), x.shape[2])
    y, last = _layers(name, rows, sizes, hx, params, num_layers, dropout if train else 0.0, bidirectional)
    if not packed:
        y = y.view(len(sizes), sizes[0], y.shape[1])
    return y.transpose(0, 1) if batch_first else y, last


def _way(name: str, x: Tensor, hx: Tensor, params: Sequence[Tensor], sizes: list[int]) -> str:
    """What `crossover` knows the call by, which asks for the number of steps."""
    whole = bool(sizes) and min(sizes) == max(sizes) and tuning_rnn.in_one_kernel(hx.shape[2], x.dtype, x.device)
    in_steps = bool(sizes) and not whole
    alone = not (torch.is_grad_enabled() and any(t.requires_grad for t in (x, hx, *params)))
    return f"{name}{' (in steps)' if in_steps else ''}{' (forward alone)' if alone else ''}"


def _unfit(
    name: str, x: Tensor, B: int, hx: Tensor, params: Sequence[Tensor], num_layers: int, bidirectional: bool
) -> str | None:
    """Why the loop cannot take the call, None if it can."""
    D = 2 if bidirectional else 1
    if autocast.active(x):
        return "autocast lowers the products, not the states"
    H, each = hx.shape[2], len(params) // max(1, num_layers * D)
    if hx.shape[:2] != (num_layers * D, B) or not H or each not in (2, 4) or len(params) != each * num_layers * D:
        return route.INVALID
    for at in range(num_layers * D):
        w_ih, w_hh, *some = params[at * each : at * each + each]
        N, I = CELLS[LAYERS[name].cell].gates * H, x.shape[-1] if at < D else D * H  # noqa: E741
        if w_ih.shape != (N, I) or w_hh.shape != (N, H) or any(b.shape != (N,) for b in some):
            return route.INVALID
    return None


def rnn_tanh(
    input: Tensor, hx: Any, params: Any, has_biases: Any, num_layers: Any, dropout: Any, train: Any, bidirectional: Any,
    batch_first: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Same contract as :func:`torch.rnn_tanh`, both of its forms; see :func:`gru`."""
    return _run("rnn_tanh", input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)


def rnn_relu(
    input: Tensor, hx: Any, params: Any, has_biases: Any, num_layers: Any, dropout: Any, train: Any, bidirectional: Any,
    batch_first: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Same contract as :func:`torch.rnn_relu`, both of its forms; see :func:`gru`."""
    return _run("rnn_relu", input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)


def gru(
    input: Tensor, hx: Any, params: Any, has_biases: Any, num_layers: Any, dropout: Any, train: Any, bidirectional: Any,
    batch_first: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Same contract as :func:`torch.gru`, which nn.GRU calls: (y, h_n), of layers over a whole sequence.

    Shapes: input [T, B, I] ([B, T, I] if batch_first), hx [L D, B, H], y [T, B, D H]. Of packed data the nine arguments
    are data, batch_sizes, hx, params, has_biases, num_layers, dropout, train, bidirectional: torch's second form.
    """
    return _run("gru", input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
