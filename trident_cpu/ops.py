"""The whitelist: every op that the compiler knows, its kind, and the attributes it may carry.

Kinds
    pointwise   pure, element by element; evaluated where it is needed, again if that is cheap
    index       pure, moves no data: only maps indices (splat, broadcast, expand_dims, trans, make_range, constant)
    layout      needs its operand in memory: reshape, split, join, cat, gather, histogram, unsplat
    memory      load, store, atomics
    reduce, scan, dot, control, call, effect, end
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class OpInfo:
    kind: str
    attrs: frozenset[str] = frozenset()


def _rows(kind: str, names: str, *attrs: str) -> dict[str, OpInfo]:
    return {name: OpInfo(kind, frozenset(attrs)) for name in names.split()}


OPS: dict[str, OpInfo] = {
    **_rows(
        "pointwise",
        "arith.addi arith.subi arith.muli arith.divsi arith.divui arith.remsi arith.remui arith.ceildivsi "
        "arith.ceildivui arith.floordivsi arith.andi arith.ori arith.xori arith.shli arith.shrsi arith.shrui "
        "arith.maxsi arith.maxui arith.minsi arith.minui "
        "arith.addf arith.subf arith.mulf arith.divf arith.remf arith.negf "
        "arith.maxnumf arith.minnumf arith.maximumf arith.minimumf arith.select "
        "arith.extsi arith.extui arith.trunci arith.extf arith.truncf arith.sitofp arith.uitofp arith.fptosi "
        "arith.fptoui arith.bitcast arith.index_cast arith.index_castui "
        "tt.bitcast tt.addptr tt.mulhiui tt.precise_divf tt.precise_sqrt tt.ptr_to_int tt.int_to_ptr",
    ),
    **_rows(
        "pointwise",
        "math.exp math.exp2 math.expm1 math.log math.log2 math.log10 math.log1p math.sin math.cos math.tan math.tanh "
        "math.sinh math.cosh math.asin math.acos math.atan math.atan2 math.erf math.sqrt math.rsqrt math.cbrt "
        "math.powf math.floor math.ceil math.trunc math.round math.roundeven math.absf math.absi math.fma "
        "math.copysign math.ctpop math.ctlz math.cttz math.isnan math.isinf math.isfinite",
    ),
    **_rows("pointwise", "math.exp_plus_1"),  # made by `simplify`
    **_rows("pointwise", "arith.cmpi arith.cmpf", "words"),
    **_rows("pointwise", "tt.clampf", "propagateNan"),
    **_rows("pointwise", "tt.fp_to_fp", "rounding"),
    **_rows("pointwise", "tt.extern_elementwise", "libname", "libpath", "pure", "symbol"),
    **_rows("index", "tt.splat tt.broadcast"),
    **_rows("index", "tt.expand_dims", "axis"),
    **_rows("index", "tt.trans", "order"),
    **_rows("index", "tt.make_range", "start", "end"),
    **_rows("index", "arith.constant", "value"),
    **_rows("index", "ub.poison tt.get_program_id tt.get_num_programs", "words"),
    **_rows("layout", "tt.reshape", "allow_reorder", "efficient_layout", "words"),
    **_rows("layout", "tt.split tt.join tt.cat tt.histogram tt.unsplat"),
    **_rows("layout", "tt.gather", "axis", "efficient_layout"),
    **_rows("memory", "tt.load tt.store", "text"),
    **_rows("memory", "tt.atomic_rmw tt.atomic_cas", "words"),
    **_rows("reduce", "tt.reduce", "axis", "reduction_ordering"),
    **_rows("scan", "tt.scan", "axis", "reverse"),
    **_rows("dot", "tt.dot", "inputPrecision", "maxNumImpreciseAcc"),
    **_rows("control", "scf.for", "unsigned"),
    **_rows("control", "scf.if scf.while"),
    **_rows("call", "tt.call", "callee"),
    **_rows("effect", "tt.assert", "message"),
    **_rows("effect", "tt.print", "message", "hex", "isSigned"),
    **_rows("effect", "llvm.intr.assume"),
    **_rows("effect", "gpu.barrier ttg.barrier", "words"),
    **_rows("end", "tt.return scf.yield scf.condition tt.reduce.return tt.scan.return cf.br cf.cond_br"),
}

# Relative cost per element of the ops that are worth keeping rather than computing twice.
COST = {
    "arith.divsi": 8, "arith.divui": 8, "arith.remsi": 8, "arith.remui": 8, "arith.divf": 8, "arith.remf": 40,
    "tt.precise_divf": 8, "tt.precise_sqrt": 8, "math.sqrt": 8, "math.rsqrt": 10, "tt.mulhiui": 3,
    "math.floor": 1, "math.ceil": 1, "math.trunc": 1, "math.absf": 1, "math.absi": 1, "math.fma": 1,
    "tt.extern_elementwise": 30,
}  # fmt: skip


def kind(name: str) -> str:
    return OPS[name].kind


def cost(name: str) -> float:
    if name in COST:
        return COST[name]
    return 20.0 if name.startswith("math.") else 1.0
