"""Pointwise losses and their derivatives, on blocks in float32 or float64: what the rows of _pointwise_loss.py name.

    f(x, t, A, B)           the loss of a prediction x for a target t
    f_grad(x, t, A, B)      its derivative by x
    f_target(x, t, A, B)    its derivative by t
    f_third(x, t, A, B)     its derivative by A, where that is a third tensor

A and B are parameters (a width, an epsilon); A may be a block, as BCE's weight of the positives is. Kinks, clamps and
NaN are torch's.
"""

import triton
import triton.language as tl

from trident.lang.pointwise import expm1, log1p, logsigmoid, sigmoid
from trident.lang.tile import raised_to

TWO_PI = tl.constexpr(6.283185307179586)
HALF_LOG_TWO_PI = tl.constexpr(0.9189385332046727)
LOG_MIN = tl.constexpr(-100.0)  # torch clamps the logarithms of binary_cross_entropy here
BCE_MIN = tl.constexpr(1e-12)  # and the denominator of its derivative here


@triton.jit
def _sign(d):
    """NaN for NaN."""
    return tl.where(d > 0, 1.0, tl.where(d < 0, -1.0, d))


@triton.jit
def mse(x, t, A, B):
    return (x - t) * (x - t)


@triton.jit
def mse_grad(x, t, A, B):
    return 2 * (x - t)


@triton.jit
def mse_target(x, t, A, B):
    return 2 * (t - x)


@triton.jit
def l1(x, t, A, B):
    return tl.abs(x - t)


@triton.jit
def l1_grad(x, t, A, B):
    return (x > t).to(x.dtype) - (x < t).to(x.dtype)  # torch's sgn: 0 for NaN


@triton.jit
def l1_target(x, t, A, B):
    return l1_grad(t, x, A, B)


@triton.jit
def smooth_l1(x, t, A, B):
    """d² / 2A for d = |x - t| < A, else d - A / 2."""
    d = tl.abs(x - t)
    return tl.where(d < A, d * d * (0.5 / A), d - 0.5 * A)


@triton.jit
def smooth_l1_grad(x, t, A, B):
    d = x - t
    return tl.where(tl.abs(d) < A, d * (1.0 / A), _sign(d))


@triton.jit
def smooth_l1_target(x, t, A, B):
    return smooth_l1_grad(t, x, A, B)


@triton.jit
def huber(x, t, A, B):
    """d² / 2 for d = |x - t| < A, else A (d - A / 2)."""
    d = tl.abs(x - t)
    return tl.where(d < A, 0.5 * d * d, (d - 0.5 * A) * A)


@triton.jit
def huber_grad(x, t, A, B):
    d = x - t
    return tl.where(tl.abs(d) < A, d, _sign(d) * A)


@triton.jit
def huber_target(x, t, A, B):
    return huber_grad(t, x, A, B)


@triton.jit
def soft_margin(x, t, A, B):
    """log(1 + exp(-t x))."""
    return -logsigmoid(t * x, A, B)


@triton.jit
def soft_margin_grad(x, t, A, B):
    return -t * sigmoid(-t * x, A, B)


@triton.jit
def _log_other(x):
    """log(1 - x), -inf at 1; NaN above."""
    return tl.where(x == 1, float("-inf"), log1p(tl.where(x == 1, 0.0, -x)))


@triton.jit
def bce(x, t, A, B):
    """-t log x - (1 - t) log(1 - x). NaN if x is not in [0, 1]; if B, also if t is not."""
    yes, no = tl.log(x), _log_other(x)
    yes, no = tl.where(yes < LOG_MIN, LOG_MIN, yes), tl.where(no < LOG_MIN, LOG_MIN, no)
    loss = (t - 1) * no - t * yes
    if B != 0:  # a float has no truth in Triton
        loss = tl.where((t >= 0) & (t <= 1), loss, float("nan"))
    return loss


@triton.jit
def bce_grad(x, t, A, B):
    d = (1 - x) * x
    return (x - t) / tl.where(d < BCE_MIN, BCE_MIN, d)


@triton.jit
def bce_target(x, t, A, B):
    return _log_other(x) - tl.log(x)


@triton.jit
def bce_logits(x, t, A, B):
    """bce of σ(x); positives weigh A: (1 - t) x - (1 + (A - 1) t) log σ(x)."""
    return (1 - t) * x - (t * (A - 1) + 1) * logsigmoid(x, A, B)


@triton.jit
def bce_logits_grad(x, t, A, B):
    positive = t * A
    return (positive + 1 - t) * sigmoid(x, A, B) - positive


@triton.jit
def bce_logits_plain_target(x, t, A, B):
    """Of positives that weigh 1."""
    return -x


@triton.jit
def bce_logits_target(x, t, A, B):
    return -x - logsigmoid(x, A, B) * (A - 1)


@triton.jit
def _xlogx(t):
    return tl.where(t == 0, 0.0, t * tl.log(t))


@triton.jit
def kl(x, t, A, B):
    """t (log t - x): x is a log-probability, t a probability."""
    return _xlogx(t) - t * x


@triton.jit
def kl_grad(x, t, A, B):
    return -t


@triton.jit
def kl_target(x, t, A, B):
    return tl.where(t == 0, 0.0, tl.log(t)) + t / t - x  # t / t: at 0 NaN, as torch


@triton.jit
def kl_log(x, t, A, B):
    """exp(t) (t - x): both are log-probabilities."""
    return tl.exp(t) * (t - x)


@triton.jit
def kl_log_grad(x, t, A, B):
    return -tl.exp(t)


@triton.jit
def kl_log_target(x, t, A, B):
    return tl.exp(t) * (t - x + 1)


@triton.jit
def _above_mixture(x, t, A):
    """x - m and t - m for m = log(A exp(t) + (1 - A) exp(x)): without overflow, and exact where x is near t."""
    d = x - t
    e = expm1(-tl.abs(d))
    of_x, of_t = -log1p(e * A), -log1p(e * (1 - A))
    return tl.where(d > 0, of_x, of_t + d), tl.where(d > 0, of_x - d, of_t)


@triton.jit
def _weighted(log, times):
    """exp(log) times; 0 where the probability is."""
    p = tl.exp(log)
    return tl.where(p == 0, 0.0, p * times)


@triton.jit
def jsd(x, t, A, B):
    """A exp(t) (t - m) + (1 - A) exp(x) (x - m), m of the mixture as above: both are log-probabilities, 0 < A < 1."""
    x_m, t_m = _above_mixture(x, t, A)
    return _weighted(t, t_m) * A + _weighted(x, x_m) * (1 - A)


@triton.jit
def jsd_grad(x, t, A, B):
    x_m, _ = _above_mixture(x, t, A)
    return _weighted(x, x_m) * (1 - A)


@triton.jit
def jsd_target(x, t, A, B):
    _, t_m = _above_mixture(x, t, A)
    return _weighted(t, t_m) * A


@triton.jit
def _stirling(t):
    """log t! for t > 1, else 0."""
    return tl.where(t <= 1, 0.0, t * tl.log(t) - t + 0.5 * tl.log(t * TWO_PI))


@triton.jit
def poisson(x, t, A, B):
    """x - t log(x + A), and log t! if B."""
    loss = x - t * tl.log(x + A)
    if B != 0:  # a float has no truth in Triton
        loss += _stirling(t)
    return loss


@triton.jit
def poisson_grad(x, t, A, B):
    return 1 - t / (x + A)


@triton.jit
def poisson_target(x, t, A, B):
    return -tl.log(x + A)


@triton.jit
def poisson_log(x, t, A, B):
    """exp(x) - t x, and log t! if B: x is the logarithm of the rate."""
    loss = tl.exp(x) - t * x
    if B != 0:  # a float has no truth in Triton
        loss += _stirling(t)
    return loss


@triton.jit
def poisson_log_grad(x, t, A, B):
    return tl.exp(x) - t


@triton.jit
def poisson_log_target(x, t, A, B):
    return -x


@triton.jit
def _not_negative(z):
    """NaN for NaN."""
    return tl.where(z < 0, 0.0, z)


@triton.jit
def _where_it_counts(z):
    """The derivative of _not_negative; torch's is 1 at 0."""
    return (z >= 0).to(z.dtype)


@triton.jit
def ranking(x, t, A, B):
    """max(0, B - A (x - t)): A is 1 where x should be the higher one, -1 where t should."""
    return _not_negative((x - t) * -A + B)


@triton.jit
def ranking_grad(x, t, A, B):
    return _where_it_counts((x - t) * -A + B) * -A


@triton.jit
def ranking_target(x, t, A, B):
    return _where_it_counts((x - t) * -A + B) * A


@triton.jit
def ranking_third(x, t, A, B):
    return _where_it_counts((x - t) * -A + B) * (t - x)


@triton.jit
def hinge(x, t, A, B):
    """x where t is 1, max(0, A - x) where it is -1; both elsewhere."""
    return tl.where(t != 1, _not_negative(A - x), 0.0) + tl.where(t != -1, x, 0.0)


@triton.jit
def hinge_grad(x, t, A, B):
    return (t != -1).to(x.dtype) - tl.where(t != 1, _where_it_counts(A - x), 0.0)


@triton.jit
def cosine_embedding(x, t, A, B):
    """Of a cosine x: 1 - x where t is 1, max(0, x - A) where it is -1."""
    return tl.where(t == 1, 1 - x, 0.0) + tl.where(t == -1, _not_negative(x - A), 0.0)


@triton.jit
def cosine_embedding_grad(x, t, A, B):
    return tl.where(t == -1, _where_it_counts(x - A), 0.0) - (t == 1).to(x.dtype)


@triton.jit
def gaussian(x, t, A, B):
    """(log v + (x - t)² / v) / 2 of a variance v = max(A, B). NaN if A is negative."""
    v = tl.where(A < 0, float("nan"), raised_to(A, B))
    return 0.5 * (tl.log(v) + (x - t) * (x - t) / v)


@triton.jit
def gaussian_full(x, t, A, B):
    return gaussian(x, t, A, B) + HALF_LOG_TWO_PI


@triton.jit
def gaussian_grad(x, t, A, B):
    return (x - t) / raised_to(A, B)


@triton.jit
def gaussian_target(x, t, A, B):
    return (t - x) / raised_to(A, B)


@triton.jit
def gaussian_third(x, t, A, B):
    """As if A were not held at B."""
    v = raised_to(A, B)
    off = (x - t) / v
    return 0.5 * (1 / v - off * off)
