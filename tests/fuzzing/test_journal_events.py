"""The journal's decoders: any event is read with its meaning or refused as a JournalError, by every reader."""

from __future__ import annotations

import json
import sqlite3
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.rendering import event_json, event_line
from journal.errors import JournalCorrupt, JournalError
from journal.events import CHAIN_START, decode, encode, link
from journal.log import Journal
from journal.maintenance import check, rebuild
from journal.reader import Reader
from journal.schema import GUARDS
from tests.fuzzing.hostile import FUZZED, JSON, mutated
from tests.rendering.stories import CREATED_US, eventful_journal

NOW_US = CREATED_US + 3_600_000_000


@cache
def eventful() -> tuple[bytes, tuple[tuple, ...]]:
    """A sound journal with every kind of event, and its events."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal.db"
        eventful_journal(path).close()
        with closing(sqlite3.connect(path)) as connection:
            rows = connection.execute("SELECT seq, ts, kind, version, source, data FROM event ORDER BY seq")
            return path.read_bytes(), tuple(rows.fetchall())


def forged(path: Path, seq: int, text: str) -> None:
    """Write the journal with event `seq` saying `text`, its chain whole, as one who can write the file may."""
    content, events = eventful()
    path.write_bytes(content)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for name in GUARDS:
            connection.execute(f"DROP TRIGGER {name}")
        chain = CHAIN_START
        connection.execute("BEGIN")
        for number, ts, kind, version, source, recorded in events:
            data = text if number == seq else recorded
            chain = link(chain, number, ts, kind, version, source, data)
            connection.execute("UPDATE event SET data = ?, chain = ? WHERE seq = ?", (data, chain, number))
        connection.execute("COMMIT")
        for trigger in GUARDS.values():
            connection.execute(trigger)


def put_into(tree: object, at: int, value: object) -> object:
    """`tree` with the node that comes `at` in order replaced."""
    left = at

    def walk(node: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            left = 1 << 30
            return value
        if isinstance(node, dict):
            return {name: walk(one) for name, one in node.items()}
        return [walk(one) for one in node] if isinstance(node, list) else node

    return walk(tree)


@st.composite
def forgeries(draw) -> tuple[int, str]:
    """An event's seq, and data that nearly fits it."""
    number, *_, recorded = draw(st.sampled_from(eventful()[1]))
    if draw(st.integers(0, 4)) == 0:
        return number, draw(mutated(recorded.encode())).decode("utf-8", "replace")
    tree = put_into(
        json.loads(recorded), draw(st.integers(0, 8)), draw(JSON | st.sampled_from([2**63, -1, 10**400]))
    )
    return number, json.dumps(tree)


def read_in_every_way(path: Path) -> list[str]:
    """Read all there is to read; what `events` shows."""
    with Reader.open(path) as reader:
        lines = []
        for event in reader.events():
            lines.append(event_line(event, names={}))
            json.dumps(event_json(event, names={}))
        reader.status(now_us=NOW_US)
        reader.resumption()
        reader.attempts()
        for _, row_key, _ in reader.row_keys():
            reader.explain(row_key)
        reader.objects()
        return lines


def opened(path: Path) -> None:
    Journal.open(path, now_us=NOW_US, wait_seconds=0).close()


def refused(act: Callable[[Path], object], path: Path) -> str:
    """What a reader says of a journal that it refuses; any other exception is the test's failure."""
    try:
        act(path)
    except JournalError as error:
        return error.problem
    return ""


@settings(FUZZED, max_examples=FUZZED.max_examples // 4)
@given(forgeries())
def test_any_event_is_shown_in_printable_lines_or_refused(forgery: tuple[int, str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal.db"
        forged(path, *forgery)
        try:
            lines = read_in_every_way(path)
        except JournalError:
            return
        assert not [line for line in lines if not line.isprintable()]


@settings(FUZZED, max_examples=FUZZED.max_examples // 4)
@given(forgeries())
def test_any_event_is_folded_or_refused_and_a_check_never_raises(forgery: tuple[int, str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal.db"
        forged(path, *forgery)
        found = check(path)
        assert all(problem and len(problem) < 2000 for problem in found)
        refused(opened, path)
        if not refused(rebuild, path):
            refused(read_in_every_way, path)
            assert not refused(opened, path)


@FUZZED
@given(
    st.one_of(
        st.text(), JSON.map(json.dumps), st.sampled_from(["[" * 100_000, "9" * 5000, '{"a":' * 5000, "NaN"])
    )
)
def test_any_text_is_data_or_corrupt(text: str) -> None:
    try:
        found = decode(7, text)
    except JournalCorrupt as error:
        assert "event 7" in error.problem  # noqa: PT017
    else:
        assert encode(found) is not None


@pytest.mark.parametrize(
    ("seq_kind", "old", "new"),
    [
        ("migration_created", '"order":"newest-first"', '"order":null'),
        ("migration_created", '"name":"layer-cache"', '"name":9223372036854775808'),
        ("migration_created", '"name":"layer-cache"', '"name":[]'),
        ("finding_recorded", '"findings":[', '"findings":[7,'),
    ],
)
def test_what_broke_a_reader_once_is_refused(seq_kind: str, old: str, new: str, tmp_path: Path) -> None:
    seq, text = next((row[0], row[5]) for row in eventful()[1] if row[2] == seq_kind)
    assert old in text
    path = tmp_path / "journal.db"
    forged(path, seq, text.replace(old, new))
    check(path)
    assert refused(rebuild, path) or refused(read_in_every_way, path)


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "9" * 5000, "NaN", '{"a":-Infinity}', '"\\ud800"'], ids=lambda text: text[:9]
)
def test_what_no_writer_writes_is_corrupt(text: str) -> None:
    with pytest.raises(JournalCorrupt, match="event 7"):
        decode(7, text)
