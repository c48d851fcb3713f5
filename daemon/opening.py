"""Open a migration: the journal's lock first, then both ends, then whether they belong together.

Nothing is written before everything has been looked at; only then is a journal created.
"""

from __future__ import annotations

import functools
import os
import platform
import socket
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import trio

from daemon import __version__
from daemon.actions import pause_words
from daemon.bulkhead import behind_bulkhead
from daemon.config import Config, free_settings, identity
from daemon.control_socket import serve
from daemon.controls import Controls
from daemon.disk_reserve import refuse_below
from daemon.drain import Drain
from daemon.ends import Survey, TargetEnd, probe_buckets, survey
from daemon.errors import BackfillError, ConfigError, SourceUnfitError
from daemon.local_sockets import bound, socket_path
from daemon.log_events import LogEvent, log_event
from daemon.migration import identities
from daemon.operators import operator, user_name
from daemon.reading import PostgresSource
from daemon.recorder import Recorder
from daemon.rows import ServerFacts
from daemon.runtime import Runtime
from daemon.server_record import LASTING, AnotherServer, server_differences
from daemon.source import open_source
from daemon.steering import Hangups, Steering
from daemon.throttle_watch import refuse_unreadable
from daemon.tunables import configured_tunables, in_force
from journal.checkpoint import Order
from journal.errors import Difference, IdentityMismatch, JournalLocked
from journal.events import Kind
from journal.filesystem import is_there
from journal.lock import WAIT_SECONDS
from journal.log import Journal
from journal.plan_log import differences_between
from journal.status import MigrationStatus

SOCKET = "the control socket"
"""Its name to operators."""


@dataclass(frozen=True)
class Opened:
    """A migration ready to be worked on: its journal, written by nobody else, its source, and who steers it."""

    recorder: Recorder
    source: PostgresSource
    surveyed: Survey
    steering: Steering


@asynccontextmanager
async def open_migration(
    config: Config,
    target: TargetEnd | None,
    runtime: Runtime,
    drain: Drain,
    hangups: Hangups | None = None,
    *,
    allow_seqscan: bool,
    accept_source: bool,
) -> AsyncIterator[Opened]:
    """Yield the migration that `config` describes; its journal is created where there is none.

    It can be steered from when its journal is open.

    Args:
        config: as loaded.
        target: probed, unless it is None because nothing is to be copied.
        runtime: the outside world.
        drain: what an operator's `drain` requests.
        hangups: what makes the configuration be read again; None: nothing does.
        allow_seqscan: as in `RunOptions`.
        accept_source: as in `RunOptions`.

    Raises:
        JournalError: locked, corrupt, of another migration.
        BackfillError: PostgreSQL, a table that is unfit, or too little room on the journal's disk.
    """
    path = config.migration.journal
    journal: Journal | None = None
    created = False
    refuse_below(path, config.migration.disk_reserve)
    try:
        async with AsyncExitStack() as ends:
            if is_there(path):
                patience = config.upload.give_up_after if runtime.patient else 0.0
                journal = await open_journal(path, runtime, patience_seconds=patience)
                recorder = Recorder(journal, runtime)
                steering = await ends.enter_async_context(_steered(config, recorder, drain, hangups))
            source = await ends.enter_async_context(
                open_source(
                    config.postgres,
                    migration=config.migration.name,
                    give_up_after=config.upload.give_up_after,
                    random=runtime.random,
                    patient=runtime.patient,
                    throttle=config.throttle,
                )
            )
            surveyed = await survey(config, source, None, runtime, allow_seqscan=allow_seqscan)
            await refuse_unreadable(config.throttle, source)
            if journal is not None:
                # Before the first request to a bucket: it may be another migration's.
                await runtime.journal_runner(
                    functools.partial(
                        check_identity,
                        journal,
                        config,
                        surveyed.server,
                        accept_source=accept_source,
                        now_us=runtime.now_us(),
                    )
                )
            if target is not None:
                surveyed = replace(surveyed, probes=await probe_buckets(config, target, runtime))
            if journal is None:
                journal = await runtime.journal_runner(lambda: _created(config, runtime.now_us()))
                created = True
                recorder = Recorder(journal, runtime)
                steering = await ends.enter_async_context(_steered(config, recorder, drain, hangups))
            yield Opened(recorder, source, surveyed, steering)
    except (BackfillError, BaseExceptionGroup) as failure:
        # What the operator corrects now may be part of the identity that a journal would hold on to.
        if created and journal is not None and _is_refusal(failure) and journal.discard():
            log_event(LogEvent.JOURNAL_DISCARDED, "nothing was planned: no journal is kept")
        raise
    finally:
        if journal is not None:
            journal.close()


@asynccontextmanager
async def _steered(
    config: Config, recorder: Recorder, drain: Drain, hangups: Hangups | None
) -> AsyncIterator[Steering]:
    """Yield what operators and SIGHUP act on while the block runs; its socket is there as long."""
    controls, paused_by = await recorder.call(
        lambda journal, _now: (controls_of(config, journal), pause_words(journal) if journal.paused else "")
    )
    steering = Steering(config, recorder, controls, drain)
    if paused_by:
        log_event(
            LogEvent.PAUSED,
            f"paused {paused_by}: nothing new is begun until `backfillctl resume`",
            by=paused_by,
        )
    with bound(socket_path(config.control.socket, config.migration.journal, os.environ)) as listening:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(behind_bulkhead, SOCKET, functools.partial(serve, listening, steering.answer))
            if hangups is not None:
                nursery.start_soon(steering.heed, hangups)
            yield steering
            nursery.cancel_scope.cancel()


async def open_journal(path: Path, runtime: Runtime, *, patience_seconds: float) -> Journal:
    """Open the journal, as its only writer; outlast another process that holds it for `patience_seconds`.

    Raises:
        JournalError: locked for longer, or corrupt.
    """
    begun = trio.current_time()
    while True:
        try:
            return await runtime.journal_runner(lambda: Journal.open(path, now_us=runtime.now_us()))
        except JournalLocked as locked:
            if trio.current_time() - begun >= patience_seconds:
                raise
            # No backoff: opening has itself waited, and a stop can come in between.
            log_event(LogEvent.JOURNAL_HELD, f"{locked.problem}; tried again", owner=locked.owner)


def _is_refusal(failure: BaseException) -> bool:
    """Say whether the configuration or the table is to blame, and nothing else."""
    if isinstance(failure, BaseExceptionGroup):
        return all(_is_refusal(one) for one in failure.exceptions)
    return isinstance(failure, ConfigError | SourceUnfitError)


def open_existing(config: Config, *, now_us: int, wait_seconds: float = WAIT_SECONDS) -> Journal:
    """Open the journal of a migration whose database need not be asked; wait so long for a dying owner.

    Raises:
        JournalError: missing, locked, corrupt, of another migration.
    """
    journal = Journal.open(config.migration.journal, now_us=now_us, wait_seconds=wait_seconds)
    try:
        sources = {name: record.identity for name, record in journal.sources.items()}
        _refuse_differences(
            config,
            journal.name,
            journal.order,
            differences_between(sources, _as_configured(config, sources, journal.cutoff_us)),
        )
    except BaseException:
        journal.close()
        raise
    return journal


def refuse_another_migration(config: Config, found: MigrationStatus) -> None:
    """Refuse a journal that is only read, if it is not of the migration that `config` describes.

    Raises:
        IdentityMismatch: the differences.
    """
    sources = {source.name: source.identity for source in found.sources}
    configured = _as_configured(config, sources, found.cutoff_us)
    _refuse_differences(config, found.name, found.order, differences_between(sources, configured))


def _as_configured(
    config: Config, sources: Mapping[str, Mapping[str, Any]], cutoff_us: int | None
) -> dict[str, Mapping[str, Any]]:
    """Return the fingerprints of those sources that the journal has, in the database that it names."""
    return {
        spec.name: identity(config, spec, str(sources[spec.name]["database"]), cutoff_us=cutoff_us)
        for spec in config.sources
        if spec.name in sources
    }


def _created(config: Config, now_us: int) -> Journal:
    return Journal.create(
        config.migration.journal,
        name=config.migration.name,
        cutoff_us=config.migration.cutoff_us,
        order=Order(config.migration.order.value),
        now_us=now_us,
    )


def check_identity(
    journal: Journal, config: Config, server: ServerFacts, *, accept_source: bool, now_us: int
) -> None:
    """Refuse to go on with a journal of another migration, or against another server than before.

    Raises:
        IdentityMismatch: the differences.
    """
    fingerprints = identities(config, server, journal.cutoff_us)
    _refuse_differences(config, journal.name, journal.order, journal.differences(fingerprints))
    changed = server_differences(journal, server)
    if changed and not accept_source:
        raise AnotherServer(changed)
    if changed:
        _plan_again(journal, now_us=now_us)
        facts = {field: getattr(server, field) for field in LASTING}
        journal.accept_server(facts, now_us=now_us, who=operator())


def _plan_again(journal: Journal, *, now_us: int) -> None:
    """Let every source be closed on another server's data: a failover may bring rows back that were gone."""
    reason = "another server was accepted"
    for record in journal.sources.values():
        if journal.open_pass(record.id) is not None:
            journal.abandon_pass(record.id, reason=reason, now_us=now_us)
        if record.closed:
            journal.reopen_source(record.id, who=operator(), reason=reason, now_us=now_us)


def _refuse_differences(config: Config, name: str, order: Order, differences: list[Difference]) -> None:
    if name != config.migration.name:
        differences.insert(0, Difference("migration", "name", name, config.migration.name))
    if order.value != config.migration.order.value:
        differences.append(Difference("migration", "order", order.value, config.migration.order.value))
    if differences:
        raise IdentityMismatch(differences)


def controls_of(config: Config, journal: Journal) -> Controls:
    """Return what a session may do as it begins: what the file says, under what operators have set and paused."""
    tunables = in_force(configured_tunables(config), journal.overrides)
    return Controls(
        tunables, throttle=config.throttle, paused=journal.paused, adaptive=config.upload.adaptive
    )


def begin_session(journal: Journal, config: Config, server: ServerFacts | None, now_us: int) -> None:
    """Record who works where on what, and what changed since the session before; no secrets."""
    journal.start_session(
        now_us=now_us,
        facts={
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "user": user_name(),
            "version": __version__,
            "python": platform.python_version(),
            "sqlite": sqlite3.sqlite_version,
            "control_socket": str(socket_path(config.control.socket, config.migration.journal, os.environ)),
        },
    )
    settings = free_settings(config)
    before = journal.latest_note(Kind.SETTINGS_CHANGED) or {}
    if {key: value for key, value in before.items() if key != "cause"} != settings:
        journal.note(Kind.SETTINGS_CHANGED, settings, now_us=now_us)
    if server is not None:
        journal.note(Kind.SERVER_RECORDED, asdict(server), now_us=now_us)
