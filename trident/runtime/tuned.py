"""What `python -m trident tune` measured on this machine: a small file that runtime/crossover.py reads once.

It holds for one CPU and one version of torch; elsewhere it is left alone. `TRIDENT_TUNED` names another file, or is 0.
"""

import dataclasses
import functools
import json
import math
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ENOUGH = 4096  # bytes of /proc/cpuinfo, which Linux makes as it is read: the first of a hundred cores is enough


@functools.cache
def processor() -> dict[str, str]:
    """What Linux says of the first core; nothing elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            first = file.read(ENOUGH).split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def model() -> str:
    return processor().get("model name") or platform.processor() or platform.machine()


def cpu() -> str:
    """The CPU's model: by its numbers, too, for a virtual one is often called by its maker's name alone."""
    said, name = processor(), model()
    return f"{name} ({said['cpu family']}/{said['model']})" if {"cpu family", "model"} <= said.keys() else name


def vector_bits() -> int:
    """Of the CPU's vectors, as torch uses them."""
    capability = torch.backends.cpu.get_cpu_capability()
    return 512 if capability.startswith("AVX512") else 256 if capability == "AVX2" else 128


@functools.cache
def core_cache() -> int:
    """Bytes of the cache that a core has to itself, its second; 1 MB where nobody says."""
    try:
        with open("/sys/devices/system/cpu/cpu0/cache/index2/size") as file:
            return int(file.read().strip().removesuffix("K")) << 10
    except (OSError, ValueError):  # hidden by a container, another system
        return 1 << 20


def kind() -> str:
    """Of CPU, as far as what is faster differs: "narrow" (vectors of less than 512 bits), "intel", "zen 5" (AMD's, the
    first whose units are 512 bits wide), "" for others."""
    said = processor()
    if vector_bits() < 512:
        return "narrow"
    if said.get("vendor_id") == "GenuineIntel":
        return "intel"
    return "zen 5" if said.get("vendor_id") == "AuthenticAMD" and int(said.get("cpu family", 0)) >= 26 else ""


@dataclass(frozen=True)
class Decision:
    """least: elements from which on the kernel runs; inf: never. ratios: size -> torch's time over the kernel's."""

    least: float
    ratios: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Tuned:
    machine: dict[str, Any]  # cpu, vector bits, threads
    versions: dict[str, str]
    clock: str
    date: str
    keys: dict[str, Decision]


def here() -> dict[str, Any]:
    return {"cpu": cpu(), "vector bits": vector_bits(), "threads": torch.get_num_threads()}


def path() -> Path | None:
    """Where the file is; None if it is to be ignored."""
    said = os.environ.get("TRIDENT_TUNED")
    if said == "0":
        return None
    caches = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(said or os.path.join(caches, "trident", "tuned.json"))


def write(tuned: Tuned, file: Path) -> None:
    """All of it or nothing: another process may be reading."""
    found = dataclasses.asdict(tuned)
    found["keys"] = {key: _plain(decision) for key, decision in sorted(tuned.keys.items())}
    file.parent.mkdir(parents=True, exist_ok=True)
    half = file.with_name(f"{file.name}.{os.getpid()}")
    head = json.dumps({name: value for name, value in found.items() if name != "keys"}, indent=1)
    lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in found["keys"].items())
    half.write_text(f'{head[:-2]},\n "keys": {{\n{lines}\n }}\n}}\n', encoding="utf-8")
    half.replace(file)


def _plain(decision: Decision) -> dict[str, Any]:
    least = "never" if math.isinf(decision.least) else int(decision.least)
    return {"least": least, "ratios": {str(size): round(ratio, 2) for size, ratio in sorted(decision.ratios.items())}}


def read(file: Path, known: Callable[[str], bool]) -> Tuned:
    """Raises ValueError with the reason to ignore the file: it is damaged, of another machine, or of operators that
    this version does not know."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        tuned = Tuned(**{**found, "keys": {key: _decision(value) for key, value in found["keys"].items()}})
        cpu_there, bits, torch_there = tuned.machine["cpu"], tuned.machine["vector bits"], tuned.versions["torch"]
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"it cannot be read ({type(error).__name__})") from None
    if (cpu_there, bits) != (cpu(), vector_bits()):
        raise ValueError(f"it is of another CPU, {cpu_there} of {bits} bits")
    if torch_there != torch.__version__:
        raise ValueError(f"it is of another torch, {torch_there}")
    if unknown := [key for key in tuned.keys if not known(key)]:
        raise ValueError(f"it names what is no operator here, {unknown[0]!r}")
    return tuned


def _decision(value: dict[str, Any]) -> Decision:
    """Raises ValueError or TypeError."""
    least, ratios = value["least"], value["ratios"]
    if least != "never" and (type(least) is not int or least < 0):
        raise ValueError(least)
    return Decision(math.inf if least == "never" else least, {int(size): float(r) for size, r in ratios.items()})
