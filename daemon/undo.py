"""Take a migration's objects out of the bucket again, or say what that would do; nothing is copied meanwhile."""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import trio

from daemon.config import Config
from daemon.deleting import Deletion, DeletionPolicy, Record, UndoneSource
from daemon.drain import Drain, Governed
from daemon.ending import Ending
from daemon.endpoints import open_bucket
from daemon.errors import BackfillError, ConfigError, ExitCode
from daemon.layouts import layout_of
from daemon.migration import interrupted
from daemon.opening import open_existing, refuse_another_migration
from daemon.operators import operator
from daemon.recorder import Recorder
from daemon.rendering_undo import undo_text, undo_word
from daemon.requesting import RequestPolicy
from daemon.runtime import Runtime
from daemon.service import stoppable
from daemon.undoing import Scope, UndoTally, total_left
from journal import created_objects
from journal.created_objects import CreatedObject, CreatedPage
from journal.entries import migration_id
from journal.errors import JournalError
from journal.events import Kind
from journal.reader import Reader
from journal.status import MigrationStatus

PAGE = 1000
"""Objects read from the journal at once."""
OWNER_WAIT_SECONDS = 1.0
"""How long to wait for a daemon that is just ending; one that runs is named at once after that."""


@dataclass(frozen=True, slots=True)
class UndoOptions:
    """What the flags of `undo` decide.

    Attributes:
        sources: names; empty: all.
        row_keys: as `explain` shows them; empty: all.
        before_us: only objects whose outcome was recorded before; None: all.
        confirmed: delete; else only say what would be deleted.
    """

    sources: tuple[str, ...] = ()
    row_keys: tuple[str, ...] = ()
    before_us: int | None = None
    confirmed: bool = False


async def undo(config: Config, options: UndoOptions, ending: Ending) -> ExitCode:
    """Delete the objects that `options` mean, as far as they are provably this migration's; or only count them.

    Raises:
        ConfigError: an option names what the journal doesn't know.
        BackfillError, JournalError: what kept it from being done.
    """
    return await stoppable(
        functools.partial(_undo, config, options, ending), ending, grace_seconds=config.upload.drain_deadline
    )


async def _undo(
    config: Config, options: UndoOptions, ending: Ending, drain: Drain, starting: Governed
) -> ExitCode:
    runtime = Runtime()
    journal = None
    if options.confirmed:
        journal = await runtime.journal_runner(
            lambda: open_existing(config, now_us=runtime.now_us(), wait_seconds=OWNER_WAIT_SECONDS)
        )
    try:
        async with open_bucket(config, os.environ) as bucket:
            with Reader.open(config.migration.journal, undisturbing=not options.confirmed) as reader:
                status = reader.status(now_us=runtime.now_us())
                refuse_another_migration(config, status)
                identifier = migration_id(status.name, status.created_us)
                ending.log.identify(identifier)
                ending.begin(source.counts for source in status.sources)
                scope = _scope(options, status, reader)
                recorder = None if journal is None else Recorder(journal, runtime)
                policy = DeletionPolicy(
                    migration_id=identifier,
                    concurrency=config.upload.concurrency,
                    tell_seconds=config.upload.checkpoint_interval_secs,
                    requests=RequestPolicy(
                        config.upload.max_attempts, config.upload.give_up_after, runtime.random
                    ),
                )
                deletion = Deletion(
                    _sources(config, status, scope),
                    bucket,
                    policy,
                    record=None if recorder is None else recorder.call,
                    who=operator(),
                    now_us=runtime.now_us,
                    drain=drain,
                )
                created = created_in(reader, scope, status.head_seq)
                starting.hand_over()
                if recorder is None:
                    with drain.governs(grace=0):
                        await deletion.run(created)
                else:
                    with drain.governs(grace=config.upload.drain_deadline):
                        await recorded(deletion, created, recorder.call, options, operator(), drain)
    finally:
        if journal is not None:
            journal.close()
    return _told(deletion.tally, ending, drain, confirmed=options.confirmed)


def _told(tally: UndoTally, ending: Ending, drain: Drain, *, confirmed: bool) -> ExitCode:
    show = ending.log.redacted
    width = shutil.get_terminal_size((100, 24)).columns
    text = undo_text(tally, confirmed=confirmed, complete=not drain, show=show, width=width)
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    if drain:
        ending.outcome = f"stopped on {drain.cause}: {undo_word(tally, confirmed=confirmed)}"
        return interrupted(drain)
    ending.outcome = undo_word(tally, confirmed=confirmed)
    return tally.exit_code


async def recorded(
    deletion: Deletion,
    created: Iterator[CreatedObject],
    record: Record,
    options: UndoOptions,
    who: str,
    drain: Drain,
) -> None:
    """Delete, framed by the events that say who undid what, and what came of it however it ended."""
    scope: dict[str, Any] = {
        "sources": list(options.sources),
        "row_keys": list(options.row_keys),
        "before_us": options.before_us,
    }
    run = await record(
        lambda journal, now_us: journal.note(Kind.UNDO_STARTED, {"who": who, "scope": scope}, now_us=now_us)
    )
    problem = "cancelled"
    try:
        await deletion.run(created)
        problem = f"stopped on {drain.cause}" if drain else ""
    except (BackfillError, JournalError) as error:
        problem = error.problem
        raise
    finally:
        finished = _finished(run, deletion.tally, problem)
        with trio.CancelScope(shield=True):
            await record(lambda journal, now_us: journal.note(Kind.UNDO_FINISHED, finished, now_us=now_us))


def _finished(run: int, tally: UndoTally, problem: str) -> dict[str, Any]:
    return {
        "run": run,
        "deleted": tally.deleted,
        "bytes": tally.deleted_bytes,
        "gone": tally.gone,
        "left": total_left(tally),
        "problem": problem,
        "exit_code": int(tally.exit_code),
    }


def _scope(options: UndoOptions, status: MigrationStatus, reader: Reader) -> Scope:
    """Return the scope in the journal's terms.

    Raises:
        ConfigError: with every name and key that the journal doesn't know.
    """
    known = {source.name: source.id for source in status.sources}
    problems = [
        f'--source: found "{name}"; expected a source of this journal: {", ".join(known) or "none"}'
        for name in options.sources
        if name not in known
    ]
    unknown = reader.read(functools.partial(created_objects.unplanned_row_keys, row_keys=options.row_keys))
    problems += [f'--key: found "{key}"; no source has planned a row with this key' for key in unknown]
    if problems:
        raise ConfigError(
            problems,
            "`backfillctl status` names the sources; keys are written as `explain` and `events` show them",
        )
    return Scope(
        frozenset(known[name] for name in options.sources or known),
        frozenset(options.row_keys) or None,
        options.before_us,
    )


def _sources(config: Config, status: MigrationStatus, scope: Scope) -> list[UndoneSource]:
    ids = {source.name: source.id for source in status.sources}
    return [
        UndoneSource(ids[spec.name], spec.name, spec.bucket, layout_of(spec))
        for spec in config.sources
        if ids.get(spec.name) in scope.sources
    ]


def created_in(reader: Reader, scope: Scope, until_seq: int) -> Iterator[CreatedObject]:
    """Yield the objects of a scope: first what the journal answers for, then what an earlier undo left unfinished.

    Args:
        reader: of the journal, which may be written meanwhile by who consumes this.
        scope: what is meant.
        until_seq: the newest event at the beginning: what is undone from then on comes once only.
    """
    if scope.row_keys is not None:
        named = reader.read(functools.partial(created_objects.of_row_keys, row_keys=sorted(scope.row_keys)))
        yield from filter(scope.holds, named)
        return
    after: int | None = 0
    while after is not None:
        page: CreatedPage = reader.read(
            functools.partial(created_objects.expected_page, after_seq=after, limit=PAGE)
        )
        yield from filter(scope.holds, page.objects)
        after = page.next_after
    for source in sorted(scope.sources):
        after = 0
        while after is not None:
            page = reader.read(
                functools.partial(
                    created_objects.undone_page,
                    source=source,
                    until_seq=until_seq,
                    after_ordinal=after,
                    limit=PAGE,
                )
            )
            yield from filter(scope.holds, page.objects)
            after = page.next_after
