"""A row for each workload, kept as it is measured: JSON lines, from which an interrupted run goes on, and CSV.

A row is measured again when anything that it depends on changed: Trident's source, versions, machine or options.
"""

import csv
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

import trident
import trident_cpu
from trident.bench.timing import Spread
from trident.runtime import tuned
from trident.runtime.launch import executor

OURS, FORCED = "trident", "kernel"  # names of variants: as a user calls it; its kernel, where route prefers torch
LACKS = "has no such operator"  # of a rival: nothing that a reader is told row by row


@dataclass(frozen=True)
class Machine:
    """What a time holds for."""

    device: str
    cores: int
    threads: int
    clock: str
    executor: str
    versions: dict[str, str]
    source: str  # of trident and trident_cpu

    def __str__(self) -> str:
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        clocks = {"wall": "wall time", "cpu": "CPU time of one thread", "events": "CUDA events"}
        return (
            f"{self.device}, {self.cores} cores, {self.threads} thread{'s' * (self.threads > 1)}, "
            f"{clocks[self.clock]}, {versions}, source {self.source}"
        )


@dataclass
class Row:
    name: str
    family: str
    shape: str  # 256x1024
    dtype: str
    way: str
    where: str = ""  # `routes.where`
    seconds: dict[str, Spread] = field(default_factory=dict)  # of a call, by variant
    ratios: dict[str, Spread] = field(default_factory=dict)  # a rival's time over Trident's
    first: dict[str, float] = field(default_factory=dict)  # seconds of the first call, compiling included
    forced: Spread | None = None  # eager's time over the kernel's, where route prefers torch
    rate: float = 0.0  # bytes or operations per second
    unit: str = "B/s"
    ceiling: float = 0.0  # the machine's rate of the same
    host: dict[str, float] = field(default_factory=dict)  # microseconds of a call that leaves the device nothing to do
    memory: dict[str, int] = field(default_factory=dict)  # bytes held at most
    refused: str = ""  # why there is no ratio
    absent: dict[str, str] = field(default_factory=dict)  # rival -> why it is not in this row
    options: str = ""
    date: str = ""
    machine: Machine | None = None

    @property
    def routed(self) -> bool:
        return self.where.startswith("torch")

    @property
    def left_out(self) -> dict[str, str]:
        """Rivals that have the operator and no ratio -> why."""
        return {rival: reason for rival, reason in self.absent.items() if reason != LACKS}

    @property
    def key(self) -> str:
        parts = [self.name, self.shape, self.dtype, self.way, self.options, str(self.machine)]
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def decoded(line: str) -> Row:
    found: dict[str, Any] = json.loads(line)
    for name in ("seconds", "ratios"):
        found[name] = {k: Spread(**v) for k, v in found[name].items()}
    found["forced"] = found["forced"] and Spread(**found["forced"])
    found["machine"] = Machine(**found["machine"])
    return Row(**found)


class Store:
    """Rows in a file of JSON lines, each appended as soon as it is measured."""

    def __init__(self, path: Path, fresh: bool = False):
        self.path = path
        if fresh:
            path.unlink(missing_ok=True)
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self.rows = {row.key: row for row in map(decoded, lines)}

    def add(self, row: Row) -> None:
        self.rows[row.key] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(dataclasses.asdict(row)) + "\n")


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """One line for each row; times in microseconds, rates in billions."""
    variants = _union(row.seconds for row in rows)
    rivals = _union(row.ratios for row in rows)
    head = ["case", "family", "shape", "dtype", "way", "where", *(f"{v} us" for v in variants)]
    head += [f"{r} ratio{end}" for r in rivals for end in ("", " spread")]
    head += ["kernel ratio", "Gunit/s", "unit", "percent of ceiling", "host us", "peak memory bytes"]
    head += ["refused", "left out"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(head)
        for row in rows:
            times = [f"{row.seconds[v].median * 1e6:.2f}" if v in row.seconds else "" for v in variants]
            ratios = [x for r in rivals for x in _pair(row.ratios.get(r))]
            percent = f"{100 * row.rate / row.ceiling:.1f}" if row.ceiling else ""
            who = [row.name, row.family, row.shape, row.dtype, row.way, row.where]
            rates = [_pair(row.forced)[0], f"{row.rate / 1e9:.2f}", row.unit, percent]
            rest = [f"{row.host[OURS]:.1f}" if OURS in row.host else "", row.memory.get(OURS, ""), row.refused]
            rest.append("; ".join(f"{rival}: {reason}" for rival, reason in row.left_out.items()))
            out.writerow([*who, *times, *ratios, *rates, *rest])


def _pair(spread: Spread | None) -> tuple[str, str]:
    return (f"{spread.median:.3f}", f"{spread.half:.3f}") if spread else ("", "")


def _union(dicts: Iterable[dict[str, Any]]) -> list[str]:
    return list({name: None for found in dicts for name in found})


@functools.cache
def source() -> str:
    """A digest of the package's own code: two commits that differ elsewhere give the same times."""
    digest = hashlib.sha256()
    for package in (trident, trident_cpu):
        root = Path(str(package.__file__)).parent
        for path in sorted(root.rglob("*.py")):
            if "bench" not in path.relative_to(root).parts:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


def machine(device: str, clock: str) -> Machine:
    packages = ("torch", "triton", "llvmlite") if device == "cpu" else ("torch", "triton")
    return Machine(
        device=torch.cuda.get_device_name() if device == "cuda" else tuned.model(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        clock="events" if device == "cuda" else clock,
        executor=executor(device) or "none",
        versions={name: importlib.metadata.version(name) for name in packages},
        source=source(),
    )


def today() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
