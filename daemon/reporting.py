"""Write a report of a journal to a directory: page, document, keys, and a manifest of their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from daemon import __version__
from daemon import rendering_units as units
from daemon.errors import BackfillError, ConfigError
from daemon.report_document import report_document
from daemon.report_keys import Level, write_keys
from daemon.report_page import report_page
from journal.report_facts import report_facts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from journal.reader import Reader

MANIFEST = "manifest.json"
FILES = ("keys.csv.gz", "report.json", "report.html")
MANIFEST_VERSION = 1
TOLD_SECONDS = 5.0
"""Between two lines that say how far it is."""
_PARTIAL = ".partial"


@dataclass(frozen=True, slots=True)
class Written:
    """What a report came to: bytes by file, keys in the journal and in the file of keys."""

    sizes: dict[str, int]
    keys: int
    keys_written: int


def write_report(reader: Reader, directory: Path, *, level: Level, force: bool, now_us: int) -> Written:
    """Write the four files, readable by their owner only; each appears whole or not at all, the manifest last.

    Args:
        reader: of the journal; nothing is written there.
        directory: made if it is not there.
        level: which keys the file of keys has.
        force: overwrite files that are no earlier report.
        now_us: microseconds since 1970-01-01 UTC.

    Raises:
        ConfigError: the directory is none, or holds other files of these names.
        BackfillError: a file can't be written.
        JournalError: the journal can't be read.
    """
    with _failing_as_one(directory):
        directory.mkdir(mode=0o700, parents=False, exist_ok=True)
        _refuse_others(directory, force=force)
        # An earlier manifest would speak of files that are not there any more.
        (directory / MANIFEST).unlink(missing_ok=True)
        facts = report_facts(reader, now_us=now_us)
        hashes: dict[str, tuple[str, int]] = {}
        with _file(directory, "keys.csv.gz", hashes) as file:
            totals = write_keys(
                reader,
                file,
                level=level,
                head_seq=facts.anchor.head_seq,
                planned_hi=facts.planned_hi,
                told=_Told(facts.planned_hi),
            )
        document = report_document(facts, totals, level=level, now_us=now_us)
        with _file(directory, "report.json", hashes) as file:
            file.write((json.dumps(document, indent=1) + "\n").encode())
        with _file(directory, "report.html", hashes) as file:
            file.write(report_page(document).encode("utf-8", "backslashreplace"))
        manifest = {
            "manifest_version": MANIFEST_VERSION,
            "made_us": now_us,
            "program_version": __version__,
            "level": level.value,
            "journal": facts.anchor.document(),
            "files": {name: {"sha256": sha, "bytes": size} for name, (sha, size) in hashes.items()},
        }
        with _file(directory, MANIFEST, {}) as file:
            file.write((json.dumps(manifest, indent=1) + "\n").encode())
    return Written({name: size for name, (_, size) in hashes.items()}, totals.keys, totals.written)


def _refuse_others(directory: Path, *, force: bool) -> None:
    there = [name for name in (*FILES, MANIFEST) if (directory / name).exists()]
    if not there or force or _is_manifest(directory / MANIFEST):
        return
    raise ConfigError(
        [f"report to {directory}: there is {', '.join(there)}, and no manifest of an earlier report"],
        "name another directory with -o DIR, or give --force",
    )


def _is_manifest(path: Path) -> bool:
    try:
        found: Any = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and "manifest_version" in found


class _Hashed:
    """A file that remembers what was written to it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


@contextmanager
def _file(directory: Path, name: str, hashes: dict[str, tuple[str, int]]) -> Iterator[Any]:
    """Yield a file that gets its name once the block has ended; its hash and size go to `hashes`."""
    partial = directory / (name + _PARTIAL)
    partial.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            hashed = _Hashed(file)
            yield hashed
            file.flush()
            os.fsync(file.fileno())
        partial.rename(directory / name)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    hashes[name] = (hashed.sha256.hexdigest(), hashed.size)


@contextmanager
def _failing_as_one(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackfillError(
            f"report to {directory}: {(error.strerror or str(error)).lower()}",
            "name a directory that you may write with -o DIR; its parent must be there",
        ) from error


class _Told:
    """Says on stderr how many keys are written, every few seconds."""

    def __init__(self, planned: int) -> None:
        self._planned = planned
        self._last = time.monotonic()

    def __call__(self, keys: int) -> None:
        if time.monotonic() - self._last >= TOLD_SECONDS:
            self._last = time.monotonic()
            sys.stderr.write(f"report: {units.count(keys)} of {units.count(self._planned)} keys\n")
