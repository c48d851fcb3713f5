"""What the next session would find to do, and which events say so: read from the projections, changed by nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from journal.events import Kind
from journal.histories import claim_of_frontier
from journal.lifecycle import RECOVERIES_MAX
from journal.status import migration_status

if TYPE_CHECKING:
    import sqlite3

    from journal.lock import Owner
    from journal.status import MigrationStatus, SourceStatus

_UNCLAIMED = (
    "SELECT (SELECT sum(hi + 1 - frontier) FROM segment WHERE source = :source AND state {0} 'open'),"
    " count(*), min(c.seq), max(c.seq) FROM segment g JOIN chunk c ON c.segment = g.id"
    " WHERE g.source = :source AND g.state {0} 'open' AND c.hi >= g.frontier"
)
"""Keys beyond the frontier of sealed or abandoned passes ("<>"), or of the open one ("="), and their chunks."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Keys, and the events that say so.

    Attributes:
        keys: how many.
        events: how many events say so; with `first_seq` and `last_seq` the oldest and the newest of them.
    """

    keys: int
    events: int
    first_seq: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class SourceResumption:
    """What is left to do of one source.

    Attributes:
        status: where it stands.
        in_flight: keys claimed without an outcome: a resume takes them back and drives them first; by claims.
        dying: those of them that a resume parks, since they outlived RECOVERIES_MAX dead sessions.
        waiting: keys to be driven before the frontier moves, by the kind of event that put them there.
        alone: those of them that would be driven one at a time.
        parked: keys that stay as they are until they are requeued, by what they are parked for.
        unclaimed: keys of sealed passes that no session has begun; its events are the chunks of the plan.
        claimed_seq: the event up to which the frontier has come; None where it has not moved.
        half_sealed: keys planned by a pass that is not sealed, claimable once it is, or is given up.
        open_pass: number, kind and event of the pass that would be finished first.
        planned: whether a pass was ever sealed.
        closed_seq: the event that closed it; None where it is open.
        bytes_left: planned bytes of all keys without an outcome, parked ones included.
    """

    status: SourceStatus
    in_flight: Evidence | None
    dying: Evidence | None
    waiting: dict[str, Evidence]
    alone: int
    parked: dict[str, Evidence]
    unclaimed: Evidence | None
    claimed_seq: int | None
    half_sealed: Evidence | None
    open_pass: tuple[int, str, int] | None
    planned: bool
    closed_seq: int | None
    bytes_left: int

    @property
    def driven(self) -> int:
        """Keys that a resume would drive, whatever it finds out about rows that are planned later."""
        groups = [self.in_flight, self.unclaimed, self.half_sealed, *self.waiting.values()]
        dying = 0 if self.dying is None else self.dying.keys
        return sum(group.keys for group in groups if group is not None) - dying


@dataclass(frozen=True, slots=True)
class Resumption:
    """What the next session would find, at one event.

    Attributes:
        status: the migration, as `status` tells it at the same moment.
        paused_seq: the pause in force.
        completed_seq: every key was found settled by this event, and nothing was added since.
        settings_seq: the settings that the newest session to differ ran with.
    """

    status: MigrationStatus
    sources: tuple[SourceResumption, ...]
    paused_seq: int | None
    completed_seq: int | None
    settings_seq: int | None


def resumption(connection: sqlite3.Connection, owner: Owner | None) -> Resumption:
    """Return what the next session would find; within the caller's one transaction, projections up to the log's end."""
    status = migration_status(connection, owner)
    latest: dict[tuple[str, int], int] = {
        (kind, source): seq
        for kind, source, seq in connection.execute("SELECT kind, source, seq FROM latest")
    }
    (completed_seq,) = connection.execute("SELECT completed_seq FROM progress").fetchone()
    return Resumption(
        status=status,
        sources=tuple(_source(connection, source, latest) for source in status.sources),
        paused_seq=None if status.pause is None else latest[Kind.PAUSED.value, 0],
        completed_seq=completed_seq,
        settings_seq=latest.get((Kind.SETTINGS_CHANGED.value, 0)),
    )


def _source(
    connection: sqlite3.Connection, source: SourceStatus, latest: dict[tuple[str, int], int]
) -> SourceResumption:
    claims = _evidence(
        connection,
        "SELECT sum(left), count(*), min(seq), max(seq) FROM claim WHERE source = :source",
        source.id,
    )
    claimed = _stragglers(connection, source.id, "claimed", "1")
    dying = _stragglers(connection, source.id, "claimed", "1", recoveries=RECOVERIES_MAX)
    alone = _stragglers(connection, source.id, "waiting", "1", recoveries=RECOVERIES_MAX)
    opened = next(
        (passed for passed in reversed(source.passes) if passed.state == "open"),
        None,
    )
    return SourceResumption(
        status=source,
        in_flight=_together(claims, claimed.get("1")),
        dying=dying.get("1"),
        waiting=_stragglers(connection, source.id, "waiting", "e.kind"),
        alone=sum(group.keys for group in alone.values()),
        parked=_stragglers(connection, source.id, "parked", "coalesce(s.failure, '')"),
        unclaimed=_evidence(connection, _UNCLAIMED.format("<>"), source.id),
        claimed_seq=_claimed_seq(connection, source.id),
        half_sealed=_evidence(connection, _UNCLAIMED.format("="), source.id),
        open_pass=None
        if opened is None
        else (opened.number, opened.kind, latest[Kind.PASS_BEGUN.value, source.id]),
        planned=any(passed.state == "sealed" for passed in source.passes),
        closed_seq=latest.get((Kind.SOURCE_CLOSED.value, source.id)) if source.closed else None,
        bytes_left=source.counts.planned_bytes - source.counts.settled_bytes,
    )


def _evidence(connection: sqlite3.Connection, query: str, source: int) -> Evidence | None:
    keys, events, first_seq, last_seq = connection.execute(query, {"source": source}).fetchone()
    return Evidence(keys, events, first_seq, last_seq) if keys else None


def _stragglers(
    connection: sqlite3.Connection, source: int, state: str, grouping: str, *, recoveries: int = 0
) -> dict[str, Evidence]:
    """Return keys off the frontier by an expression over their row `s` and its newest event `e`."""
    return {
        str(group): Evidence(keys, events, first_seq, last_seq)
        for group, keys, events, first_seq, last_seq in connection.execute(
            f"SELECT {grouping}, count(*), count(DISTINCT s.seq), min(s.seq), max(s.seq) FROM straggler s"  # noqa: S608 -- our own expressions
            " JOIN event e ON e.seq = s.seq WHERE s.source = ? AND s.state = ? AND s.recoveries >= ?"
            " GROUP BY 1 ORDER BY 2 DESC, 1",
            (source, state, recoveries),
        )
    }


def _together(first: Evidence | None, second: Evidence | None) -> Evidence | None:
    if first is None or second is None:
        return first or second
    return Evidence(
        first.keys + second.keys,
        first.events + second.events,
        min(first.first_seq, second.first_seq),
        max(first.last_seq, second.last_seq),
    )


def _claimed_seq(connection: sqlite3.Connection, source: int) -> int | None:
    """Return the newest event by which the frontier of a source moved, of the segment where it stands."""
    row = connection.execute(
        "SELECT frontier - 1 FROM segment WHERE source = ? AND lo IS NOT NULL AND frontier > lo"
        " ORDER BY id DESC LIMIT 1",
        (source,),
    ).fetchone()
    return None if row is None else claim_of_frontier(connection, row[0])
