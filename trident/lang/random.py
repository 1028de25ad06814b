"""Random numbers: Philox4x32 (Salmon et al. 2011), a function of a key and a counter. Nothing has to be stored.

Seven rounds: the fewest that pass BigCrush in that paper. Ten, Triton's default, cost 40% more of the time that a
dropout in half precision spends on integer arithmetic.
"""

import triton
import triton.language as tl

ROUNDS = tl.constexpr(7)
TWO_TO_MINUS_24 = tl.constexpr(5.9604644775390625e-08)


@triton.jit
def random4(seed, counters):
    """Four blocks of 32 random bits (uint32) per int64 counter; `seed` points at the int64 key."""
    return tl.randint4x(tl.load(seed), counters, ROUNDS)


@triton.jit
def at_least(random, bound):
    """Is a random uint32 >= bound + 2^31? (The host passes bound, an int32: unsigned arguments have no type.)"""
    return random.to(tl.int32, bitcast=True) >= bound


@triton.jit
def uniform(random):
    """A multiple of 2^-24 in [0, 1), exact in float32."""
    return (random >> 8).to(tl.int32).to(tl.float32) * TWO_TO_MINUS_24
