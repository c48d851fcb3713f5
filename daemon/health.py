"""Take the readings that throttling goes by: replica lag, sessions at work, a query of the operator's."""

# ruff: noqa: S608 -- `throttle.query` is the operator's own SQL, as `where` is

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import trio

from daemon.causes import Cause
from daemon.errors import BackfillError, ConfigError, RefusedError
from daemon.retrying import Failure
from daemon.throttling import Reading, rules_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from daemon.catalogue import FirstServer
    from daemon.config import ThrottleConfig
    from daemon.describing import Session

OPERATION = "MEASURE"
ROLE = "SELECT pg_is_in_recovery(), pg_has_role('pg_read_all_stats', 'USAGE'), current_user::text"

STANDBY_LAG = """
SELECT (pg_last_wal_receive_lsn() - '0/0'::pg_lsn)::bigint, (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint,
       extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float8"""
PRIMARY_LAG = """
SELECT coalesce(max(extract(epoch FROM replay_lag)), 0)::float8, count(*)::int FROM pg_stat_replication
WHERE replay_lsn IS NOT NULL"""
"""A lag of NULL is a standby that has replayed everything (PostgreSQL manual, pg_stat_replication).

What only receives, such as pg_receivewal, never replays, and its lag grows for ever.
"""
ACTIVE_SESSIONS = """
SELECT count(*)::float8 FROM pg_stat_activity
WHERE backend_type = 'client backend' AND state IN ('active', 'fastpath function call', 'disabled')
  AND pid <> pg_backend_pid() AND pid <> ALL ($1::int[])"""
"""A session with track_activities off may be at work, so it counts."""

QUERY_HINT = "correct throttle.query: one row, one number, tables named with their schema, no semicolon"
NUMBER_HINT = "select one number; extract(epoch FROM …) makes one of an interval"


@dataclass(frozen=True, slots=True)
class Health:
    """What one round of readings gave.

    Attributes:
        readings: by cause, one for each that the configuration asks for.
        silence: why the server gave none of them, it could not be reached; empty where it answered.
    """

    readings: Mapping[Cause, Reading]
    silence: str = ""


@dataclass(slots=True)
class ReplayMark:
    """How far a standby had received at an earlier reading: once it has replayed that, its lag is younger.

    The age of the last replayed transaction alone would call a standby of an idle primary late, whenever a reading
    falls between the arrival and the replay of a record that is no transaction's.

    Attributes:
        received: a position in the WAL, bytes; None before the first reading.
        at: when that reading was taken, monotonic seconds.
    """

    received: int | None = None
    at: float = 0.0

    def lag(
        self, received: int | None, replayed: int | None, age: float | None, *, now: float
    ) -> float | None:
        """Return the lag in seconds, None where nothing tells it, and remember this reading.

        Args:
            received: position in the WAL; None where it comes from an archive.
            replayed: likewise.
            age: seconds since the last replayed transaction committed; None if there was none.
            now: monotonic seconds.
        """
        if received is None or replayed is None:
            return age
        if replayed >= received:
            youngest = 0.0
        elif self.received is not None and replayed >= self.received:
            youngest = now - self.at
        else:
            if self.received is None:
                self.received, self.at = received, now
            return age
        self.received, self.at = received, now
        return youngest if age is None else max(0.0, min(youngest, age))


async def measure(
    session: Session,
    throttle: ThrottleConfig,
    *,
    ours: Sequence[int],
    first_server: FirstServer,
    replay: ReplayMark,
) -> Health:
    """Take every reading that `throttle` asks for, one after the other.

    Args:
        session: where each statement has to be short.
        throttle: the configuration.
        ours: backend process ids that don't count as others at work.
        first_server: what the server has to be still.
        replay: kept between readings of one server.

    Raises:
        RefusedError: a new connection is refused or reached another server; the server was promoted.
    """
    rules = rules_of(throttle)
    try:
        ((in_recovery, sees_all, user),) = await session.fetch(ROLE, operation=OPERATION)
    except Failure as failure:
        unread = Reading(None, failure.message)
        silence = "" if failure.answered else failure.message
        return Health({rule.cause: unread for rule in rules}, silence)
    first_server.admit_role(session.where, in_recovery=in_recovery)
    blind = None if sees_all else user
    takers: dict[Cause, Callable[[], Awaitable[Reading]]] = {
        Cause.REPLICA_LAG: lambda: _lag(session, blind, replay, in_recovery=in_recovery),
        Cause.ACTIVE_SESSIONS: lambda: _active_sessions(session, blind, ours),
        Cause.QUERY: lambda: _query(session, throttle.query or ""),
    }
    readings = {}
    for rule in rules:
        try:
            readings[rule.cause] = await takers[rule.cause]()
        except Failure as failure:
            readings[rule.cause] = Reading(None, failure.message)
    return Health(readings)


async def _lag(session: Session, blind: str | None, replay: ReplayMark, *, in_recovery: bool) -> Reading:
    if in_recovery:
        (positions,) = await session.fetch(STANDBY_LAG, operation=OPERATION)
        lag = replay.lag(*positions, now=trio.current_time())
        if lag is None:
            return Reading(None, "this standby has replayed no transaction since it started")
        return Reading(max(0.0, lag))
    if blind is not None:
        return _unseen(Cause.REPLICA_LAG, blind)
    ((lag, standbys),) = await session.fetch(PRIMARY_LAG, operation=OPERATION)
    return Reading(max(0.0, lag), note="" if standbys else "no standby is connected")


async def _active_sessions(session: Session, blind: str | None, ours: Sequence[int]) -> Reading:
    if blind is not None:
        return _unseen(Cause.ACTIVE_SESSIONS, blind)
    return Reading(await session.value(ACTIVE_SESSIONS, list(ours), operation=OPERATION))


async def _query(session: Session, query: str) -> Reading:
    try:
        # Two rows tell one from many; the line breaks end a comment of the operator's.
        rows = await session.fetch(f"SELECT * FROM (\n{query}\n) AS reading LIMIT 2", operation=OPERATION)
    except RefusedError as error:
        refused = RefusedError(
            f"throttle.query: {error.problem}", "grant SELECT on what throttle.query reads"
        )
        return _wrong(refused)
    except BackfillError as error:
        return _wrong(ConfigError([f"throttle.query: {error.problem}"], QUERY_HINT))
    return _number(rows)


def _number(rows: Sequence[Sequence[Any]]) -> Reading:
    """Return the one number of a result, or what it is instead."""
    if len(rows) != 1:
        return Reading(None, "it returned more than one row" if rows else "it returned no row")
    if len(rows[0]) != 1:
        columns = f"throttle.query: it returned {len(rows[0])} columns; expected one"
        return _wrong(ConfigError([columns], QUERY_HINT))
    (value,) = rows[0]
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float | Decimal)):
        kind = f"throttle.query: it returned a value of type {type(value).__name__}; expected a number"
        return _wrong(ConfigError([kind], NUMBER_HINT))
    if value is None or math.isnan(value):
        return Reading(None, "it returned NULL" if value is None else "it returned NaN")
    return Reading(float(value))


def _unseen(cause: Cause, user: str) -> Reading:
    problem = f"throttle.{cause}: {user} lacks pg_read_all_stats, without which the server does not show it"
    hint = f"GRANT pg_read_all_stats TO {user}, or leave out throttle.{cause}"
    return _wrong(RefusedError(problem, hint))


def _wrong(error: BackfillError) -> Reading:
    return Reading(None, error.problem, error)
