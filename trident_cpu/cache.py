"""Compiled kernels on disk, shared by every process of a user.

An entry is one file: a header line that states length and SHA-256 of what follows, then metadata (JSON) and object
code. It is written beside its final name and renamed over it, so readers see all of it or nothing; whatever does not
match its header is treated as absent and written anew. A folder that cannot be written costs compilations, not errors.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import Any

_MAGIC = b"trident_cpu 1 "
_log = logging.getLogger("trident_cpu")


class CorruptEntry(ValueError):
    """The bytes are not what was once written."""


def freeze(metadata: dict[str, Any], code: bytes) -> bytes:
    """One self-checking byte string of both."""
    text = json.dumps(metadata).encode()
    body = len(text).to_bytes(8, "little") + text + code
    return _MAGIC + f"{len(body):020d} {hashlib.sha256(body).hexdigest()}\n".encode() + body


def thaw(entry: bytes) -> tuple[dict[str, Any], bytes]:
    """What `freeze` was given; raises CorruptEntry for anything else."""
    header, _, body = entry.partition(b"\n")
    if header != _MAGIC + f"{len(body):020d} {hashlib.sha256(body).hexdigest()}".encode():
        raise CorruptEntry("length or checksum differ from the header")
    end = 8 + int.from_bytes(body[:8], "little")
    return json.loads(body[8:end]), body[end:]


def folder() -> Path:
    """TRIDENT_CPU_CACHE_DIR, or `trident_cpu` inside Triton's own cache folder."""
    from triton import knobs

    return Path(os.environ.get("TRIDENT_CPU_CACHE_DIR") or os.path.join(knobs.cache.dir, "trident_cpu"))


def load(key: str) -> tuple[dict[str, Any], bytes] | None:
    """The entry of that key, or None where there is none that is whole."""
    path = folder() / key
    try:
        return thaw(path.read_bytes())
    except CorruptEntry as error:
        _log.warning("rebuilding a damaged cache entry, %s: %s", path, error)
    except FileNotFoundError:
        pass  # never compiled
    except OSError as error:
        _log.info("cache entry unreadable, %s: %s", path, error)
    return None


def store(key: str, entry: bytes) -> None:
    """Keep a frozen entry, if the folder can be written."""
    home = folder()
    try:
        home.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=home, prefix=".writing-")
    except OSError as error:
        _log.info("kernel not cached in %s: %s", home, error)
        return
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(entry)
        os.replace(temporary, home / key)
    except OSError as error:  # a full disk
        _log.info("kernel not cached in %s: %s", home, error)
        Path(temporary).unlink(missing_ok=True)


@functools.cache
def environment() -> str:
    """A digest of all that decides what a source compiles to: this package, Triton, LLVM, the CPU."""
    import triton
    from triton._C import libtriton

    from trident_cpu import jit

    digest = hashlib.sha256()
    home = Path(__file__).parent
    for source in sorted(home.rglob("*.py")):
        digest.update(f"{source.relative_to(home)}\0".encode() + source.read_bytes())
    # Hashing libtriton itself takes half a second; a rebuilt one changes its size or its time.
    status = os.stat(libtriton.__file__)
    digest.update(repr((triton.__version__, status.st_size, status.st_mtime_ns, jit.version(), *jit.host())).encode())
    return digest.hexdigest()


def digest(*parts: object) -> str:
    """The key of a source: `parts` must print completely."""
    return hashlib.sha256("\0".join([environment(), *map(str, parts)]).encode()).hexdigest()
