"""Scalar functions and their derivatives, on blocks in float32 or float64: what the rows of the operators' tables name.

    f(x, A, B)            the function
    f_grad(dy, s, A, B)   its gradient times dy; s is x, or y where the derivative is a function of y

A and B are constexpr parameters (a slope, a bound). At a kink the derivative is torch's sub-gradient. Comparisons are
written so that NaN takes the branch that it takes in torch. Nothing overflows to NaN: exp sees what cannot overflow,
or its infinity ends in the denominator.
"""

import triton
import triton.language as tl

SQRT_HALF = tl.constexpr(0.7071067811865476)
RSQRT_2PI = tl.constexpr(0.3989422804014327)
CUBIC = tl.constexpr(0.044715)
TWO_SQRT_2_PI = tl.constexpr(1.5957691216057308)  # 2 sqrt(2 / pi)
SELU_SCALE = tl.constexpr(1.0507009873554805)
SELU_ALPHA_SCALE = tl.constexpr(1.7580993408473766)
SIXTH = tl.constexpr(0.16666666666666666)


@triton.jit
def expm1(x):
    """exp(x) - 1, relatively accurate near 0: there x (1 + x/2 (1 + x/3 (1 + ...))) to the rounding of the dtype."""
    if x.dtype == tl.float64:
        series = tl.full(x.shape, 1.0, x.dtype)
        for k in tl.static_range(15, 1, -1):
            series = series * x * (1.0 / k) + 1
    else:  # the same, a product for each term
        series = ((x * (1 / 40320) + 1 / 5040) * x + 1 / 720) * x + 1 / 120
        series = (((series * x + 1 / 24) * x + 1 / 6) * x + 0.5) * x + 1
    return tl.where(tl.abs(x) < 0.5, x * series, tl.exp(x) - 1)


@triton.jit
def log1p(x):
    """log(1 + x) for finite x > -1, relatively accurate near 0: log(u) corrected by what rounding 1 + x to u lost."""
    u = x + 1
    return tl.log(u) + (x - (u - 1)) / u


@triton.jit
def sigmoid(x, A, B):
    return 1 / (1 + tl.exp(-x))


@triton.jit
def sigmoid_grad(dy, y, A, B):
    return dy * y * (1 - y)


@triton.jit
def tanh(x, A, B):
    """e / (e + 2) with e = expm1(2 x); in float32 1 - 2 / (exp(2 x) + 1), and near 0 Cephes' polynomial (Moshier)."""
    if x.dtype == tl.float64:
        e = expm1(2 * tl.where(x > 20, 20.0, x))  # tanh(20) rounds to 1, even in float64
        t = e / (e + 2)
    else:
        z, size = x * x, tl.abs(x)
        p = (((z * -5.70498872745e-3 + 2.06390887954e-2) * z - 5.37397155531e-2) * z + 1.33314422036e-1) * z
        large = 1 - 2 / (tl.exp(2 * size) + 1)
        t = tl.where(size < 0.625, x * ((p - 3.33332819422e-1) * z + 1), tl.where(x < 0, -large, large))
    return t


@triton.jit
def tanh_grad(dy, y, A, B):
    return dy * (1 - y * y)


@triton.jit
def relu(x, A, B):
    return tl.where(x < 0, 0.0, x)  # not maximum: NaN stays NaN


@triton.jit
def relu_grad(dy, y, A, B):
    return tl.where(y <= 0, 0.0, dy)


@triton.jit
def leaky_relu(x, A, B):
    return tl.where(x > 0, x, x * A)


@triton.jit
def leaky_relu_grad(dy, x, A, B):
    return tl.where(x > 0, dy, dy * A)


@triton.jit
def elu(x, A, B):
    """A (exp(x) - 1) for x < 0."""
    return tl.where(x < 0, expm1(x) * A, x)


@triton.jit
def elu_grad(dy, x, A, B):
    return tl.where(x <= 0, dy * tl.exp(x) * A, dy)


@triton.jit
def celu(x, A, B):
    """A (exp(x / A) - 1) for x < 0."""
    return tl.where(x < 0, expm1(x * (1.0 / A)) * A, x)


@triton.jit
def celu_grad(dy, x, A, B):
    return tl.where(x <= 0, dy * tl.exp(x * (1.0 / A)), dy)


@triton.jit
def selu(x, A, B):
    return tl.where(x < 0, expm1(x) * SELU_ALPHA_SCALE, x * SELU_SCALE)


@triton.jit
def selu_grad(dy, x, A, B):
    return tl.where(x <= 0, dy * tl.exp(x) * SELU_ALPHA_SCALE, dy * SELU_SCALE)


@triton.jit
def gelu(x, A, B):
    return 0.5 * x * (1 + tl.erf(x * SQRT_HALF))


@triton.jit
def gelu_grad(dy, x, A, B):
    return dy * (0.5 * (1 + tl.erf(x * SQRT_HALF)) + x * RSQRT_2PI * tl.exp(-0.5 * x * x))


@triton.jit
def gelu_tanh(x, A, B):
    return x * sigmoid((x + x * x * x * CUBIC) * TWO_SQRT_2_PI, A, B)  # 0.5 (1 + tanh(u)) = σ(2u)


@triton.jit
def gelu_tanh_grad(dy, x, A, B):
    s = sigmoid((x + x * x * x * CUBIC) * TWO_SQRT_2_PI, A, B)
    return dy * (s + x * s * (1 - s) * (1 + x * x * CUBIC * 3) * TWO_SQRT_2_PI)


@triton.jit
def silu(x, A, B):
    return x / (1 + tl.exp(-x))


@triton.jit
def silu_grad(dy, x, A, B):
    s = sigmoid(x, A, B)
    return dy * s * (1 + x * (1 - s))


@triton.jit
def quick_gelu(x, A, B):
    return x / (1 + tl.exp(-1.702 * x))


@triton.jit
def quick_gelu_grad(dy, x, A, B):
    s = sigmoid(1.702 * x, A, B)
    return dy * s * (1 + 1.702 * x * (1 - s))


@triton.jit
def mish(x, A, B):
    """x tanh(log(1 + e)), e = exp(x). With n = e (e + 2) the tanh is n / (n + 2): no logarithm, no cancellation."""
    e = tl.exp(tl.where(x > 20, 20.0, x))  # from 20 on the tanh rounds to 1
    n = e * (e + 2)
    return x * (n / (n + 2))


@triton.jit
def mish_grad(dy, x, A, B):
    """t + x σ(x) (1 - t²), t the tanh above; 1 - t² = 4 (n + 1) / (n + 2)² without cancellation."""
    e = tl.exp(tl.where(x > 20, 20.0, x))
    n = e * (e + 2)
    r = 1 / (n + 2)
    return dy * (n * r + x * (e / (e + 1)) * tl.where(x > 20, 0.0, 4 * (n + 1) * r * r))


@triton.jit
def softplus(x, A, B):
    """log(1 + exp(A x)) / A; the identity where A x > B."""
    z = x * A
    smooth = (tl.where(z < 0, 0.0, z) + log1p(tl.exp(-tl.abs(z)))) * (1.0 / A)
    return tl.where(z > B, x, smooth)


@triton.jit
def softplus_grad(dy, x, A, B):
    z = x * A
    return tl.where(z > B, dy, dy * sigmoid(z, A, B))


@triton.jit
def logsigmoid(x, A, B):
    return tl.where(x > 0, 0.0, x) - log1p(tl.exp(-tl.abs(x)))


@triton.jit
def logsigmoid_kept(x, A, B):
    return tl.exp(-tl.abs(x))


@triton.jit
def logsigmoid_grad(dy, x, A, B):
    return dy / (1 + tl.exp(x))


@triton.jit
def softsign(x, A, B):
    return x / (1 + tl.abs(x))


@triton.jit
def softsign_grad(dy, x, A, B):
    d = 1 + tl.abs(x)
    return dy / d / d + x * 0  # at infinity NaN, as torch


@triton.jit
def softshrink(x, A, B):
    return tl.where(x > A, x - A, tl.where(x < -A, x + A, x * 0))  # x * 0: NaN stays NaN


@triton.jit
def shrink_grad(dy, s, A, B):
    """Of softshrink and of hardshrink."""
    return tl.where((s >= -A) & (s <= A), 0.0, dy)


@triton.jit
def hardshrink(x, A, B):
    return tl.where((x >= -A) & (x <= A), 0.0, x)


@triton.jit
def tanhshrink(x, A, B):
    return x - tanh(x, A, B)


@triton.jit
def tanhshrink_kept_grad(dy, t, A, B):
    """t = tanh(x)"""
    return dy * (t * t)


@triton.jit
def tanhshrink_grad(dy, x, A, B):
    t = tanh(x, A, B)
    return dy * t * t


@triton.jit
def hardsigmoid(x, A, B):
    return tl.where(x <= -3, 0.0, tl.where(x >= 3, 1.0, (x + 3) * SIXTH))


@triton.jit
def hardsigmoid_grad(dy, x, A, B):
    return tl.where((x > -3) & (x < 3), dy * SIXTH, 0.0)


@triton.jit
def hardswish(x, A, B):
    return x * hardsigmoid(x, A, B)


@triton.jit
def hardswish_grad(dy, x, A, B):
    return tl.where(x <= -3, 0.0, tl.where(x < 3, dy * (x * SIXTH * 2 + 0.5), dy))


@triton.jit
def hardtanh(x, A, B):
    return tl.where(x < A, A, tl.where(x > B, B, x))


@triton.jit
def hardtanh_grad(dy, x, A, B):
    return tl.where((x <= A) | (x >= B), 0.0, dy)


@triton.jit
def threshold(x, A, B):
    """x where x > A, else B."""
    return tl.where(x <= A, B, x)


@triton.jit
def threshold_grad(dy, x, A, B):
    return tl.where(x <= A, 0.0, dy)
