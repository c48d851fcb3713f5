"""One session around some work: its beginning and end on the record, its progress on the terminal."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from daemon import __version__
from daemon.accounting import Accounting
from daemon.bulkhead import behind_bulkhead
from daemon.config import Config
from daemon.disk_reserve import guard_disk, reserve_of
from daemon.drain import Drain
from daemon.ending import Ending
from daemon.errors import BackfillError
from daemon.findings import exit_code_of, gravest
from daemon.log_events import LogEvent, log_event
from daemon.log_lines import Style
from daemon.migration import Ended, Migration
from daemon.notify import Notifier
from daemon.opening import Opened, begin_session
from daemon.progress import report
from daemon.recorder import Recorder
from daemon.rendering_progress import Progress, SourceProgress
from daemon.rendering_service import service_line
from daemon.rendering_view import view
from daemon.runtime import wall_clock_us
from daemon.throttle_watch import ThrottleWatch
from journal.errors import JournalError
from journal.events import Kind
from journal.reader import Reader

STOP_SECONDS = 60.0
"""How long a stop may take beyond `upload.drain_deadline` before the service manager ends it."""
TELL_SECONDS = 5.0
"""Between two lines for the service manager: fresh enough for whoever reads it, too rare to cost anything."""


async def in_session(
    config: Config,
    opened: Opened,
    migration: Migration,
    work: Callable[[], Awaitable[Ended]],
    drain: Drain,
    ending: Ending,
    notifier: Notifier,
) -> Ended:
    """Run `work` as a session of the journal; every way it can end is recorded, but a death.

    Raises:
        BackfillError, JournalError: what ended the session; recorded as a halt before it is raised again.
    """
    recorder = opened.recorder
    directory = recorder.journal.path.parent
    reserve = reserve_of(directory, config.migration.disk_reserve)
    await recorder.call(
        lambda journal, now_us: begin_session(journal, opened.steering.config, opened.surveyed.server, now_us)
    )
    ending.begin((await recorder.call(lambda journal, _now: journal.counts())).values())
    log_event(
        LogEvent.SESSION_STARTED,
        f"session of pid {os.getpid()} began on journal {recorder.journal.path}",
        pid=os.getpid(),
        version=__version__,
        journal=str(recorder.journal.path),
    )
    results: list[Ended] = []
    accounting = Accounting(
        recorder,
        migration.controls,
        migration.activity,
        explain=migration.pacer.explain,
        puts=recorder.instruments.requests["PUT"],
    )
    watch = ThrottleWatch(
        opened.source,
        migration.controls,
        drain,
        give_up_after=config.upload.give_up_after,
    )
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_record_stop, recorder, drain)
            nursery.start_soon(accounting.run)
            nursery.start_soon(guard_disk, directory, reserve, migration.controls)
            show = functools.partial(_show, config, recorder, migration, drain, ending)
            nursery.start_soon(behind_bulkhead, "the report of progress", show)
            tell = functools.partial(_tell, notifier, recorder)
            nursery.start_soon(behind_bulkhead, "the service manager's STATUS line", tell)
            nursery.start_soon(_announce_stop, notifier, drain, config.upload.drain_deadline)
            await nursery.start(watch.run)
            results.append(await work())
            nursery.cancel_scope.cancel()
    except* (BackfillError, JournalError) as group:
        await _record_halt(recorder, accounting, group)
        raise
    ended = results[0]
    opened.steering.controls.over = True
    if drain.cancelled:
        await recorder.note(Kind.CANCELLED, {"cause": drain.cause})
    await accounting.finish()
    await _record_end(recorder, ended)
    ending.outcome = ended.reason
    return ended


async def _record_stop(recorder: Recorder, drain: Drain) -> None:
    await drain.requested.wait()
    if drain.recorded:
        return
    # The work may end at once on the same request; that must not keep it off the record.
    with trio.CancelScope(shield=True):
        await recorder.note(Kind.DRAIN_REQUESTED, {"cause": drain.cause})


async def _announce_stop(notifier: Notifier, drain: Drain, deadline: float) -> None:
    await drain.requested.wait()
    notifier.stopping()
    # What comes after the deadline (the rest given back, connections and journal closed) is quick.
    notifier.extend(deadline + STOP_SECONDS)


async def _record_halt(
    recorder: Recorder, accounting: Accounting, group: BaseExceptionGroup[BackfillError | JournalError]
) -> None:
    """Put why the session ends on the record, as far as the journal still takes it."""
    if recorder.broken:
        return
    failures = list(_leaves(group))
    message = "; ".join(failure.problem for failure in failures)
    exit_code = gravest(exit_code_of(failure) for failure in failures)
    with trio.CancelScope(shield=True):
        try:
            await recorder.call(
                lambda journal, now_us: journal.release(journal.in_flight_ordinals(), now_us=now_us)
            )
            await accounting.finish()
            await recorder.note(Kind.HALTED, {"message": message, "exit_code": int(exit_code)})
            await _record_end(recorder, Ended(exit_code, "halted"), message)
        except JournalError as unrecorded:
            # What ended the session is raised again in any case; this only says why `status` won't know it.
            log_event(
                LogEvent.END_UNRECORDED,
                f"the end of this session could not be recorded: {unrecorded.problem}",
            )


async def _record_end(recorder: Recorder, ended: Ended, message: str = "") -> None:
    await recorder.call(
        lambda journal, now_us: journal.end_session(
            now_us=now_us, reason=ended.reason, exit_code=int(ended.exit_code), message=message
        )
    )


def _leaves(
    group: BaseExceptionGroup[BackfillError | JournalError],
) -> list[BackfillError | JournalError]:
    found: list[BackfillError | JournalError] = []
    for one in group.exceptions:
        found += _leaves(one) if isinstance(one, BaseExceptionGroup) else [one]
    return found


async def _show(
    config: Config, recorder: Recorder, migration: Migration, drain: Drain, ending: Ending
) -> None:
    """Show progress from the journal itself, read as `status` reads it, for as long as anybody looks."""
    interval = config.upload.checkpoint_interval_secs
    while True:
        try:
            with Reader.open(recorder.journal.path) as reader:
                await report(
                    functools.partial(_snapshot, reader, migration, drain),
                    interval_seconds=interval,
                    stream=sys.stderr,
                    bars=ending.log.style is not Style.JSON,
                )
        except JournalError as unread:
            # Whether the journal fails the writer finds out: what is only shown ends nothing.
            log_event(LogEvent.PROGRESS_UNREAD, f"progress is not shown: {unread.problem}; tried again")
            await trio.sleep(interval)
        else:
            return


async def _tell(notifier: Notifier, recorder: Recorder) -> None:
    """Keep the service manager's line about us up to date."""
    if not notifier.listening:
        return
    while True:
        line = await trio.to_thread.run_sync(_service_line, recorder.journal.path)
        notifier.status(line)
        await trio.sleep(TELL_SECONDS)


def _service_line(journal: Path) -> str:
    now_us = wall_clock_us()
    try:
        with Reader.open(journal) as reader:
            return service_line(view(reader.status(now_us=now_us), now_us=now_us))
    except JournalError as unread:
        return f"working; {unread.problem}"


async def _snapshot(reader: Reader, migration: Migration, drain: Drain) -> Progress:
    status = await trio.to_thread.run_sync(lambda: reader.status(now_us=wall_clock_us()))
    return Progress(
        "draining" if drain else status.state.value,
        tuple(
            SourceProgress(
                source.name,
                source.counts,
                source.checkpoint,
                planned=any(one.state == "sealed" for one in source.passes)
                and not any(one.state == "open" for one in source.passes),
                scanned_rows=migration.scanned_rows.get(source.name),
            )
            for source in status.sources
        ),
    )
