"""Kernels over lists of tensors: one launch for all of them, or one for each.

A list is a table of int64, a row for each tensor: the addresses of what belongs together (a parameter, its gradient,
its states), then the number of elements. `chunks` says which row, and from which element on, a program works.
Addresses out of a table cannot be checked, so the sanitizer has kernels that take one tensor and walk in the same way.
"""

import triton
import triton.language as tl


@triton.jit
def chunk(table, chunks, WIDTH: tl.constexpr, CHUNK: tl.constexpr):
    """This program's row of the table, its first element and the one past its last."""
    mine = chunks + tl.program_id(0).to(tl.int64) * 2
    row = table + tl.load(mine) * WIDTH
    start = tl.multiple_of(tl.load(mine + 1), CHUNK)
    return row, start, tl.minimum(start + CHUNK, tl.load(row + (WIDTH - 1)))


@triton.jit
def piece(N, CHUNK: tl.constexpr):
    """The first element, and the one past the last, of this program's piece of one tensor of N elements."""
    start = tl.program_id(0).to(tl.int64) * CHUNK
    return start, tl.minimum(start + CHUNK, N)


@triton.jit
def address(row, column: tl.constexpr, like, ALIGNED: tl.constexpr):
    """The pointer in a column of a row, to elements as those of `like`. ALIGNED: all of them to 16 bytes."""
    pointer = tl.load(row + column).to(like.dtype)
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def whole_blocks(start, stop, BLOCK: tl.constexpr):
    """The end of the blocks that fit between two elements: up to there nothing is masked, which GPUs need for 16-byte
    accesses where the compiler does not know the sizes."""
    return stop - (stop - start) % BLOCK
