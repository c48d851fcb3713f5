"""The closed list of what the log tells, under names that never change, and the one way to tell it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

Scalar: TypeAlias = str | int | float | bool | None

_LOG = logging.getLogger("daemon")


class LogEvent(Enum):
    """One kind of log line: the level it has, and what it means to who reads it.

    Attributes:
        level: of the standard library's.
        meaning: one clause, as README's table has it.
    """

    PROGRESS = (logging.INFO, "how far a source is, every `checkpoint_interval_secs`")
    SESSION_STARTED = (logging.INFO, "both ends have answered, the journal is open, work begins")
    SESSION_RECOVERED = (logging.WARNING, "the session before died with keys in flight; they go first")
    PASS_SEALED = (logging.INFO, "a planning pass is done: what it added to the plan")
    PASS_ABANDONED = (logging.WARNING, "a planning pass was given up; what it sealed stays planned")
    KEYS_UNUSABLE = (logging.WARNING, "planned rows whose keys can't name objects; they will be parked")
    RELATION_REWRITTEN = (logging.INFO, "a table was rewritten during its sweep, which begins again")
    SNAPSHOT_LOST = (logging.WARNING, "PostgreSQL ended a planning snapshot; another is taken")
    CLOSING_WAITS = (logging.INFO, "closing waits for late transactions, and for which")
    SOURCE_CLOSED = (logging.INFO, "planning of a source is complete, and why that is proven or not")
    NOT_ATOMIC = (logging.WARNING, "conditional PUTs can't be relied on in a bucket")
    CONTACT_FAILED = (logging.WARNING, "a first attempt to reach PostgreSQL or a bucket failed; tried again")
    JOURNAL_HELD = (logging.WARNING, "another process holds the journal; a service waits for it")
    THROTTLE_BEGAN = (logging.INFO, "something else than work takes the time, and what")
    THROTTLE_ENDED = (logging.INFO, "it does no more")
    FETCH_FAILED = (logging.WARNING, "reading rows by key failed; tried again, or in smaller batches")
    PROCESS_LOST = (logging.WARNING, "an upload process died; the keys it had in hand are driven again")
    KEY_PARKED = (logging.WARNING, "a key was given up until you requeue it, and why")
    REQUEST_FAILED = (
        logging.WARNING,
        "a request that looks at an object, lists or deletes failed; tried again",
    )
    VERIFICATION_TAKEN_UP = (logging.INFO, "a verification goes on that was interrupted")
    VERIFICATION_PROGRESSED = (logging.INFO, "how far a verification is")
    VERIFICATION_ESCALATED = (logging.WARNING, "a sample has a mismatch: every key is looked at")
    ATTESTING = (logging.INFO, "what `attest` looks at now")
    BUCKET_LISTED = (logging.INFO, "how much of a bucket's listing has arrived")
    UNDO_PROGRESS = (logging.INFO, "how many objects `undo` has deleted so far, or would delete")
    OBJECT_LEFT = (logging.WARNING, "an object of this migration's journal that `undo` leaves, and why")
    RESTORE_PROGRESS = (logging.INFO, "how many rows `restore` has written so far, or would write")
    ROW_LEFT = (logging.WARNING, "a row that `restore` could not write as it is on record, and why")
    SOURCE_UNPLANNED = (logging.WARNING, "`verify` leaves out a source that was never planned")
    METRICS_SERVED = (
        logging.INFO,
        "where status page and metrics are, and how long they outlive the session",
    )
    METRICS_EXPOSED = (logging.WARNING, "`metrics.address` can be reached from other machines")
    CONCURRENCY_CHANGED = (
        logging.INFO,
        "more or fewer uploads at once than before, and why: trouble, or the endpoint took more",
    )
    LINGERING = (logging.INFO, "the session has ended, and how; only status page and metrics are left")
    PROGRESS_UNREAD = (logging.WARNING, "the journal could not be read to show progress; tried again")
    DRAIN_REQUESTED = (logging.WARNING, "it was asked to stop: work in hand ends, nothing new begins")
    PAUSED = (logging.WARNING, "the session begins in a pause that outlived another, and whose it is")
    STEERED = (logging.WARNING, "an operator paused, resumed, set, requeued or drained, and who")
    CLIENT_LOST = (logging.INFO, "a client of the control socket went without its reply")
    CONTROL_FULL = (logging.WARNING, "the control socket can let nobody in for want of descriptors or memory")
    PART_FAILED = (
        logging.ERROR,
        "a part that only shows or steers failed by a defect or for want of memory; the migration goes on",
    )
    RELOADED = (logging.WARNING, "SIGHUP: the configuration was read anew, and what waits for a restart")
    RELOAD_REFUSED = (
        logging.ERROR,
        "SIGHUP: the configuration is wrong or another migration's; nothing changed",
    )
    CANCELLED = (logging.WARNING, "it was asked twice to stop: work in hand is cancelled")
    JOURNAL_DISCARDED = (logging.INFO, "nothing was planned, so the new journal is not kept")
    END_UNRECORDED = (logging.WARNING, "the journal could not take how the session ended")
    HOOK_RAN = (logging.INFO, "a hook was run and ended with 0; the beginning of what it said")
    HOOK_FAILED = (logging.WARNING, "a hook could not be started, failed or outlived its time")
    FAILED = (logging.ERROR, "an error that ended the command, with its hint")
    REPEATED = (logging.WARNING, "how many lines of one kind were left out, since too many came")
    UNHEARD = (logging.WARNING, "the service manager does not take what we tell it")
    LIBRARY = (logging.WARNING, "a warning of a library")
    ENDED = (logging.INFO, "always the last line: outcome, counts, bytes, duration, exit code")

    def __init__(self, level: int, meaning: str) -> None:
        self.level = level
        self.meaning = meaning

    @property
    def word(self) -> str:
        """The stable name, as JSON lines carry it."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Told:
    """What a log line tells beside its text.

    Attributes:
        source: the source it concerns; None if none or all.
        keys: every row or object key that the text or a field may quote, so that it can be redacted.
        fields: the numbers and names of the text once more, for programs.
    """

    event: LogEvent
    source: str | None = None
    keys: Collection[str] = ()
    fields: Mapping[str, Scalar] = field(default_factory=dict)


def tell(told: Told, text: str, *, level: int | None = None) -> None:
    """Tell `told` in one line of the log.

    Args:
        told: what programs are told.
        text: for people; complete by itself, source and fields included as far as people need them.
        level: instead of the event's own.
    """
    _LOG.log(told.event.level if level is None else level, "%s", text, extra={"told": told})


def log_event(
    event: LogEvent,
    text: str,
    /,
    *,
    source: str | None = None,
    keys: Collection[str] = (),
    **fields: Scalar,
) -> None:
    """Tell one event, its fields as keywords; arguments as in `Told` and `tell`."""
    tell(Told(event, source, keys, fields), text)


def tell_again(record: logging.LogRecord) -> None:
    """Tell what another process of this session has told."""
    logging.getLogger(record.name).handle(record)


def told_in(record: logging.LogRecord) -> Told:
    """Return what `record` tells; a library's record tells who spoke."""
    told = getattr(record, "told", None)
    return told if isinstance(told, Told) else Told(LogEvent.LIBRARY, fields={"logger": record.name})
