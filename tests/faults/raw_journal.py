"""The journal as a second opinion reads it: raw events and plan rows, folded here anew, nothing imported."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple


class Planned(NamedTuple):
    source: str
    row_key: str
    created_at: int | None
    size: int


class Outcome(NamedTuple):
    code: str
    size: int
    md5: str


@dataclass
class Ledger:
    """Where every planned key stands, by ordinal.

    Attributes:
        claims: how often each key was claimed.
        attempts: how often an attempt of each key is on record as failed.
        dying: the keys that each recovery found in flight, death by death.
    """

    plan: dict[int, Planned] = field(default_factory=dict)
    outcomes: dict[int, Outcome] = field(default_factory=dict)
    in_flight: set[int] = field(default_factory=set)
    waiting: set[int] = field(default_factory=set)
    parked: dict[int, str] = field(default_factory=dict)
    claims: Counter[int] = field(default_factory=Counter)
    attempts: Counter[int] = field(default_factory=Counter)
    sealed: set[str] = field(default_factory=set)
    open_passes: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    sources: dict[int, str] = field(default_factory=dict)
    events: list[tuple[int, int, str, int | None, Any]] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[tuple[int, Any]]:
        """Time (microseconds) and data of each event of `kind`."""
        return [(ts, data) for _, ts, event_kind, _, data in self.events if event_kind == kind]

    def stored(self) -> dict[int, Outcome]:
        """The keys whose object must be in the bucket."""
        return {ordinal: outcome for ordinal, outcome in self.outcomes.items() if outcome.code in "SRP"}


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)


def count_of(path: Path, kind: str, *, after_seq: int = 0) -> int:
    """How many events of `kind` there are; 0 while there is no journal to read."""
    if not path.exists():
        return 0
    try:
        with closing(_connect(path)) as connection:
            row = connection.execute(
                "select count(*) from event where kind = ? and seq > ?", (kind, after_seq)
            ).fetchone()
    except sqlite3.OperationalError:  # being created this very moment
        return 0
    return int(row[0])


def head_of(path: Path) -> int:
    """The newest event's number; 0 while there is no journal."""
    if not path.exists():
        return 0
    with closing(_connect(path)) as connection:
        return int(connection.execute("select coalesce(max(seq), 0) from event").fetchone()[0])


def settled_in(path: Path) -> int:
    """How many keys the journal says are settled."""
    if not path.exists():
        return 0
    try:
        with closing(_connect(path)) as connection:
            return int(connection.execute("select count(*) from outcome").fetchone()[0])
    except sqlite3.OperationalError:
        return 0


def read(path: Path) -> Ledger:
    """Fold the whole log, and see that the journal's own tables say the same."""
    with closing(_connect(path)) as connection:
        connection.execute("begin")
        events = connection.execute("select seq, ts, kind, source, data from event order by seq").fetchall()
        rows = connection.execute(
            "select ordinal, row_key, created_at, size from plan order by ordinal"
        ).fetchall()
        outcomes = connection.execute("select count(*) from outcome").fetchone()[0]
        claimed = connection.execute("select coalesce(sum(left), 0) from claim").fetchone()[0]
        stragglers = Counter(dict(connection.execute("select state, count(*) from straggler group by state")))
    assert [event[0] for event in events] == list(range(1, len(events) + 1)), "the log has gaps"
    assert [row[0] for row in rows] == list(range(1, len(rows) + 1)), "the plan has gaps"
    ledger = Ledger()
    for seq, ts, kind, source, text in events:
        data = json.loads(text)
        ledger.events.append((seq, ts, kind, source, data))
        _fold(ledger, kind, source, data, rows)
    assert len(ledger.plan) == len(rows), "plan rows without a chunk event"
    assert outcomes == len(ledger.outcomes)
    assert claimed + stragglers["claimed"] == len(ledger.in_flight)
    assert stragglers["waiting"] == len(ledger.waiting)
    assert stragglers["parked"] == len(ledger.parked)
    return ledger


def _fold(ledger: Ledger, kind: str, source: int | None, data: Any, rows: list[Any]) -> None:
    name = ledger.sources.get(source or 0, "")
    match kind:
        case "source_added":
            ledger.sources[source or 0] = data["name"]
        case "pass_begun":
            ledger.open_passes.add(name)
        case "chunk_sealed":
            for ordinal, row_key, created_at, size in rows[data["lo"] - 1 : data["lo"] - 1 + data["n"]]:
                ledger.plan[ordinal] = Planned(name, row_key, created_at, size)
        case "segment_sealed":
            ledger.open_passes.remove(name)
            ledger.sealed.add(name)
        case "pass_abandoned":
            ledger.open_passes.remove(name)
        case "source_closed":
            ledger.closed.add(name)
        case "keys_claimed":
            fresh = set(range(data["lo"], data["hi"] + 1))
            assert not fresh & (ledger.in_flight | ledger.waiting | set(ledger.parked) | set(ledger.outcomes))
            assert all(ledger.plan[ordinal].source == name for ordinal in fresh)
            ledger.in_flight |= fresh
            ledger.claims.update(fresh)
        case "keys_reclaimed":
            again = set(data["ordinals"])
            assert again <= ledger.waiting
            ledger.waiting -= again
            ledger.in_flight |= again
            ledger.claims.update(again)
        case "outcomes_recorded":
            for ordinal, code, size, md5, *_ in data:
                ledger.in_flight.remove(ordinal)
                assert ordinal not in ledger.outcomes
                ledger.outcomes[ordinal] = Outcome(code, size, md5)
        case "attempt_failed":
            ledger.attempts[data["ordinal"]] += 1
        case "key_parked":
            ledger.in_flight.remove(data["ordinal"])
            ledger.parked[data["ordinal"]] = data["failure"]
        case "keys_recovered" | "keys_released":
            ledger.in_flight -= set(data["ordinals"])
            ledger.waiting |= set(data["ordinals"])
        case "keys_requeued":
            for ordinal in data["ordinals"]:
                del ledger.parked[ordinal]
            ledger.waiting |= set(data["ordinals"])
