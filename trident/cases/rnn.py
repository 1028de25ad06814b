"""Cases of recurrent cells and layers."""

from collections.abc import Sequence
from typing import Any

import torch

import trident.functional as T
from trident.cases.case import Case, Shape, randn

GATES = {"rnn_tanh": 1, "rnn_relu": 1, "gru": 3, "lstm": 4}
CLASSES = {"rnn_tanh": "RNN", "gru": "GRU", "lstm": "LSTM"}
CELLS = (2, 3), (1, 1), (33, 70), (300, 16)
LAYERS = (3, 2, 4), (1, 1, 1), (4, 5, 33), (5, 19, 3)


def _parameters(name: str, H: int, I: int, bias: bool) -> list[torch.Tensor]:  # noqa: E741
    """As large as a module's, so that gates are not all shut. Of relu sums stay off the kink, on whose other side a
    rounded one has another gradient."""
    N, kinked = GATES[name] * H, name == "rnn_relu"
    scale = max(I, H) ** -0.5 * (0.1 if kinked else 1)
    weights = [randn(N, I) * scale, randn(N, H) * scale]
    biases = [randn(N).sign() * 3 if kinked else randn(N) * scale, randn(N) * scale]
    return [*weights, *biases[: 2 * bias]]


def _cell(name: str, bias: bool = True, only: int | None = None) -> Case:
    """Shapes are those of the input, [M, I]; the state is as wide in the bench. only: one of an LSTM's results."""
    G, of_two = GATES[name], name == "lstm"

    def hidden(shape: Shape) -> int:
        return 19 if shape == (33, 70) else 5 if shape in CELLS or 0 in shape else shape[1]

    def call(f: Any) -> Any:
        def cell(x: torch.Tensor, *rest: torch.Tensor) -> Any:
            states, weights = rest[: 1 + of_two], rest[1 + of_two :]
            found = f(x, states if of_two else states[0], *weights)
            return found if only is None else found[only]

        return cell

    def inputs(shape: Shape) -> list[torch.Tensor]:
        H = hidden(shape)
        states = [randn(shape[0], H) for _ in range(1 + of_two)]
        return [randn(*shape), *states, *_parameters(name, H, shape[1], bias)]

    def wrong(f: Any, *shapes: Sequence[int]) -> Any:
        x, h, *weights = (torch.randn(shape) for shape in shapes)
        return f(x, (h, h) if of_two else h, *weights)

    named = CLASSES.get(name)
    return Case(
        ours=call(getattr(T, f"{name}_cell")),
        reference=call(getattr(torch, f"{name}_cell")),
        shapes=CELLS,
        inputs=inputs,
        reduced=lambda shape: max(*shape, G * hidden(shape)),
        errors=(
            lambda f: wrong(f, (2, 3), (2, 5), (5 * G, 4), (5 * G, 5)),
            lambda f: wrong(f, (2, 3), (3, 5), (5 * G, 3), (5 * G, 5)),
            lambda f: wrong(f, (2, 3), (2, 4), (5 * G, 3), (5 * G, 5)),
            lambda f: wrong(f, (2, 3), (2, 5), (5 * G, 3), (5 * G, 5), (5 * G + 1,), (5 * G,)),
        ),
        cls=f"{named}Cell" if named else "",
        module=(lambda cls: cls(3, 5, bias)) if named else None,
        takes=1 if of_two else 2,
        flops=lambda shape: 2.0 * shape[0] * G * hidden(shape) * (shape[1] + hidden(shape)),
        bench=((32, 64), (1024, 128), (4096, 64)),
    )


def _layer(name: str, H: int = 5, layers: int = 1, both: bool = False, batch_first: bool = False) -> Case:
    """Shapes are those of the input, [T, B, I]. H: of states, which are as wide as the input in the bench."""
    G, D, bias = GATES[name], 1 + both, layers == 1

    def hidden(shape: Shape) -> int:
        return H if shape in LAYERS or 0 in shape else shape[2]

    def call(f: Any) -> Any:
        return lambda x, h, *params: f(x, h, params, bias, layers, 0.0, True, both, batch_first)

    def inputs(shape: Shape) -> list[torch.Tensor]:
        H = hidden(shape)
        wide = [shape[2] if at < D else D * H for at in range(layers * D)]
        params = [p for I in wide for p in _parameters(name, H, I, bias)]  # noqa: E741
        return [randn(*shape), randn(layers * D, shape[0 if batch_first else 1], H), *params]

    def wrong(f: Any, *shapes: Sequence[int]) -> Any:
        x, h, *weights = (torch.randn(shape) for shape in shapes)
        return f(x, h, weights, False, 1, 0.0, True, False, False)

    named = CLASSES.get(name)
    return Case(
        ours=call(getattr(T, name)),
        reference=call(getattr(torch, name)),
        shapes=LAYERS,
        inputs=inputs,
        # each step reads what all before it have rounded
        reduced=lambda shape: layers * shape[0] ** 2 * max(shape[1] * shape[0], shape[2], G * hidden(shape)),
        errors=(
            lambda f: wrong(f, (3, 2, 4), (1, 3, 5), (5 * G, 4), (5 * G, 5)),
            lambda f: wrong(f, (3, 2, 4), (1, 2, 5), (5 * G, 3), (5 * G, 5)),
        ),
        cls=named or "",
        module=(lambda cls: cls(4, H, layers, bias=bias, batch_first=batch_first, bidirectional=both))
        if named
        else None,
        takes=2,
        autocast=(),
        flops=lambda shape: 2.0 * shape[0] * shape[1] * G * hidden(shape) * (shape[2] + hidden(shape)),
        steps=lambda shape: layers * D * shape[batch_first],
        # the last is what `inspect` counts, launch by launch
        bench=((64, 32, 64), (16, 8, 32)),
    )


CASES: dict[str, Case] = {
    **{f"{name}_cell": _cell(name) for name in GATES},
    **{f"{name}_cell.no_bias": _cell(name, bias=False) for name in CLASSES},
    "lstm_cell.hidden": _cell("lstm", only=0),
    "lstm_cell.cell": _cell("lstm", only=1),
    **{name: _layer(name) for name in ("rnn_tanh", "rnn_relu", "gru")},
    # H = 70: a product and a kernel for each step
    **{f"{name}.in_steps": _layer(name, H=70) for name in ("rnn_tanh", "gru")},
    "rnn_tanh.deep": _layer("rnn_tanh", layers=2, batch_first=True),
    "gru.deep": _layer("gru", layers=2, both=True),
}
