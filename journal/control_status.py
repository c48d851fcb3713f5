"""Where time went and how far each source was when, as a status has it: frozen values, and the queries for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3

SAMPLES_SHOWN_MAX = 80
"""Newest samples of each source in a status: 20 minutes at one in 15 s, for rates over 15."""


@dataclass(frozen=True, slots=True)
class SlowDown:
    """What one deliberate cause cost so far: how many times, milliseconds in all, and the end of the newest."""

    cause: str
    episodes: int
    ms: int
    last_us: int
    last_detail: str


@dataclass(frozen=True, slots=True)
class Sample:
    """How far one source was at one moment.

    Attributes:
        settled_bytes, stored_bytes: as planned; as uploaded.
        spent_ms: where the time since the sample before went, by cause; the same for every source of a moment.
    """

    ts_us: int
    source: int
    settled: int
    settled_bytes: int
    stored_bytes: int
    spent_ms: dict[str, int]


def spent_ms(connection: sqlite3.Connection) -> dict[str, int]:
    """Return the milliseconds of all sessions by cause, the costliest first."""
    return dict(connection.execute("SELECT cause, ms FROM spent ORDER BY ms DESC, cause"))


def slow_downs(connection: sqlite3.Connection) -> tuple[SlowDown, ...]:
    """Return what each deliberate cause cost, the costliest first."""
    return tuple(
        SlowDown(cause, episodes, ms, ts_us, str(json.loads(text)["detail"]))
        for cause, episodes, ms, ts_us, text in connection.execute(
            "SELECT s.cause, s.episodes, s.ms, e.ts, e.data FROM slow_down s JOIN event e ON e.seq = s.seq"
            " ORDER BY s.ms DESC, s.cause"
        )
    )


def samples(connection: sqlite3.Connection, *, sources: int) -> tuple[Sample, ...]:
    """Return the newest samples of `sources` sources, oldest first, SAMPLES_SHOWN_MAX of each at most."""
    newest = _samples(connection, "ORDER BY seq DESC, source DESC LIMIT ?", SAMPLES_SHOWN_MAX * sources)
    return tuple(reversed(newest))


def first_samples(connection: sqlite3.Connection) -> tuple[Sample, ...]:
    """Return the samples of the first moment that any was taken at: what was settled before it."""
    return tuple(_samples(connection, "WHERE seq = (SELECT min(seq) FROM sample) ORDER BY source"))


def _samples(connection: sqlite3.Connection, which: str, *values: int) -> list[Sample]:
    spent: dict[int, dict[str, int]] = {}
    found = []
    for seq, ts_us, source, settled, settled_bytes, stored_bytes in connection.execute(
        f"SELECT seq, ts, source, settled, settled_bytes, stored_bytes FROM sample {which}",  # noqa: S608 -- our own clauses
        values,
    ).fetchall():
        if seq not in spent:
            (text,) = connection.execute("SELECT data FROM event WHERE seq = ?", (seq,)).fetchone()
            spent[seq] = json.loads(text)["spent_ms"]
        found.append(Sample(ts_us, source, settled, settled_bytes, stored_bytes, spent[seq]))
    return found
