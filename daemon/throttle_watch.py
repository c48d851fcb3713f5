"""Hold the session back while the source's readings say so."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Protocol

import trio

from daemon.budget import Silence
from daemon.config import ThrottleConfig
from daemon.controls import Controls, Hold
from daemon.drain import Drain
from daemon.errors import ConfigError, RefusedError, UnreachableError
from daemon.health import Health
from daemon.throttling import Throttle, rules_of


class HealthSource(Protocol):
    """PostgreSQL, as throttling needs it."""

    async def health(self, throttle: ThrottleConfig) -> Health:
        """Take every reading that is asked for; raises RefusedError where the server is not the one it was."""


async def refuse_unreadable(throttle: ThrottleConfig, source: HealthSource) -> None:
    """Take each reading once; refuse those that no later time can make better.

    A reading that fails otherwise is no obstacle: it throttles, and may succeed the next time.

    Raises:
        ConfigError: `throttle.query` can't be run, or yields no number; missing rights are listed beside it.
        RefusedError: all that is missing are rights.
    """
    if not throttle.reads:
        return
    errors = [reading.error for reading in (await source.health(throttle)).readings.values() if reading.error]
    if not errors:
        return
    problems = [error.problem for error in errors]
    hint = "; ".join(dict.fromkeys(error.hint for error in errors))
    if any(isinstance(error, ConfigError) for error in errors):
        raise ConfigError(problems, hint)
    raise RefusedError("\n".join(problems), hint)


class ThrottleWatch:
    """Takes readings at intervals and turns them into holds of the session's controls."""

    def __init__(
        self, source: HealthSource, controls: Controls, drain: Drain, *, give_up_after: float
    ) -> None:
        """Watch `source` by the readings of the throttle in force.

        Args:
            source: where the readings come from.
            controls: say which readings and thresholds are in force; held and released.
            drain: ends the wait for the first readings.
            give_up_after: seconds that the server may stay unreachable for readings, as for all else.
        """
        self._source = source
        self._controls = controls
        self._drain = drain
        self._give_up_after = give_up_after
        self._silence = Silence()
        self._config = controls.throttle
        self._throttle = Throttle()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch until cancelled; started once the first readings are in force, so that no work comes before them.

        Raises:
            RefusedError: the server is not the one that it was.
            UnreachableError: no reading could be had for `give_up_after`.
        """
        with self._drain.governs(grace=0):
            await self._look()
        task_status.started()
        while True:
            await self._wait()
            await self._look()

    async def _wait(self) -> None:
        """Wait for the next readings' time, or until others are asked for: that ends a rest too."""
        rest = self._throttle.rest_until - trio.current_time()
        with trio.move_on_after(max(self._config.check_interval, rest)):
            while self._controls.throttle == self._config:
                await self._controls.changed.wait()
            self._config = self._controls.throttle
            self._throttle = replace(self._throttle, rest_until=-math.inf)

    async def _look(self) -> None:
        rules = rules_of(self._config)
        health = await self._source.health(self._config) if rules else Health({})
        now = trio.current_time()
        self._bear(health.silence, now)
        before = self._throttle
        self._throttle = before.after(rules, health.readings, now=now, rest=self._config.hibernate)
        for cause, detail in self._throttle.holds.items():
            if before.holds.get(cause) != detail:
                self._controls.hold(Hold(cause, detail))
        for cause in before.holds.keys() - self._throttle.holds.keys():
            self._controls.release(cause)

    def _bear(self, silence: str, now: float) -> None:
        if not silence:
            self._silence.broken()
            return
        silent = self._silence.unanswered(now)
        if silent >= self._give_up_after:
            raise UnreachableError(
                f"{silence}; no readings for {silent:.0f} s, throttled meanwhile",
                "check that the server runs; upload.give_up_after says how long that is borne",
            )
