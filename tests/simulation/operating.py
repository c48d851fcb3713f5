"""Whoever steers a simulated migration: signals, the control socket, SIGHUP."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING, Self

import trio

from daemon.causes import HOLDS
from daemon.control_protocol import Action, Done, Refused, Reply, Request
from daemon.controls import Hold
from tests.simulation.observer import ensure

if TYPE_CHECKING:
    from daemon.config import Config
    from daemon.steering import Steering
    from tests.simulation.simulation import Simulation

WHO = "the simulation"
STOPPING_SECONDS_MAX = 0.5
"""Virtual time that a session may take to end once it is cancelled, or beyond its `drain_deadline`."""
SHARES = {"pause": 4, "set": 4, "hold": 4, "requeue": 4, "drain": 2, "status": 1, "rest": 12}
"""How often each is asked for; `status` costs as much as a session of ten keys."""
ACTIONS_MAX = 40
"""In all of a run: more would cost more than they find."""
HANGUPS_MAX = 2
"""Of a session."""


class Operator:
    """Draws what is asked of a session and when; once it is calm, only resumes what was left paused."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._rng = Random(f"operator {simulation.world.seed}")
        self._drains_left = simulation.world.weather.drains
        self._actions_left = ACTIONS_MAX

    async def signal(self, sending: trio.MemorySendChannel[int]) -> None:
        """Send SIGTERM or SIGINT, perhaps twice."""
        simulation, rng = self._simulation, self._rng
        if not simulation.stormy or not self._drains_left or rng.random() < 0.5:
            return
        self._drains_left -= 1
        await trio.sleep(rng.choice([0.01, 0.3, 2.0, 20.0]) * rng.random())
        number = rng.choice([signal.SIGTERM, signal.SIGTERM, signal.SIGINT])
        simulation.reach(f"operator {number.name}")
        await sending.send(number)
        if rng.random() < 0.5:
            await trio.sleep(rng.choice([0.0, 0.1, 1.0]))
            simulation.reach(f"operator {number.name} twice")
            await sending.send(number)
            grace = 0.0
        else:
            grace = simulation.session_config.upload.drain_deadline
        await trio.sleep(grace + STOPPING_SECONDS_MAX)
        with simulation.noted():
            ensure(False, f"a session goes on {STOPPING_SECONDS_MAX} s after its last {number.name} allowed")

    def hangups(self) -> AsyncIterator[int]:
        """Return what yields a SIGHUP now and then."""
        return _HangUps(self._simulation, self._rng)

    def read_config(self) -> Config:
        """Read the configuration again: somebody has changed a tunable, or what must not change."""
        config = self._simulation.session_config
        if self._rng.random() < 0.2:
            self._simulation.reach("operator SIGHUP refused")
            migration = config.migration.model_copy(update={"name": "another"})
            return config.model_copy(update={"migration": migration})
        concurrency = self._rng.randint(1, config.upload.concurrency)
        upload = config.upload.model_copy(update={"concurrency": concurrency})
        return config.model_copy(update={"upload": upload})

    async def serve(self, _listening: object, answer: Callable[[Request, str], Awaitable[Reply]]) -> None:
        """Stand where the control socket's clients stand."""
        simulation, rng = self._simulation, self._rng
        steering: Steering = answer.__self__  # type: ignore[attr-defined]
        while True:
            await trio.sleep(rng.choice([0.01, 0.3, 2.0, 20.0]) * rng.random())
            if steering.controls.paused:
                await self._ask(answer, Request(Action.RESUME))
            if not simulation.stormy or not self._actions_left:
                return
            self._actions_left -= 1
            action = rng.choices(list(SHARES), list(SHARES.values()))[0]
            if action == "rest" or (action == "drain" and not self._drains_left):
                continue
            simulation.reach(f"operator {action}")
            if action == "pause":
                await self._ask(answer, Request(Action.PAUSE))
            elif action == "requeue":
                await self._ask(answer, Request(Action.REQUEUE))
            elif action == "status":
                await self._ask(answer, Request(Action.STATUS))
            elif action == "drain":
                self._drains_left -= 1
                await self._ask(answer, Request(Action.DRAIN))
            elif action == "set":
                # Never above what is configured: the observer's bound on keys in flight is made of that.
                most = simulation.session_config.upload.concurrency
                words = (
                    f"concurrency={rng.randint(1, most)}",
                    f"rows-per-second={rng.choice(['off', 3, 100])}",
                )
                await self._ask(answer, Request(Action.SET, words=words))
            else:
                cause = rng.choice(HOLDS)
                steering.controls.hold(Hold(cause, "by the simulation"))
                try:
                    await trio.sleep(rng.choice([0.1, 3.0, 60.0]) * rng.random())
                finally:
                    steering.controls.release(cause)

    async def _ask(self, answer: Callable[[Request, str], Awaitable[Reply]], request: Request) -> None:
        reply = await answer(request, WHO)
        if isinstance(reply, Refused):
            self._simulation.reach(f"operator {request.action} refused")
            return
        # Within the socket's bulkhead whatever is raised would only be told.
        with self._simulation.noted():
            ensure(isinstance(reply, Done), f"{request} was answered by {reply}")


class _HangUps:
    """No generator: whoever listens leaves in the middle, and what is left of one would be told as a leak."""

    def __init__(self, simulation: Simulation, rng: Random) -> None:
        self._simulation = simulation
        self._rng = rng
        self._left = HANGUPS_MAX

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> int:
        await trio.sleep(self._rng.choice([1.0, 20.0, 300.0]))
        if not self._left or not self._simulation.stormy:
            await trio.sleep_forever()
        self._left -= 1
        self._simulation.reach("operator SIGHUP")
        return signal.SIGHUP
