"""The bench: what it must catch, what it must keep, what it must refuse."""

import csv
import dataclasses
import random
import subprocess
import sys

import pytest
import torch

import trident
import trident.functional as T
from trident.__main__ import main
from trident.bench import ceilings, memory, results, rivals, routes, run, summary, timing, workloads
from trident.bench.compare import compare, load
from trident.bench.measure import Settings, measure
from trident.bench.models import mend_torchvision
from trident.cases.case import EVERYTHING, Case
from trident.runtime import crossover, route
from trident.runtime.launch import executor

pytest.importorskip("rich", reason="the bench's table is drawn by rich")
pytest.importorskip("matplotlib", reason="the bench's pictures are drawn by matplotlib")

KERNEL = ((256, 512),)  # elements enough for silu's kernel to be preferred


def case(ours, reference=torch.nn.functional.silu, **more) -> Case:
    return Case(ours=ours, reference=reference, shapes=((2, 3),), bench=KERNEL, **more)


def slow(x):
    return [T.silu(x) for _ in range(8)][-1]


PLANTED = {
    "right": case(T.silu),
    "slow": case(slow),
    "wrong": case(lambda x: T.silu(x) * 1.001),
    "wrong_gradient": case(lambda x: T.silu(x).detach() + (x - x.detach())),
    "raises": case(lambda x: x.view(7)),
    "wrong_dropout": case(lambda x: T.dropout(x, 0.5), lambda x: torch.nn.functional.dropout(x, 0.3), random=True),
}


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """A small ceiling; the number of threads as it was."""
    threads = torch.get_num_threads()
    monkeypatch.setattr(ceilings, "COPIED", {"cpu": 1 << 20})
    monkeypatch.setattr(ceilings, "PRODUCT", {"cpu": 64})
    monkeypatch.setattr(timing, "MOST", 7)
    monkeypatch.setattr(workloads, "CASES", {**workloads.CASES, **PLANTED})
    monkeypatch.setitem(crossover.FEWEST_ELEMENTS, (executor("cpu"), "silu"), 65536)  # on whatever CPU
    monkeypatch.delitem(crossover.HAND_TUNED, (executor("cpu"), "silu"), raising=False)
    yield
    torch.set_num_threads(threads)


def row(name: str, way: str = "forward", against=("eager",), **more) -> results.Row:
    (workload,) = workloads.select([name], [way], torch.float32)
    settings = Settings(seconds=0.0, extras=False, **more)
    return measure(workload, rivals.available(against)[0], settings, results.machine("cpu", "wall"))


def bench(tmp_path, *args: object) -> int:
    return main(["bench", "--seconds", "0", "--clock", "cpu", "--rows", str(tmp_path / "rows.jsonl"), *map(str, args)])


def test_a_slow_kernel_loses(tmp_path, capsys):
    assert bench(tmp_path, "slow", "--fail") == 1
    assert "slower slow 256x512 forward: 0." in capsys.readouterr().out
    assert bench(tmp_path, "right") == 0


@pytest.mark.parametrize("name, way", [("wrong", "forward"), ("wrong_gradient", "both"), ("wrong_dropout", "forward")])
def test_no_ratio_of_a_wrong_result(name, way):
    found = row(name, way)
    assert found.refused and not found.ratios and not found.forced
    assert "refused" in summary.cells(found, ["eager"])


def test_a_wrong_result_fails_the_command(tmp_path, capsys):
    assert bench(tmp_path, "wrong", "--html", tmp_path / "out.html") == 1
    assert "refused wrong 256x512 forward: trident: result 0:" in capsys.readouterr().out
    assert "Wrong results: no ratio" in (tmp_path / "out.html").read_text()


def test_a_right_row_is_whole():
    found = measure(
        workloads.select(["right"], ["both"], torch.float32)[0],
        rivals.available(["eager"])[0],
        Settings(seconds=0.0),
        results.machine("cpu", "wall"),
    )
    assert found.where == routes.KERNEL and not found.refused
    assert found.ratios["eager"].low <= found.ratios["eager"].median <= found.ratios["eager"].high
    traffic = 5 * 4 * 256 * 512  # x and y, then x, dy and dx
    assert found.rate * found.seconds["trident"].median == pytest.approx(traffic)
    assert found.ceiling > 0 and found.host["trident"] > 0
    assert found.memory["trident"] >= 2 * 4 * 256 * 512  # y and dx


def test_a_call_that_raises_is_named_and_ends_nothing(tmp_path, capsys):
    assert bench(tmp_path, "raises", "right", "--html", tmp_path / "out.html", "--markdown", tmp_path / "out.md") == 1
    told = capsys.readouterr().out
    assert "refused raises 256x512 forward: RuntimeError: shape '[7]' is invalid" in told and "right" in told
    assert "RuntimeError" in (tmp_path / "out.html").read_text()


def test_a_missing_rival_is_left_out_by_name(tmp_path, monkeypatch, capsys):
    gone = rivals.Rival("liger", lambda workload: torch.relu, lambda: "liger-kernel is not installed")
    monkeypatch.setitem(rivals.RIVALS, "liger", gone)
    assert bench(tmp_path, "right", "--against", "eager,liger") == 0
    assert "liger left out: liger-kernel is not installed" in capsys.readouterr().out


def test_a_wrong_or_failing_rival_has_no_ratio(monkeypatch):
    def fails(x):
        raise RuntimeError("of no use")

    monkeypatch.setitem(rivals.RIVALS, "off", rivals.Rival("off", lambda workload: torch.tanh))
    monkeypatch.setitem(rivals.RIVALS, "fails", rivals.Rival("fails", lambda workload: fails))
    found = row("right", against=("eager", "off", "fails"))
    assert list(found.ratios) == ["eager"]
    assert found.absent["off"].startswith("result 0:") and found.absent["fails"] == "RuntimeError: of no use"


def test_a_rival_that_is_left_out_is_said_wherever_its_ratio_would_be(tmp_path, monkeypatch, capsys):
    slow_to_make = rivals.Rival("slow", lambda w: pytest.fail("was made"), absent=lambda w: "takes | hours")
    monkeypatch.setitem(rivals.RIVALS, "slow", slow_to_make)
    files = tmp_path / "out.csv", tmp_path / "out.html", tmp_path / "out.md"
    options = [x for pair in zip(("--csv", "--html", "--markdown"), files, strict=True) for x in pair]
    assert bench(tmp_path, "right", "--backward", "--against", "eager,slow,liger", *options) == 0
    table, page, document = (f.read_text() for f in files)
    assert "left out slow of right 256x512 forward, backward, both: takes | hours" in capsys.readouterr().out
    assert {line["left out"] for line in csv.DictReader(table.splitlines())} == {"slow: takes | hours"}
    assert "<li>slow of right 256x512 forward, backward, both: takes | hours</li>" in page
    assert "| slow of right 256x512 forward, backward, both | takes \\| hours |" in document
    assert all("liger of" not in text for text in (table, page, document))  # it has no such operator


@pytest.mark.parametrize("name", ["rnn_tanh", "rnn_relu", "gru", "rnn_tanh.deep", "gru.deep"])
def test_torch_compile_unrolls_no_long_sequence(name, monkeypatch):
    monkeypatch.setattr(rivals, "_compiled", lambda workload: pytest.fail("was compiled"))
    (workload,) = workloads.select([name], ["forward"], torch.float32, sizes=[(64, 32, 3)])
    found = measure(
        workload,
        rivals.available(["eager", "compile"])[0],
        Settings(seconds=0.0, extras=False),
        results.machine("cpu", "wall"),
    )
    steps = {"rnn_tanh.deep": 2 * 32, "gru.deep": 2 * 2 * 64}.get(name, 64)  # batch_first; both ways
    assert found.left_out == {"compile": f"would compile each of {steps} steps, 1 to 3 s for one"}
    assert "eager" in found.ratios and summary.cells(found, ["eager", "compile"])[5] == "left out"


def test_torch_compile_is_compared_with_in_short_sequences_and_all_else():
    (compiled,) = rivals.available(["compile"])[0]
    chosen = workloads.select([], ["forward"], torch.float32)
    short = workloads.select(["gru"], ["forward"], torch.float32, sizes=[(4, 8, 32)])
    assert {w.name for w in (*chosen, *short) if compiled.absent(w)} == {"rnn_tanh", "rnn_relu", "gru"}
    assert not compiled.absent(*short)


def test_a_rival_that_overwrites_its_inputs_gets_them_whole(monkeypatch):
    seen = []

    def overwriting(x):
        seen.append(x[0, 0].item())
        y = torch.nn.functional.silu(x)
        x.data.zero_()
        return y

    monkeypatch.setitem(rivals.RIVALS, "rude", rivals.Rival("rude", lambda workload: overwriting, overwrites=True))
    monkeypatch.setattr(timing, "BLOCK", 0.0)  # one call in a block
    found = row("right", against=("eager", "rude"))
    assert "rude" in found.ratios and all(seen)


def test_a_routed_row_is_no_win():
    found = measure(
        workloads.select(["right"], ["forward"], torch.float32, sizes=[(4, 8)])[0],
        rivals.available(["eager"])[0],
        Settings(seconds=0.0, extras=False),
        results.machine("cpu", "wall"),
    )
    assert found.where.startswith("torch: faster in torch below") and found.routed and found.forced
    assert summary.summary([found], "eager").mean == 1.0


def test_a_run_goes_on_from_its_rows(tmp_path, monkeypatch):
    assert bench(tmp_path, "right") == 0
    monkeypatch.setattr(run, "measure", lambda *args: pytest.fail("measured again"))
    assert bench(tmp_path, "right") == 0
    with pytest.raises(pytest.fail.Exception):
        bench(tmp_path, "right", "--warm")  # another option, another row


def test_ctrl_c_keeps_what_was_measured(tmp_path, monkeypatch, capsys):
    whole, done = run.measure, []

    def interrupted(*args):
        if done:
            raise KeyboardInterrupt
        done.append(whole(*args))
        return done[0]

    monkeypatch.setattr(run, "measure", interrupted)
    assert bench(tmp_path, "right", "slow", "--csv", tmp_path / "out.csv") == 130
    assert "goes on from here" in capsys.readouterr().out
    assert [r.name for r in results.Store(tmp_path / "rows.jsonl").rows.values()] == ["right"]
    assert len((tmp_path / "out.csv").read_text().splitlines()) == 2


def test_files_hold_the_numbers(tmp_path):
    files = tmp_path / "out.csv", tmp_path / "out.html", tmp_path / "out.md"
    options = [x for pair in zip(("--csv", "--html", "--markdown"), files, strict=True) for x in pair]
    assert bench(tmp_path, "right", "--sizes", "4x8,256x512", *options) == 0
    rows = list(results.Store(tmp_path / "rows.jsonl").rows.values())
    assert [(r.shape, r.way) for r in rows] == [("4x8", "forward"), ("256x512", "forward")]
    table = list(csv.DictReader(files[0].open()))
    page, document = (f.read_text() for f in files[1:])
    for found, line in zip(rows, table, strict=True):
        assert float(line["eager ratio"]) == pytest.approx(found.ratios["eager"].median, abs=1e-3)
        assert summary.times(found, "eager") in page and summary.times(found, "eager") in document
    assert "prefers-color-scheme: dark" in page and page.count("<svg") == 2  # bars and curves
    assert "First calls, compiling included" in page and "First calls, compiling included" in document
    assert "src=" not in page and "http" not in page.replace("http://www.w3.org", "")  # self-contained
    assert (tmp_path / "out.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "args, said",
    [
        (["sofmax"], "'sofmax' is not a case"),
        (["silu", "--against", "jax"], "'jax' is not a rival"),
        (["silu", "--sizes", "4by4"], "'4by4' is not like 256x1024"),
        (["silu", "--dtype", "float31"], "'float31' is not a dtype"),
        (["--model", "nowhere:model"], "'nowhere:model'"),
        (["--model", "trident"], "not like package.module:function"),
    ],
)
def test_what_is_unknown_is_named(tmp_path, args, said, capsys):
    assert bench(tmp_path, *args) == 2
    assert said in capsys.readouterr().err


def test_two_runs_agree_within_their_spread():
    """On a machine whose speed wanders: what meets both variants cancels, what meets one is in the spread."""
    noise = random.Random(0)

    def wandering(seconds: float) -> timing.Timer:
        return lambda call, repeat: repeat * seconds * noise.uniform(1, 1.2)

    agree = 0
    for _ in range(100):
        variants = [
            timing.Variant(name, lambda: None, timer=wandering(s)) for name, s in (("ours", 2e-3), ("eager", 3e-3))
        ]
        found = [timing.in_turns(variants, variants[0].timer, 0.0) for _ in range(2)]
        a, b = (timing.ratio(f["eager"], f["ours"]) for f in found)
        agree += abs(a.median - b.median) <= a.half + b.half
        assert 1.2 < a.median < 1.9
    assert agree >= 90


def test_peak_memory():
    x = torch.ones(1 << 18)

    def call():
        y = x * 2
        z = y + 1  # y and z
        del y
        return z

    assert 2 << 20 <= memory.peak(call, "cpu") < (2 << 20) + 4096


def test_inputs_rotate_past_the_cache():
    (workload,) = workloads.select(["right"], ["forward"], torch.float32)
    inputs = workload.inputs()
    copies = workload.copies(inputs)
    rotated = workloads.nbytes([x for copy in copies for x in copy])
    assert rotated >= 2 * workloads.last_level_cache("cpu") or len(copies) == workloads.MOST_COPIES
    seen = []
    call = workload.call(lambda x: seen.append(x.data_ptr()), copies[:3])
    for _ in range(4):
        call()
    assert seen == [copies[i][0].data_ptr() for i in (0, 1, 2, 0)]


def test_ways_share_inputs_and_slow_graphs_are_few(monkeypatch):
    forward, backward = workloads.select(["right"], ["forward", "backward"], torch.float32)
    assert forward.shared() is backward.shared()
    monkeypatch.setattr(workloads, "MAKING", 0.0)
    made = []
    backward.call(lambda x: made.append(1) or x * 2, backward.shared())()
    assert len(made) == workloads.FEWEST_GRAPHS


@pytest.mark.parametrize("way", workloads.WAYS)
def test_what_a_case_takes_by_name_is_made_before(way):
    (workload,) = workloads.select(["soft_margin_loss"], [way], torch.float32, sizes=[(7, 33)])
    made, given = [], []
    case = dataclasses.replace(workload.case, also=lambda x: {"target": made.append(1) or torch.ones_like(x)})

    def loss(x, target):
        given.append(target)
        return torch.nn.functional.soft_margin_loss(x, target)

    copies = workload.copies(workload.inputs())[:2]
    call = dataclasses.replace(workload, case=case).call(loss, copies)
    for _ in range(4):
        call()
    assert len(made) == len({id(target) for target in given}) == len(copies)


def test_where_a_call_went():
    with route.forced("auto"):
        assert routes.where(lambda: T.silu(torch.randn(300, 300))) == routes.KERNEL
        assert routes.where(lambda: T.silu(torch.randn(3))).startswith("torch: faster in torch below")
        both = routes.where(lambda: (T.silu(torch.randn(300, 300)), T.silu(torch.randn(3))))
    assert both.startswith("partly torch: faster in torch below")
    assert not route.WATCHERS


def test_every_liger_row_is_a_case():
    assert rivals.LIGER.keys() <= workloads.CASES.keys()


def small() -> torch.nn.Module:
    nn = torch.nn
    return nn.Sequential(
        nn.Conv1d(4, 8, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(48, 16), nn.GELU(), nn.GELU()
    )


def test_compare_tells_what_each_module_gained():
    model = small()
    found = trident.compare(model, torch.randn(2, 4, 8), seconds=0.01)
    assert found.same and found.step and found.forward and found.compared == 5
    assert type(model[4]) is torch.nn.GELU  # the model is as it was
    counts = {gain.module.split("(")[0]: gain.count for gain in found.modules}
    assert counts["GELU"] == 2 and counts["ReLU"] == 1
    assert "the same numbers of 5" in str(found) and "GELU" in str(found)


def test_compare_gives_no_ratio_of_a_wrong_model(monkeypatch):
    whole = trident.nn.GELU.forward
    monkeypatch.setattr(trident.nn.GELU, "forward", lambda self, x: whole(self, x) * 1.01)
    found = compare(small(), [torch.randn(2, 4, 8)], seconds=0.01)
    assert not found.same and found.step is None and "no ratio of different results" in str(found)
    assert "output 0" in found.wrong and "gradient of 0.weight" in found.wrong


def test_compare_of_a_random_model_is_an_evaluation():
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
    found = compare(model, {"input": torch.randn(2, 4)}, seconds=0.01)
    assert found.same and "eval mode" in found.notes[0]


def test_compare_names_what_it_cannot_take():
    with pytest.raises(TypeError, match="model is a int"):
        compare(3, torch.randn(2))
    with pytest.raises(ValueError, match="returns no floating tensor"):
        compare(torch.nn.Flatten(), torch.ones(2, 2).int())


def test_import_trident_leaves_the_bench_alone():
    told = (
        "import sys, trident; sys.exit(any(n.startswith(('trident.bench', 'matplotlib', 'rich')) for n in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", told]).returncode == 0


EXAMPLES = {"resnet": "timm", "vit": "timm", "llama": "transformers"} | ({"bert": "transformers"} if EVERYTHING else {})


@pytest.mark.parametrize("name, needs", EXAMPLES.items())
def test_examples_give_the_same_numbers(name, needs):
    mend_torchvision()
    pytest.importorskip(needs, reason=f"{needs} is not installed: examples on real architectures are optional")
    model, inputs = load(f"trident.bench.models:{name}")
    found = compare(model, inputs, seconds=0.01)
    assert found.same, found
    assert found.report.swapped
