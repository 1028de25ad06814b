"""`python -m trident tune`: what is decided from times, what is kept of it, and when it is left alone."""

import json
import logging
import math
import os
import re
import subprocess
import sys

import pytest
import torch

import trident.functional as T
from trident import doctor
from trident.__main__ import main
from trident.cases import CASES
from trident.cases.case import Case
from trident.runtime import crossover, route, tuned
from trident.runtime.crossover_tables import ELSEWHERE
from trident.runtime.launch import executor
from trident.tune import measure, run, select
from trident.tune.decide import Findings, least
from trident.tune.measure import Settings, Trial, answering, scaled
from trident.tune.run import Run

pytestmark = pytest.mark.once  # of how calls are timed and where they go, not of the fast code's numbers
native = pytest.mark.skipif(executor("cpu") != "native", reason="kernels of CPUs are tuned only")
NEVER = math.inf


@pytest.fixture(autouse=True)
def as_shipped():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    crossover.forget()


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIDENT_TUNED", str(tmp_path / "deep" / "tuned.json"))
    crossover.forget()
    return tmp_path / "deep" / "tuned.json"


def table(**more) -> tuned.Tuned:
    keys = {
        "silu": tuned.Decision(1000, {1024: 1.25}),
        "gelu_tanh": tuned.Decision(NEVER, {4194304: 0.5}),
        "relu": tuned.Decision(0, {1024: 3.0}),
    }
    made = {"machine": tuned.here(), "versions": {"torch": torch.__version__}, "clock": "cpu", "date": "today"}
    return tuned.Tuned(**{**made, "keys": keys, **more})


@pytest.mark.parametrize(
    ("trials", "shipped", "expected"),
    (
        ({1024: 0.3, 16384: 0.9, 131072: 1.2, 4194304: 2.0}, NEVER, 131072),
        ({1024: 0.3, 16384: 0.9, 131072: 1.2, 4194304: 2.0}, 65536, 65536),  # nothing was timed in between
        ({1024: 0.3, 16384: 1.2, 131072: 1.2, 4194304: 2.0}, 65536, 16384),
        ({1024: 0.3, 16384: 0.9, 131072: 0.8, 4194304: 2.0}, 65536, 4194304),
        ({1024: 1.5, 4194304: 2.0}, 0, 0),
        ({1024: 1.5, 4194304: 2.0}, 8192, 1024),
        ({1024: 0.3, 4194304: 0.8}, 8192, NEVER),
        ({1024: 0.3, 4194304: 0.8}, NEVER, NEVER),
        ({1024: 0.3, 4194304: 0.8}, 33554432, 33554432),  # larger than all that was timed
        ({1024: 1.5, 16384: 0.8, 131072: 1.5}, 0, 131072),  # not monotone: from the last loss on
        ({16384: 1.5, 131072: 1.01, 4194304: 0.98}, NEVER, 16384),  # less than a margin is no loss
        ({16384: 1.01, 131072: 1.02, 4194304: 0.98}, 8192, 8192),  # nor a win
        ({16384: 1.01, 131072: 1.02, 4194304: 0.98}, NEVER, NEVER),
        ({1024: 0.5, 16384: 0.8}, 8192, None),  # larger ones were not timed
        ({}, 8192, 8192),
    ),
)
def test_least(trials, shipped, expected):
    assert least(trials, shipped) == expected


def test_the_most_careful_answer_of_several_cases():
    found = Findings()
    for size, one, other in ((1024, 0.5, 0.5), (16384, 1.5, 0.6), (1048576, 3.0, 1.2)):
        found.add("silu", "silu", size, one)
        found.add("silu", "silu.wide", size, other)
    assert found.decisions(lambda key: NEVER) == {
        "silu": tuned.Decision(1048576, {1024: 0.5, 16384: 0.6, 1048576: 1.2})
    }
    found.add("silu", "silu.odd", 4194304, 0.5)
    assert found.decisions(lambda key: 65536)["silu"].least == NEVER
    found.wrong.add("silu")
    assert not found.decisions(lambda key: 65536)


def test_the_worse_of_two_ways_counts():
    found = Findings()
    for ratio in (1.5, 0.5, 2.0):
        found.add("silu", "silu", 1048576, ratio)
    assert found.decisions(lambda key: 0)["silu"] == tuned.Decision(NEVER, {1048576: 0.5})


@pytest.mark.parametrize(
    ("shape", "elements", "expected"),
    (
        ((512, 512), 16384, (128, 128)),
        ((512, 512), 4194304, (8192, 512)),
        ((262144,), 1024, (1024,)),
        ((16, 64, 56, 56), 262144, (1, 64, 56, 56)),
        ((16, 64, 56, 56), 4194304, (16, 64, 56, 56)),
        ((16, 64, 56, 56), 16384, (1, 64, 14, 14)),
        ((1, 64, 3), 16, (1, 64, 1)),
    ),
)
def test_scaled(shape, elements, expected):
    assert scaled(shape, elements) == expected


@pytest.mark.filterwarnings("ignore")  # torch's, of functions that it calls deprecated
def test_every_case_takes_the_smallest_of_tunes_sizes():
    for name, case in select([]).items():
        Trial(name, case, run.shapes(case)[-1], Settings()).torch_takes()


def test_round_trip(file):
    tuned.write(table(), file)
    assert tuned.read(file, crossover.known) == table()
    assert json.loads(file.read_text())["keys"]["gelu_tanh"] == {"least": "never", "ratios": {"4194304": 0.5}}
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@native
def test_what_was_tuned_decides(file):
    shipped = {name: crossover.shipped(name) for name in table().keys}
    tuned.write(table(), file)
    assert crossover.faster_in_torch("silu", "native", 999) == (
        "faster in torch below 1000 elements (tuned on this machine)"
    )
    assert crossover.faster_in_torch("silu", "native", 1000) is None
    assert "tuned on this machine" in str(crossover.faster_in_torch("gelu_tanh", "native", 10**9))
    assert crossover.faster_in_torch("relu", "native", 1) is None
    assert crossover.size("elu", "native") == crossover.shipped("elu")
    assert crossover.least("relu", "native") == 0 and crossover.least("silu", "native") == 1000
    crossover.forget()
    assert {name: crossover.shipped(name) for name in shipped} == shipped and 1000 not in shipped.values()


@native
def test_a_call_goes_where_it_was_tuned_to(file):
    """In a process of its own: doors look when they are first passed."""
    tuned.write(table(), file)
    program = (
        "import torch, trident.functional as T\n"
        "from trident.runtime import crossover\n"
        "assert not crossover._settled\n"
        "x = torch.ones(64)\n"
        "T.silu(x), T.relu(x), T.silu(x.expand(32, 64))\n"
        "f = torch.compile(lambda x: T.elu(x), backend='eager', fullgraph=True)\n"
        "assert f(x).equal(torch.nn.functional.elu(x))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TRIDENT_LOG": "route", "TRIDENT_ROUTE": "auto"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "relu [64] float32 cpu -> kernel (native)" in done.stderr
    assert "silu [32, 64] float32 cpu -> kernel (native)" in done.stderr
    assert "silu [64] float32 cpu -> torch: faster in torch below 1000 elements (tuned" in done.stderr


@native
def test_the_first_question_may_be_asked_by_a_compiled_call(file):
    tuned.write(table(), file)
    torch._dynamo.reset()
    with route.forced("auto"):
        f = torch.compile(lambda x: T.relu(x) + 1, backend="eager", fullgraph=True)
        assert f(torch.ones(64)).equal(torch.full((64,), 2.0))
        count = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        f(torch.ones(64))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == count
    assert crossover._settled and crossover.size("relu", "native") == 0


OTHERS = {
    "another CPU": {"machine": {**tuned.here(), "cpu": "Z80"}},
    "of 8 bits": {"machine": {**tuned.here(), "vector bits": 8}},
    "another torch": {"versions": {"torch": "0.1"}},
    "no operator": {"keys": {"silo": tuned.Decision(5)}},
}


@pytest.mark.parametrize("reason", OTHERS)
def test_what_holds_elsewhere_is_ignored(file, caplog, reason):
    tuned.write(table(**OTHERS[reason]), file)
    _is_ignored(file, caplog, reason)


@pytest.mark.parametrize(
    "text",
    (
        "",
        "{",
        "[]",
        "{}",
        "null",
        '{"keys": {"silu": 5}}',
        '{"keys": {"silu": {"least": -1, "ratios": {}}}}',
        '{"keys": {"silu": {"least": "sometimes", "ratios": {}}}}',
    ),
)
def test_a_damaged_file_is_ignored(file, caplog, text):
    tuned.write(table(), file)
    whole = json.loads(file.read_text())
    file.write_text(json.dumps({**whole, **json.loads(text)}) if text.startswith('{"') else text)
    _is_ignored(file, caplog, "cannot be read")


def test_a_field_too_many_is_ignored(file, caplog):
    tuned.write(table(), file)
    file.write_text(json.dumps({**json.loads(file.read_text()), "model": 1}))
    _is_ignored(file, caplog, "cannot be read")


def _is_ignored(file, caplog, reason):
    crossover.forget()
    with caplog.at_level(logging.INFO, "trident.route"):
        for _ in range(2):
            assert crossover.size("silu", "native") == crossover.shipped("silu")
    (message,) = caplog.messages
    assert str(file) in message and reason in message
    assert "is ignored" in doctor.tuning() and reason in doctor.tuning()


def test_zero_ignores_the_file(file, monkeypatch):
    tuned.write(table(), file)
    assert str(file) in doctor.tuning()
    monkeypatch.setenv("TRIDENT_TUNED", "0")
    assert tuned.path() is None and "not tuned" in doctor.tuning()
    assert crossover.size("silu", "native") == crossover.shipped("silu")


def test_where_the_file_is(monkeypatch):
    monkeypatch.delenv("TRIDENT_TUNED")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert str(tuned.path()) == "/caches/trident/tuned.json"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert str(tuned.path()) == os.path.expanduser("~/.cache/trident/tuned.json")


def test_forget(file, capsys):
    tuned.write(table(), file)
    assert main(["tune", "--forget"]) == 0 and not file.exists()
    assert "is removed" in capsys.readouterr().out
    assert main(["tune", "--forget"]) == 0 and "nothing" in capsys.readouterr().out


def test_every_key_that_a_case_asks_is_known():
    """Else what is tuned could not be read. Torch's operators compute: no kernel is compiled."""
    keys = set()

    def watch(name, *_):
        keys.add(name)

    route.WATCHERS.append(watch)
    try:
        with route.forced("torch"), torch.no_grad():
            for case in CASES.values():
                case.ours(*(t.float() if t.is_floating_point() else t for t in case.inputs(case.shapes[0])))
    finally:
        route.WATCHERS.remove(watch)
    assert len(keys) > 100 and not [key for key in keys if not crossover.known(key)]


def test_keys_are_names_with_ways_in_brackets():
    keys = [key for _, key in (*crossover.FEWEST_ELEMENTS, *crossover.HAND_TUNED)]
    assert [key for key in keys if not re.fullmatch(r"\w+( \([^()]+\))*", key)] == []


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_what_ships_for_a_kind_of_cpu_names_each_operator_once(kind):
    names = [name for names in ELSEWHERE[kind].values() for name in names]
    assert len(names) == len(set(names)) and all(map(crossover.known, names))
    if kind == tuned.kind():
        assert all(crossover.shipped(name) == size for size, names in ELSEWHERE[kind].items() for name in names)


@pytest.mark.parametrize(
    ("bits", "vendor", "family", "kind"),
    [
        (256, "AuthenticAMD", "26", "narrow"),
        (512, "GenuineIntel", "6", "intel"),
        (512, "AuthenticAMD", "25", ""),
        (512, "AuthenticAMD", "26", "zen 5"),
        (512, None, None, ""),
    ],
)
def test_kinds_of_cpu(monkeypatch, bits, vendor, family, kind):
    monkeypatch.setattr(tuned, "vector_bits", lambda: bits)
    monkeypatch.setattr(
        tuned, "processor", lambda: {} if vendor is None else {"vendor_id": vendor, "cpu family": family}
    )
    assert tuned.kind() == kind and (not kind or kind in ELSEWHERE)


def planted(ours) -> Case:
    return Case(ours=ours, reference=torch.nn.functional.silu, shapes=((2, 3),), bench=((64, 64),), name="silu")


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(run, "SIZES", (262144, 4096))


@native
def test_what_is_wrong_is_refused_and_what_raises_is_named(small):
    cases = {
        "silu.wrong": planted(lambda x: T.silu(x) * 1.001),
        "silu.raises": planted(lambda x: T.silu(x).view(7)),
        "silu.right": planted(T.silu),
    }
    made = run.tune(cases, Settings("cpu", 0.0), 60)
    assert set(made.refused) == {"silu.wrong"} and set(made.raised) == {"silu.raises"}
    assert not made.findings.decisions(crossover.shipped) and made.findings.trials
    right = run.tune({"silu": cases["silu.right"]}, Settings("cpu", 0.0), 60)
    assert not right.refused and not right.raised and "silu" in right.findings.decisions(crossover.shipped)


@native
def test_ctrl_c_keeps_what_was_found_and_time_ends(small):
    def tell(name):
        if name == "silu.second":
            raise KeyboardInterrupt

    cases = {"silu": planted(T.silu), "silu.second": planted(T.silu)}
    made = run.tune(cases, Settings("cpu", 0.0), 60, tell)
    assert made.interrupted and made.findings.trials["silu"].keys() == {"silu"}
    assert run.tune(cases, Settings(), -1.0) == Run(left=["silu", "silu.second"])


@native
def test_a_key_that_has_lost_is_not_timed_again(small, monkeypatch):
    monkeypatch.setattr(run, "LONGEST", math.inf)  # on a busy machine any call takes long
    made = Run()
    made.findings.add("silu", "before", 262144, 0.5)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trial, "judge", lambda self: pytest.fail("nothing is to be decided"))
        patch.setattr(Trial, "times", lambda *_: pytest.fail("nothing is to be decided"))
        run._case("silu", planted(T.silu), Settings(), made)
    assert not made.raised and made.findings.trials["silu"].keys() == {"before"}
    made.findings.trials["silu"]["before"] = {4096: 0.5}
    run._case("silu", planted(T.silu), Settings("cpu", 0.0), made)
    assert not made.raised and made.findings.trials["silu"]["silu"].keys() == {262144}


@native
def test_what_takes_long_is_not_made_larger(small, monkeypatch):
    """pdist's work grows by the square."""
    case = planted(T.silu)
    assert [t.workload.shape for t in run._trials("silu", case, Settings())] == [(4096, 64), (64, 64)]
    monkeypatch.setattr(Trial, "torch_takes", lambda self: run.LONGEST / 50)
    assert [t.workload.shape for t in run._trials("silu", case, Settings())] == [(64, 64)]


@native
def test_keys_that_a_call_asks():
    shape = (64, 64)
    assert Trial("silu", planted(T.silu), shape, Settings()).asked("both") == {"silu": 4096, "silu (gradient)": 4096}
    softmax = Trial("softmax", planted(lambda x: T.softmax(x, -1)), shape, Settings())
    assert softmax.asked("forward") == {"softmax": 4096}
    assert softmax.asked("both") == {"softmax": 4096, "softmax (gradient)": 4096}
    with answering(measure.is_gradient) as asked:
        y = T.softmax(torch.randn(shape, requires_grad=True), -1)
    assert y.grad_fn.name() == "SoftmaxBackward0" and len(asked) == 2


@native
def test_a_call_that_asks_twice_says_nothing(small):
    case = planted(lambda x: T.silu(x) + T.silu(x) * 0 + T.tanh(x) * 0)
    made = run.tune({"silu": case}, Settings("cpu", 0.0), 60)
    assert not made.findings.trials and not made.refused


def test_select():
    assert select(["silu"]) and {case.name for case in select(["rms_norm"]).values()} == {"rms_norm"}
    assert len(select(["rms_norm"])) > 1 and len(select([])) > 200
    with pytest.raises(ValueError, match="'what' is not a case"):
        select(["what"])


@native
def test_the_command(tmp_path):
    """Two operators, from the command line to a decision."""
    env = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    del env["TRIDENT_TUNED"]
    env.pop("TRIDENT_CPU_SANITIZE", None)  # what is timed is fast code

    def command(*arguments):
        return subprocess.run([sys.executable, "-m", "trident", *arguments], env=env, capture_output=True, text=True)

    arguments = ("tune", "mish", "nll_loss", "--clock", "cpu", "--seconds", "0.01")
    file = tmp_path / "trident" / "tuned.json"
    dry = command("tune", "nll_loss", *arguments[3:], "--dry-run")
    assert dry.returncode == 0 and "nll_loss" in dry.stdout and not file.exists(), dry.stderr
    done = command(*arguments)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())
    assert found["machine"] == {**tuned.here(), "threads": 1} and found["versions"]["torch"] == torch.__version__
    assert "mish" in found["keys"]  # what gains and loses less may stay undecided
    for decision in found["keys"].values():
        least, ratios = decision["least"], decision["ratios"]
        assert (least == "never" or least >= 0) and all(ratio > 0 for ratio in ratios.values()) and ratios
    assert str(file) in command("doctor").stdout
    assert command("tune", "--forget").returncode == 0 and not file.exists()
    assert command("tune", "what").returncode == 2
