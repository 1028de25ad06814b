"""The steps of the fuzzer's programs: each adds a few lines, and the values that they make, to a `Program`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.cpu.fuzz_values import FLOATS, INTS, LARGEST, Value

if TYPE_CHECKING:
    from tests.cpu.fuzz_programs import Program


def atomic(p: Program) -> None:
    """Many lanes on few addresses; what they return depends on their order and is not used."""
    a, mask = p.tile(("int32", "float32")), p.mask()
    if a and a.bound < 1000:
        kinds = ["add", "max", "min"] + ["and", "or", "xor"] * (not a.is_float)
        # float sums are exact: the values are multiples of 1/4096
        text = a.name if not a.is_float else f"tl.floor({a.name})"
        tail = f", mask={mask.name}" if mask else ""
        few = p.random.choice([1, 7, 63])
        name = p.output(a.dtype)
        p.line(f"tl.atomic_{p.random.choice(kinds)}({name} + ((at * 5) & {few}), {text}{tail})")


def scalar_load(p: Program) -> None:
    index = p.random.choice(["pid", "(n * 3 + pid) & (SIZE - 1)", "k"])
    buffer = p.random.choice(["x0", "x1"])
    p.new(f"tl.load({buffer} + ({index}))", p.BUFFERS[buffer], (), 4.0 if buffer == "x0" else 0.0)


def load_bfloat16(p: Program) -> None:
    """Only read, and 0 elsewhere: the interpreter truncates to bfloat16, and takes the 1 of `other=1` for its bits."""
    other = p.random.choice(["", ", at < n, other=0"])
    p.new(f"tl.load(x5 + ((at * 3 + pid) & (SIZE - 1)){other}).to(tl.float32)", "float32", p.shape, 4.0)


def wild(p: Program) -> None:
    """NaN, infinities, subnormals and zeros of both signs, through the operations that must keep them."""
    r = p.random
    p.count += 1
    x, y = f"p{p.count}", f"q{p.count}"
    first = r.choice(["mine", "at"])
    second = f"{r.choice([17, 5, 1])} * at"
    p.line(f"{x} = tl.load(x4 + (({first}) & (SIZE - 1)))")
    p.line(f"{y} = tl.load(x4 + (({second}) & (SIZE - 1)))")
    nan = r.choice(["", ", propagate_nan=tl.PropagateNan.ALL"])
    text = r.choice([
        "{x} + {y}", "{x} * {y}", "{x} / {y}", "tl.maximum({x}, {y}{nan}) + 0.0", "tl.minimum({x}, {y}{nan}) + 0.0",
        "tl.abs({x})", "tl.where({x} < {y}, {x}, {y})", "tl.where({x} != {x}, 0.0, {x})", "{x} - {y}", "-{x}",
        "{x}.to(tl.float16).to(tl.float32)", "{x}.to(tl.float64) * 0.5", "tl.floor({x})", "tl.sqrt({x})",
        "tl.where({x} >= {y}, 1.0, 2.0)", "tl.where({x} == {y}, 1.0, 2.0)",
        "tl.clamp({x}, -1.0, 1.0{nan}) + 0.0",
    ])  # fmt: skip
    name = p.output("float32")
    p.line(f"tl.store({name} + mine, {text.format(x=x, y=y, nan=nan)})")


# -- arithmetic


def integers(p: Program) -> None:
    a = p.tile(INTS)
    if a:
        b = p.partner(a)
        text = p.random.choice([
            "{a} + {b}", "{a} - {b}", "{a} * {b}", "{a} & {b}", "{a} | {b}", "{a} ^ {b}", "tl.maximum({a}, {b})",
            "tl.minimum({a}, {b})", "{a} << ({b} & 3)", "{a} >> ({b} & 3)", "{a} // (({b} & 7) + 1)",
            "{a} % (({b} & 7) + 1)", "-{a}" if a.dtype != "uint8" else "{a} + 1", "~{a}", "{a} * 3 + {b}",
        ]).format(a=a.name, b=b.name)  # fmt: skip
        p.new(f"({text}).to(tl.{a.dtype})", a.dtype, a.shape)


def floats(p: Program) -> None:
    a = p.tile(FLOATS)
    if a:
        b = p.partner(a)
        text, bound = p.random.choice([
            ("{a} + {b}", a.bound + b.bound), ("{a} - {b}", a.bound + b.bound), ("{a} * {b}", a.bound * b.bound),
            ("{a} / (tl.abs({b}) + 0.5)", a.bound * 2), ("-{a}", a.bound), ("tl.abs({a})", a.bound),
            ("tl.maximum({a}, {b}) + 0.0", max(a.bound, b.bound)),
            ("tl.minimum({a}, {b}) + 0.0", max(a.bound, b.bound)),
            ("{a} * 0.5 + 1.0", a.bound + 1), ("tl.clamp({a}, -1.0, 1.0) + 0.0", 1.0),
            ("tl.sqrt(tl.abs({a}))", a.bound + 1) if a.dtype != "float16" else ("{a} * 2.0", a.bound * 2),
            ("tl.floor({a}) + 0.0", a.bound + 1) if a.dtype != "float16" else ("{a} + 1.0", a.bound + 1),
            ("{a} % (tl.abs({b}) + 0.5)", a.bound) if a.dtype == "float32" else ("{a} - 1.0", a.bound + 1),
        ])  # fmt: skip
        if bound < LARGEST[a.dtype]:
            p.new(f"({text.format(a=a.name, b=b.name)}).to(tl.{a.dtype})", a.dtype, a.shape, bound)


def inexact(p: Program) -> None:
    a = p.tile(("float32", "float64"))
    if a:
        text, bound = p.random.choice([
            ("tl.exp(tl.minimum({a}, 4.0))", 60.0), ("tl.log(tl.abs({a}) + 0.5)", 40.0), ("tl.sin({a})", 2.0),
            ("tl.cos({a})", 2.0), ("tl.erf({a})", 2.0), ("tl.exp2(tl.minimum({a}, 4.0))", 20.0),
            ("tl.rsqrt(tl.abs({a}) + 0.25)", 4.0), ("tl.sigmoid({a})", 2.0), ("tl.log2(tl.abs({a}) + 0.5)", 60.0),
            ("tl.fma({a}, {a}, {a})", a.bound * (a.bound + 1)), ("tl.softmax({a})", 2.0),
        ])  # fmt: skip
        if "softmax" not in text or len(a.shape) == 1:
            p.new(text.format(a=a.name), a.dtype, a.shape, bound, exact=False)


def compare(p: Program) -> None:
    a = p.tile()
    if a:
        op = p.random.choice(["<", "<=", ">", ">=", "==", "!="])
        p.new(f"{a.name} {op} {p.partner(a).name}", "int1", a.shape)


def logic(p: Program) -> None:
    a = p.any(lambda v: v.dtype == "int1" and v.shape == p.shape)
    if a:
        p.new(f"{a.name} {p.random.choice('&|^')} {p.partner(a).name}", "int1", a.shape)


def choose(p: Program) -> None:
    a, condition = p.tile(), p.any(lambda v: v.dtype == "int1" and v.shape == p.shape)
    if a and condition:
        b = p.partner(a)
        text = f"tl.where({condition.name}, {a.name}, {b.name})"
        p.new(text, a.dtype, a.shape, max(a.bound, b.bound))


def cast(p: Program) -> None:
    a = p.tile()
    if not a:
        return
    to = p.random.choice([*INTS, *FLOATS])
    if a.is_float and not to.startswith("float"):
        safe = f"tl.where(tl.abs({a.name}) < 100.0, {a.name}, 0.0)"
        low = f"tl.abs({safe})" if to == "uint8" else safe
        p.new(f"{low}.to(tl.{to})", to, a.shape)
    elif to.startswith("float"):
        bound = a.bound if a.is_float else 100.0
        text = a.name if a.is_float else f"({a.name} & 63)"
        if bound < LARGEST[to]:
            p.new(f"{text}.to(tl.{to})", to, a.shape, bound)
    else:
        p.new(f"{a.name}.to(tl.{to})", to, a.shape)


def call(p: Program) -> None:
    """A function: inlined on tiles; a real call on scalars, which is all that Triton lets a noinline one take."""
    a = p.any(lambda v: v.dtype in ("int32", "float32") and v.shape in ((), p.shape))
    if a and 3 * a.bound < 1e6:
        b = p.any(lambda v: v.dtype == a.dtype and v.shape == a.shape) or a
        function = "twice_plus_there" if a.shape == () else "twice_plus"
        p.new(f"{function}({a.name}, {b.name})", a.dtype, a.shape, 2 * a.bound + b.bound)


# -- across lanes


def reduce(p: Program) -> None:
    a = p.tile(("int32", "int64", "float32", "float64", "int16"))
    if not a:
        return
    axis = p.random.randrange(len(a.shape))
    keep = len(a.shape) > 1 and p.random.random() < 0.5
    rest = tuple(1 if d == axis else e for d, e in enumerate(a.shape) if keep or d != axis)
    tail = f"axis={axis}{', keep_dims=True' if keep else ''}"
    kind = p.random.choice(["sum", "max", "min", "argmax", "argmin", "xor_sum", "reduce"])
    if kind == "xor_sum" and a.is_float:
        kind = "max"
    if kind == "sum" and a.is_float:
        p.new(f"tl.sum({a.name}, {tail})", a.dtype, rest, a.bound * a.shape[axis], exact=False)
    elif kind in ("argmax", "argmin"):
        p.new(f"tl.{kind}({a.name}, {tail}).to(tl.int32)", "int32", rest)
    elif kind == "reduce":
        p.new(f"tl.reduce({a.name}, {axis}, pick_max{', keep_dims=True' if keep else ''})", a.dtype, rest, a.bound)
    else:
        p.new(f"tl.{kind}({a.name}, {tail}).to(tl.{a.dtype})", a.dtype, rest, a.bound)


def broadcast(p: Program) -> None:
    """A reduced value back in the full shape, to meet tiles again."""
    rank = len(p.shape)

    def fits(v: Value) -> bool:
        same = len(v.shape) == rank and all(a in (1, b) for a, b in zip(v.shape, p.shape, strict=True))
        return v.shape != p.shape and v.dtype != "int1" and (v.shape == () or same)

    a = p.any(fits)
    if a:
        zero = f"tl.zeros({list(p.shape)}, tl.{a.dtype})"
        p.new(f"{a.name} + {zero}", a.dtype, p.shape, a.bound)


def scan(p: Program) -> None:
    a = p.tile(("int32", "int64", "float32"))
    if not a:
        return
    axis, reverse = p.random.randrange(len(a.shape)), p.random.choice(["", ", reverse=True"])
    kind = p.random.choice(["cumsum", "cumprod", "max", "affine"])
    if kind == "max":
        p.new(f"tl.associative_scan({a.name}, {axis}, pick_max{reverse})", a.dtype, a.shape, a.bound)
    elif kind == "cumsum":
        p.new(f"tl.cumsum({a.name}, {axis}{reverse})", a.dtype, a.shape, a.bound * a.shape[axis], not a.is_float)
    elif not a.is_float and kind == "cumprod":
        p.new(f"tl.cumprod({a.name}, {axis}{reverse})", a.dtype, a.shape)
    elif not a.is_float:
        p.count += 1
        p.line(f"w{p.count}, u{p.count} = tl.associative_scan(({a.name}, {a.name} + 1), {axis}, affine{reverse})")
        p.pool.append(Value(f"u{p.count}", a.dtype, a.shape))


def rearrange(p: Program) -> None:
    a = p.tile(("int32", "float32", "int16", "float64"))
    if not a:
        return
    kinds = ["flip", "sort", "reshape", "gather", "join", "trans", "interleave", "histogram"]
    kind = p.random.choice(kinds)
    last = a.shape[-1]
    if kind == "flip" and last > 1:
        p.new(f"tl.flip({a.name}, {len(a.shape) - 1})", a.dtype, a.shape, a.bound)
    elif kind == "sort" and last > 1:
        order = p.random.choice(["", ", descending=True"])
        p.new(f"tl.sort({a.name} + 0{order})", a.dtype, a.shape, a.bound)
    elif kind == "reshape":
        flat = f"tl.reshape({a.name}, [{p.block}])"
        p.new(f"tl.reshape({flat}, {list(p.shape)})", a.dtype, a.shape, a.bound)
    elif kind == "gather":
        index = p.tile(("int32",))
        if index:
            axis = p.random.randrange(len(a.shape))
            text = f"tl.gather({a.name}, {index.name} & {a.shape[axis] - 1}, {axis})"
            p.new(text, a.dtype, a.shape, a.bound)
    elif kind == "join":
        b = p.tile((a.dtype,)) or a
        p.count += 1
        p.line(f"w{p.count}, u{p.count} = tl.split(tl.join({a.name}, {b.name}))")
        p.pool.append(Value(f"u{p.count}", a.dtype, a.shape, b.bound))
    elif kind == "trans" and len(a.shape) == 2:
        # a reduction of the transpose comes back in the other order
        text = f"tl.trans(tl.trans({a.name}) + tl.trans({a.name}))"
        if not a.is_float or a.bound * 2 < LARGEST[a.dtype]:
            p.new(text, a.dtype, a.shape, 2 * a.bound)
    elif kind == "histogram" and a.dtype == "int32" and len(a.shape) == 1:
        bins = p.random.choice([2, 16, 64])
        p.store(p.new(f"tl.histogram({a.name} & {bins - 1}, {bins})", "int32", (bins,)))
    elif kind == "interleave" and len(a.shape) == 1:
        text = f"tl.max(tl.reshape(tl.interleave({a.name}, {a.name}), [{last}, 2]), 1)"
        p.new(text, a.dtype, a.shape, a.bound)


def dot(p: Program) -> None:
    if len(p.shape) == 2 and p.shape[0] >= 4 and p.shape[1] >= 4:
        a = p.tile(("float32", "float16"))
        if a and a.bound < 100:
            rows, columns = p.shape
            text = f"tl.dot({a.name}, tl.trans({a.name}), input_precision='ieee')"
            p.new(text, "float32", (rows, rows), columns * a.bound**2, exact=False)


# -- control flow


def loop(p: Program) -> None:
    a = p.tile(("int32", "float32", "int64"))
    if not a:
        return
    p.count += 1
    acc, step = f"a{p.count}", f"j{p.count}"
    p.line(f"{acc} = {a.name}")
    header = p.random.choice([f"for {step} in range(0, k):", f"for {step} in range(1, n % 7, 2):", "while"])
    if header == "while":
        p.line(f"{step} = 0")
        p.line(f"while {step} < k:")
    else:
        p.line(header)
    p.indent += "    "
    index = f"((at + {step} * {p.random.choice([1, 16, 64])}) & (SIZE - 1))"
    if a.is_float:
        p.line(f"{acc} = tl.maximum({acc}, tl.load(x0 + {index})) + 0.0")
    else:
        form = p.random.choice(["{acc} + {load}", "{acc} ^ ({load} + {step})", "{acc} * 3 + {load}"])
        p.line(f"{acc} = ({form.format(acc=acc, step=step, load=f'tl.load(x1 + {index})')}).to(tl.{a.dtype})")
    if p.random.random() < 0.3:
        p.line(f"if {step} == 1:")
        p.line(f"    {acc} = {acc} + {a.name}" if not a.is_float else f"    {acc} = tl.abs({acc})")
    if header == "while":
        p.line(f"{step} += 1")
    p.indent = p.indent[4:]
    p.pool.append(Value(acc, a.dtype, a.shape, max(a.bound, 4.0)))


def pointer_loop(p: Program) -> None:
    """Loop-carried pointers, two carried tiles that change places, and a loop inside."""
    r = p.random
    p.count += 1
    c = p.count
    step = r.choice([1, 16, 64, p.block])
    p.line(f"p{c} = x1 + at")
    p.line(f"a{c} = at * 0")
    p.line(f"b{c} = at * 0 + {r.randint(1, 9)}")
    p.line(f"for j{c} in range(0, k):")
    p.line(f"    t{c} = a{c} + tl.load(p{c})")
    if r.random() < 0.5:
        p.line(f"    for l{c} in range(0, j{c}):")
        p.line(f"        t{c} = t{c} * 3 + l{c}")
    p.line(f"    a{c} = b{c}")
    p.line(f"    b{c} = t{c}")
    p.line(f"    p{c} += {step}")
    p.pool += [Value(f"a{c}", "int32", p.shape), Value(f"b{c}", "int32", p.shape)]


def branch(p: Program) -> None:
    a = p.tile(("int32", "float32"))
    if not a:
        return
    b = p.partner(a)
    p.count += 1
    name = f"b{p.count}"
    condition = p.random.choice(["pid > 0", "n > 40", "s > 0.0", "k == 3", "(pid + n) % 2 == 0"])
    p.line(f"if {condition}:")
    p.line(f"    {name} = {a.name} + {b.name}")
    p.line("else:")
    p.line(f"    {name} = {a.name} - {b.name}")
    p.pool.append(Value(name, a.dtype, a.shape, a.bound + b.bound))


def load(p: Program) -> None:
    p.load()


def through_memory(p: Program) -> None:
    p.through_memory()


# step -> how often it is chosen
STEPS: dict[Callable[[Program], None], int] = {
    load: 3,
    integers: 5,
    floats: 5,
    inexact: 2,
    compare: 3,
    logic: 1,
    choose: 3,
    cast: 4,
    call: 2,
    reduce: 4,
    broadcast: 3,
    scan: 2,
    rearrange: 3,
    dot: 1,
    loop: 3,
    branch: 2,
    through_memory: 1,
    atomic: 1,
    scalar_load: 1,
    wild: 2,
    load_bfloat16: 1,
    pointer_loop: 1,
}
