"""`trident inspect` sees the faults that were planted, and none in the operators that others are measured by."""

import json

import pytest
import torch

from trident.cases import CASES, budgets
from trident.cases.case import EVERYTHING
from trident.inspect import analysis, command, counting, instructions, launches, page, report, watch
from trident.inspect.compiled import compiled
from trident.inspect.targets import CARDS, TARGETS, occupancy, roofline
from trident.runtime import launch, tuning, tuning_planes

pytestmark = pytest.mark.skipif(launch.INTERPRETED, reason="under TRITON_INTERPRET=1 kernels are Python, not sources")

PLANTED = ("GOOD", "NARROW", "ODD", "TWICE", "SPILL")
# the claim of the README: rows and elements go through memory once
ONCE = ("relu", "softmax", "layer_norm", "rms_norm", "swiglu.two")


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """Inspected together: one counting process starts for all. Nothing is taken from the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        names = [*(f"tests.planted:{name}" for name in PLANTED), *ONCE]
        return analysis.inspect(names, ["sm_90"], torch.bfloat16)


def of(rows, name, direction="forward"):
    (row,) = (row for row in rows if row.case == name and row.direction == direction)
    return row


def test_a_good_kernel_has_no_fault(rows):
    row = of(rows, "tests.planted:GOOD")
    assert not row.problems
    assert (
        row.ratio == pytest.approx(1)
        and row.bytes == pytest.approx(2 * 2 * 64 * 4096)
        and row.launches == 1
        and not row.torch_operators
    )
    (kernel,) = row.kernels
    assert kernel.widths == {"x": 16, "y": 16} and kernel.occupancy == 1 and kernel.spills == 0


@pytest.mark.parametrize(
    ("name", "said"),
    (
        ("NARROW", "x is accessed in 2 bytes, where 16 could be"),
        ("TWICE", "1.500 of the compulsory bytes, budget 1.05"),
        ("SPILL", "registers spilled, budget 0"),
    ),
)
def test_a_planted_fault_is_found(rows, name, said):
    problems = of(rows, f"tests.planted:{name}").problems
    assert any(said in problem for problem in problems), problems
    assert said in report.text(rows)


def test_what_no_hint_can_widen_is_no_fault(rows):
    (kernel,) = of(rows, "tests.planted:ODD").kernels
    assert kernel.widths == {"x": 2, "y": 2} and not kernel.narrow


@pytest.mark.parametrize("name", ONCE)
def test_rows_go_through_memory_once(rows, name):
    for direction in ("forward", "backward"):
        row = of(rows, name, direction)
        assert not row.problems
        assert row.exact or row.ratio < budgets.BACKWARD.most
        assert all(kernel.spills == 0 and kernel.matrix == {} for kernel in row.kernels)


@pytest.mark.parametrize("name", ("softmax", "cross_entropy", "layer_norm"))
def test_rows_of_a_thousand_are_read_in_whole_segments(name):
    """16 does not divide 1000, which Triton sees by itself, but 8 does (`tuning.aligned`)."""
    widest: dict[str, int] = {}
    for direction in analysis.watched(CASES[name], (512, 1000), torch.bfloat16):
        for event in direction.events:
            if event.kernel is not None:
                launched = launches.described(event.kernel, event.args, event.meta)
                for access in compiled(launched, TARGETS["sm_90"]).accesses:
                    widest[access.operand] = max(widest.get(access.operand, 0), access.width)
    rows = {"softmax": "x y dx dy", "cross_entropy": "x dx", "layer_norm": "x y dx dy w"}[name].split()
    assert {operand: widest[operand] for operand in rows} == dict.fromkeys(rows, 16)


def test_an_estimate_is_the_longest_of_memory_and_arithmetic(rows):
    row = of(rows, "softmax")
    assert row.times["H100"] == pytest.approx(row.bytes / 3.35e12)  # of memory: 2 bytes in and out
    assert row.bytes == pytest.approx(4 * 4096 * 4096)
    assert roofline(CARDS["H100"], 1e6, 67e12, {}) == pytest.approx(1)
    assert roofline(CARDS["A100"], 1e6, 0, {"half": 312e12}) == pytest.approx(1)
    assert roofline(CARDS["A100"], 1e6, 0, {"tf32x3": 156e12}) == pytest.approx(3)


def test_samples_of_programs_add_up_to_all():
    for count, programs in ((5, 8), (1000, 32), (33, 32)):
        chosen = counting.sample(count, programs)
        assert sum(weight for _, weight in chosen) == pytest.approx(count)
        assert chosen[-1] == (count - 1, 1.0) and len({nth for nth, _ in chosen}) == len(chosen)


@pytest.mark.parametrize(
    ("target", "warps", "registers", "shared", "share", "limit"),
    (  # of NVIDIA's occupancy calculator, and for gfx942 of the table of waves in AMD's "Register pressure" page
        ("sm_80", 8, 128, 0, 0.25, "registers"),
        ("sm_80", 4, 32, 0, 1.0, "warps"),
        ("sm_80", 1, 32, 0, 0.5, "programs"),
        ("sm_90", 8, 40, 0, 0.75, "registers"),
        ("sm_90", 4, 32, 100 << 10, 0.125, "shared memory"),
        ("gfx942", 4, 128, 0, 0.5, "registers"),
        ("gfx942", 4, 64, 0, 1.0, "warps"),
        ("gfx942", 8, 32, 64 << 10, 0.25, "shared memory"),
    ),
)
def test_occupancy(target, warps, registers, shared, share, limit):
    assert occupancy(TARGETS[target], warps, registers, 32, shared) == (share, limit)


def test_addresses_are_followed_through_a_loop():
    text = """
    ld.param.b64 %rd1, [_kernel_param_1];
    ld.param.b64 %rd9, [_kernel_param_0];
    mul.wide.s32 %rd2, %r1, 2;
    mov.b64 %rd4, %rd3;
    add.s64 %rd3, %rd1, %rd2;
    @%p1 ld.global.v4.b32 { %r1, %r2, %r3, %r4 }, [ %rd4 + 0 ];
    cp.async.cg.shared.global [ %r5 + 0 ], [ %rd3 + 0 ], 0x10, %r6;
    @%p1 st.global.b16 [ %rd9 + 0 ], { %rs1 };
    wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {%r97};
    """
    accesses, matrix = instructions.ptx(text, ["y", "x"])
    assert accesses == {("x", "load", 16): 2, ("y", "store", 2): 1}
    assert matrix == {"wgmma.mma_async": 1}


def test_what_amdgcn_says():
    accesses, matrix = instructions.amdgcn(
        "  global_load_dwordx4 v[2:5], v[2:3], off\n  buffer_store_short v1, v0, s[4:7], 0 offen\n"
        "  v_mfma_f32_32x32x8_bf16 a, b\n"
    )
    assert accesses == {("?", "load", 16): 1, ("?", "store", 2): 1} and matrix == {"mfma": 1}
    with pytest.raises(ValueError, match="load_new"):
        instructions.amdgcn("  global_load_new v1, v2, off\n")
    with pytest.raises(ValueError, match="vgpr_count"):
        instructions.gcn_resources("")


def test_the_page_holds_what_the_text_says(rows):
    text = page.page([row for row in rows if row.case in ("softmax", "tests.planted:TWICE")])
    assert "<svg" in text and "1.500 of the compulsory bytes" in text and "softmax: _forward_kernel" in text
    assert text.count("<svg") == len(CARDS) and "http-equiv" not in text and 'src="' not in text  # self-contained


def test_all_of_tuning_answers_as_for_a_gpu():
    cpu = torch.device("cpu")
    assert tuning.keeps_numbers(cpu)
    with watch.planned_for_gpus(lambda *_, **__: None):
        assert not tuning.keeps_numbers(cpu) and "num_warps" in tuning.flat(4096, cpu).meta


def test_how_planes_are_seen_is_remembered_of_each_device_apart():
    x = torch.empty(16, 8, 64, 64).to(memory_format=torch.channels_last)

    def seen():
        return tuning_planes.seen(4, x.shape, torch.channels_last, x.device)

    for _ in range(2):
        with watch.planned_for_gpus(lambda *_, **__: None):
            assert seen().fold == 1 and seen().device.type == "cuda" and seen().samples().loops
        assert seen().fold == 8 and seen().device.type == "cpu" and not seen().samples().loops


def test_what_a_kernel_is_the_same_for_is_no_constant():
    case = CASES["conv2d.depthwise"]
    forward, _ = watch.watched(case, case.bench[0], torch.bfloat16)
    event = next(event for event in forward.events if event.kernel is not None)
    launched = launches.described(event.kernel, event.args, event.meta)
    assert event.meta["SD"] == 1 and dict(launched.signature)["SD"] == "i32"
    assert event.meta["GH"] == 1 and dict(launched.signature)["GH"] == "constexpr"


def test_what_a_case_takes_by_name_is_made_before_it_is_watched():
    case = CASES["rotary_embedding"]
    for direction in watch.watched(case, case.bench[0], torch.bfloat16):
        assert [event.name for event in direction.events] == ["_rotate_kernel"]


def test_what_is_overwritten_is_not_read():
    seen = watch.Watch()
    with seen:
        torch.empty(4).copy_(torch.ones(4)).add_(1)
    assert [(event.name, sorted(event.reads)) for event in seen.events[-2:]] == [
        ("copy_", ["operand 1"]),
        ("add_.Tensor", ["operand 0"]),
    ]


def test_a_difference_is_a_line(rows):
    before = json.loads(json.dumps([analysis.asdict(of(rows, "softmax"))]))
    assert list(report.differences(before, before)) == []
    after = json.loads(json.dumps(before))
    after[0]["kernels"][0]["registers"] += 8
    after[0]["ratio"] = 1.5
    lines = list(report.differences(before, after))
    assert any("registers" in line and "->" in line for line in lines) and any(
        "ratio 1 -> 1.5" in line for line in lines
    )
    assert list(report.differences(before, [])) != []


def test_what_makes_no_sense_is_named(capsys):
    assert command.main(["sotfmax"]) == 2
    assert "sotfmax" in capsys.readouterr().err
    assert command.main(["softmax"], arch="sm_70") == 2
    assert "sm_70" in capsys.readouterr().err
    assert command.main(["softmax.2d"], shape="64,1000") == 2
    assert "softmax.2d does not take the shape [64, 1000]" in capsys.readouterr().err


@pytest.mark.skipif(not EVERYTHING, reason="minutes: `make test-all` inspects every case")
def test_every_case_is_within_its_budgets():
    halves = [name for name, case in CASES.items() if torch.bfloat16 in case.dtypes]
    rows = analysis.inspect(halves, ["sm_90"], torch.bfloat16)
    rows += analysis.inspect([name for name in CASES if name not in halves], ["sm_90"], torch.float32)
    over = [problem for row in rows for problem in row.problems]
    assert not over, "\n".join(over)


def test_budgets_are_of_cases_and_say_why():
    bases = {name.split(".")[0] for name in CASES}
    for name, *_ in [*budgets.SPILLS, *budgets.BYTES, *budgets.BYTES_WIDE]:
        assert name in CASES or name in bases, name
    every = [*budgets.SPILLS.values(), *budgets.BYTES.values(), *budgets.BYTES_WIDE.values()]
    assert all(budget.reason for budget in every)
