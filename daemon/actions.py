"""What an operator does to a migration, put on record: alike whether the daemon or the command itself writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.control_protocol import Action
from daemon.errors import ConfigError
from daemon.rendering_units import moment
from daemon.retrying import FailureClass
from daemon.tunables import NAMES, as_set, merged, parse
from journal.lifecycle import UNDONE

if TYPE_CHECKING:
    from daemon.control_protocol import Request
    from journal.log import Journal

NARROWING_SHOWN_MAX = 5
"""Options that a message repeats: one line, also of a requeue of a thousand keys."""


def record(journal: Journal, request: Request, *, who: str, now_us: int, running: bool) -> str:
    """Put a pause, resume, set or requeue on record; return what to tell the operator, in one line.

    Args:
        journal: open for writing.
        request: its action is one of these four.
        who: for the record.
        now_us: microseconds since 1970-01-01 UTC.
        running: a session takes it up at once; else the next one does.

    Raises:
        ConfigError: with every problem of the request; nothing was recorded.
        JournalError: it could not be recorded.
    """
    if request.action is Action.PAUSE:
        return _pause(journal, who, now_us, running=running)
    if request.action is Action.RESUME:
        if not journal.resume(who=who, now_us=now_us):
            return "not paused; nothing changed"
        return "resumed" if running else "resumed; `backfillctl run` goes on"
    if request.action is Action.SET:
        return _set(journal, request.words, who, now_us, running=running)
    if request.action is Action.REQUEUE:
        return _requeue(journal, request, who, now_us, running=running)
    raise AssertionError(f"{request.action} is nothing to put on record")


def pause_words(journal: Journal) -> str:
    """Return "by alice (uid 1000) since 2026-01-14T15:30:45Z" of the pause in force."""
    paused_by = journal.paused_by
    if paused_by is None:
        raise AssertionError("no pause is in force")
    return f"by {paused_by[0]} since {moment(paused_by[1])}"


def _pause(journal: Journal, who: str, now_us: int, *, running: bool) -> str:
    if not journal.pause(who=who, now_us=now_us):
        return f"paused already, {pause_words(journal)}; nothing changed"
    after = "what is in flight is being ended" if running else "the next `backfillctl run` begins nothing"
    return f"paused: {after}; `backfillctl resume` ends the pause"


def _set(journal: Journal, words: tuple[str, ...], who: str, now_us: int, *, running: bool) -> str:
    changes = parse(words)
    overrides = merged(journal.overrides, changes)
    journal.set_tunables(changes, overrides, who=who, now_us=now_us)
    when = "from now on" if running else "from the next `backfillctl run` on"
    if not overrides:
        return f"set: {when} everything as configured"
    configured = ", ".join(name.replace("_", "-") for name in NAMES if name not in overrides)
    rest = f"; as configured: {configured}" if configured else ""
    return f"set: {when} {', '.join(as_set(overrides))}{rest}"


def _requeue(journal: Journal, request: Request, who: str, now_us: int, *, running: bool) -> str:
    problems = [*_unknown_class(request.failure), *_unknown_source(journal, request.source)]
    if problems:
        raise ConfigError(problems)
    number = journal.requeue(
        source=None if request.source is None else journal.sources[request.source].id,
        row_keys=list(request.keys) or None,
        failure=request.failure,
        who=who,
        now_us=now_us,
    )
    if number:
        keys, them = ("key", "it") if number == 1 else ("keys", "them")
        return f"{number} {keys} requeued; the {'running' if running else 'next'} `backfillctl run` drives {them} again"
    narrowing = _narrowing(request)
    if not narrowing:
        return "nothing requeued: no key is parked"
    raise ConfigError(
        [f"requeue: no parked key matches {narrowing}; nothing requeued"],
        "`backfillctl status` lists what is parked and why, `backfillctl explain KEY` tells a key's state",
    )


def _narrowing(request: Request) -> str:
    options = [
        ("--source", request.source),
        *(("--key", key) for key in request.keys),
        ("--failure", request.failure),
    ]
    given = [f'{option} "{value}"' for option, value in options if value is not None]
    shown = ", ".join(given[:NARROWING_SHOWN_MAX])
    return (
        f"{shown} and {len(given) - NARROWING_SHOWN_MAX} more" if len(given) > NARROWING_SHOWN_MAX else shown
    )


def _unknown_class(failure: str | None) -> list[str]:
    known = [*(kind.value for kind in FailureClass), UNDONE]
    if failure is None or failure in known:
        return []
    return [f'--failure: found "{failure}"; expected one of {", ".join(known)}']


def _unknown_source(journal: Journal, name: str | None) -> list[str]:
    if name is None or name in journal.sources:
        return []
    return [
        f'--source: found "{name}"; expected a source of this journal: {", ".join(journal.sources) or "none"}'
    ]
