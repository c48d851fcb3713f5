"""Where a session's time goes: the closed list of causes, and which one limits it at a moment; pure."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Cause(StrEnum):
    """What a session waits for or works at; the strings are part of the journal's format."""

    NETWORK = "network"
    SOURCE = "source"
    PLANNING = "planning"
    CLOSING = "closing"
    S3_SLOW_DOWN = "s3_slow_down"
    UNREACHABLE = "unreachable"
    BYTE_BUDGET = "byte_budget"
    RATE_LIMIT = "rate_limit"
    TIMETABLE = "timetable"
    REPLICA_LAG = "replica_lag"
    ACTIVE_SESSIONS = "active_sessions"
    QUERY = "query"
    HIBERNATION = "hibernation"
    DISK_RESERVE = "disk_reserve"
    OPERATOR = "operator"
    OTHER = "other"


WORDS: dict[Cause, str] = {
    Cause.NETWORK: "network and S3",
    Cause.SOURCE: "source",
    Cause.PLANNING: "planning",
    Cause.CLOSING: "closing",
    Cause.S3_SLOW_DOWN: "S3 503",
    Cause.UNREACHABLE: "no answer from S3",
    Cause.BYTE_BUDGET: "byte budget",
    Cause.RATE_LIMIT: "rate limit",
    Cause.TIMETABLE: "timetable",
    Cause.REPLICA_LAG: "replica lag",
    Cause.ACTIVE_SESSIONS: "active sessions",
    Cause.QUERY: "throttle query",
    Cause.HIBERNATION: "hibernation",
    Cause.DISK_RESERVE: "disk reserve",
    Cause.OPERATOR: "operator",
    Cause.OTHER: "other",
}
"""What people read for each cause."""


def cause_words(cause: str) -> str:
    """Return what people read for a cause of the journal; one of a later program is shown as it is stored."""
    return WORDS[Cause(cause)] if cause in set(Cause) else cause


def change_words(cause: str, cuts: int) -> str:
    """Return why the number of uploads at once changed: "halved 3 times, last by S3 503", "grew"; for people."""
    if not cuts:
        return cause
    return f"halved{f' {cuts} times, last' if cuts > 1 else ''} by {cause_words(cause)}"


AT_WORK: frozenset[Cause] = frozenset(
    {Cause.NETWORK, Cause.SOURCE, Cause.PLANNING, Cause.CLOSING, Cause.OTHER}
)
"""Causes that are the work itself; every other one is a slow-down, and its episodes are on record."""

HOLDS: tuple[Cause, ...] = (
    Cause.DISK_RESERVE,
    Cause.HIBERNATION,
    Cause.REPLICA_LAG,
    Cause.ACTIVE_SESSIONS,
    Cause.QUERY,
)
"""Causes that let nothing new begin, the one to be named first where several hold."""


def limiting(  # noqa: PLR0911 -- a decision table reads best as one
    doing: Mapping[Cause, int], *, concurrency: int, held: Cause | None, paused: bool
) -> Cause:
    """Return the one cause that limits a session at this moment.

    Args:
        doing: how many tasks are at each cause now; uploads under way count as NETWORK, fetches as SOURCE.
        concurrency: uploads that may be under way at once.
        held: the throttle in force.
        paused: an operator's pause is.
    """
    uploading = doing.get(Cause.NETWORK, 0)
    if paused and not uploading:
        return Cause.OPERATOR
    if held is not None:
        return held
    for deliberate in (Cause.TIMETABLE, Cause.RATE_LIMIT):
        if doing.get(deliberate, 0):
            return deliberate
    trouble = max((Cause.S3_SLOW_DOWN, Cause.UNREACHABLE), key=lambda cause: doing.get(cause, 0))
    if doing.get(trouble, 0) > uploading:
        return trouble
    if uploading >= concurrency:
        return Cause.NETWORK
    for waited_for in (Cause.BYTE_BUDGET, Cause.PLANNING, Cause.CLOSING):
        if doing.get(waited_for, 0):
            return waited_for
    if doing.get(Cause.SOURCE, 0) and 2 * uploading < concurrency:
        return Cause.SOURCE
    return Cause.NETWORK if uploading else Cause.OTHER
