from __future__ import annotations

import hashlib
import io
import json
import random
import resource
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from journal import appending, checking, maintenance
from journal.entries import AttemptFailed
from journal.errors import JournalCorrupt, JournalError, JournalLocked
from journal.events import CHAIN_START, link
from journal.log import TAIL_EVENTS, Journal
from journal.reader import Reader
from journal.schema import PROJECTIONS
from tests.journal.journals import NOW_US, park, plan, planned, reopen, rows, settle, take
from tests.journal.tampering import tamper

if TYPE_CHECKING:
    from pathlib import Path

FILE_BYTES_MAX = 40_000
"""What a file may take where a copy is to fail: less than the journal, more than SQLite's shared memory."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed journal with something in every projection."""
    journal, source = planned(tmp_path / "journal.db", 60)
    plan(journal, rows(5), source=None)
    take(journal, source, 20)
    settle(journal, [*range(1, 10), 15])
    settle(journal, [11], size=7)
    park(journal, 10)
    park(journal, 12)
    journal.release([13], now_us=NOW_US)
    journal.requeue(row_keys=["k00011"], who="op", now_us=NOW_US)
    take(journal, source, 1)
    journal.record([AttemptFailed(14, "PUT", "server", "answered 500")], now_us=NOW_US)
    journal.begin_throttle("query", detail="5 > 3", now_us=NOW_US)
    journal.end_throttle("query", detail="2 <= 3", milliseconds=10, now_us=NOW_US)
    journal.sample({"network": 3}, now_us=NOW_US)
    journal.note("halted", {}, now_us=NOW_US)
    journal.note("verification_finished", {"tier": "list", "exit_code": 0}, now_us=NOW_US)
    journal.close()
    return tmp_path / "journal.db"


def dump(path: Path) -> dict[str, list[tuple[object, ...]]]:
    connection = sqlite3.connect(path)
    found = {
        table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in PROJECTIONS
    }
    connection.close()
    return found


def test_a_sound_journal_has_no_problem_closed_open_or_killed(path: Path) -> None:
    assert maintenance.check(path) == []
    with reopen(path) as journal:
        journal.recover(now_us=NOW_US)
        assert maintenance.check(path) == []


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "UPDATE event SET ts = ts + 1 WHERE seq = 3",
            "chain: event 3 does not continue the chain of event 2",
        ),
        ("UPDATE event SET data = replace(data, 'source-1', 'source-x') WHERE seq = 3", "chain: event 3"),
        ("DELETE FROM event WHERE seq = 8", "chain: event 9 does not continue the chain of event 7"),
        ("DELETE FROM event WHERE seq >= 20", "the log at event 19"),
        ("UPDATE plan SET row_key = 'k00041x' WHERE ordinal = 42", "chunk of ordinals 1 to 60"),
        ("UPDATE plan SET created_at = NULL WHERE ordinal = 1", "chunk of ordinals 1 to 60"),
        ("DELETE FROM plan WHERE ordinal = 63", "chunk of ordinals 61 to 65"),
        ("UPDATE outcome SET code = 'P' WHERE ordinal = 2", "projection outcome"),
        ("DELETE FROM outcome WHERE ordinal = 2", "projection outcome lacks rows"),
        ("UPDATE outcome SET size = 8 WHERE ordinal = 11", "projection outcome"),
        ("DELETE FROM key_event WHERE ordinal = 10", "projection key_event lacks rows"),
        ("UPDATE straggler SET recoveries = 2", "projection straggler"),
        ("UPDATE segment SET frontier = frontier + 1 WHERE id = 1", "projection segment"),
        ("UPDATE tally SET stored = stored + 1", "projection tally"),
        ("UPDATE claim SET left = left + 1", "projection claim"),
        ("UPDATE source SET closed = 1", "projection source"),
        ("UPDATE failure SET count = 99", "projection failure"),
        ("DELETE FROM latest WHERE kind = 'halted'", "projection latest"),
        ("UPDATE chunk SET digest = 'x'", "projection chunk"),
        ("UPDATE progress SET session = 9", "projection progress"),
        ("UPDATE progress SET projected_seq = 9999", "projections: they end at event 9999, the log at"),
    ],
)
def test_check_finds_what_was_altered(path: Path, statement: str, expected: str) -> None:
    tamper(path, statement)
    problems = maintenance.check(path)
    assert any(expected in problem for problem in problems), problems


def test_check_finds_rows_that_no_event_knows(path: Path) -> None:
    tamper(path, "INSERT INTO plan VALUES (66, 'forged', 1, 1, NULL)")
    assert maintenance.check(path) == ["plan: 1 rows after ordinal 65 are in no event"]


def test_check_finds_a_missing_guard(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER event_refuses_delete")
    connection.close()
    assert ["event_refuses_delete is missing" in problem for problem in maintenance.check(path)] == [True]


def test_check_stops_after_enough_problems(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "KEYS_PER_PAGE", 1)
    tamper(path, "UPDATE outcome SET seq = seq - 1", "UPDATE key_event SET seq = seq - 1")
    assert checking.PROBLEMS_MAX <= len(maintenance.check(path)) <= checking.PROBLEMS_MAX + 2


def test_flipped_bytes_in_the_file_never_pass_unnoticed_or_end_in_a_traceback(path: Path) -> None:
    """Any byte of any page: check finds it, or it lies where nothing is stored."""
    pristine = path.read_bytes()
    expected = export(path)
    generator = random.Random(1)
    for _ in range(60):
        position = generator.randrange(100, len(pristine))
        damaged = bytearray(pristine)
        damaged[position] ^= 1 << generator.randrange(8)
        copy = path.with_name("damaged.db")
        copy.write_bytes(damaged)
        try:
            problems = maintenance.check(copy)
            assert problems or export(copy) == expected
        except JournalError:
            continue


def export(path: Path) -> str:
    out = io.StringIO()
    maintenance.export(path, out)
    return out.getvalue()


def test_rebuild_derives_what_living_through_it_derived(path: Path) -> None:
    lived = dump(path)
    tamper(path, *(f"DELETE FROM {table}" for table in PROJECTIONS))
    with pytest.raises(JournalCorrupt, match="rebuild"):
        reopen(path)
    head = maintenance.rebuild(path)
    assert dump(path) == lived
    assert head == lived["progress"][0][1]
    assert maintenance.check(path) == []


def test_a_rebuild_that_was_interrupted_goes_on_at_the_next_opening(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived = dump(path)
    monkeypatch.setattr(appending, "FOLD_EVENTS_MAX", 3)

    class Interrupted(Journal):
        commits = 0

        def _commit(self) -> None:
            self.commits += 1
            if self.commits == 4:
                raise KeyboardInterrupt
            super()._commit()

    with pytest.raises(KeyboardInterrupt):
        Interrupted.rebuild(path, now_us=NOW_US)
    assert dump(path)["progress"][0][1] == 6
    reopen(path).close()
    assert dump(path) == lived


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event SET ts = ts + 1 WHERE seq = 3",
        "DELETE FROM event WHERE seq = 8",
        "DELETE FROM event",
        "UPDATE event SET data = CAST(x'ff' AS TEXT) WHERE seq = 2",
    ],
)
def test_rebuild_verifies_the_whole_log_before_it_empties_a_projection(path: Path, statement: str) -> None:
    with reopen(path) as journal:
        for _ in range(TAIL_EVENTS):
            journal.note("halted", {}, now_us=NOW_US)
    tamper(path, statement)
    before = dump(path)
    with pytest.raises(JournalCorrupt):
        maintenance.rebuild(path)
    assert dump(path) == before


def test_rebuild_refuses_an_event_that_is_no_json_though_its_chain_holds(path: Path) -> None:
    head = head_of(path)
    chain = link(chain_of(path, head), head + 1, NOW_US, "halted", 1, None, "{")
    tamper(
        path, f"INSERT INTO event VALUES ({head + 1}, {NOW_US}, 'halted', 1, NULL, '{{', x'{chain.hex()}')"
    )
    before = dump(path)
    with pytest.raises(JournalCorrupt, match="not JSON"):
        maintenance.rebuild(path)
    assert dump(path) == before


def head_of(path: Path) -> int:
    with Reader.open(path) as reader:
        return reader.head_seq()


def chain_of(path: Path, seq: int) -> bytes:
    connection = sqlite3.connect(path)
    (chain,) = connection.execute("SELECT chain FROM event WHERE seq = ?", (seq,)).fetchone()
    connection.close()
    return bytes(chain)


@pytest.mark.parametrize(
    ("statement", "mended"),
    [
        ("UPDATE tally SET stored = stored + 1", True),
        ("UPDATE progress SET projected_seq = 3", True),
        ("UPDATE event SET ts = ts + 1 WHERE seq = 3", False),
        ("UPDATE plan SET row_key = 'k00041x' WHERE ordinal = 42", False),
    ],
)
def test_a_rebuild_is_said_to_mend_what_it_mends_and_nothing_else(
    path: Path, statement: str, mended: bool
) -> None:
    tamper(path, statement)
    problems = maintenance.check(path)
    assert problems
    assert checking.mended_by_rebuild(problems) is mended
    if mended:
        maintenance.rebuild(path)
        assert maintenance.check(path) == []


def test_rebuild_works_in_bounded_transactions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appending, "FOLD_EVENTS_MAX", 3)
    lived = dump(path)
    maintenance.rebuild(path)
    assert dump(path) == lived


def test_rebuild_is_refused_beside_a_daemon(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("journal.log.WAIT_SECONDS", 0.0)
    with reopen(path), pytest.raises(JournalLocked):
        maintenance.rebuild(path)


def test_an_export_carries_the_whole_log_and_its_chain_can_be_computed_again(path: Path) -> None:
    lines = [json.loads(line) for line in export(path).splitlines()]
    events = [line for line in lines if line["type"] == "event"]
    chain = CHAIN_START
    for raw, event in zip(export(path).splitlines(), events, strict=False):
        data = raw[raw.index('"data": ') + len('"data": ') : -1]
        chain = link(
            chain, event["seq"], event["ts_us"], event["kind"], event["version"], event["source"], data
        )
        assert chain.hex() == event["chain"]
    planned_rows = [line for line in lines if line["type"] == "planned"]
    assert [row["ordinal"] for row in planned_rows] == list(range(1, 66))
    assert planned_rows[0] == {
        "type": "planned",
        "ordinal": 1,
        "row_key": "k00000",
        "created_at": rows(1)[0].created_at,
        "size": 100,
        "supersedes": None,
    }


def test_a_backup_beside_a_writer_is_one_private_file_that_opens_as_a_journal(
    path: Path, tmp_path: Path
) -> None:
    with reopen(path) as journal:
        journal.recover(now_us=NOW_US)
        maintenance.backup(path, tmp_path / "copy.db")
        journal.backup(tmp_path / "own.db")
        expected = journal.counts()
    for name in ("copy.db", "own.db"):
        copy = tmp_path / name
        assert stat.S_IMODE(copy.stat().st_mode) == 0o600
        assert maintenance.check(copy) == []
        with reopen(copy) as journal:
            assert journal.counts() == expected


def test_a_backup_replaces_nothing(path: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(JournalError, match="exists"):
        maintenance.backup(path, tmp_path / "taken")
    with pytest.raises(JournalError, match="No such file"):
        maintenance.backup(path, tmp_path / "missing" / "copy.db")
    assert (tmp_path / "taken").read_text() == "mine"


@pytest.mark.parametrize("by", ["reader", "writer"])
def test_a_backup_that_fails_names_its_destination_and_leaves_nothing(
    path: Path, tmp_path: Path, by: str
) -> None:
    (tmp_path / "elsewhere").mkdir()
    copy = tmp_path / "elsewhere" / "copy.db"
    assert path.stat().st_size > FILE_BYTES_MAX
    with reopen(path) as journal:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES_MAX, before[1]))
        try:
            with pytest.raises(JournalError) as failed:
                journal.backup(copy) if by == "writer" else maintenance.backup(path, copy)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert failed.value.problem.startswith(f"write the copy of the journal to {copy}: ")
    assert "destination" in failed.value.hint
    assert list(copy.parent.iterdir()) == []


def test_a_backup_of_a_corrupt_journal_blames_the_journal(path: Path, tmp_path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(JournalCorrupt, match=r"journal\.db"):
        maintenance.backup(path, tmp_path / "copy.db")
    assert not list(tmp_path.glob("copy*"))


def test_a_hash_chain_is_plain_sha256(path: Path) -> None:
    with Reader.open(path) as reader:
        ts_us, data, chain = reader.read(
            lambda connection: connection.execute(
                "SELECT ts, data, chain FROM event WHERE seq = 1"
            ).fetchone()
        )
    text = f'[1,{ts_us},"migration_created",1,null]\n{data}'
    assert hashlib.sha256(bytes(32) + text.encode()).digest() == chain


def test_a_check_beside_a_daemon_takes_in_what_is_recorded_while_it_runs(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, source = planned(path.with_name("busy.db"))
    compare = checking._Check._compare_small

    def while_work_goes_on(self: checking._Check) -> None:
        take(journal, source)
        settle(journal, [1, 2])
        compare(self)

    monkeypatch.setattr(checking._Check, "_compare_small", while_work_goes_on)
    assert maintenance.check(journal.path) == []
    assert journal.statistics().head_seq > 7
