"""A session as an operator steers it: every action is recorded first, then takes effect."""

from __future__ import annotations

import functools
import os
from collections.abc import AsyncIterable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import trio

from daemon.actions import record
from daemon.config import Config, free_settings
from daemon.control_protocol import Action, Done, Elsewhere, Refused, Reply, Request
from daemon.controls import Controls
from daemon.drain import Drain
from daemon.errors import BackfillError, ConfigError
from daemon.findings import exit_code_of
from daemon.log_events import LogEvent, log_event
from daemon.notify import Notifier
from daemon.recorder import Recorder
from daemon.reloading import needing_restart, reloaded
from daemon.status_codec import status_document
from daemon.tunables import configured_tunables, in_force
from journal.errors import JournalError
from journal.events import Kind
from journal.log import Journal
from journal.reader import Reader


@dataclass(frozen=True, slots=True)
class Hangups:
    """SIGHUP, each of which asks to read the configuration again.

    Attributes:
        received: yields at each one; those that come while one is heeded count as one.
        load: reads file, environment and flags as at the start; raises ConfigError.
    """

    received: AsyncIterable[int]
    load: Callable[[], Config]


class Beating(Protocol):
    """The heart of a process that has started."""

    @property
    def notifier(self) -> Notifier:
        """How the service manager is told."""

    @property
    def age_seconds(self) -> float:
        """How long ago the newest beat was."""


class Steering:
    """What can be done to a session from outside.

    Attributes:
        config: in force; its tunables change with a reload. Whoever reads it waits for `controls.changed`.
        controls: in force.
        heartbeat: set once both ends have answered; None where nothing beats.
    """

    def __init__(self, config: Config, recorder: Recorder, controls: Controls, drain: Drain) -> None:
        self.config = config
        self.controls = controls
        self.heartbeat: Beating | None = None
        self._recorder = recorder
        self._drain = drain

    async def answer(self, request: Request, who: str) -> Reply:
        """Do what `who` asks and say what was done, or why nothing was."""
        journal = self._recorder.journal.path
        if request.journal is not None and not _same_file(Path(request.journal), journal):
            return Elsewhere(str(journal))
        try:
            if request.action is Action.STATUS:
                return await self._status()
            done = await (self._stop(who) if request.action is Action.DRAIN else self._act(request, who))
        except ConfigError as error:
            return Refused(tuple(error.problems), error.hint, error.exit_code)
        except (BackfillError, JournalError) as error:
            return Refused((error.problem,), error.hint, exit_code_of(error))
        log_event(
            LogEvent.STEERED, f"{who}: {done.said}", who=who, action=request.action.value, keys=request.keys
        )
        return done

    async def apply_config(self, config: Config) -> None:
        """Put the tunables of a configuration read anew in force, under what operators have set.

        Raises:
            ConfigError: it describes another migration; nothing changed.
            JournalError: it could not be recorded; nothing changed.
        """
        before = self.config
        after = reloaded(before, config, cutoff_us=self._recorder.journal.cutoff_us)
        waiting = needing_restart(before, config)
        if after != before:
            data = {**free_settings(after), "cause": "SIGHUP"}
            await self._recorder.note(Kind.SETTINGS_CHANGED, data)
        overrides = await self._recorder.call(lambda journal, _now: journal.overrides)
        self.config = after
        self.controls.set(in_force(configured_tunables(after), overrides), throttle=after.throttle)
        found = "its tunables are in force" if after != before else "no tunable has changed"
        rest = f"; heeded from the next session on: {', '.join(waiting)}" if waiting else ""
        log_event(LogEvent.RELOADED, f"SIGHUP: the configuration was read anew; {found}{rest}")

    async def heed(self, hangups: Hangups) -> None:
        """Read the configuration anew at each SIGHUP, until cancelled; what is wrong with it changes nothing."""
        async for _ in hangups.received:
            heartbeat = self.heartbeat
            if heartbeat is not None:
                heartbeat.notifier.reloading()
            try:
                await self.apply_config(await trio.to_thread.run_sync(hangups.load))
            except ConfigError as error:
                log_event(
                    LogEvent.RELOAD_REFUSED,
                    "SIGHUP: the configuration is not taken, nothing changed: " + "; ".join(error.problems),
                    hint=error.hint,
                )
            if heartbeat is not None:
                heartbeat.notifier.ready()

    async def _act(self, request: Request, who: str) -> Done:
        def act(journal: Journal, now_us: int) -> tuple[str, bool, dict[str, int | float | None]]:
            running = not (self._drain or self.controls.over)
            said = record(journal, request, who=who, now_us=now_us, running=running)
            return said, journal.paused, journal.overrides

        said, paused, overrides = await self._recorder.call(act)
        if paused != self.controls.paused:
            (self.controls.pause if paused else self.controls.resume)()
        tunables = in_force(configured_tunables(self.config), overrides)
        if tunables != self.controls.tunables:
            self.controls.set(tunables)
        return Done(said)

    async def _stop(self, who: str) -> Done:
        if self.controls.over:
            raise ConfigError(["drain: the session has ended; nothing is left to drain"])
        if self._drain:
            return Done(f"draining already, on {self._drain.cause}")
        cause = f"drain by {who}"
        await self._recorder.note(Kind.DRAIN_REQUESTED, {"cause": cause, "who": who})
        self._drain.recorded = True
        self._drain.request(cause)
        grace = self.config.upload.drain_deadline
        return Done(f"draining: what is in hand ends within {grace:g} s; then the daemon exits")

    async def _status(self) -> Done:
        begun = trio.current_time()
        await self._recorder.call(lambda _journal, _now: None)
        passage = trio.current_time() - begun
        path, now_us = self._recorder.journal.path, self._recorder.now_us
        status = await trio.to_thread.run_sync(functools.partial(_read_status, path, now_us()))
        return Done("", {"status": status, "live": {**self._live(), "journal_ms": round(passage * 1000)}})

    def _live(self) -> dict[str, Any]:
        """Return what only this process knows, as JSON values."""
        held = self.controls.held
        tunables = self.controls.tunables
        return {
            "pid": os.getpid(),
            "heartbeat_seconds": None if self.heartbeat is None else round(self.heartbeat.age_seconds, 3),
            "concurrency": tunables.concurrency,
            "concurrency_limit": self.controls.concurrency,
            "rows_per_second": tunables.rows_per_second,
            "bytes_per_second": tunables.bytes_per_second,
            "held": None if held is None else {"cause": held.cause.value, "detail": held.detail},
        }


def _read_status(path: Path, now_us: int) -> dict[str, Any]:
    with Reader.open(path) as reader:
        return status_document(reader.status(now_us=now_us))


def _same_file(one: Path, other: Path) -> bool:
    """Say whether both paths lead to one file; where that can't be seen, whether they are the same path."""
    try:
        return one.samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)
