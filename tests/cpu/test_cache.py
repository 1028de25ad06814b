"""Compiled kernels on disk: whole or absent, shared, never trusted."""

import os
import stat
from dataclasses import replace

import pytest
import torch
import triton
import triton.language as tl

from trident_cpu import build, cache
from trident_cpu.launcher import launch, specialise

from .test_plugin import python


@triton.jit
def negate(x, out, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, -tl.load(x + at))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("TRIDENT_CPU_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TRIDENT_CPU_KEEP_TTIR", raising=False)  # the tests below count files
    return tmp_path / "cache"


def built():
    x = torch.zeros(8)
    return build.build(*specialise(negate, (x, x), {"N": 8}))


@pytest.fixture
def compilations(monkeypatch):
    """Counts how often a kernel is really compiled."""
    done = []
    compile_all = build.stages
    monkeypatch.setattr(build, "stages", lambda *given: done.append(1) or compile_all(*given))
    return done


def test_frozen_entries_thaw():
    metadata = {"name": "k", "list": [1, 2]}
    assert cache.thaw(cache.freeze(metadata, b"\0code\n")) == (metadata, b"\0code\n")


@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "longer", "header", "text"])
def test_damage_is_noticed(damage):
    entry = cache.freeze({"name": "k"}, bytes(1000))
    broken = {
        "empty": b"",
        "truncated": entry[:-1],
        "flipped": entry[:-500] + b"\1" + entry[-499:],
        "longer": entry + b"\0",
        "header": entry[:20] + b"9" + entry[21:],
        "text": b"not an entry\n",
    }[damage]
    assert broken != entry
    with pytest.raises(cache.CorruptEntry):
        cache.thaw(broken)


def test_second_build_loads(home, compilations):
    first = built()
    assert built() == first
    assert len(compilations) == 1
    assert len(list(home.iterdir())) == 1


@pytest.mark.parametrize("damage", [lambda old: old[: len(old) // 2], lambda old: b"", lambda old: old[:-1] + b"\xff"])
def test_damaged_entry_is_rebuilt(home, compilations, damage):
    first = built()
    (entry,) = home.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert built() == first
    assert len(compilations) == 2
    assert entry.read_bytes() == whole


@pytest.mark.parametrize("obstacle", ["missing parent", "a file", "unwritable"])
def test_impossible_folder_only_costs_time(home, compilations, monkeypatch, obstacle):
    if obstacle == "a file":
        home.write_text("in the way")
    elif obstacle == "missing parent":
        monkeypatch.setenv("TRIDENT_CPU_CACHE_DIR", "/proc/nowhere/cache")
    else:
        home.mkdir()
        home.chmod(stat.S_IRUSR | stat.S_IXUSR)
        if os.geteuid() == 0:  # root may write everywhere: refuse where the folder would
            monkeypatch.setattr(cache.tempfile, "mkstemp", _refused)
    assert built() == built()
    assert len(compilations) == 2
    x, out = torch.randn(8), torch.zeros(8)
    launch(negate, (1,), x, out, N=8)
    assert torch.equal(out, -x)


def _refused(**where):
    raise PermissionError("read-only")


def test_full_disk_leaves_no_part(home, monkeypatch):
    def full(*names):
        raise OSError("no space left on device")

    monkeypatch.setattr(cache.os, "replace", full)
    built()
    assert list(home.iterdir()) == []


def test_key_covers_what_decides_the_code(monkeypatch):
    source, options = specialise(negate, (torch.zeros(8), torch.zeros(8)), {"N": 8})
    plain = cache.digest(source.hash(), options.hash())
    for part in ("host", "version"):
        with monkeypatch.context() as patch:
            patch.setattr(f"trident_cpu.jit.{part}", lambda: ("another", "cpu", "triple"))
            cache.environment.cache_clear()
            assert cache.digest(source.hash(), options.hash()) != plain
        cache.environment.cache_clear()
    other, _ = specialise(negate, (torch.zeros(8), torch.zeros(8)), {"N": 16})
    assert cache.digest(other.hash(), options.hash()) != plain
    assert cache.digest(source.hash(), options.hash()) == plain


def test_kept_ttir_serves_the_sanitised_kernel_too(home, monkeypatch):
    source, options = specialise(negate, (torch.zeros(8), torch.zeros(8)), {"N": 8})
    ways = [replace(options, sanitize=sanitize, debug=debug) for debug in (False, True) for sanitize in (False, True)]
    expected = [build.stages(source, way) for way in ways]
    assert not home.exists()
    front_end, made = build.front_end, []
    monkeypatch.setattr(build, "front_end", lambda *given: made.append(given) or front_end(*given))
    monkeypatch.setenv("TRIDENT_CPU_KEEP_TTIR", "1")
    assert [build.stages(source, way) for way in ways] == expected
    assert [way.debug for _, way in made] == [False, True]


def test_processes_share(home):
    code = (
        "import torch, logging, trident_cpu; from tests.cpu.test_cache import negate, build\n"
        "done = []; stages = build.stages; build.stages = lambda *a: done.append(1) or stages(*a)\n"
        "x = torch.ones(8); out = torch.zeros(8); trident_cpu.launch(negate, (1,), x, out, N=8)\n"
        "print(len(done), out.sum().item())"
    )
    assert python(code) == "1 -8.0"
    assert python(code) == "0 -8.0"


def test_tritons_own_cache_is_checked_too(tmp_path):
    """Triton keeps our code without a checksum; a damaged file there is compiled again, not loaded."""
    code = (
        "import torch, trident_cpu; trident_cpu.install(); from tests.cpu.test_cache import negate\n"
        "x = torch.ones(8); out = torch.zeros(8); negate[(1,)](x, out, N=8); print(out.sum().item())"
    )
    triton_cache = tmp_path / "triton"
    if torch.cuda.is_available():
        pytest.skip("a GPU driver is active on this machine")
    assert python(code, TRITON_CACHE_DIR=str(triton_cache)) == "-8.0"
    (object_file,) = triton_cache.rglob("*.cpuobj")
    object_file.write_bytes(object_file.read_bytes()[:100])
    assert python(code, TRITON_CACHE_DIR=str(triton_cache)) == "-8.0"
