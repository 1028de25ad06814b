"""Large results on CPUs ask for large pages: within the tensor, whole pages, and large tensors only."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from torch._dynamo.testing import EagerAndRecordGraphs

import trident.functional as T
from tests.test_laws import DEVICE
from trident.runtime import pages, route

pytestmark = [pytest.mark.once, pytest.mark.skipif(DEVICE != "cpu", reason="pages of a CPU's memory")]


@pytest.fixture
def asked(monkeypatch):
    calls = []
    monkeypatch.setattr(pages, "_madvise", lambda: lambda *call: calls.append(call))
    return calls


@pytest.mark.parametrize("offset", (0, 1))
def test_whole_pages_within_the_tensor(asked, offset):
    t = torch.empty(3 * pages.PAGE + 1, dtype=torch.uint8)[offset:]
    pages.advise(t)
    ((begin, length, advice),) = asked
    assert begin % pages.PAGE == length % pages.PAGE == 0 and advice == 14
    assert t.data_ptr() <= begin < t.data_ptr() + pages.PAGE
    assert begin + length <= t.data_ptr() + t.nbytes < begin + length + pages.PAGE


def test_less_than_a_page_is_left(asked):
    pages.advise(torch.empty(pages.PAGE - 1, dtype=torch.uint8))
    assert not asked


@pytest.mark.parametrize(("numel", "calls"), ((4 * pages.FEWEST_ELEMENTS, 1), (pages.FEWEST_ELEMENTS - 1, 0)))
def test_a_kernel_asks_for_its_result(asked, numel, calls):
    from trident.runtime.launch import INTERPRETED

    if INTERPRETED:
        pytest.skip("the interpreter copies what it writes")
    T.silu(torch.zeros(numel))  # the first launch goes another way than those that follow
    asked.clear()
    y = T.silu(torch.zeros(numel))
    assert len(asked) == calls
    if calls:
        assert y.data_ptr() <= asked[0][0] < y.data_ptr() + y.nbytes


def test_the_system_takes_the_advice_or_is_not_asked():
    call = pages._madvise()
    if call is None:
        pytest.skip("large pages are always or never given here")
    t = torch.empty(4 * pages.PAGE, dtype=torch.uint8)
    first = -(-t.data_ptr() // pages.PAGE) * pages.PAGE
    assert call(first, pages.PAGE, pages.MADV_HUGEPAGE) == 0
    assert t.fill_(1).sum() == t.numel()


def test_large_calls_of_what_is_torchs_run_kernels_where_pages_are_given(monkeypatch):
    x = torch.zeros(pages.LARGE // 4).expand(1, -1)
    reasons = {}
    monkeypatch.setattr(route, "WATCHERS", [lambda name, tensors, reason: reasons.update({name: reason})])
    for given in (True, False):
        monkeypatch.setattr(pages, "_madvise", lambda given=given: (lambda *where: 0) if given else None)
        with route.forced("auto"):
            T.relu(x), T.mish(x[:, 1:])
        assert (reasons.pop("relu") is None) is given
        assert reasons.pop("mish") is None
        with route.forced("auto"):
            T.relu(x[:, 1:])
        assert reasons.pop("relu")


def test_a_graph_is_told_once_whether_pages_are_given(monkeypatch):
    for given in (True, False):
        torch._dynamo.reset()
        monkeypatch.setattr(pages, "_madvise", lambda given=given: (lambda *where: 0) if given else None)
        recorded = EagerAndRecordGraphs()
        with route.forced("auto"):
            torch.compile(T.relu, fullgraph=True, backend=recorded)(torch.zeros(pages.LARGE // 4))
        assert ("trident" in str(recorded.graphs[0].graph)) is given
    torch._dynamo.reset()


KEEPS = """
import ctypes, resource, torch, trident
from trident.runtime import pages
torch.set_num_threads(1)
mallopt = ctypes.CDLL(None).mallopt  # as glibc begins: what it does later hangs on what was freed first
mallopt(pages.M_MMAP_THRESHOLD, 1 << 17), mallopt(pages.M_TRIM_THRESHOLD, 1 << 17)
if {keeps}:
    trident.optimize(torch.nn.Linear(2, 2))
def step():  # 128 MB in blocks of 4, and all of it free again
    held = [torch.ones(1 << 20) for _ in range(32)]
for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    step()
print(pages.keep(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(keeps, **environment):
    found = subprocess.run(
        [sys.executable, "-c", KEEPS.format(keeps=keeps)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return found[0] == "True", int(found[1])


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another libc's malloc has its own rules")
def test_what_a_step_frees_stays_for_the_next():
    kept, few = faults(True)
    assert kept and few < 1000  # of 4 times 32,768 pages
    _, many = faults(False)
    assert many > 10 * few + 4000


@pytest.mark.parametrize(
    "told",
    ({"TRIDENT_KEEP_MEMORY": "0"}, {"MALLOC_TRIM_THRESHOLD_": "131072"}, {"GLIBC_TUNABLES": "glibc.malloc.top_pad=0"}),
    ids=str,
)
def test_malloc_is_left_as_somebody_wants_it(told):
    kept, _ = faults(True, **told)
    assert not kept
