"""What a migration's state means, and what to do next; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.causes import cause_words
from journal.lifecycle import UNDONE
from journal.status import MigrationState

if TYPE_CHECKING:
    from journal.status import MigrationStatus, SessionStatus

STALLED_SECONDS = 900.0
"""A session at work that settles nothing for so long is told to be stalled."""


def in_flight(status: MigrationStatus) -> int:
    """Return the keys of all sources that are claimed without an outcome."""
    return sum(source.counts.in_flight for source in status.sources)


def parked(status: MigrationStatus) -> int:
    """Return the parked keys of all sources."""
    return sum(source.counts.parked for source in status.sources)


def reason(status: MigrationStatus, now_us: int) -> str:  # noqa: PLR0911 -- one state, one reason
    """Return why the migration is in its state, on one line; empty where the state says it all."""
    session = status.session
    if status.state is MigrationState.KILLED:
        gone = "the last session's process is gone without a word"
        if status.owner is None:
            return gone
        return f"{gone}; {units.shown(str(status.owner))} holds the journal and has begun no session yet"
    if status.state is MigrationState.COMPLETE:
        return "every planned key is settled"
    if status.state is MigrationState.HALTED and status.halt is not None:
        return units.shown(str(status.halt.data.get("message", "")))
    if session is None:
        return "no session yet"
    if session.ended_us is not None:
        return _end(status, session)
    if status.state is MigrationState.DRAINING:
        return "asked to stop: uploads under way may end, nothing new is claimed"
    if status.state is MigrationState.PAUSED:
        return "an operator's pause is in force: what is claimed ends, nothing new is begun"
    return _slowness(status, now_us) if status.state is MigrationState.RUNNING else ""


def _end(status: MigrationStatus, session: SessionStatus) -> str:
    """Return how the last session ended; where it had left none, what operators have taken back or requeued since."""
    message = session.message or ""
    found = session.reason or ""
    told = units.shown(f"{found}: {message}" if message else found)
    if session.exit_code:
        return told
    waiting = sum(source.counts.pending for source in status.sources)
    taken_away = undone(status)
    if waiting:
        told += f"; now {units.plural(waiting, 'key waits', 'keys wait')} to be driven again"
    if taken_away:
        told += f"; {units.plural(taken_away, 'key')} undone since"
    return told


def _slowness(status: MigrationStatus, now_us: int) -> str:
    """Return what keeps a session that works from being faster; empty where nothing is known to."""
    silent = (now_us - status.last_event_us) / 1e6
    if silent >= STALLED_SECONDS:
        return f"nothing was recorded for {units.duration(silent)}; the daemon's log says what it waits for"
    if status.throttle is not None:
        return f"slowed down by {units.shown(cause_words(str(status.throttle.data['cause'])))}"
    moved_us = max(
        [one.last_outcome_us for one in status.sources if one.last_outcome_us is not None],
        default=status.last_event_us,
    )
    idle = (now_us - moved_us) / 1e6
    if idle >= STALLED_SECONDS:
        return f"no key was settled for {units.duration(idle)}; the daemon's log says what it waits for"
    return ""


def undone(status: MigrationStatus) -> int:
    """Return the keys of all sources whose object `undo` took away, or means to."""
    return sum(group.count for source in status.sources for group in source.parked if group.failure == UNDONE)


def next_steps(status: MigrationStatus) -> list[str]:
    """Return what the operator should do now, in this order; empty where nothing is to be done."""
    if status.state is MigrationState.COMPLETE:
        return _after_completion(status)
    if status.owner is not None:
        return [*_requeueing(status, " once this session has ended"), *_resuming(status)]
    steps = _requeueing(status, "")
    if status.session is None:
        steps.append("`backfillctl plan` counts what there is to do, `backfillctl run` does it")
    elif status.state is MigrationState.KILLED:
        flying = in_flight(status)
        again = f"; {units.plural(flying, 'key')} in flight will be driven again first" if flying else ""
        steps.append(f"`backfillctl run` resumes{again}")
    elif status.state is MigrationState.HALTED:
        steps.append("mend what halted it, then `backfillctl run` resumes")
    else:
        steps.append("`backfillctl run` resumes")
    return [*steps, *_resuming(status)]


def _requeueing(status: MigrationStatus, when: str) -> list[str]:
    """Return what to do about parked keys; those that were undone are no trouble, and nobody's mistake to mend."""
    taken_away = undone(status)
    trouble = parked(status) - taken_away
    steps = []
    if trouble:
        which = "--failure CLASS" if taken_away else "--all"
        then = (
            f", and `backfillctl requeue {which}`{when}" if when else f", then `backfillctl requeue {which}`"
        )
        why = f"{units.plural(trouble, 'key')} parked: `backfillctl explain KEY` tells why; mend the cause"
        steps.append(why + then)
    if taken_away:
        steps.append(
            f"{units.plural(taken_away, 'key')} undone: `backfillctl requeue --failure undone`{when} and"
            " `backfillctl run` copy them again"
        )
    return steps


def _resuming(status: MigrationStatus) -> list[str]:
    return ["`backfillctl resume` ends the pause"] if status.pause is not None else []


def _after_completion(status: MigrationStatus) -> list[str]:
    """A tier that found a mismatch is told of until it has found none, whatever other tiers said since."""
    since = [one for one in status.verifications if one.ts_us >= (status.completed_us or 0)]
    if not since:
        return ["`backfillctl verify` compares the bucket with the journal"]
    if any(one.data.get("exit_code") for one in since):
        return [
            "`backfillctl events --kind finding_recorded` names what is wrong",
            "for objects and changed rows: `backfillctl verify --repair`, then `run`; for new rows: `plan --reconcile`, `run`",
        ]
    return []
