"""Bit flips, cuts and lost files, at every class of offset: noticed or harmless, never a traceback or a false claim."""

from __future__ import annotations

import logging
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from daemon.findings import exit_code_of
from journal.errors import JournalFailed
from tests.faults.damaged_runs import Judged, State, brought_to, judged
from tests.faults.sqlite_layout import FRAME, PAGE, WAL_HEADER, regions, wal_regions

SEED = 20
DB, WAL, SHM, STAGE = "journal.db", "journal.db-wal", "journal.db-shm", "journal.db.stage"
NOTICED_BY_NOBODY = ("gap", "_sqlite_migrations", "free or overflow", "file header")
"""Classes of bytes that hold nothing of the migration's, or (the rest of the header) nothing that is believed."""


class Brought(NamedTuple):
    """How a state comes about: the commit after which the process dies, and those after which it checkpoints."""

    dies_after: int | None
    checkpoints_after: tuple[int, ...] = ()


STATES = {
    "complete": Brought(None),
    "killed, all in the WAL": Brought(40),
    "killed, checkpointed before": Brought(45, (33,)),
    "killed, WAL copied and not begun anew": Brought(45, (45,)),
}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def state(request: pytest.FixtureRequest, tmp_path: Path) -> State:
    brought: Brought = STATES[request.param]
    found = brought_to(
        tmp_path / "state", dies_after=brought.dies_after, checkpoints_after=brought.checkpoints_after
    )
    assert (WAL in found.files) is (brought.dies_after is not None)
    return found


def roots_of(database: bytes, directory: Path) -> dict[str, int]:
    path = directory / "roots.db"
    path.write_bytes(database)
    connection = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
    found = dict(connection.execute("SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0"))
    connection.close()
    return found


def classes(files: dict[str, bytes], directory: Path) -> dict[tuple[str, str], list[range]]:
    """Return where the bytes of each class are, by file and name."""
    found = {(DB, name): at for name, at in regions(files[DB], roots_of(files[DB], directory)).items()}
    if WAL in files:
        found |= {(WAL, name): at for name, at in wal_regions(files[WAL]).items()}
    for name in (SHM, STAGE):
        if name in files:
            found[name, "any byte"] = [range(len(files[name]))]
    return found


def refuse_harm(what: str, found: Judged) -> None:
    """Fail where nobody noticed what is wrong, or what was refused is not told as an operator needs it."""
    assert not found.harm, f"{what}: {found.harm}"
    for refusal in found.refusals:
        # In mid-run it may as well be the disk.
        expected = {1} if isinstance(refusal, JournalFailed) else {2, 7}
        assert exit_code_of(refusal) in expected, f"{what}: {refusal!r}"
        assert refusal.hint, f"{what}: {refusal!r}"


@pytest.mark.parametrize("state", STATES, indirect=True)
def test_a_flipped_bit_is_noticed_or_harmless_wherever_it_is(
    state: State, tmp_path: Path, flips: int
) -> None:
    random = Random(SEED)
    told: dict[str, Counter[str]] = defaultdict(Counter)
    for (name, kind), places in classes(state.files, tmp_path).items():
        for _ in range(flips):
            at = random.choice(random.choice(places))
            bit = random.randrange(8)
            damaged = bytearray(state.files[name])
            damaged[at] ^= 1 << bit
            found = judged(tmp_path / "case", state, state.files | {name: bytes(damaged)})
            refuse_harm(f"{name}, {kind}: bit {bit} of byte {at}", found)
            told[f"{name}: {kind}"][found.verdict] += 1
    for kind, verdicts in sorted(told.items()):
        sys.stdout.write(f"  {kind:50} {dict(verdicts)}\n")


def cuts(name: str, size: int) -> list[int]:
    """Return to what lengths a file of `size` bytes is cut: nothing, headers, boundaries of pages and frames, one off."""
    if name == WAL:
        frames = (size - WAL_HEADER) // FRAME
        ends = [WAL_HEADER + FRAME * number for number in (1, frames // 2, frames - 1)]
        edges = [1, WAL_HEADER, *ends, *(end + FRAME // 2 for end in ends[:2])]
    else:
        edges = [1, 100, PAGE, size // 2 // PAGE * PAGE, size // 2 // PAGE * PAGE + PAGE // 2, size - PAGE]
    around = {length + off for length in edges for off in (-1, 0, 1)}
    return sorted(length for length in around if 0 <= length < size)


@pytest.mark.parametrize("state", STATES, indirect=True)
def test_a_file_that_was_cut_or_deleted_is_noticed_or_harmless(state: State, tmp_path: Path) -> None:
    told: Counter[str] = Counter()
    for name, content in state.files.items():
        lengths = [0, 1, len(content) // 2] if name == SHM else cuts(name, len(content))
        for length in lengths:
            found = judged(tmp_path / "case", state, state.files | {name: content[:length]})
            refuse_harm(f"{name} cut to {length} of {len(content)} bytes", found)
            told[f"{name} cut: {found.verdict}"] += 1
        without = {other: bytes_ for other, bytes_ in state.files.items() if other != name}
        found = judged(tmp_path / "case", state, without)
        refuse_harm(f"{name} deleted", found)
        told[f"{name} deleted: {found.verdict}"] += 1
    found = judged(tmp_path / "case", state, {})
    refuse_harm("all deleted", found)
    assert found.verdict == "harmless"
    sys.stdout.write(f"  {dict(told)}\n")
