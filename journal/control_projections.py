"""The fold of what operators and throttles do, and of where time goes; part of `Projector.apply`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from journal.events import Kind, StoredEvent

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable


def _latest_only(_connection: sqlite3.Connection, _event: StoredEvent) -> None:
    """Change no table: whether it is in force follows from table `latest`."""


def _throttle_ended(connection: sqlite3.Connection, event: StoredEvent) -> None:
    connection.execute(
        "INSERT INTO slow_down (cause, episodes, ms, seq) VALUES (?, 1, ?, ?)"
        " ON CONFLICT (cause) DO UPDATE SET episodes = episodes + 1, ms = ms + excluded.ms, seq = excluded.seq",
        (event.data["cause"], event.data["ms"], event.seq),
    )


def _progress_sampled(connection: sqlite3.Connection, event: StoredEvent) -> None:
    """Add up where time went, and copy each source's tally: the log itself says how far it was at that moment."""
    connection.executemany(
        "INSERT INTO spent (cause, ms) VALUES (?, ?) ON CONFLICT (cause) DO UPDATE SET ms = ms + excluded.ms",
        event.data["spent_ms"].items(),
    )
    connection.execute(
        "INSERT INTO sample (seq, source, ts, settled, settled_bytes, stored_bytes)"
        " SELECT ?, source, ?, stored + recovered + present + skipped + vanished, settled_bytes, stored_bytes"
        " FROM tally",
        (event.seq, event.ts_us),
    )


CONTROL_FOLDS: dict[str, Callable[[sqlite3.Connection, StoredEvent], None]] = {
    Kind.PAUSED: _latest_only,
    Kind.RESUMED: _latest_only,
    Kind.TUNABLES_SET: _latest_only,
    Kind.THROTTLE_BEGAN: _latest_only,
    Kind.THROTTLE_ENDED: _throttle_ended,
    Kind.PROGRESS_SAMPLED: _progress_sampled,
}
"""What folds each of these kinds of event."""
