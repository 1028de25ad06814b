"""What pooling does with the elements of a window, one after the other: the largest, their sum, the sum of powers."""

import triton
import triton.language as tl

from trident.lang.tile import load


@triton.jit
def power(x, P: tl.constexpr):
    """x^P as torch has it: of negative x for whole P only."""
    if P == 0:
        return x * 0 + 1
    elif P == 1:
        return x
    elif P == 2:
        return x * x
    elif P == -1:
        return 1 / x
    else:
        size = tl.where(x == 0, tl.abs(x), tl.exp(tl.log(tl.abs(x)) * P))
        if P % 2 == 0:
            return size
        elif P % 2 == 1:
            return tl.where(x < 0, -size, size)
        else:
            return tl.where(x < 0, float("nan"), size)


@triton.jit
def add_element(best, code, x, found, this, KIND: tl.constexpr, P: tl.constexpr):
    """`best` and `code` of the windows with one more element of each. As in torch the last NaN is the maximum."""
    if KIND == "max":
        b_x = load(x, found, -float("inf"))
        better = (b_x > best) | (b_x != b_x)
        return tl.where(better, b_x, best), tl.where(better, this, code)
    else:
        b_x = load(x, found)
        return best + (power(b_x, P) if KIND == "power" else b_x), code


@triton.jit
def finished(mean, K, KIND: tl.constexpr, P: tl.constexpr):
    """A mean, or the power mean (K mean of x^P)^(1/P)."""
    if KIND == "power":
        if P == 1:
            return mean * K
        elif P == 2:
            return tl.sqrt(mean * K)
        else:
            return tl.exp(tl.log(mean * K) / P)
    else:
        return mean
