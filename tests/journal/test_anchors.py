from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

import pytest

from journal import maintenance
from journal.anchors import Anchor, anchor_problem, newest_anchor, read_anchor
from journal.errors import ManifestUnfit
from journal.events import link
from journal.reader import Reader
from journal.schema import GUARDS
from tests.journal.journals import NOW_US, planned, reopen, settle, take

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed journal of ten keys, half of them stored."""
    journal, source = planned(tmp_path / "journal.db")
    take(journal, source)
    settle(journal, range(1, 6))
    journal.close()
    return tmp_path / "journal.db"


@pytest.fixture
def manifest(path: Path, tmp_path: Path) -> Path:
    """What a report of that journal wrote down, before the journal went on."""
    return written(tmp_path / "manifest.json", newest(path))


def newest(path: Path) -> Anchor:
    with Reader.open(path) as reader:
        return reader.read(newest_anchor)


def written(manifest: Path, anchor: Anchor) -> Path:
    manifest.write_text(json.dumps({"schema_version": 1, "files": {}, "journal": anchor.document()}))
    return manifest


def go_on(path: Path, *keys: int) -> None:
    with reopen(path) as journal:
        journal.recover(now_us=NOW_US)
        for key in keys:
            (source,) = (source.id for source in journal.sources.values())
            take(journal, source, 1)
            settle(journal, [key])


def rewritten(path: Path, *, keep: int, **changes: int) -> None:
    """Cut the log behind event `keep`, or alter that event; the chain is computed anew, the guards put back."""
    connection = sqlite3.connect(path, isolation_level=None)
    for name in GUARDS:
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("DELETE FROM event WHERE seq > ?", (keep,))
    seq, ts_us, kind, version, source, data = connection.execute(
        "SELECT seq, ts, kind, version, source, data FROM event WHERE seq = ?", (keep,)
    ).fetchone()
    (before,) = connection.execute("SELECT chain FROM event WHERE seq = ?", (keep - 1,)).fetchone()
    ts_us = changes.get("ts", ts_us)
    connection.execute(
        "UPDATE event SET ts = ?, chain = ? WHERE seq = ?",
        (ts_us, link(before, seq, ts_us, kind, version, source, data), keep),
    )
    for trigger in GUARDS.values():
        connection.execute(trigger)
    connection.execute("UPDATE progress SET projected_seq = 0")
    connection.close()
    maintenance.rebuild(path)


def test_a_journal_that_went_on_still_holds_what_its_report_wrote_down(path: Path, manifest: Path) -> None:
    assert maintenance.check(path, manifest) == []
    go_on(path, 6, 7)
    assert maintenance.check(path, manifest) == []


def test_a_tail_that_was_cut_with_all_that_followed_from_it_is_sound_in_itself_and_contradicts_the_manifest(
    path: Path, manifest: Path
) -> None:
    head = newest(path).head_seq
    rewritten(path, keep=head - 1)
    assert maintenance.check(path) == []
    (problem,) = maintenance.check(path, manifest)
    assert problem == (
        f"anchor: the log ends at event {head - 1}, before event {head} of the manifest:"
        " its tail was cut, or it is an older copy"
    )


def test_an_older_copy_that_went_on_by_itself_contradicts_the_manifest(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    maintenance.backup(path, copy)
    go_on(path, 6)
    manifest = written(tmp_path / "manifest.json", newest(path))
    with reopen(copy) as journal:
        for _ in range(3):
            journal.pause(who="op", now_us=NOW_US)
            journal.resume(who="op", now_us=NOW_US)
    assert newest(copy).head_seq > newest(path).head_seq
    assert maintenance.check(copy) == []
    (problem,) = maintenance.check(copy, manifest)
    assert "is another one than the manifest's" in problem


def test_an_altered_event_with_a_chain_computed_anew_contradicts_the_manifest(
    path: Path, manifest: Path
) -> None:
    rewritten(path, keep=newest(path).head_seq, ts=NOW_US + 1)
    assert maintenance.check(path) == []
    (problem,) = maintenance.check(path, manifest)
    assert problem.startswith(f"anchor: event {newest(path).head_seq} is another one than the manifest's")


def test_the_journal_of_another_migration_contradicts_the_manifest(path: Path) -> None:
    anchor = newest(path)
    with Reader.open(path) as reader:
        problem = anchor_problem(reader, Anchor(anchor.head_seq, anchor.chain, "other/1"))
    assert (
        problem == f"anchor: the manifest is of migration 'other/1', the journal of {anchor.migration_id!r}"
    )


def test_the_migration_of_an_anchor_is_the_one_that_objects_bear(path: Path) -> None:
    with reopen(path) as journal:
        assert newest(path).migration_id == journal.migration_id


def test_an_anchor_is_read_back_as_it_was_written(path: Path, manifest: Path) -> None:
    assert read_anchor(manifest) == newest(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "it is not JSON"),
        ("\x00\xff", "it is not JSON"),
        ("[" * 100_000, "it is not JSON"),
        ("[]", 'it has no object "journal"'),
        ('{"journal": 3}', 'it has no object "journal"'),
        ('{"journal": {"head_seq": 0, "chain": "", "migration_id": ""}}', "journal.head_seq"),
        ('{"journal": {"head_seq": true, "chain": "", "migration_id": ""}}', "journal.head_seq"),
        (
            '{"journal": {"head_seq": 9223372036854775808, "chain": "", "migration_id": ""}}',
            "journal.head_seq",
        ),
        ('{"journal": {"head_seq": 1, "chain": "aa", "migration_id": ""}}', "journal.chain"),
        (f'{{"journal": {{"head_seq": 1, "chain": "{"aa " * 32}", "migration_id": ""}}}}', "journal.chain"),
        (
            f'{{"journal": {{"head_seq": 1, "chain": "{"aa" * 32}", "migration_id": 1}}}}',
            "journal.migration_id",
        ),
    ],
)
def test_a_file_that_is_no_manifest_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    manifest = tmp_path / "manifest.json"
    manifest.write_text(text, encoding="latin-1")
    with pytest.raises(ManifestUnfit) as refusal:
        read_anchor(manifest)
    assert problem in refusal.value.problem
    assert "`backfillctl report`" in refusal.value.hint


def test_a_manifest_that_is_not_there_is_refused_before_the_journal_is_read(
    path: Path, tmp_path: Path
) -> None:
    path.unlink()
    with pytest.raises(ManifestUnfit, match="no such file"):
        maintenance.check(path, tmp_path / "manifest.json")
