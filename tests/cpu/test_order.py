"""tt.reduce and tt.scan with combine functions whose arguments may not change places."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import accumulate

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import inspect, launch
from trident_cpu.analysis.commutes import commutes
from trident_cpu.parse import parse

CASES = [
    *(((m, n), torch.int32) for m, n in [(1, 1), (8, 1), (4, 16), (2, 32), (64, 2), (2, 512), (32, 128)]),
    *(((4, 64), dtype) for dtype in (torch.int64, torch.int16)),
]


@triton.jit
def _last(a, b):
    return b


@triton.jit
def _first_nonzero(a, b):
    return tl.where(a != 0, a, b)


@triton.jit
def _permute(a, b):
    """Permutations of four things, two bits each: b after a."""
    c = a * 0
    for i in tl.static_range(4):
        c |= ((b >> (2 * ((a >> (2 * i)) & 3))) & 3) << (2 * i)
    return c


@triton.jit
def _affine(a1, b1, a2, b2):
    return a1 * a2, b1 * a2 + b2


@triton.jit
def _matrix(a, b, c, d, e, f, g, h):
    return a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h


@triton.jit
def _last_of_largest(a, i, b, j):
    keep = a > b
    return tl.where(keep, a, b), tl.where(keep, i, j)


@triton.jit
def combined(parts, AXIS: tl.constexpr, WHAT: tl.constexpr, NAME: tl.constexpr):
    """Triton takes no combine function from a kernel's arguments."""
    if WHAT == "reduce":
        if NAME == "last":
            out = tl.reduce(parts, AXIS, _last)
        elif NAME == "first non-zero":
            out = tl.reduce(parts, AXIS, _first_nonzero)
        elif NAME == "permutations":
            out = tl.reduce(parts, AXIS, _permute)
        elif NAME == "affine":
            out = tl.reduce(parts, AXIS, _affine)
        elif NAME == "matrices":
            out = tl.reduce(parts, AXIS, _matrix)
        elif NAME == "last of the largest":
            out = tl.reduce(parts, AXIS, _last_of_largest)
    else:
        if NAME == "last":
            out = tl.associative_scan(parts, AXIS, _last, reverse=WHAT == "reverse")
        elif NAME == "first non-zero":
            out = tl.associative_scan(parts, AXIS, _first_nonzero, reverse=WHAT == "reverse")
        elif NAME == "permutations":
            out = tl.associative_scan(parts, AXIS, _permute, reverse=WHAT == "reverse")
        elif NAME == "affine":
            out = tl.associative_scan(parts, AXIS, _affine, reverse=WHAT == "reverse")
        elif NAME == "matrices":
            out = tl.associative_scan(parts, AXIS, _matrix, reverse=WHAT == "reverse")
        elif NAME == "last of the largest":
            out = tl.associative_scan(parts, AXIS, _last_of_largest, reverse=WHAT == "reverse")
    return out


@triton.jit
def combine_kernel(
    x, y, NAME: tl.constexpr, PARTS: tl.constexpr, WHAT: tl.constexpr, AXIS: tl.constexpr, M: tl.constexpr,
    N: tl.constexpr,
):  # fmt: skip
    """x holds PARTS tiles of M x N, one after the other; so does y, reduced along AXIS or not."""
    at = tl.arange(0, M)[:, None] * N + tl.arange(0, N)[None, :]
    b_0 = tl.load(x + at)
    if PARTS == 1:
        parts = (b_0,)
    elif PARTS == 2:
        parts = (b_0, tl.load(x + M * N + at))
    else:
        parts = (b_0, tl.load(x + M * N + at), tl.load(x + 2 * M * N + at), tl.load(x + 3 * M * N + at))
    out = combined(parts, AXIS, WHAT, NAME)
    if WHAT == "reduce":
        at = tl.arange(0, N if AXIS == 0 else M)
    size: tl.constexpr = M * N if WHAT != "reduce" else (N if AXIS == 0 else M)
    for part in tl.static_range(PARTS):
        tl.store(y + part * size + at, out[part])


def _permutation(a: int, b: int) -> int:
    return sum(((b >> (2 * ((a >> (2 * i)) & 3))) & 3) << (2 * i) for i in range(4))


def _product(p: tuple[int, ...], q: tuple[int, ...]) -> tuple[int, ...]:
    (a, b, c, d), (e, f, g, h) = p, q
    return a * e + b * g, a * f + b * h, c * e + d * g, c * f + d * h


Combine = Callable[[tuple[int, ...], tuple[int, ...]], tuple[int, ...]]
# name -> (the function in Python, parts, values to draw from)
COMBINES: dict[str, tuple[Combine, int, list[int]]] = {
    "last": (lambda p, q: q, 1, list(range(-50, 50))),
    "first non-zero": (lambda p, q: p if p[0] else q, 1, [0, 0, 0, 0, 0, 3, -7]),
    "permutations": (lambda p, q: (_permutation(p[0], q[0]),), 1, [0b11100100, 0b00111001, 0b11100001]),
    "affine": (lambda p, q: (p[0] * q[0], p[1] * q[0] + q[1]), 2, [-1, 1, 2, 3]),
    "matrices": (_product, 4, [0, 1, 1, -1]),
    "last of the largest": (lambda p, q: p if p[0] > q[0] else q, 2, list(range(9))),
}


def wrapped(values: list[int], dtype: torch.dtype) -> torch.Tensor:
    """Integers of any size as `dtype`, modulo its range."""
    bits = torch.iinfo(dtype).bits
    return torch.tensor([(v + (1 << bits - 1)) % (1 << bits) - (1 << bits - 1) for v in values], dtype=dtype)


@pytest.mark.parametrize("what", ["reduce", "scan", "reverse"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("name", COMBINES)
@pytest.mark.parametrize(("shape", "dtype"), CASES, ids=str)
def test_in_order(shape: tuple[int, int], name: str, axis: int, what: str, dtype: torch.dtype) -> None:
    python, parts, values = COMBINES[name]
    torch.manual_seed(0)
    x = torch.tensor(values, dtype=dtype)[torch.randint(len(values), (parts, *shape))]
    y = torch.full((parts, *shape) if what != "reduce" else (parts, shape[1 - axis]), 77, dtype=dtype)
    launch(combine_kernel, (1,), x, y, NAME=name, PARTS=parts, WHAT=what, AXIS=axis, M=shape[0], N=shape[1])
    for line in range(shape[1 - axis]):
        items = [tuple(int(v) for v in item) for item in x.select(2 - axis, line).unbind(1)]
        got = y[:, line] if what == "reduce" else y.select(2 - axis, line)
        if what == "reduce":
            want = [[v] for v in reduce(python, items)]
        else:
            items = items[::-1] if what == "reverse" else items
            steps = list(accumulate(items, python))
            want = [list(part) for part in zip(*(steps[::-1] if what == "reverse" else steps), strict=True)]
        for part in range(parts):
            assert torch.equal(got[part].reshape(-1), wrapped(want[part], dtype)), (line, part)


# -- which combine functions are proven to commute


@triton.jit
def _add(a, b):
    return a + b


@triton.jit
def _sums(a, c, b, d):
    return a + b, c + d


@triton.jit
def _complex(a, b, c, d):
    return a * c - b * d, a * d + b * c


@triton.jit
def _argmax(a, i, b, j):
    first = a > b or (a == b and i < j)
    return tl.where(first, a, b), tl.where(first, i, j)


@triton.jit
def _argmax_and_more(a, i, p, b, j, q):
    """p goes with the larger a: where a and i are equal, which p is open."""
    first = a > b or (a == b and i < j)
    return tl.where(first, a, b), tl.where(first, i, j), tl.where(first, p, q)


@triton.jit
def _welford(mean_a, m2_a, n_a, mean_b, m2_b, n_b):
    n = n_a + n_b
    delta = mean_b - mean_a
    part = tl.where(n == 0.0, 0.0, n_b / n)
    return mean_a + delta * part, m2_a + m2_b + delta * delta * n_a * part, n


@triton.jit
def _crooked_welford(mean_a, m2_a, n_a, mean_b, m2_b, n_b):
    n = n_a + n_b
    delta = mean_b - mean_a
    part = tl.where(n == 0.0, 0.0, n_b / n)
    return mean_a + delta * part, m2_a + m2_b + delta * delta * n_a * n_a, n


@triton.jit
def _softmax(m, s, n, t):
    top = tl.maximum(m, n)
    return top, s * tl.exp(m - top) + t * tl.exp(n - top)


@triton.jit
def _minus(a, b):
    return a - b


@triton.jit
def several_kernel(x, y):
    """Each reduction's combine function, in the order of PROVEN."""
    a = tl.load(x + tl.arange(0, 64))
    out = tl.reduce(a, 0, _add)
    s, t = tl.reduce((a, a + 1), 0, _sums)
    out += s + t
    s, t = tl.reduce((a, a + 1), 0, _complex)
    out += s + t
    s, t = tl.reduce((a, a + 1), 0, _argmax)
    out += s + t
    s, t, u = tl.reduce((a, a + 1, a + 2), 0, _welford)
    out += s + t + u
    s, t = tl.reduce((a, a + 1), 0, _softmax)
    out += s + t
    s, t, u = tl.reduce((a, a + 1, a + 2), 0, _argmax_and_more)
    out += s + t + u
    s, t, u = tl.reduce((a, a + 1, a + 2), 0, _crooked_welford)
    out += s + t + u
    out += tl.reduce(a, 0, _minus) + tl.reduce(a, 0, _last) + tl.reduce(a, 0, _first_nonzero)
    s, t = tl.reduce((a, a + 1), 0, _affine)
    out += s + t
    s, t = tl.reduce((a, a + 1), 0, _last_of_largest)
    tl.store(y, out + s + t)


PROVEN = {
    "add": True, "sums": True, "complex": True, "argmax": True, "welford": True, "softmax": True,
    "argmax and more": False, "crooked welford": False, "minus": False, "last": False, "first non-zero": False,
    "affine": False, "last of the largest": False,
}  # fmt: skip


def test_proof_of_commutation() -> None:
    ttir = inspect(several_kernel, torch.zeros(64), torch.zeros(1)).ttir
    regions = [op.regions[0] for op in parse(ttir).kernel.body.walk() if op.name == "tt.reduce"]
    assert {name: commutes(region) for name, region in zip(PROVEN, regions, strict=True)} == PROVEN
