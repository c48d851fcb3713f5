"""Write rows back from their objects, or say what that would do: the drill before the drop.

A batch is compared with the table first; what is missing is read from the bucket, checked against the journal,
written by one statement that touches no row that is there, and compared once more by the server.
"""

from __future__ import annotations

import functools
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from daemon import restore_queries
from daemon.config import Config, SourceConfig
from daemon.describing import Session
from daemon.drain import Drain, Governed
from daemon.ending import Ending
from daemon.endpoints import open_bucket
from daemon.errors import ConfigError, ExitCode, RefusedError
from daemon.layouts import layout_of
from daemon.migration import interrupted
from daemon.objects import ObjectFacts
from daemon.opening import open_existing, refuse_another_migration
from daemon.operators import operator
from daemon.recorder import Recorder
from daemon.rendering_restore import restore_text, restore_word
from daemon.requesting import RequestPolicy, Requests
from daemon.restore_queries import Column, RestoreQueries
from daemon.restoring import RestoreTally, batches, row_of
from daemon.row_queries import Relation
from daemon.runtime import Runtime
from daemon.service import stoppable
from daemon.source import open_writer
from daemon.undo import OWNER_WAIT_SECONDS, created_in
from daemon.undoing import Scope
from daemon.writing_back import Restoration, asked
from journal.entries import migration_id
from journal.events import Kind
from journal.reader import Reader
from journal.status import MigrationStatus

ROWS_MAX = 500
"""Rows of a batch."""
MEMORY_SHARE = 4
"""A batch takes this part of `upload.max_in_flight`: the driver copies it to send it, and twice is not all."""


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """What the flags of `restore` decide.

    Attributes:
        into: schema and table that rows are written to.
        source: name; None where the journal has one source only.
        row_keys: as `explain` shows them; empty: all.
        dsn: of the database; None: the configuration's.
        own_table: `into` may be the source's own table.
        confirmed: write; else only say what would be written.
    """

    into: tuple[str, str]
    source: str | None = None
    row_keys: tuple[str, ...] = ()
    dsn: str | None = None
    own_table: bool = False
    confirmed: bool = False


async def restore(config: Config, options: RestoreOptions, ending: Ending) -> ExitCode:
    """Write the rows that `options` mean into a table that is there, or only count them.

    Raises:
        ConfigError: the table, the source or a key is not fit.
        BackfillError, JournalError: what kept it from being done.
    """
    work = functools.partial(_restore, config, options, ending)
    return await stoppable(work, ending, grace_seconds=config.upload.drain_deadline)


async def _restore(
    config: Config, options: RestoreOptions, ending: Ending, drain: Drain, starting: Governed
) -> ExitCode:
    runtime = Runtime()
    # Kept where keys were named, so that `explain` tells it; of all rows there may be millions.
    tally = RestoreTally(ordinals=[] if options.row_keys else None)
    async with (
        _recorder(config, options, runtime) as recorder,
        open_bucket(config, os.environ) as bucket,
    ):
        with Reader.open(config.migration.journal, undisturbing=recorder is None) as reader:
            status = reader.status(now_us=runtime.now_us())
            refuse_another_migration(config, status)
            ending.log.identify(migration_id(status.name, status.created_us))
            ending.begin(source.counts for source in status.sources)
            spec, scope = _scope(config, options, status, reader)
            table = Relation(*options.into)
            _refuse_own_table(spec, table, options)
            async with open_writer(
                config.postgres,
                options.dsn or config.postgres.dsn,
                migration=config.migration.name,
                random=runtime.random,
            ) as session:
                queries = await _fitting(session, spec, table, confirmed=options.confirmed)
                policy = RequestPolicy(
                    config.upload.max_attempts, config.upload.give_up_after, runtime.random
                )
                requests = Requests(policy, refresh=bucket.refresh_credentials)

                async def read(key: str, size_max: int) -> tuple[ObjectFacts, bytes] | None:
                    return await requests.answer(
                        functools.partial(bucket.get, spec.bucket, key, size_max=size_max)
                    )

                restoration = Restoration(
                    queries,
                    session,
                    read,
                    tally,
                    concurrency=config.upload.concurrency,
                    tell_seconds=config.upload.checkpoint_interval_secs,
                    drain=drain,
                    layout=layout_of(spec),
                    confirmed=options.confirmed,
                )
                created = created_in(reader, scope, status.head_seq)
                rows = (row_of(one.recorded) for one in created if not one.undone)
                bytes_max = config.upload.max_in_flight // MEMORY_SHARE
                starting.hand_over()
                try:
                    with drain.governs(grace=config.upload.drain_deadline if recorder else 0):
                        await restoration.run(batches(rows, rows_max=ROWS_MAX, bytes_max=bytes_max))
                finally:
                    if recorder is not None:
                        with trio.CancelScope(shield=True):
                            await _put_on_record(recorder, scope, table, tally)
    width = shutil.get_terminal_size((100, 24)).columns
    text = restore_text(
        tally,
        table.sql,
        confirmed=options.confirmed,
        complete=not drain,
        show=ending.log.redacted,
        width=width,
    )
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
    ending.outcome = restore_word(tally, confirmed=options.confirmed)
    if drain:
        ending.outcome = f"stopped on {drain.cause}: {ending.outcome}"
        return interrupted(drain)
    return tally.exit_code


@asynccontextmanager
async def _recorder(
    config: Config, options: RestoreOptions, runtime: Runtime
) -> AsyncIterator[Recorder | None]:
    """Yield the writer of the journal, which nobody else can be meanwhile; None where nothing will be written."""
    if not options.confirmed:
        yield None
        return
    journal = await runtime.journal_runner(
        lambda: open_existing(config, now_us=runtime.now_us(), wait_seconds=OWNER_WAIT_SECONDS)
    )
    try:
        yield Recorder(journal, runtime)
    finally:
        journal.close()


def _scope(
    config: Config, options: RestoreOptions, status: MigrationStatus, reader: Reader
) -> tuple[SourceConfig, Scope]:
    """Return the one source and its keys.

    Raises:
        ConfigError: with everything that the journal doesn't know, or that is not clear.
    """
    ids = {source.name: source.id for source in status.sources}
    specs = {spec.name: spec for spec in config.sources if spec.name in ids}
    if options.source is None and len(specs) != 1:
        raise ConfigError(
            [
                f"restore: of which source is not clear; expected --source, one of {', '.join(specs) or 'none'}"
            ],
            "each source has a table of its own shape",
        )
    name = next(iter(specs)) if options.source is None else options.source
    if name not in specs:
        raise ConfigError(
            [f'--source: found "{name}"; expected a source of this journal: {", ".join(specs) or "none"}']
        )
    scope = Scope(frozenset({ids[name]}), frozenset(options.row_keys) or None)
    if scope.row_keys is not None:
        found = {one.recorded.row_key for one in created_in(reader, scope, status.head_seq) if not one.undone}
        lost = [key for key in options.row_keys if key not in found]
        if lost:
            raise ConfigError(
                [f'restore "{key}": source {name} has no object of this key on record' for key in lost],
                "`backfillctl explain KEY` tells what became of it",
            )
    return specs[name], scope


def _refuse_own_table(spec: SourceConfig, table: Relation, options: RestoreOptions) -> None:
    if (table.schema, table.name) == (spec.schema_name, spec.table_name) and not options.own_table:
        raise ConfigError(
            [f"--into: {table.sql} is the table of source {spec.name} itself; expected another one"],
            f"`{restore_queries.hint_of(spec, Relation(table.schema, table.name + '_restored'))}` makes one;"
            " or give --own-table to add to the source's own what it lacks",
        )


async def _fitting(
    session: Session, spec: SourceConfig, table: Relation, *, confirmed: bool
) -> RestoreQueries:
    """Look at the table, and return the statements for it.

    Raises:
        ConfigError: with everything that keeps rows from being written to it.
        RefusedError: it can't be read, or the server takes no writes.
    """
    hint = f"`{restore_queries.hint_of(spec, table)};` makes one that fits"
    found = await asked(session.fetch(restore_queries.TABLE, table.schema, table.name, operation="DESCRIBE"))
    if not found:
        raise ConfigError([f"--into: there is no table {table.sql} in {session.where}"], hint)
    (facts,) = found
    if facts["relkind"] not in restore_queries.TABLE_KINDS:
        raise ConfigError([f"--into: {table.sql} is no table that rows can be written to"], hint)
    if not (facts["usable"] and facts["readable"]):
        raise RefusedError(
            f"restore into {table.sql}: role {facts['role']} may not read it",
            f"grant it USAGE on the schema and SELECT, INSERT on {table.sql}; or name another role with --dsn",
        )
    if facts["in_recovery"] and confirmed:
        raise RefusedError(
            f"restore into {table.sql}: {session.where} is a standby, which takes no writes",
            "name the primary with --dsn",
        )
    rows = await asked(session.fetch(restore_queries.COLUMNS, facts["oid"], operation="DESCRIBE"))
    columns = [Column(*row) for row in rows]
    problems = restore_queries.problems_of(spec, table, columns, facts["role"])
    if problems:
        raise ConfigError(problems, f"{hint}; --dsn names a role that may write")
    return RestoreQueries(
        spec,
        table,
        {column.name: column.type for column in columns},
        frozenset(column.name for column in columns if column.generated),
    )


async def _put_on_record(recorder: Recorder, scope: Scope, table: Relation, tally: RestoreTally) -> None:
    (source,) = scope.sources
    await recorder.note(
        Kind.ROWS_RESTORED,
        {
            "who": operator(),
            "into": table.sql,
            "rows": tally.rows,
            "restored": tally.restored,
            "bytes": tally.restored_bytes,
            "equal": tally.equal,
            "different": tally.different,
            "unread": tally.unread,
            "exit_code": int(tally.exit_code),
            **({"ordinals": [*tally.ordinals]} if tally.ordinals else {}),
        },
        source=source,
    )
