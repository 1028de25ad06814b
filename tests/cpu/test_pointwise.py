"""Every pointwise op against torch or numpy, over element types, odd sizes and special values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import triton
import triton.language as tl
from triton.language.extra import libdevice

from trident_cpu import launch

N = 1027
FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]
INTS = [torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8]


@triton.jit
def unary_kernel(x, y, n, F: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, F(tl.load(x + at, at < n)), at < n)


@triton.jit
def binary_kernel(x, z, y, n, F: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    tl.store(y + at, F(tl.load(x + at, inside, other=1), tl.load(z + at, inside, other=1)), inside)


@triton.jit
def scalar_kernel(x, z, y, F: tl.constexpr):
    at = tl.program_id(0)
    tl.store(y + at, F(tl.load(x + at), tl.load(z + at)))


@triton.jit
def _exp(x):
    return tl.exp(x)


@triton.jit
def _exp2(x):
    return tl.exp2(x)


@triton.jit
def _log(x):
    return tl.log(x)


@triton.jit
def _log2(x):
    return tl.log2(x)


@triton.jit
def _sin(x):
    return tl.sin(x)


@triton.jit
def _cos(x):
    return tl.cos(x)


@triton.jit
def _sqrt(x):
    return tl.sqrt(x)


@triton.jit
def _rsqrt(x):
    return tl.rsqrt(x)


@triton.jit
def _erf(x):
    return tl.erf(x)


@triton.jit
def _floor(x):
    return tl.floor(x)


@triton.jit
def _ceil(x):
    return tl.ceil(x)


@triton.jit
def _abs(x):
    return tl.abs(x)


@triton.jit
def _neg(x):
    return -x


@triton.jit
def _sigmoid(x):
    return tl.sigmoid(x)


@triton.jit
def _tanh(x):
    return libdevice.tanh(x)


@triton.jit
def _log1p(x):
    return libdevice.log1p(x)


@triton.jit
def _expm1(x):
    return libdevice.expm1(x)


@triton.jit
def _invert(x):
    return ~x


@triton.jit
def _relu(x):
    return tl.maximum(x, 0.0, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _add(x, y):
    return x + y


@triton.jit
def _sub(x, y):
    return x - y


@triton.jit
def _mul(x, y):
    return x * y


@triton.jit
def _div(x, y):
    return x / y


@triton.jit
def _floordiv(x, y):
    return x // y


@triton.jit
def _mod(x, y):
    return x % y


@triton.jit
def _and(x, y):
    return x & y


@triton.jit
def _or(x, y):
    return x | y


@triton.jit
def _xor(x, y):
    return x ^ y


@triton.jit
def _shl(x, y):
    return x << (y & 7)


@triton.jit
def _shr(x, y):
    return x >> (y & 7)


@triton.jit
def _maximum(x, y):
    return tl.maximum(x, y)


@triton.jit
def _minimum(x, y):
    return tl.minimum(x, y)


@triton.jit
def _maximum_nan(x, y):
    return tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _minimum_nan(x, y):
    return tl.minimum(x, y, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _less(x, y):
    return x < y


@triton.jit
def _equal(x, y):
    return x == y


@triton.jit
def _unequal(x, y):
    return x != y


@triton.jit
def _where(x, y):
    return tl.where(x > y, x, y * 2)


@triton.jit
def _fma(x, y):
    return tl.fma(x, y, x)


@triton.jit
def _clamp(x, y):
    return tl.clamp(x, -0.5, 0.75)


@triton.jit
def _clamp_nan(x, y):
    return tl.clamp(x, -0.5, 0.75, propagate_nan=tl.PropagateNan.ALL)


SPECIAL = [0.0, -0.0, float("inf"), -float("inf"), float("nan"), 1.0, -1.0, 0.5, -0.5, 1e-30, 88.0, -88.0]
ANY, POSITIVE, SMALL = (-4.0, 4.0), (1e-3, 10.0), (-0.9, 0.9)
UNARY = {
    "exp": (_exp, torch.exp, ANY), "exp2": (_exp2, torch.exp2, ANY), "log": (_log, torch.log, POSITIVE),
    "log2": (_log2, torch.log2, POSITIVE), "sin": (_sin, torch.sin, ANY), "cos": (_cos, torch.cos, ANY),
    "sqrt": (_sqrt, torch.sqrt, POSITIVE), "rsqrt": (_rsqrt, torch.rsqrt, POSITIVE), "erf": (_erf, torch.erf, ANY),
    "floor": (_floor, torch.floor, ANY), "ceil": (_ceil, torch.ceil, ANY), "abs": (_abs, torch.abs, ANY),
    "neg": (_neg, torch.neg, ANY), "sigmoid": (_sigmoid, torch.sigmoid, ANY), "tanh": (_tanh, torch.tanh, ANY),
    "log1p": (_log1p, torch.log1p, SMALL), "expm1": (_expm1, torch.expm1, SMALL), "relu": (_relu, torch.relu, ANY),
}  # fmt: skip


def assert_close(got: torch.Tensor, want: torch.Tensor, ulps: float = 4.0) -> None:
    """Within `ulps` units in the last place of the result's type; equal NaN, infinities and integers."""
    if not got.dtype.is_floating_point:
        assert torch.equal(got, want.to(got.dtype))
        return
    torch.testing.assert_close(
        got.double(), want.double(), rtol=ulps * torch.finfo(got.dtype).eps, atol=torch.finfo(got.dtype).tiny,
        equal_nan=True,
    )  # fmt: skip


def run_unary(kernel, x: torch.Tensor, out: torch.dtype | None = None, block: int = 256) -> torch.Tensor:
    y = torch.empty(x.shape, dtype=out or x.dtype)
    launch(unary_kernel, (triton.cdiv(x.numel(), block),), x, y, x.numel(), F=kernel, BLOCK=block)
    return y


def run_binary(kernel, x: torch.Tensor, z: torch.Tensor, out: torch.dtype | None = None) -> torch.Tensor:
    y = torch.empty(x.shape, dtype=out or x.dtype)
    launch(binary_kernel, (triton.cdiv(x.numel(), 256),), x, z, y, x.numel(), F=kernel, BLOCK=256)
    return y


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str, dtype: torch.dtype) -> None:
    kernel, reference, (low, high) = UNARY[name]
    torch.manual_seed(0)
    x = torch.rand(N, dtype=torch.float64) * (high - low) + low
    x[: len(SPECIAL)] = torch.tensor(SPECIAL, dtype=torch.float64)
    x = x.to(dtype)
    want = reference(x.double())
    got = run_unary(kernel, x)
    edge = (want.abs() < torch.finfo(dtype).tiny) | (want.abs() > torch.finfo(dtype).max)  # rounding of denormals
    assert torch.equal(got.isnan(), want.isnan())
    assert_close(got[~edge], want[~edge])


FLOAT_BINARY = {
    "add": (_add, torch.add), "sub": (_sub, torch.sub), "mul": (_mul, torch.mul), "div": (_div, torch.div),
    "fmod": (_mod, torch.fmod),
    "maximum_nan": (_maximum_nan, torch.maximum), "minimum_nan": (_minimum_nan, torch.minimum),
    "maximum": (_maximum, torch.fmax), "minimum": (_minimum, torch.fmin),
    "where": (_where, lambda x, y: torch.where(x > y, x, y * 2)), "fma": (_fma, lambda x, y: x * y + x),
    "clamp_nan": (_clamp_nan, lambda x, y: x.clamp(-0.5, 0.75)),
    "clamp": (_clamp, lambda x, y: torch.where(x.isnan(), -0.5, x.clamp(-0.5, 0.75))),
}  # fmt: skip


# Triton's fma takes float32 and float64 only
FLOAT_BINARY_DTYPES = [(n, t) for n in FLOAT_BINARY for t in FLOATS if n != "fma" or t.itemsize >= 4]


@pytest.mark.parametrize("name, dtype", FLOAT_BINARY_DTYPES, ids=str)
def test_float_binary(name: str, dtype: torch.dtype) -> None:
    kernel, reference = FLOAT_BINARY[name]
    torch.manual_seed(0)
    x, z = torch.randn(N).to(dtype), torch.randn(N).to(dtype)
    k = len(SPECIAL)
    x[: k * k] = torch.tensor(SPECIAL).repeat(k).to(dtype)
    z[: k * k] = torch.tensor(SPECIAL).repeat_interleave(k).to(dtype)
    got, want = run_binary(kernel, x, z), reference(x.double(), z.double()).to(dtype)
    if name in ("div", "fmod"):
        assert_close(got, want, 2)
    else:
        same = (got == want) | (got.isnan() & want.isnan())
        assert same.all(), (x[~same], z[~same], got[~same], want[~same])


def c_floordiv(x: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.abs(x.astype(object)) // np.abs(z.astype(object)) * np.sign(x.astype(object)) * np.sign(z.astype(object))


INT_BINARY = {
    "add": (_add, lambda x, z: x + z), "sub": (_sub, lambda x, z: x - z), "mul": (_mul, lambda x, z: x * z),
    "and": (_and, lambda x, z: x & z), "or": (_or, lambda x, z: x | z), "xor": (_xor, lambda x, z: x ^ z),
    "shl": (_shl, lambda x, z: x << (z & 7)), "shr": (_shr, lambda x, z: x >> (z & 7)),
    "floordiv": (_floordiv, c_floordiv), "mod": (_mod, lambda x, z: x.astype(object) - c_floordiv(x, z) * z),
    "maximum": (_maximum, np.maximum), "minimum": (_minimum, np.minimum),
}  # fmt: skip


@pytest.mark.parametrize("scalar", [False, True], ids=["tile", "scalar"])
@pytest.mark.parametrize("dtype", INTS, ids=str)
@pytest.mark.parametrize("name", INT_BINARY)
def test_int_binary(name: str, dtype: torch.dtype, scalar: bool) -> None:
    kernel, reference = INT_BINARY[name]
    info = torch.iinfo(dtype)
    rng = np.random.default_rng(0)
    np_type = np.dtype(str(dtype).split(".")[1])
    x = rng.integers(info.min, info.max, N, dtype=np_type, endpoint=True)
    z = rng.integers(info.min, info.max, N, dtype=np_type, endpoint=True)
    z[::3] = rng.integers(1, 9, len(z[::3]))
    if name in ("floordiv", "mod"):
        z[z == 0] = 1
        x[(x == info.min) & (z == info.max + info.min)] = 5
        if info.min < 0:
            z[z == -1] = 3
    with np.errstate(over="ignore"):
        want = reference(x, z)
    want = np.array([int(v) & ((1 << info.bits) - 1) for v in want], dtype=object)
    got = torch.empty(N, dtype=dtype)
    if scalar:
        launch(scalar_kernel, (N,), torch.tensor(x), torch.tensor(z), got, F=kernel)
    else:
        got = run_binary(kernel, torch.tensor(x), torch.tensor(z))
    have = np.array([int(v) & ((1 << info.bits) - 1) for v in got.tolist()], dtype=object)
    assert (have == want).all()


@pytest.mark.parametrize("name", ["floordiv", "mod"])
@pytest.mark.parametrize("divisor", [1, -1, 3, 7, -7, 64, 2**31 - 1, -(2**31), 0])
def test_division_by_one_value(name: str, divisor: int) -> None:
    """A divisor that is one scalar takes the reciprocal path; division by 0 must not trap."""
    x = torch.randint(-(2**31), 2**31 - 1, (N,), dtype=torch.int32)
    x[:6] = torch.tensor([0, 1, -1, 2**31 - 1, -(2**31) + 1, 64])
    got = torch.empty_like(x)
    launch(uniform_kernel, (triton.cdiv(N, 256),), x, got, N, divisor, MOD=name == "mod", BLOCK=256)
    if divisor:
        wide = x.long()
        q = torch.div(wide, divisor, rounding_mode="trunc")
        assert torch.equal(got.long(), wide - q * divisor if name == "mod" else q)


@triton.jit
def uniform_kernel(x, y, n, divisor, MOD: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b_x = tl.load(x + at, at < n)
    b_y = b_x % divisor if MOD else b_x // divisor
    tl.store(y + at, b_y, at < n)


@pytest.mark.parametrize("name", ["less", "equal", "unequal"])
@pytest.mark.parametrize("dtype", [*FLOATS, *INTS], ids=str)
def test_compare(name: str, dtype: torch.dtype) -> None:
    kernel, reference = {"less": (_less, torch.lt), "equal": (_equal, torch.eq), "unequal": (_unequal, torch.ne)}[name]
    x, z = torch.randint(0, 4, (N,)).to(dtype), torch.randint(0, 4, (N,)).to(dtype)
    if dtype.is_floating_point:
        x[::7] = float("nan")
    assert torch.equal(run_binary(kernel, x, z, torch.bool), reference(x, z))


@triton.jit
def cast_kernel(x, y, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, at < n).to(y.dtype.element_ty), at < n)


@pytest.mark.parametrize("source", [*FLOATS, *INTS, torch.bool], ids=str)
@pytest.mark.parametrize("target", [*FLOATS, *INTS, torch.bool], ids=str)
def test_cast(source: torch.dtype, target: torch.dtype) -> None:
    torch.manual_seed(0)
    if source == torch.bool:
        x = torch.randint(0, 2, (N,)).bool()
    elif source.is_floating_point:
        limit = 120.0 if not target.is_floating_point else 3e4
        x = (torch.rand(N, dtype=torch.float64) * limit * (0.5 if target == torch.uint8 else 1)).to(source)
        if target not in (torch.uint8, torch.bool):
            x[::2] = -x[::2]
    else:
        info = torch.iinfo(source)
        x = torch.randint(max(info.min, -(2**62)), min(info.max, 2**62), (N,), dtype=torch.int64).to(source)
    y = torch.empty(N, dtype=target)
    launch(cast_kernel, (triton.cdiv(N, 256),), x, y, N, BLOCK=256)
    want = x.to(target)
    if source == torch.float64 and target in (torch.float16, torch.bfloat16):
        want = once_rounded(x, target)
    if source == torch.int64 and target in (torch.float16, torch.bfloat16):
        finite = y.isfinite() & want.isfinite()
        torch.testing.assert_close(y[finite].float(), want[finite].float(), rtol=1e-2, atol=0)
        return
    assert torch.equal(y, want)


@pytest.mark.parametrize("denormal", [False, True])
def test_bfloat16_of_every_kind_of_float(denormal: bool) -> None:
    """Every exponent, ties both ways, infinities, NaN with any payload. Vectors with a denormal go another way."""
    torch.manual_seed(0)
    exponent = torch.arange(0 if denormal else 1, 256).repeat_interleave(64)
    sign = torch.randint(-1, 1, exponent.shape)
    low = torch.randint(0, 1 << 23, exponent.shape)
    low[::4] = low[::4] & ~0xFFFF | 0x8000  # halfway between two bfloat16
    low[1::64] = 0
    x = (sign * 2**31 + exponent * 2**23 + low).to(torch.int32).view(torch.float32)
    y = torch.empty(len(x), dtype=torch.bfloat16)
    launch(cast_kernel, (triton.cdiv(len(x), 256),), x, y, len(x), BLOCK=256)
    want = x.bfloat16()
    number = ~x.isnan()
    assert torch.equal(y.view(torch.int16)[number], want.view(torch.int16)[number])
    assert y[~number].isnan().all()


def once_rounded(x: torch.Tensor, target: torch.dtype) -> torch.Tensor:
    """f64 -> half type in one rounding: the nearer of the neighbours of torch's own result."""
    near = x.to(torch.float32).to(target)
    bits = near.view(torch.int16)
    options = torch.stack([(bits + d).view(target) for d in (-1, 0, 1)])
    distance = (options.double() - x).abs()
    best = distance.min(0).values
    even = torch.stack([((bits + d) & 1) for d in (-1, 0, 1)])
    return _pick(options, torch.where(distance == best, even.long(), 2).argmin(0))


def _pick(options: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
    return options.view(torch.int16).gather(0, which.unsqueeze(0)).squeeze(0).view(options.dtype)


@pytest.mark.parametrize("name", ["float8_e5m2", "float8_e4m3fn", "float8_e5m2fnuz", "float8_e4m3fnuz"])
def test_float8(name: str) -> None:
    """Decoding every code; encoding what is representable, ties to even, saturation."""
    dtype = getattr(torch, name)
    codes = torch.arange(256, dtype=torch.uint8).view(dtype)
    decoded = torch.empty(256)
    launch(cast_kernel, (1,), codes, decoded, 256, BLOCK=256)
    assert torch.equal(decoded.nan_to_num(nan=-7), codes.float().nan_to_num(nan=-7))
    x = torch.randn(4096) * torch.exp2(torch.randint(-12, 6, (4096,)).float())
    x = torch.cat([x, decoded[decoded.isfinite()]])
    y = torch.empty(x.shape, dtype=dtype)
    launch(cast_kernel, (triton.cdiv(x.numel(), 256),), x, y, x.numel(), BLOCK=256)
    assert torch.equal(y.view(torch.uint8), x.to(dtype).view(torch.uint8))


@triton.jit
def unknown_float8_kernel(x, y):
    tl.store(y, tl.load(x).to(tl.float8e4b15).to(tl.float32))


def test_a_float8_of_no_standard_is_refused() -> None:
    with pytest.raises(triton.CompilationError, match="float8e4b15"):
        launch(unknown_float8_kernel, (1,), torch.zeros(1), torch.zeros(1))


@triton.jit
def random_kernel(y, seed, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.randint(seed, at), at < n)


def test_philox_counts() -> None:
    """tl.randint is bit-equal to the reference Philox-4x32-10 computed with numpy."""
    y = torch.empty(N, dtype=torch.int32)
    launch(random_kernel, (triton.cdiv(N, 256),), y, 1234567890123, N, BLOCK=256)
    assert np.array_equal(y.numpy().view(np.uint32), philox(1234567890123, np.arange(N)))


def philox(seed: int, offsets: np.ndarray) -> np.ndarray:
    c = [offsets.astype(np.uint32), *(np.zeros(len(offsets), np.uint32) for _ in range(3))]
    k0, k1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        a, b = 0xD2511F53 * c[0].astype(np.uint64), 0xCD9E8D57 * c[2].astype(np.uint64)
        high = [(v >> np.uint64(32)).astype(np.uint32) for v in (a, b)]
        low = [v.astype(np.uint32) for v in (a, b)]
        c = [high[1] ^ c[1] ^ np.uint32(k0), low[1], high[0] ^ c[3] ^ np.uint32(k1), low[0]]
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return c[0]
