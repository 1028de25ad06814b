"""The kernels whose printed TTIR is kept here for each Triton version, and the program that prints it.

    python tests/cpu/golden/kernels.py        writes <kernel>.<version>.ttir beside this file

Needs Triton only, no torch: run it in an environment of the version wanted.
"""

import pathlib

import triton
import triton.language as tl
from triton._C.libtriton import ir, passes
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource


@triton.jit
def add(x, y, z, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(z + at, tl.load(x + at, at < n, other=0.0) + tl.load(y + at, at < n, other=0.0), at < n)


@triton.jit
def softmax(x, y, n, BLOCK: tl.constexpr):
    row, cols = tl.program_id(0), tl.arange(0, BLOCK)
    b_x = tl.load(x + row * n + cols, cols < n, other=-float("inf"), eviction_policy="evict_first")
    e = tl.exp(b_x - tl.max(b_x, 0))
    tl.store(y + row * n + cols, e / tl.sum(e, 0), cols < n)


@triton.jit
def matmul(a, b, c, K, BLOCK: tl.constexpr):
    m, k = tl.arange(0, BLOCK)[:, None], tl.arange(0, BLOCK)[None, :]
    pa, pb = a + m * K + k, b + m * BLOCK + k
    acc = tl.zeros((BLOCK, BLOCK), tl.float32)
    for _ in range(0, K, BLOCK):
        acc = tl.dot(tl.load(pa), tl.load(pb), acc, input_precision="ieee")
        pa += BLOCK
        pb += BLOCK * BLOCK
    tl.store(c + m * BLOCK + k, acc)


@triton.jit
def control(x, y, n, BLOCK: tl.constexpr):
    if n < 0:
        return
    at = tl.arange(0, BLOCK)
    b_x, i = tl.load(x + at), 0
    while i < n:
        if i % 2 == 0:
            b_x = b_x * 2
        else:
            b_x += 1
        i += 1
    tl.store(y + at, b_x)


@triton.jit
def _linear(a1, b1, a2, b2):
    return a1 * a2, b1 * a2 + b2


@triton.jit
def scan(x, y, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    b_x = tl.load(x + at)
    _, b_y = tl.associative_scan((b_x * 0.5, b_x), 0, _linear)
    tl.store(y + at, b_y + tl.argmax(b_x, 0))


@triton.jit
def layout(x, y, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    a, b = tl.split(tl.reshape(tl.sort(tl.load(x + at)), (BLOCK // 2, 2)))
    tl.store(y + at, tl.reshape(tl.trans(tl.join(b, a)), (BLOCK,)))


@triton.jit
def dropout(x, y, seed, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    keep = tl.rand(seed, at) > 0.5
    tl.store(y + at, tl.where(keep, tl.load(x + at, at < n) * 2.0, 0.0), at < n)


@triton.jit
def count(x, y, total, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b_x = tl.load(x + at, at < n, other=0)
    tl.atomic_add(y + b_x, 1, at < n, sem="relaxed")
    tl.atomic_max(total, tl.sum(b_x, 0))


FLOATS, INTS = "*fp32", "*i32"
KERNELS = [
    (add, {"x": FLOATS, "y": FLOATS, "z": FLOATS, "n": "i32"}, 64),
    (softmax, {"x": FLOATS, "y": FLOATS, "n": "i32"}, 128),
    (matmul, {"a": FLOATS, "b": FLOATS, "c": FLOATS, "K": "i32"}, 16),
    (control, {"x": FLOATS, "y": FLOATS, "n": "i32"}, 32),
    (scan, {"x": FLOATS, "y": FLOATS}, 64),
    (layout, {"x": FLOATS, "y": FLOATS}, 16),
    (dropout, {"x": FLOATS, "y": FLOATS, "seed": "i32", "n": "i32"}, 64),
    (count, {"x": INTS, "y": INTS, "total": INTS, "n": "i32"}, 64),
]


def printed(kernel, signature: dict[str, str], block: int) -> str:
    """TTIR with locations, after the passes that trident_cpu runs."""
    names = kernel.arg_names
    source = ASTSource(kernel, {n: signature.get(n, "constexpr") for n in names}, {(names.index("BLOCK"),): block}, {})
    target = GPUTarget("cuda", 80, 32)
    backend = triton.compiler.make_backend(target)
    options = backend.parse_options({})
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    module = source.make_ir(
        target, options, backend.get_codegen_implementation(options), backend.get_module_map(), context
    )
    manager = ir.pass_manager(module.context)
    passes.common.add_inliner(manager)
    passes.common.add_canonicalizer(manager)
    passes.ttir.add_combine(manager)
    passes.ttir.add_reorder_broadcast(manager)
    passes.common.add_cse(manager)
    passes.common.add_symbol_dce(manager)
    manager.run(module, "golden")
    return module.str().replace(str(pathlib.Path(__file__).parent) + "/", "")


if __name__ == "__main__":
    for kernel, signature, block in KERNELS:
        path = pathlib.Path(__file__).parent / f"{kernel.__name__}.{triton.__version__}.ttir"
        path.write_text(printed(kernel, signature, block))
