"""The commands that touch both ends: what they open, in what order, and the record of how they end."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import sys
import time
from collections.abc import Awaitable, Callable

import trio

from daemon import rendering_units as units
from daemon.activity import Activity
from daemon.config import Config, PlanOptions, RunOptions
from daemon.drain import Drain, Governed
from daemon.dry_run import dry_run
from daemon.ending import Ending
from daemon.endpoints import open_bucket
from daemon.ends import survey
from daemon.errors import ExitCode
from daemon.estimating import Estimate, total
from daemon.heartbeat import Heartbeat, beating
from daemon.hooks import with_hooks
from daemon.log_events import LogEvent, log_event
from daemon.migration import Ended, Migration, interrupted, scan_limits
from daemon.monitoring import Monitor, monitored
from daemon.notify import Notifier
from daemon.opening import open_existing, open_migration
from daemon.operators import operator
from daemon.recorder import Recorder
from daemon.rendering_estimate import estimate_text
from daemon.rendering_service import LOOKING, VERIFYING
from daemon.runtime import JournalThread, Runtime
from daemon.session import in_session
from daemon.signals import under_signals
from daemon.source import open_source
from daemon.steering import Hangups
from daemon.verify_ends import VerifyOptions, verified


async def run(config: Config, options: RunOptions, ending: Ending, load: Callable[[], Config]) -> ExitCode:
    """Copy every row of the plan, planning first where needed; resume what an earlier session left.

    `load` reads the configuration again, at each SIGHUP.

    Raises:
        BackfillError, JournalError: what ended the session, recorded as such; several as a group.
    """
    notifier = Notifier.from_environment(os.environ, pid=os.getpid())
    thread = JournalThread()
    runtime = Runtime(journal_runner=thread, patient=notifier.listening)
    # SIGHUP is received from the first moment on: it must not end a session that is only starting.
    with trio.open_signal_receiver(signal.SIGHUP) as received:
        async with monitored(config, runtime) as monitor, beating(notifier, thread.labour) as heartbeat:
            monitor.heartbeat = heartbeat
            notifier.status(LOOKING)
            hangups = Hangups(received, load)
            work = functools.partial(_run, config, options, runtime, monitor, heartbeat, ending, hangups)
            return await stoppable(
                work,
                ending,
                grace_seconds=config.upload.drain_deadline,
                max_duration=config.limits.max_duration,
            )


async def _run(
    config: Config,
    options: RunOptions,
    runtime: Runtime,
    monitor: Monitor,
    heartbeat: Heartbeat,
    ending: Ending,
    hangups: Hangups,
    drain: Drain,
    starting: Governed,
) -> ExitCode:
    async with (
        monitor.lingering(drain, ending, heartbeat.notifier.status),
        open_bucket(config, os.environ, instruments=runtime.instruments) as bucket,
        open_migration(
            config,
            bucket,
            runtime,
            drain,
            hangups,
            allow_seqscan=options.allow_seqscan,
            accept_source=options.accept_source,
        ) as opened,
    ):
        migration = Migration(
            config,
            opened.recorder,
            opened.source,
            opened.surveyed,
            runtime,
            drain,
            opened.steering.controls,
            Activity(),
            allow_seqscan=options.allow_seqscan,
        )
        ending.log.identify(opened.recorder.journal.migration_id)
        monitor.watch(migration.controls, bucket)
        # From here on the migration itself says what a request to stop leaves time for.
        starting.hand_over()
        opened.steering.heartbeat = heartbeat
        heartbeat.started()

        async def work() -> ExitCode:
            copying = functools.partial(migration.run, bucket)
            ended = await in_session(config, opened, migration, copying, drain, ending, heartbeat.notifier)
            if not options.verify or ended.exit_code is not ExitCode.DONE:
                return ended.exit_code
            codes: list[ExitCode] = []
            heartbeat.notifier.status(VERIFYING)
            with drain.governs(grace=0):
                codes.append(
                    await verified(
                        config,
                        VerifyOptions(),
                        opened.recorder,
                        runtime,
                        ending,
                        bucket=bucket,
                        source=opened.source,
                    )
                )
            if not codes:
                ending.outcome = f"{ended.reason}, but verifying it was stopped on {drain.cause}"
                return interrupted(drain)
            return codes[0]

        with heartbeat.through(lambda: opened.recorder.call(lambda _journal, _now: None)):
            try:
                return await with_hooks(work, config, opened.recorder, drain, ending)
            finally:
                ending.over = time.monotonic()


async def plan(config: Config, options: PlanOptions, ending: Ending) -> ExitCode:
    """Make the first pass over every source that had none, or with `reconcile` one more over each.

    Raises:
        BackfillError, JournalError: as `run`.
    """
    work = functools.partial(_dry_run if options.dry_run else _plan, config, options, ending)
    return await stoppable(work, ending, grace_seconds=0)


async def _plan(
    config: Config, options: PlanOptions, ending: Ending, drain: Drain, starting: Governed
) -> ExitCode:
    runtime = Runtime()
    async with open_migration(
        config,
        None,
        runtime,
        drain,
        allow_seqscan=options.allow_seqscan,
        accept_source=options.accept_source,
    ) as opened:
        migration = Migration(
            config,
            opened.recorder,
            opened.source,
            opened.surveyed,
            runtime,
            drain,
            opened.steering.controls,
            Activity(),
            allow_seqscan=options.allow_seqscan,
        )
        ending.log.identify(opened.recorder.journal.migration_id)
        starting.hand_over()

        async def work() -> Ended:
            await migration.plan()
            if options.reconcile and not drain:
                await migration.reconcile(who=operator())
            return await migration.planned()

        return (await in_session(config, opened, migration, work, drain, ending, Notifier())).exit_code


async def _dry_run(
    config: Config, options: PlanOptions, ending: Ending, _drain: Drain, _starting: Governed
) -> ExitCode:
    runtime = Runtime()
    async with open_source(
        config.postgres,
        migration=config.migration.name,
        give_up_after=config.upload.give_up_after,
        random=runtime.random,
    ) as source:
        surveyed = await survey(config, source, None, runtime, allow_seqscan=options.allow_seqscan)
        estimates: list[Estimate] = []
        for spec in config.sources:
            estimate = await dry_run(
                source,
                spec,
                cutoff_us=config.migration.cutoff_us,
                limits=scan_limits(config),
                random=runtime.random,
            )
            sys.stdout.write(estimate_text(spec.name, estimate, width=_width()) + "\n")
            if surveyed.tables[spec.name].unique is None:
                key = ", ".join(spec.key)
                sys.stdout.write(
                    f"  no unique index proves ({key}): planning refuses rows that repeat a key\n"
                )
            estimates.append(estimate)
        if len(estimates) > 1:
            sys.stdout.write(estimate_text("total", total(estimates), width=_width()) + "\n")
        ending.outcome = "counted, and nothing written"
        return ExitCode.DONE


async def verify(config: Config, options: VerifyOptions, ending: Ending) -> ExitCode:
    """Compare both ends with the journal, as far as `options` say; the findings are printed and recorded.

    Raises:
        BackfillError, JournalError: what kept it from being verified.
    """
    return await stoppable(
        functools.partial(_verify, config, options, ending), ending, grace_seconds=0, again="takes it up"
    )


async def _verify(
    config: Config, options: VerifyOptions, ending: Ending, _drain: Drain, _starting: Governed
) -> ExitCode:
    runtime = Runtime()
    journal = await runtime.journal_runner(lambda: open_existing(config, now_us=runtime.now_us()))
    try:
        ending.log.identify(journal.migration_id)
        ending.begin(journal.counts().values())
        return await verified(config, options, Recorder(journal, runtime), runtime, ending)
    finally:
        journal.close()


async def stoppable(
    work: Callable[[Drain, Governed], Awaitable[ExitCode]],
    ending: Ending,
    *,
    grace_seconds: float,
    max_duration: float | None = None,
    again: str = "begins again",
) -> ExitCode:
    """Run `work` so that a signal or its time ends it at once, until it takes that over (`Governed.hand_over`).

    `again` says what the same command does after that.
    """

    async def governed(drain: Drain) -> ExitCode:
        codes: list[ExitCode] = []
        async with trio.open_nursery() as nursery:
            if max_duration is not None:
                nursery.start_soon(drained_after, max_duration, drain)
            with drain.governs(grace=0) as starting:
                codes.append(await work(drain, starting))
            nursery.cancel_scope.cancel()
        if not codes:
            ending.outcome = f"stopped on {drain.cause} before it was done; the same command {again}"
            return interrupted(drain)
        return codes[0]

    return await under_signals(governed, grace_seconds=grace_seconds)


async def drained_after(seconds: float, drain: Drain) -> None:
    """Ask for the end once the session has lasted `seconds`, unless it was asked for before."""
    await trio.sleep(seconds)
    if drain:
        return
    cause = f"max_duration = {units.duration(seconds)}"
    log_event(LogEvent.DRAIN_REQUESTED, f"{cause}: ending what is in hand", cause=cause)
    drain.request(cause)


def _width() -> int:
    return shutil.get_terminal_size((100, 24)).columns
